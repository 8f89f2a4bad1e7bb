package idemhttp_test

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent/idemhttp"
)

var asJSON = http.Header{"Content-Type": {"application/json"}}

// echoBody answers with what it has read.
func echoBody(rw http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(rw, err.Error(), http.StatusTeapot)
		return
	}
	rw.WriteHeader(http.StatusCreated)
	_, _ = rw.Write(body)
}

func TestKeyFromAnotherHeader(t *testing.T) {
	t.Parallel()
	w := serve(t, created, idemhttp.WithKey(idemhttp.KeyFromHeader("X-Request-Id")), idemhttp.WithRequiredKey())
	with := func(values ...string) answer { return sendWith(w, http.Header{"X-Request-Id": values}) }
	first := with("abc")
	assert.Equal(t, http.StatusCreated, first.StatusCode)
	assert.Equal(t, `"abc"`, first.Header.Get(idemhttp.KeyHeader))
	assert.True(t, with(`"abc"`, "abc").replayed())
	with("a", "b").problem(t, http.StatusBadRequest, idemhttp.TypeKeyInvalid)
	with().problem(t, http.StatusBadRequest, idemhttp.TypeKeyMissing)
	w.ran(1)
}

func TestKeyFromJSON(t *testing.T) {
	t.Parallel()
	w := serve(t, echoBody, idemhttp.WithKey(idemhttp.KeyFromJSON("/payment/idempotency_key")), idemhttp.WithRequiredKey())
	send := func(body string) answer { return w.send(request{body: body, header: asJSON}) }
	const good = `{"a":1,"payment":{"list":[{"idempotency_key":"no"}],"idempotency_key":"key 1, ü"},"z":2}`
	for i := range 2 {
		got := send(good)
		require.Equal(t, http.StatusCreated, got.StatusCode, got.body)
		assert.Equal(t, good, got.body, "the body is still there")
		assert.Equal(t, i == 1, got.replayed())
	}
	for _, bad := range []string{
		`{"payment":{"idempotency_key":7}}`, `{"payment":{"idempotency_key":null}}`, `{"payment":{"idempotency_key":{}}}`,
		`{"payment":{"idempotency_key":""}}`, `{"payment":{"idempotency_key":"a","idempotency_key":"b"}}`, `{"payment":{"idempotency_key":"a"}`,
		`{"payment":{"idempotency_key":"a"}} {"payment":{"idempotency_key":"b"}}`, "{\"payment\":{\"idempotency_key\":\"a\xff\"}}",
		`{"payment":{"idempotency_key":"` + strings.Repeat("k", 256) + `"}}`,
	} {
		send(bad).problem(t, http.StatusBadRequest, idemhttp.TypeKeyInvalid)
	}
	for _, none := range []string{``, `{}`, `[]`, `"x"`, `{"idempotency_key":"a"}`} {
		send(none).problem(t, http.StatusBadRequest, idemhttp.TypeKeyMissing)
	}
	encoded := asJSON.Clone()
	encoded.Set("Content-Encoding", "gzip")
	w.send(request{body: good, header: encoded}).problem(t, http.StatusBadRequest, idemhttp.TypeKeyInvalid)
	w.ran(1)
}

// A request without a key passes untouched although a function has read its body.
func TestKeyFuncLeavesTheBody(t *testing.T) {
	t.Parallel()
	for name, read := range map[string]func(io.Reader) error{
		"all":  func(in io.Reader) error { _, err := io.ReadAll(in); return err },
		"some": func(in io.Reader) error { _, err := io.ReadFull(in, make([]byte, 2)); return err },
		"none": func(io.Reader) error { return nil },
	} {
		for _, keyed := range []bool{false, true} {
			for _, length := range []int64{5, -1} {
				t.Run(name, func(t *testing.T) {
					w := serve(t, echoBody, idemhttp.WithKey(func(r *http.Request) (string, bool, error) {
						assert.NoError(t, read(r.Body))
						assert.NoError(t, r.Body.Close())
						return "k", keyed, nil
					}))
					q := request{body: "abcde"}.build(t, w.server.URL)
					q.ContentLength = length
					got := do(t, w.server.Client(), q)
					assert.Equal(t, "abcde", got.body)
					assert.Equal(t, http.StatusCreated, got.StatusCode)
				})
			}
		}
	}
}

func TestKeyFuncFails(t *testing.T) {
	t.Parallel()
	for want, err := range map[int]error{
		http.StatusBadRequest: errors.New("no key today"), http.StatusUnauthorized: &idemhttp.Problem{Status: http.StatusUnauthorized, Title: "Log in"},
	} {
		w := serve(t, created, idemhttp.WithKey(func(*http.Request) (string, bool, error) { return "", false, err }))
		got := w.post("", "")
		assert.Equal(t, want, got.StatusCode)
		w.ran(0)
	}
	tooLarge := serve(t, created, idemhttp.WithRequestLimit(10), idemhttp.WithKey(idemhttp.KeyFromJSON("/k")))
	tooLarge.send(request{body: `{"k":"12345678901234567890"}`, header: asJSON}).problem(t, http.StatusRequestEntityTooLarge, idemhttp.TypeRequestTooLarge)
	tooLarge.ran(0)
}

func TestKeyLimit(t *testing.T) {
	t.Parallel()
	w := serve(t, created, idemhttp.WithKeyLimit(300))
	assert.Equal(t, http.StatusCreated, w.post(strings.Repeat("k", 300), "").StatusCode)
	p := w.post(strings.Repeat("k", 301), "").problem(t, http.StatusBadRequest, idemhttp.TypeKeyInvalid)
	assert.Contains(t, p.Detail, "301 characters long; allowed are 300")
	assert.Equal(t, 300, w.mw.Policy().Key.MaxLength)
}

func TestULIDKey(t *testing.T) {
	for key, good := range map[string]bool{
		"01ARZ3NDEKTSV4RRFFQ69G5FAV": true, "01arz3ndektsv4rrffq69g5fav": true, "7ZZZZZZZZZZZZZZZZZZZZZZZZZ": true,
		"8ZZZZZZZZZZZZZZZZZZZZZZZZZ": false, "01ARZ3NDEKTSV4RRFFQ69G5FA": false, "01ARZ3NDEKTSV4RRFFQ69G5FAVV": false,
		"01ARZ3NDEKTSV4RRFFQ69G5FAI": false, "01ARZ3NDEKTSV4RRFFQ69G5FAu": false, "01ARZ3NDEKTSV4RRFFQ69G5F-V": false, "": false,
	} {
		assert.Equal(t, good, idemhttp.ULIDKey(key) == nil, key)
	}
}

// reads returns a handler that has something in front of the guarded one read from the body.
func reads(next http.Handler, read func(*http.Request)) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		read(r)
		next.ServeHTTP(rw, r)
	})
}

// A body that was touched in front: a fingerprint would not tell one request from another.
func TestBodyTouchedInFront(t *testing.T) {
	t.Parallel()
	all := func(r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }
	some := func(r *http.Request) { _, _ = r.Body.Read(make([]byte, 1)) }
	for name, test := range map[string]struct {
		read   func(*http.Request)
		length int64
		fine   bool
	}{
		"all, with a length":             {read: all, length: 10},
		"all, chunked":                   {read: all, length: -1},
		"a part, with a length":          {read: some, length: 10},
		"a part, chunked":                {read: some, length: -1},
		"a whole chunk, chunked":         {read: func(r *http.Request) { _, _ = io.ReadFull(r.Body, make([]byte, 10)) }, length: -1},
		"all, and closed":                {read: func(r *http.Request) { all(r); _ = r.Body.Close() }, length: -1},
		"closed":                         {read: func(r *http.Request) { _ = r.Body.Close() }, length: 10},
		"replaced by nothing":            {read: func(r *http.Request) { r.Body = http.NoBody }, length: 10},
		"replaced by nothing, chunked":   {read: func(r *http.Request) { r.Body = http.NoBody }, length: -1},
		"behind http.MaxBytesReader":     {read: func(r *http.Request) { r.Body = http.MaxBytesReader(nil, r.Body, 100); some(r) }, length: -1},
		"before http.MaxBytesReader":     {read: func(r *http.Request) { some(r); r.Body = http.MaxBytesReader(nil, r.Body, 100) }, length: -1},
		"not touched":                    {read: func(*http.Request) {}, length: 10, fine: true},
		"not touched, chunked":           {read: func(*http.Request) {}, length: -1, fine: true},
		"limited and not touched":        {read: func(r *http.Request) { r.Body = http.MaxBytesReader(nil, r.Body, 100) }, length: -1, fine: true},
		"read and given back, chunked":   {read: giveBack, length: -1, fine: true},
		"read and given back, announced": {read: giveBack, length: 10, fine: true},
	} {
		for source, opts := range map[string][]idemhttp.Option{
			"header": nil,
			"body": {idemhttp.WithKey(func(r *http.Request) (string, bool, error) {
				body, err := io.ReadAll(r.Body)
				return string(body), len(body) > 0, err
			})},
		} {
			t.Run(name+", key from the "+source, func(t *testing.T) {
				w := serve(t, echoBody, opts...)
				guarded := w.server.Config.Handler
				w.server.Config.Handler = reads(guarded, test.read)
				q := request{key: "k", body: "0123456789"}.build(t, w.server.URL)
				q.ContentLength = test.length
				got := do(t, w.server.Client(), q)
				if test.fine {
					assert.Equal(t, "0123456789", got.body)
					w.ran(1)
					return
				}
				got.problem(t, http.StatusInternalServerError, idemhttp.TypeMisconfigured)
				w.ran(0)
			})
		}
	}
}

func giveBack(r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	r.Body = io.NopCloser(bytes.NewReader(body))
}

func TestBodyTouchedInFrontOverHTTP2(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		read   func(*http.Request)
		length int64
	}{
		"all, with a length":    {func(r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }, 10},
		"all, without":          {func(r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }, -1},
		"a part, with a length": {func(r *http.Request) { _, _ = r.Body.Read(make([]byte, 1)) }, 10},
	} {
		t.Run(name, func(t *testing.T) {
			w := serve(t, created)
			w.server.Config.Handler = reads(w.server.Config.Handler, test.read)
			h2 := overHTTP2(t, w)
			q := request{key: "k", body: "0123456789"}.build(t, h2.URL)
			q.ContentLength = test.length
			do(t, h2.Client(), q).problem(t, http.StatusInternalServerError, idemhttp.TypeMisconfigured)
			w.ran(0)
		})
	}
}

func TestEmptyChunkedBody(t *testing.T) {
	t.Parallel()
	w := serve(t, created)
	for range 2 {
		got := w.raw("POST / HTTP/1.1\r\nHost: x\r\nIdempotency-Key: k\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
		assert.Contains(t, got, "201 Created")
	}
	w.ran(1)
}

func TestFormParsedInFront(t *testing.T) {
	t.Parallel()
	w := serve(t, created)
	guarded := w.server.Config.Handler
	w.server.Config.Handler = reads(guarded, func(r *http.Request) { assert.NoError(t, r.ParseForm()) })
	q := request{key: "k", body: "a=1", header: http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}}.build(t, w.server.URL)
	q.ContentLength = -1
	do(t, w.server.Client(), q).problem(t, http.StatusInternalServerError, idemhttp.TypeMisconfigured)
	w.ran(0)
}

func TestGRPCIsRefused(t *testing.T) {
	t.Parallel()
	for _, contentType := range []string{
		"application/grpc", "application/grpc+proto", "Application/GRPC", "application/grpc-web", "application/grpc-web-text+proto",
		"application/grpc; charset=x", " application/grpc", "application/connect+json",
	} {
		w := serve(t, created)
		r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader("x"))
		r.Header["Content-Type"] = []string{contentType}
		r.Header.Set(idemhttp.KeyHeader, "k")
		rec := httptest.NewRecorder()
		w.server.Config.Handler.ServeHTTP(rec, r)
		assert.Equal(t, http.StatusUnsupportedMediaType, rec.Code, contentType)
		assert.Contains(t, rec.Body.String(), idemhttp.TypeNotHTTP)
		w.ran(0)
		assert.Equal(t, http.StatusCreated, w.send(request{key: "k", header: http.Header{"Content-Type": {"application/json"}}}).StatusCode)
	}
}

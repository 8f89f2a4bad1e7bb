package idemhttp_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/idemhttp"
)

// Requirement 7: handlers and clients that misbehave.

// panics calls the handler as net/http does, and returns what it panicked with.
func (w *world) panics(key string) (value any) {
	defer func() { value = recover() }()
	r := httptest.NewRequest(http.MethodPost, "/", nil)
	r.Header.Set(idemhttp.KeyHeader, key)
	w.server.Config.Handler.ServeHTTP(httptest.NewRecorder(), r)
	return nil
}

func TestPanicReachesNetHTTP(t *testing.T) {
	t.Parallel()
	boom := errors.New("boom")
	for name, opts := range map[string][]idemhttp.Option{"detached": nil, "attached": {idemhttp.WithCancelOnDisconnect()}} {
		for _, value := range []any{"boom", boom} {
			t.Run(fmt.Sprint(name, " ", value), func(t *testing.T) {
				w := serve(t, func(rw http.ResponseWriter, r *http.Request) {
					created(rw, r)
					panic(value)
				}, opts...)
				assert.Equal(t, value, w.panics("k"))
				w.ran(1)
				w.post("k", "").problem(t, http.StatusInternalServerError, idemhttp.TypePanicked)
				w.ran(1)

				assert.Empty(t, w.raw(strings.Replace(rawPost, "Key: k", "Key: other", 1)), "net/http cuts the connection")
				assert.Contains(t, w.log.String(), "http: panic serving")
			})
		}
	}
}

func TestGoexitFreesTheKey(t *testing.T) {
	t.Parallel()
	w := serve(t, func(rw http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Exit") != "" {
			runtime.Goexit()
		}
		created(rw, r)
	})
	exited := make(chan bool, 1)
	go func() {
		defer func() { exited <- true }()
		r := httptest.NewRequest(http.MethodPost, "/", nil)
		r.Header.Set(idemhttp.KeyHeader, "k")
		r.Header.Set("X-Exit", "1")
		w.server.Config.Handler.ServeHTTP(httptest.NewRecorder(), r)
	}()
	within(t, exited)
	w.events.Wait(t, idempotent.EventReleased, 1)
	assert.Equal(t, http.StatusCreated, w.post("k", "").StatusCode)
}

func TestClientDisconnects(t *testing.T) {
	t.Parallel()
	ended := make(chan error, 1)
	s := newSlow()
	w := serve(t, func(rw http.ResponseWriter, r *http.Request) {
		s.handle(rw, r)
		ended <- r.Context().Err()
	})
	ctx, leave := context.WithCancel(t.Context())
	gone := make(chan bool, 1)
	r := request{key: "k"}.build(t, w.server.URL).WithContext(ctx)
	go func() {
		_, err := w.server.Client().Do(r)
		gone <- err != nil
	}()
	within(t, s.running)
	leave()
	assert.True(t, within(t, gone))
	close(s.finish)
	assert.NoError(t, within(t, ended), "the handler's context goes on")
	w.events.Wait(t, idempotent.EventRecorded, 1)
	got := w.post("k", "")
	assert.True(t, got.replayed())
	assert.Equal(t, `{"id":"ch_1"}`, got.body)
	w.ran(1)
}

func TestCancelOnDisconnect(t *testing.T) {
	t.Parallel()
	attempts := make(chan int, 10)
	w := serve(t, func(rw http.ResponseWriter, r *http.Request) {
		attempts <- attempt(r)
		if attempt(r) == 1 {
			<-r.Context().Done()
			http.Error(rw, "gone", http.StatusInternalServerError)
			return
		}
		created(rw, r)
	}, idemhttp.WithCancelOnDisconnect())
	ctx, leave := context.WithCancel(t.Context())
	r := request{key: "k"}.build(t, w.server.URL).WithContext(ctx)
	go func() { _, _ = w.server.Client().Do(r) }()
	assert.Equal(t, 1, within(t, attempts))
	leave()
	w.events.Wait(t, idempotent.EventInterrupted, 1)
	assert.Equal(t, http.StatusCreated, w.post("k", "").StatusCode)
	assert.Equal(t, 2, within(t, attempts), "what the first one did is not known")
}

// A handler that finishes its work although its client is gone has done it.
func TestCancelOnDisconnectRecordsWhatWasDone(t *testing.T) {
	t.Parallel()
	running := make(chan bool, 1)
	w := serve(t, func(rw http.ResponseWriter, r *http.Request) {
		running <- true
		<-r.Context().Done()
		created(rw, r)
	}, idemhttp.WithCancelOnDisconnect())
	ctx, leave := context.WithCancel(t.Context())
	r := request{key: "k"}.build(t, w.server.URL).WithContext(ctx)
	go func() { _, _ = w.server.Client().Do(r) }()
	within(t, running)
	leave()
	w.events.Wait(t, idempotent.EventRecorded, 1)
	assert.True(t, w.post("k", "").replayed())
}

// A handler that has lost its provider says so: its answer is no outcome.
func TestOutcomeUnknown(t *testing.T) {
	t.Parallel()
	for name, policy := range map[string]idempotent.InterruptedPolicy{"rerun": idempotent.Rerun, "refuse": idempotent.Refuse} {
		t.Run(name, func(t *testing.T) {
			w := serve(t, func(rw http.ResponseWriter, r *http.Request) {
				if attempt(r) > 1 {
					created(rw, r) // after it has asked the provider
					return
				}
				idemhttp.OutcomeUnknown(r.Context())
				http.Error(rw, "the provider does not answer", http.StatusGatewayTimeout)
			}, idemhttp.WithInterrupted(policy))
			first := w.post("k", "")
			assert.Equal(t, http.StatusGatewayTimeout, first.StatusCode)
			assert.Equal(t, "the provider does not answer\n", first.body)
			again := w.post("k", "")
			if policy == idempotent.Refuse {
				again.problem(t, http.StatusInternalServerError, idemhttp.TypeInterrupted)
				w.ran(1)
				return
			}
			assert.Equal(t, http.StatusCreated, again.StatusCode)
			assert.False(t, again.replayed())
			assert.True(t, w.post("k", "").replayed())
			w.ran(2)
		})
	}
	idemhttp.OutcomeUnknown(t.Context()) // no request, no effect
}

func TestResponseController(t *testing.T) {
	t.Parallel()
	w := serve(t, func(rw http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(rw)
		assert.NoError(t, control.Flush(), "what is flushed arrives with the rest")
		assert.ErrorIs(t, control.SetReadDeadline(time.Now()), http.ErrNotSupported)
		assert.ErrorIs(t, control.SetWriteDeadline(time.Now()), http.ErrNotSupported)
		assert.ErrorIs(t, control.EnableFullDuplex(), http.ErrNotSupported)
		_, _, err := control.Hijack()
		assert.ErrorIs(t, err, errors.ErrUnsupported)
		_, hijacks := rw.(http.Hijacker)
		assert.False(t, hijacks)
		http.Error(rw, "cannot upgrade", http.StatusNotImplemented)
	})
	for range 2 {
		assert.Equal(t, "cannot upgrade\n", w.post("k", "").body)
	}
	w.ran(1)
}

func TestWaysToWrite(t *testing.T) {
	t.Parallel()
	file := t.TempDir() + "/file"
	require.NoError(t, os.WriteFile(file, []byte("from a file"), 0o600))
	w := serve(t, func(rw http.ResponseWriter, r *http.Request) {
		f, err := os.Open(file)
		if !assert.NoError(t, err) {
			return
		}
		defer f.Close()
		n, err := rw.(io.ReaderFrom).ReadFrom(f)
		assert.NoError(t, err)
		assert.EqualValues(t, 11, n)
		_, err = io.WriteString(rw, ", a string")
		assert.NoError(t, err)
		_, err = fmt.Fprint(rw, " and bytes")
		assert.NoError(t, err)
	})
	for range 2 {
		assert.Equal(t, "from a file, a string and bytes", w.post("k", "").body)
	}
}

func TestWritesThatNetHTTPRefuses(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		handle http.HandlerFunc
		want   error
	}{
		"body of a 204": {func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(http.StatusNoContent) }, http.ErrBodyNotAllowed},
		"body of a 304": {func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(http.StatusNotModified) }, http.ErrBodyNotAllowed},
		"too long":      {func(rw http.ResponseWriter, _ *http.Request) { rw.Header().Set("Content-Length", "1") }, http.ErrContentLength},
	} {
		t.Run(name, func(t *testing.T) {
			w := serve(t, func(rw http.ResponseWriter, r *http.Request) {
				test.handle(rw, r)
				_, err := rw.Write([]byte("ab"))
				assert.ErrorIs(t, err, test.want)
				_, err = io.WriteString(rw, "ab")
				assert.ErrorIs(t, err, test.want)
				_, err = rw.(io.ReaderFrom).ReadFrom(strings.NewReader("ab"))
				assert.ErrorIs(t, err, test.want)
			})
			r := httptest.NewRequest(http.MethodPost, "/", nil)
			r.Header.Set(idemhttp.KeyHeader, "k")
			w.server.Config.Handler.ServeHTTP(httptest.NewRecorder(), r)
			w.ran(1)
		})
	}
}

func TestInformationalResponses(t *testing.T) {
	t.Parallel()
	w := serve(t, func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Link", "</style.css>; rel=preload")
		rw.WriteHeader(http.StatusEarlyHints)
		created(rw, r)
	})
	for range 2 {
		assert.Equal(t, http.StatusCreated, w.post("k", "").StatusCode)
	}
	for _, status := range []int{http.StatusSwitchingProtocols, 0, 1000} {
		w = serve(t, func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(status) })
		assert.NotNil(t, w.panics("k"), status)
	}
}

func TestRequestTooLarge(t *testing.T) {
	t.Parallel()
	const limit = 1000
	for name, length := range map[string]int64{"announced": limit + 1, "chunked": -1} {
		t.Run(name, func(t *testing.T) {
			w := serve(t, created, idemhttp.WithRequestLimit(limit))
			w.redis.Fail("ERR nothing may be looked up")
			q := request{key: "k", body: strings.Repeat("x", limit+1)}.build(t, w.server.URL)
			q.ContentLength = length
			do(t, w.server.Client(), q).problem(t, http.StatusRequestEntityTooLarge, idemhttp.TypeRequestTooLarge)
			w.ran(0)
			w.redis.Fail("")
			assert.Equal(t, http.StatusCreated, w.post("k", strings.Repeat("x", limit)).StatusCode)
		})
	}
}

func TestResponseTooLarge(t *testing.T) {
	t.Parallel()
	const limit = 1000
	w := serve(t, func(rw http.ResponseWriter, r *http.Request) {
		n := limit
		if r.URL.Path == "/over" {
			n++
		}
		rw.Header().Set("X-Secret", "1")
		rw.WriteHeader(http.StatusCreated)
		_, _ = io.WriteString(rw, strings.Repeat("x", n-len("X-Secret: 1\r\n")))
	}, idemhttp.WithResponseLimit(limit))
	assert.Len(t, w.send(request{key: "at", path: "/at"}).body, limit-len("X-Secret: 1\r\n"))
	assert.True(t, w.send(request{key: "at", path: "/at"}).replayed())
	w.ran(1)

	over := request{key: "over", path: "/over"}
	first := w.send(over)
	assert.Equal(t, http.StatusCreated, first.StatusCode)
	assert.Len(t, first.body, limit+1-len("X-Secret: 1\r\n"), "delivered in full")
	for range 2 {
		again := w.send(over)
		p := again.problem(t, http.StatusInternalServerError, idemhttp.TypeResponseTooLarge)
		assert.Contains(t, p.Detail, "201")
		assert.Empty(t, again.Header.Get("X-Secret"))
	}
	w.ran(2)
}

// The files of a form are removed although the handler's request is a copy of net/http's.
func TestMultipartFilesAreRemoved(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	w := serve(t, func(rw http.ResponseWriter, r *http.Request) {
		assert.NoError(t, r.ParseMultipartForm(0))
		left, err := os.ReadDir(os.TempDir())
		assert.NoError(t, err)
		assert.NotEmpty(t, left)
	}, idemhttp.WithRequestLimit(100<<20))
	body := "--b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"f\"\r\n\r\n" + strings.Repeat("x", 11<<20) + "\r\n--b--\r\n"
	got := w.send(request{key: "k", body: body, header: http.Header{"Content-Type": {"multipart/form-data; boundary=b"}}})
	assert.Equal(t, http.StatusOK, got.StatusCode)
	left, err := os.ReadDir(os.TempDir())
	require.NoError(t, err)
	assert.Empty(t, left)
}

package idemhttp_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/idemhttp"
	"github.com/idempotent-go/idempotent/idemtest"
)

// Requirement 1: which requests.

func TestPostAndPatchAreGuarded(t *testing.T) {
	t.Parallel()
	for _, method := range []string{http.MethodPost, http.MethodPatch} {
		t.Run(method, func(t *testing.T) {
			w := serve(t, created)
			first := w.send(request{method: method, key: "k"})
			again := w.send(request{method: method, key: "k"})
			w.ran(1)
			assert.Equal(t, http.StatusCreated, first.StatusCode)
			assert.False(t, first.replayed())
			assert.True(t, again.replayed())
			assert.Equal(t, first.body, again.body)
		})
	}
}

func TestOtherMethodsPassUntouched(t *testing.T) {
	t.Parallel()
	for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPut, http.MethodDelete, http.MethodOptions} {
		t.Run(method, func(t *testing.T) {
			w := serve(t, func(rw http.ResponseWriter, r *http.Request) {
				_, guarded := idempotent.RunInfoFromContext(r.Context())
				assert.False(t, guarded)
				_, plain := rw.(http.Hijacker)
				assert.True(t, plain, "net/http's own writer")
			}, idemhttp.WithRequiredKey())
			for range 2 {
				assert.Equal(t, http.StatusOK, w.send(request{method: method, key: "\"broken"}).StatusCode)
			}
			w.ran(2)
			assert.Empty(t, w.stored())
		})
	}
}

func TestMethodsByOption(t *testing.T) {
	t.Parallel()
	w := serve(t, created, idemhttp.WithMethods(http.MethodDelete))
	for range 2 {
		w.send(request{method: http.MethodDelete, key: "k"})
	}
	w.ran(1)
	for range 2 {
		w.send(request{method: http.MethodPost, key: "k"})
	}
	w.ran(3)
}

func TestKeyMissing(t *testing.T) {
	t.Parallel()
	t.Run("required", func(t *testing.T) {
		w := serve(t, created, idemhttp.WithRequiredKey(), idemhttp.WithDocumentation("https://api.example.com/idempotency"))
		got := w.post("", "x")
		got.problem(t, http.StatusBadRequest, idemhttp.TypeKeyMissing)
		assert.Equal(t, `<https://api.example.com/idempotency>; rel="describedby"; type="text/html"`, got.Header.Get("Link"))
		w.ran(0)
	})
	t.Run("optional", func(t *testing.T) {
		w := serve(t, created)
		for range 2 {
			assert.False(t, w.post("", "x").replayed())
		}
		w.ran(2)
		assert.Empty(t, w.stored())
	})
}

func TestHandlerGetsTheRequest(t *testing.T) {
	t.Parallel()
	for _, chunked := range []bool{false, true} {
		w := serve(t, func(rw http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			assert.NoError(t, err)
			assert.Equal(t, "name=anna", string(body))
			assert.EqualValues(t, len(body), r.ContentLength)
			assert.Equal(t, "a=1&b=2", r.URL.RawQuery)
			if chunked {
				assert.Equal(t, "sum", r.Trailer.Get("X-Sum"))
			}
			info, ok := idempotent.RunInfoFromContext(r.Context())
			assert.True(t, ok)
			assert.Equal(t, 1, info.Attempt)
			assert.Len(t, info.DownstreamKey(), 64)
			assert.NotNil(t, r.Context().Value(http.ServerContextKey))
		})
		q := request{key: "k", path: "/p?a=1&b=2", body: "name=anna"}.build(t, w.server.URL)
		if chunked {
			q.ContentLength = -1
			q.Trailer = http.Header{"X-Sum": {"sum"}}
		}
		assert.Equal(t, http.StatusOK, do(t, w.server.Client(), q).StatusCode)
		w.ran(1)
	}
}

func TestUnderServeMux(t *testing.T) {
	t.Parallel()
	rdb := idemtest.NewRedis(t)
	mw := middleware(t, rdb)
	mux := http.NewServeMux()
	runs := 0
	mux.Handle("POST /accounts/{id}/payments", mw.Wrap(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		runs++
		_, _ = io.WriteString(rw, r.PathValue("id"))
	})))
	post := func(path string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(http.MethodPost, path, strings.NewReader("x"))
		r.Header.Set(idemhttp.KeyHeader, "k")
		rec := httptest.NewRecorder()
		mux.ServeHTTP(rec, r)
		return rec
	}
	assert.Equal(t, "7", post("/accounts/7/payments").Body.String())
	assert.Equal(t, "7", post("/accounts/7/payments").Body.String())
	assert.Equal(t, http.StatusUnprocessableEntity, post("/accounts/8/payments").Code, "the pattern is the scope, so this is the same key")
	assert.Equal(t, 1, runs)
}

// A router and one of its routes may both be wrapped, by mistake.
func TestWrappedTwiceIsGuardedOnce(t *testing.T) {
	t.Parallel()
	w := serve(t, nil)
	mux := http.NewServeMux()
	mux.Handle("POST /a", w.mw.Wrap(w.mw.Wrap(http.HandlerFunc(created))))
	twice := httptest.NewServer(w.mw.Wrap(mux))
	defer twice.Close()
	for i := range 2 {
		got := do(t, twice.Client(), request{key: "k", path: "/a"}.build(t, twice.URL))
		require.Equal(t, http.StatusCreated, got.StatusCode, got.body)
		assert.Equal(t, i == 1, got.replayed())
	}
	assert.Len(t, w.stored(), 1)
}

func TestWrapNil(t *testing.T) {
	t.Parallel()
	w := serve(t, nil)
	assert.Panics(t, func() { w.mw.Wrap(nil) })
}

package idemhttp_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/idempotent-go/idempotent/idemhttp"
)

// Requirement 4: the fingerprint.

// original is a request; each of the variants differs in one part of its fingerprint.
var original = request{key: "k", path: "/p/1?a=1", body: `{"amount":1}`, header: http.Header{"Content-Type": {"application/json"}}}

func variants() map[string]request {
	path, query, contentType, body := original, original, original, original
	path.path = "/p/2?a=1"
	query.path = "/p/1?a=2"
	contentType.header = http.Header{"Content-Type": {"text/plain"}}
	body.body = `{"amount":2}`
	return map[string]request{"path": path, "query": query, "content-type": contentType, "body": body}
}

// onePattern guards two paths of one pattern: without a pattern, another path is another scope.
func onePattern(t *testing.T, handle http.HandlerFunc, opts ...idemhttp.Option) *world {
	t.Helper()
	w := serve(t, handle, opts...)
	mux := http.NewServeMux()
	mux.Handle("/p/{id}", w.server.Config.Handler)
	w.server.Config.Handler = mux
	return w
}

func TestKeyReused(t *testing.T) {
	for part, variant := range variants() {
		t.Run(part, func(t *testing.T) {
			w := onePattern(t, created)
			w.send(original)
			w.send(variant).problem(t, http.StatusUnprocessableEntity, idemhttp.TypeKeyReused)
			w.ran(1)
			assert.True(t, w.send(original).replayed(), "the record is still there")
		})
	}
}

func TestKeyReusedWhileTheFirstRuns(t *testing.T) {
	running, finish := make(chan struct{}), make(chan struct{})
	w := onePattern(t, func(rw http.ResponseWriter, r *http.Request) {
		close(running)
		<-finish
		created(rw, r)
	})
	other := otherProcess(t, w)
	first := w.async(original)
	within(t, open(running))
	for part, variant := range variants() {
		for _, got := range []answer{w.send(variant), do(t, w.server.Client(), variant.build(t, other.URL))} {
			p := got.problem(t, http.StatusUnprocessableEntity, idemhttp.TypeKeyReused)
			assert.Contains(t, p.Detail, "not carried out", part)
		}
	}
	close(finish)
	assert.Equal(t, http.StatusCreated, within(t, first).StatusCode)
	w.ran(1)
}

// open makes a channel that is closed into one that within can receive from.
func open(closed <-chan struct{}) <-chan bool {
	c := make(chan bool, 1)
	go func() {
		<-closed
		c <- true
	}()
	return c
}

// otherProcess serves the same handler with a middleware of its own, as another process would.
func otherProcess(t *testing.T, w *world, opts ...idemhttp.Option) *httptest.Server {
	t.Helper()
	mw := middleware(t, w.redis, opts...)
	mux := http.NewServeMux()
	handler := mw.Wrap(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.runs.Add(1)
		created(rw, r)
	}))
	mux.Handle("/p/{id}", handler)
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/p/") {
			mux.ServeHTTP(rw, r)
			return
		}
		handler.ServeHTTP(rw, r) // without a pattern, as in w
	}))
	t.Cleanup(server.Close)
	return server
}

func TestFingerprintParts(t *testing.T) {
	all := map[string]idemhttp.Part{
		"path":         idemhttp.PartPath,
		"query":        idemhttp.PartQuery,
		"content-type": idemhttp.PartContentType,
		"body":         idemhttp.PartBody,
	}
	for part, bit := range all {
		t.Run("without "+part, func(t *testing.T) {
			for changed, variant := range variants() {
				w := onePattern(t, created, idemhttp.WithFingerprint(idemhttp.FingerprintParts(idemhttp.AllParts&^bit)))
				w.send(original)
				got := w.send(variant)
				if changed == part {
					assert.True(t, got.replayed(), changed)
				} else {
					assert.Equal(t, http.StatusUnprocessableEntity, got.StatusCode, changed)
				}
				w.ran(1)
			}
		})
	}
}

// A router in front may strip a prefix: then the same path behind it is another one in front.
func TestFingerprintSeesThePathOfTheClient(t *testing.T) {
	t.Parallel()
	w := serve(t, created)
	guarded := w.server.Config.Handler
	w.server.Config.Handler = http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		version := r.URL.Path[:len("/v1")]
		http.StripPrefix(version, guarded).ServeHTTP(rw, r)
	})
	assert.Equal(t, http.StatusCreated, w.send(request{key: "k", path: "/v1/a"}).StatusCode)
	w.send(request{key: "k", path: "/v2/a"}).problem(t, http.StatusUnprocessableEntity, idemhttp.TypeKeyReused)
}

// Somebody in front who reads the body would make all bodies alike.
func TestBodyReadInFront(t *testing.T) {
	t.Parallel()
	w := serve(t, created)
	guarded := w.server.Config.Handler
	w.server.Config.Handler = http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		assert.NoError(t, r.ParseForm())
		guarded.ServeHTTP(rw, r)
	})
	got := w.send(request{key: "k", body: "a=1", header: http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}})
	got.problem(t, http.StatusInternalServerError, idemhttp.TypeMisconfigured)
	w.ran(0)
}

func TestRequestInAbsoluteForm(t *testing.T) {
	t.Parallel()
	w := serve(t, created)
	for _, target := range []string{"http://api.example.com/p?a=1", "/p?a=1"} {
		r := httptest.NewRequest(http.MethodPost, target, strings.NewReader("x"))
		r.Header.Set(idemhttp.KeyHeader, "k")
		rec := httptest.NewRecorder()
		w.server.Config.Handler.ServeHTTP(rec, r)
		assert.Equal(t, http.StatusCreated, rec.Code)
	}
	w.ran(1)
}

package idemhttp_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent/idemhttp"
	"github.com/idempotent-go/idempotent/idemtest"
)

// Requirement 3: whose key it is.

func authorized(token string) http.Header { return http.Header{"Authorization": {token}} }

func TestCallersNeverMeet(t *testing.T) {
	t.Parallel()
	w := serve(t, func(rw http.ResponseWriter, r *http.Request) {
		_, _ = rw.Write([]byte("secret of " + r.Header.Get("Authorization")))
	})
	for range 2 {
		for _, token := range []string{"Bearer anna", "Bearer bert", ""} {
			got := w.send(request{key: "k", header: authorized(token)})
			assert.Equal(t, "secret of "+token, got.body)
		}
	}
	w.ran(3)
	assert.Len(t, w.stored(), 3)
}

func TestScopeUsesThePattern(t *testing.T) {
	t.Parallel()
	rdb := idemtest.NewRedis(t)
	mw := middleware(t, rdb, idemhttp.WithFingerprint(idemhttp.FingerprintParts(idemhttp.PartBody)))
	mux := http.NewServeMux()
	mux.Handle("POST /a/{id}", mw.Wrap(http.HandlerFunc(created)))
	for _, path := range []string{"/a/1", "/a/2"} {
		r := httptest.NewRequest(http.MethodPost, path, nil)
		r.Header.Set(idemhttp.KeyHeader, "k")
		rec := httptest.NewRecorder()
		mux.ServeHTTP(rec, r)
		assert.Equal(t, path == "/a/2", rec.Header().Get(idemhttp.ReplayedHeader) == "true")
	}
}

// Nothing of a caller can be read in Redis, and no part of the scope can be made to look like
// another.
func TestStoredNameIsAHash(t *testing.T) {
	t.Parallel()
	w := serve(t, created)
	w.send(request{key: "my-key", header: authorized("Bearer hunter2")})
	require.Len(t, w.stored(), 1)
	name := w.stored()[0]
	assert.True(t, strings.HasPrefix(name, "idempotent:http:"), name)
	assert.Len(t, name, len("idempotent:http:")+64)

	tenant := func(r *http.Request) (string, error) { return r.Header.Get("X-Tenant"), nil }
	w = serve(t, created, idemhttp.WithScope(tenant))
	w.send(request{key: "bc", header: http.Header{"X-Tenant": {"a"}}})
	w.send(request{key: "c", header: http.Header{"X-Tenant": {"ab"}}})
	w.ran(2)
}

func TestScopeByOption(t *testing.T) {
	t.Parallel()
	w := serve(t, created, idemhttp.WithScope(func(r *http.Request) (string, error) {
		cookie, err := r.Cookie("tenant")
		if err != nil {
			return "", err
		}
		return cookie.Value, nil
	}))
	send := func(tenant, token string) answer {
		return w.send(request{key: "k", header: http.Header{"Cookie": {"tenant=" + tenant}, "Authorization": {token}}})
	}
	send("a", "Bearer 1")
	assert.True(t, send("a", "Bearer renewed").replayed(), "the scope is the tenant, not the token")
	assert.False(t, send("b", "Bearer 1").replayed())
	w.ran(2)
}

func TestScopeFails(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		err    error
		status int
		detail string
	}{
		"an error":  {errors.New("session store at 10.0.0.7 is down"), http.StatusInternalServerError, ""},
		"a problem": {&idemhttp.Problem{Type: "https://example.com/login", Title: "Log in", Status: http.StatusUnauthorized, Detail: "first"}, http.StatusUnauthorized, "first"},
	} {
		t.Run(name, func(t *testing.T) {
			w := serve(t, created, idemhttp.WithScope(func(*http.Request) (string, error) { return "", test.err }))
			got := w.post("k", "")
			assert.Equal(t, test.status, got.StatusCode)
			assert.Contains(t, got.body, test.detail)
			assert.NotContains(t, got.body, "10.0.0.7", "what the error says is for the log")
			w.ran(0)
			assert.Empty(t, w.stored())
		})
	}
}

package idemhttp_test

import (
	"encoding/base64"
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/idemhttp"
	"github.com/idempotent-go/idempotent/idemtest"
)

// token is a JSON Web Token with these claims, whose signature something in front has checked.
func token(claims string) string {
	part := base64.RawURLEncoding.EncodeToString
	return "Bearer " + part([]byte(`{"alg":"none"}`)) + "." + part([]byte(claims)) + "." + part([]byte("signature"))
}

func TestNewAsksForAScope(t *testing.T) {
	_, err := idemhttp.New(idemtest.NewRedis(t), "http", nil)
	require.ErrorIs(t, err, idempotent.ErrInvalidOption)
	assert.ErrorContains(t, err, "scope: function is nil; allowed: a function")
}

// send sends one request with these fields under one key.
func sendWith(w *world, header http.Header) answer {
	w.Helper()
	return w.send(request{key: "k", header: header})
}

// Two requests of one caller, such as one before and one after its token was renewed, are one; two
// callers are two; and who cannot be told is refused.
func TestReadyMadeScopes(t *testing.T) {
	t.Parallel()
	field := func(name string, values ...string) http.Header { return http.Header{name: values} }
	for name, test := range map[string]struct {
		scope        idemhttp.Scope
		one, same    http.Header
		other        http.Header
		misconfigure []http.Header
	}{
		"ScopeAuthorization": {
			idemhttp.ScopeAuthorization,
			field("Authorization", "Bearer a"), field("Authorization", " Bearer a "), field("Authorization", "Bearer b"),
			[]http.Header{{}, field("Authorization", ""), field("Authorization", "Bearer a", "Bearer b")},
		},
		"ScopeHeader": {
			idemhttp.ScopeHeader("X-Tenant"),
			field("X-Tenant", "a"), http.Header{"X-Tenant": {"a"}, "Authorization": {"Bearer renewed"}}, field("X-Tenant", "b"),
			[]http.Header{{}, field("X-Tenant", ""), field("X-Tenant", " "), field("X-Tenant", "a", "b")},
		},
		"ScopeBearerSubject": {
			idemhttp.ScopeBearerSubject,
			field("Authorization", token(`{"sub":"anna","iss":"i","exp":1}`)), field("Authorization", token(`{"exp":2,"iss":"i","sub":"anna"}`)),
			field("Authorization", token(`{"sub":"anna","iss":"other"}`)),
			[]http.Header{
				{}, field("Authorization", "Bearer opaque"), field("Authorization", "Basic YTpi"), field("Authorization", token(`{}`)),
				field("Authorization", token(`{"sub":""}`)), field("Authorization", token(`{"sub":7}`)), field("Authorization", token(`{"SUB":"anna"}`)),
				field("Authorization", token(`{"sub":"anna","sub":"bert"}`)), field("Authorization", token(`not JSON`)),
				field("Authorization", "Bearer a.%%%.c"), field("Authorization", token(`{"sub":"anna"}`), token(`{"sub":"bert"}`)),
			},
		},
		"ScopeBasicUser": {
			idemhttp.ScopeBasicUser,
			field("Authorization", basic("anna:old")), field("Authorization", basic("anna:new")), field("Authorization", basic("bert:old")),
			[]http.Header{{}, field("Authorization", "Bearer a"), field("Authorization", basic(":x")), field("Authorization", basic("anna:x"), basic("bert:x"))},
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := serve(t, created, idemhttp.WithScope(test.scope))
			assert.False(t, sendWith(w, test.one).replayed())
			assert.True(t, sendWith(w, test.same).replayed(), "the same caller")
			assert.False(t, sendWith(w, test.other).replayed(), "another caller")
			w.ran(2)
			for _, header := range test.misconfigure {
				sendWith(w, header).problem(t, http.StatusInternalServerError, idemhttp.TypeMisconfigured)
			}
			w.ran(2)
		})
	}
	w := serve(t, created, idemhttp.WithScope(idemhttp.SingleTenant))
	sendWith(w, nil)
	assert.True(t, sendWith(w, field("Authorization", "Bearer a")).replayed())
}

func basic(userinfo string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(userinfo))
}

func TestEmptyScope(t *testing.T) {
	t.Parallel()
	w := serve(t, created, idemhttp.WithScope(func(*http.Request) (string, error) { return "", nil }))
	w.post("k", "").problem(t, http.StatusInternalServerError, idemhttp.TypeMisconfigured)
	w.ran(0)
	assert.Empty(t, w.stored())
}

// A key belongs to a caller and a route. Where there is no pattern, all is one route.
func TestKeyAtAnotherURLOrWithAnotherMethod(t *testing.T) {
	t.Parallel()
	w := serve(t, created)
	first := request{key: "k", path: "/charges"}
	w.send(first)
	for name, q := range map[string]request{
		"another URL":    {key: "k", path: "/refunds"},
		"another query":  {key: "k", path: "/charges?a=1"},
		"another method": {key: "k", path: "/charges", method: http.MethodPatch},
	} {
		t.Run(name, func(t *testing.T) {
			w := w.in(t)
			w.send(q).problem(t, http.StatusUnprocessableEntity, idemhttp.TypeKeyReused)
		})
	}
	assert.True(t, w.send(first).replayed())
	w.ran(1)
}

// in is the same world in a subtest.
func (w *world) in(t *testing.T) *world {
	return &world{T: t, redis: w.redis, events: w.events, mw: w.mw, server: w.server, log: w.log}
}

func TestMethodIsComparedWhateverTheFingerprint(t *testing.T) {
	t.Parallel()
	for _, f := range []idemhttp.Fingerprint{
		idemhttp.FingerprintParts(idemhttp.PartBody), idemhttp.FingerprintJSON(),
		idemhttp.FingerprintFunc("nothing", func(*http.Request, []byte) ([]byte, error) { return nil, nil }),
	} {
		w := serve(t, created, idemhttp.WithFingerprint(f))
		w.send(request{key: "k"})
		w.send(request{key: "k", method: http.MethodPatch}).problem(t, http.StatusUnprocessableEntity, idemhttp.TypeKeyReused)
		w.ran(1)
	}
}

// Routes have keys of their own; the method and the names of wildcards do not make another route.
func TestRoutes(t *testing.T) {
	t.Parallel()
	mux := http.NewServeMux()
	w := serve(t, created)
	guarded := w.server.Config.Handler
	for _, pattern := range []string{"POST /a/{id}", "PATCH /a/{renamed}", "POST /b/{id}", "POST /c/{rest...}"} {
		mux.Handle(pattern, guarded)
	}
	w.server.Config.Handler = mux
	w.send(request{key: "k", path: "/a/1"})
	w.send(request{key: "k", path: "/a/1", method: http.MethodPatch}).problem(t, http.StatusUnprocessableEntity, idemhttp.TypeKeyReused)
	assert.False(t, w.send(request{key: "k", path: "/b/1"}).replayed())
	assert.False(t, w.send(request{key: "k", path: "/c/1"}).replayed())
	w.ran(3)

	of := func(pattern string) string { return w.mw.Instance("anna", pattern, "k") }
	for _, same := range []string{"PATCH /a/{other}", "/a/{id}", "POST\t/a/{id}", "POST  /a/{x}"} {
		assert.Equal(t, of("POST /a/{id}"), of(same), same)
	}
	assert.Equal(t, of("/a/:id"), of("/a/:name"))
	assert.Equal(t, of("/a/*path"), of("/a/*rest"))
	assert.Equal(t, of("/a/{id:[0-9]+}"), of("/a/{n:[0-9]+}"))
	different := []string{"", "/", "/a", "/a/", "/a/{$}", "/a/{id}", "/a/{id...}", "/a/{id:[0-9]+}", "/a/:id", "/a/*id", "/a/{id}/b", "h/a/{id}", "/a/{id", "/a/{x}-{y}"}
	seen := map[string]string{}
	for _, pattern := range different {
		assert.Empty(t, seen[of(pattern)], pattern)
		seen[of(pattern)] = pattern
	}

	byHost := serve(t, created, idemhttp.WithRoute(func(r *http.Request) string { return r.Header.Get("X-Route") }))
	byHost.send(request{key: "k", header: http.Header{"X-Route": {"a"}}})
	assert.False(t, byHost.send(request{key: "k", header: http.Header{"X-Route": {"b"}}}).replayed())
}

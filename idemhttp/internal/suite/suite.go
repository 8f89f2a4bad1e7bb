// Package suite is the behaviour of the middleware as a table of tests, for every framework that it is
// used with.
package suite

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/idemhttp"
	"github.com/idempotent-go/idempotent/idemtest"
)

// A Framework serves one guarded handler as its users do.
type Framework struct {
	Name string
	// Mount returns a handler that serves method and path, whose last segment is a wildcard named id,
	// by handle behind mw, as a middleware of that route.
	Mount func(mw *idemhttp.Middleware, method, path string, handle http.HandlerFunc, opts ...idemhttp.RouteOption) http.Handler
	// Param returns the wildcard of a request that the framework serves.
	Param func(*http.Request) string
	// HTTP2 serves over HTTP/2.
	HTTP2 bool
}

// A Case is one behaviour.
type Case struct {
	Name string
	Test func(t *testing.T, f Framework)
}

// Run runs all cases in a framework.
func Run(t *testing.T, f Framework) {
	for _, c := range Cases {
		t.Run(f.Name+"/"+c.Name, func(t *testing.T) { c.Test(t, f) })
	}
}

// A scene is a server of a framework with one guarded handler.
type scene struct {
	*testing.T
	framework Framework
	redis     *idemtest.Redis
	events    *idemtest.Recorder
	mw        *idemhttp.Middleware
	server    *httptest.Server
	runs      atomic.Int32
}

// serve starts a server whose handler counts its runs.
func (f Framework) serve(t *testing.T, handle http.HandlerFunc, opts ...idemhttp.RouteOption) *scene {
	t.Helper()
	s := &scene{T: t, framework: f, redis: idemtest.NewRedis(t), events: &idemtest.Recorder{}}
	var err error
	s.mw, err = idemhttp.New(s.redis, "suite", idemhttp.SingleTenant, idemhttp.WithObserver(s.events))
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.mw.Close() })
	s.server = httptest.NewUnstartedServer(f.Mount(s.mw, http.MethodPost, "/pay/{id}", func(w http.ResponseWriter, r *http.Request) {
		s.runs.Add(1)
		handle(w, r)
	}, opts...))
	s.server.Config.ErrorLog = quiet
	s.server.EnableHTTP2 = f.HTTP2
	if f.HTTP2 {
		s.server.StartTLS()
	} else {
		s.server.Start()
	}
	t.Cleanup(s.server.Close)
	return s
}

// An answer is a response that has been read; the connection of one without a Response was cut.
type answer struct {
	*http.Response
	body string
}

func (a answer) replayed() bool {
	return a.Response != nil && a.Header.Get(idemhttp.ReplayedHeader) == "true"
}

func (a answer) status() int {
	if a.Response == nil {
		return 0
	}
	return a.StatusCode
}

// send posts a body to /pay/id, with a key unless that is empty.
func (s *scene) send(id, key, body string) answer {
	return s.do(s.Context(), id, key, strings.NewReader(body))
}

func (s *scene) do(ctx context.Context, id, key string, body io.Reader) answer {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.server.URL+"/pay/"+id, body)
	if err != nil {
		s.Error(err)
		return answer{}
	}
	r.Header.Set("Content-Type", "text/plain")
	if key != "" {
		r.Header.Set(idemhttp.KeyHeader, key)
	}
	res, err := s.server.Client().Do(r)
	if err != nil {
		return answer{}
	}
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	if err != nil {
		return answer{}
	}
	return answer{res, string(got)}
}

// async sends in a goroutine.
func (s *scene) async(id, key string) <-chan answer {
	answers := make(chan answer, 1)
	go func() { answers <- s.send(id, key, "") }()
	return answers
}

func (s *scene) ran(times int) {
	s.Helper()
	assert.EqualValues(s, times, s.runs.Load(), "runs of the handler")
}

// problem checks that an answer is one of the middleware's problems.
func (s *scene) problem(a answer, status int, problemType string) {
	s.Helper()
	assert.Equal(s, status, a.status())
	assert.Contains(s, a.body, problemType)
}

// within receives from a channel, or fails the test after a minute.
func within[T any](t testing.TB, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(time.Minute):
		t.Fatal("nothing happened in a minute")
		panic("unreachable")
	}
}

func attempt(r *http.Request) int {
	info, _ := idempotent.RunInfoFromContext(r.Context())
	return info.Attempt
}

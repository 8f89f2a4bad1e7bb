package idemhttp_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/idemhttp"
	"github.com/idempotent-go/idempotent/idemtest"
)

// Requirement 8: problems, and a Redis that is down.

func TestProblemJSON(t *testing.T) {
	t.Parallel()
	w := serve(t, created, idemhttp.WithRequiredKey(), idemhttp.WithDocumentation("/docs"))
	got := w.post("", "")
	assert.Equal(t, "en", got.Header.Get("Content-Language"))
	assert.Equal(t, `</docs>; rel="describedby"; type="text/html"`, got.Header.Get("Link"))
	var members map[string]any
	require.NoError(t, json.Unmarshal([]byte(got.body), &members))
	assert.Equal(t, "https://github.com/idempotent-go/idempotent/blob/main/docs/http.md#key-missing", members["type"])
	assert.Equal(t, "Idempotency-Key is missing", members["title"])
	assert.InDelta(t, 400, members["status"], 0)
	assert.Len(t, members, 4)
}

func TestNegotiation(t *testing.T) {
	t.Parallel()
	const problem, plain, text = "application/problem+json", "application/json", "text/plain; charset=utf-8"
	w := serve(t, created, idemhttp.WithRequiredKey())
	for accept, want := range map[string]string{
		"":                                     problem,
		"*/*":                                  problem,
		"application/*":                        problem,
		"application/json":                     plain,
		"application/json, */*;q=0.1":          plain,
		"text/plain":                           text,
		"text/*;q=0.5, application/json;q=0.4": text,
		"text/html, */*;q=0.8":                 problem,
		"application/problem+json;q=0, */*":    plain,
		"image/png":                            problem,
		"text/plain;q=2":                       problem,
		"text/plain;q=NaN, application/json;q=0.1": plain,
		";;;,=": problem,
	} {
		q := request{}
		if accept != "" {
			q.header = http.Header{"Accept": {accept}}
		}
		got := w.send(q)
		assert.Equal(t, want, got.Header.Get("Content-Type"), accept)
		assert.Equal(t, http.StatusBadRequest, got.StatusCode)
		assert.Contains(t, got.body, idemhttp.TypeKeyMissing)
	}
}

func TestRenderer(t *testing.T) {
	t.Parallel()
	w := serve(t, created, idemhttp.WithDocumentation("/docs"), idemhttp.WithProblemRenderer(
		func(rw http.ResponseWriter, r *http.Request, p *idemhttp.Problem) {
			assert.Equal(t, "/docs", rw.Header().Get("Link")[1:6])
			rw.WriteHeader(p.Status)
			fmt.Fprintf(rw, "%s|%s|%s", r.URL.Path, p.Type, p.RetryAfter)
		}))
	w.redis.Fail("LOADING")
	got := w.send(request{key: "k", path: "/p"})
	assert.Equal(t, http.StatusServiceUnavailable, got.StatusCode)
	assert.Equal(t, "/p|"+idemhttp.TypeUnavailable+"|1s", got.body)
	assert.Equal(t, "1", got.Header.Get("Retry-After"))
}

func TestRedisDown(t *testing.T) {
	t.Parallel()
	w := serve(t, created)
	w.redis.Fail("LOADING Redis is loading the dataset in memory")
	got := w.post("k", "")
	got.problem(t, http.StatusServiceUnavailable, idemhttp.TypeUnavailable)
	assert.Equal(t, "1", got.Header.Get("Retry-After"))
	assert.NotContains(t, got.body, "LOADING")
	w.ran(0)
	w.redis.Fail("")
	assert.Equal(t, http.StatusCreated, w.post("k", "").StatusCode)
}

func TestFailOpen(t *testing.T) {
	t.Parallel()
	w := serve(t, func(rw http.ResponseWriter, r *http.Request) {
		_, guarded := idempotent.RunInfoFromContext(r.Context())
		assert.Equal(t, rw.Header().Get(idemhttp.UnguardedHeader) == "", guarded)
		body := make([]byte, 1)
		_, _ = r.Body.Read(body)
		rw.WriteHeader(http.StatusCreated)
		_, _ = rw.Write(body)
	}, idemhttp.WithFailOpen())
	w.redis.Fail("LOADING")
	for range 2 {
		got := w.post("k", "x")
		assert.Equal(t, http.StatusCreated, got.StatusCode)
		assert.Equal(t, "true", got.Header.Get(idemhttp.UnguardedHeader))
		assert.Equal(t, "x", got.body, "the body is there")
		assert.False(t, got.replayed())
	}
	w.ran(2)
	w.redis.Fail("")
	got := w.post("k", "x")
	assert.Empty(t, got.Header.Get(idemhttp.UnguardedHeader))
	w.ran(3)
}

// A request that waits for another one when Redis goes away knows that the handler runs there.
func TestFailOpenKnowsItsTwin(t *testing.T) {
	t.Parallel()
	s := newSlow()
	first := serve(t, s.handle, idemhttp.WithLease(time.Second)) // the other one looks after it at the latest
	running := first.async(request{key: "k"})
	within(t, s.running)

	w := serveOn(t, first.redis, created, idemhttp.WithFailOpen(), idemhttp.WithWaitTimeout(1500*time.Millisecond))
	waiting := w.async(request{key: "k"})
	w.events.Wait(t, idempotent.EventWaitStarted, 1)
	first.redis.Fail("LOADING")
	within(t, waiting).problem(t, http.StatusServiceUnavailable, idemhttp.TypeUnavailable)
	w.ran(0)
	first.redis.Fail("")
	close(s.finish)
	assert.Equal(t, http.StatusCreated, within(t, running).StatusCode)
}

// The handler ran and Redis went away: the client is told the truth, and that it is not recorded.
func TestOutcomeNotRecorded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { // a commit is repeated for a while
		rdb := idemtest.NewRedis(t)
		guarded := middleware(t, rdb).Wrap(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			rdb.Fail("LOADING")
			created(rw, r)
		}))
		r := httptest.NewRequest(http.MethodPost, "/", nil)
		r.Header.Set(idemhttp.KeyHeader, "k")
		rec := httptest.NewRecorder()
		guarded.ServeHTTP(rec, r)
		assert.Equal(t, http.StatusCreated, rec.Code)
		assert.Equal(t, `{"id":"ch_1"}`, rec.Body.String())
		assert.Equal(t, "true", rec.Header().Get(idemhttp.UnrecordedHeader))
		assert.Empty(t, rec.Header().Get(idemhttp.ReplayedHeader))
	})
}

func TestLeaseLost(t *testing.T) {
	t.Parallel()
	running, finish := make(chan bool, 1), make(chan bool, 1)
	w := serve(t, func(rw http.ResponseWriter, r *http.Request) {
		running <- true
		<-finish
		fmt.Fprint(rw, "of the one that lost its lease")
	})
	first := w.async(request{key: "k"})
	within(t, running)
	require.NoError(t, w.redis.FlushAll(t.Context()).Err()) // as if its lease had run out
	other := otherProcess(t, w)
	second := do(t, w.server.Client(), request{key: "k"}.build(t, other.URL))
	assert.Equal(t, http.StatusCreated, second.StatusCode)
	finish <- true
	got := within(t, first)
	got.problem(t, http.StatusConflict, idemhttp.TypeSuperseded)
	assert.Equal(t, "1", got.Header.Get("Retry-After"))
	again := w.post("k", "")
	assert.True(t, again.replayed())
	assert.Equal(t, second.body, again.body, "all get the one that is recorded")
}

// A handler that gives up when its lease is lost has no say either.
func TestLeaseLostAndHandlerGivesUp(t *testing.T) {
	t.Parallel()
	running := make(chan bool, 1)
	w := serve(t, func(rw http.ResponseWriter, r *http.Request) {
		running <- true
		<-r.Context().Done()
		assert.ErrorIs(t, context.Cause(r.Context()), idempotent.ErrLeaseLost)
		http.Error(rw, "given up", http.StatusInternalServerError)
	}, idemhttp.WithLease(time.Second))
	first := w.async(request{key: "k"})
	within(t, running)
	require.NoError(t, w.redis.FlushAll(t.Context()).Err())
	within(t, first).problem(t, http.StatusConflict, idemhttp.TypeSuperseded)
}

func TestCorruptRecord(t *testing.T) {
	t.Parallel()
	w := serve(t, created)
	w.post("k", "")
	name := w.stored()[0]
	for _, value := range []string{"", "garbage", "\x01Dxx"} {
		require.NoError(t, w.redis.Set(t.Context(), name, value, 0).Err())
		w.post("k", "").problem(t, http.StatusInternalServerError, idemhttp.TypeRecordUnreadable)
	}
	w.ran(1)
}

func TestClosed(t *testing.T) {
	t.Parallel()
	w := serve(t, created)
	require.NoError(t, w.mw.Close())
	got := w.post("k", "")
	got.problem(t, http.StatusServiceUnavailable, idemhttp.TypeUnavailable)
	w.ran(0)
}

func TestCloseWaitsForHandlersWithoutAClient(t *testing.T) {
	t.Parallel()
	s := newSlow()
	w := serve(t, s.handle)
	r := request{key: "k"}.build(t, w.server.URL)
	go func() {
		<-s.running
		w.server.CloseClientConnections()
	}()
	_, err := w.server.Client().Do(r)
	require.Error(t, err)
	closed := make(chan bool, 1)
	go func() {
		_ = w.mw.Close()
		closed <- true
	}()
	select {
	case <-closed:
		t.Fatal("closed while a handler runs")
	default:
	}
	close(s.finish)
	within(t, closed)
	assert.Equal(t, 1, w.events.Count(idempotent.EventRecorded))
}

func TestProblemIsAnError(t *testing.T) {
	var err error = &idemhttp.Problem{Title: "Log in", Detail: "first"}
	assert.Equal(t, "idemhttp: Log in: first", err.Error())
	p, ok := errors.AsType[*idemhttp.Problem](fmt.Errorf("wrapped: %w", err))
	assert.True(t, ok)
	assert.Equal(t, err, p)
}

// Requirement 9: the policy.

func TestPolicy(t *testing.T) {
	t.Parallel()
	rdb := idemtest.NewRedis(t)
	get := func(opts ...idemhttp.Option) string {
		rec := httptest.NewRecorder()
		middleware(t, rdb, opts...).Policy().ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/", nil))
		assert.Equal(t, "application/json", rec.Header().Get("Content-Type"))
		return rec.Body.String()
	}
	assert.JSONEq(t, `{
		"header": "Idempotency-Key",
		"methods": ["POST", "PATCH"],
		"required": false,
		"key": {"format": "1 to 255 printable ASCII characters, unique to the request; a random UUID is best", "maxLength": 255, "strict": false},
		"expirySeconds": 86400,
		"fingerprint": ["method", "path", "query", "content-type", "body"],
		"concurrent": "wait", "waitSeconds": 10,
		"interrupted": "rerun",
		"requestLimitBytes": 1048576,
		"responseLimitBytes": 4194304
	}`, get())
	assert.JSONEq(t, `{
		"header": "Idempotency-Key",
		"methods": ["PUT"],
		"required": true,
		"key": {"format": "a UUID", "maxLength": 255, "strict": true},
		"expirySeconds": 3600,
		"fingerprint": ["method", "path", "body"],
		"concurrent": "conflict",
		"interrupted": "refuse",
		"requestLimitBytes": 1,
		"responseLimitBytes": 2,
		"documentation": "/docs"
	}`, get(idemhttp.WithMethods("PUT"), idemhttp.WithRequiredKey(), idemhttp.WithStrictKey(),
		idemhttp.WithKeyDescription("a UUID"), idemhttp.WithTTL(time.Hour),
		idemhttp.WithFingerprint(idemhttp.FingerprintParts(idemhttp.PartPath|idemhttp.PartBody)), idemhttp.WithNoWait(),
		idemhttp.WithInterrupted(idempotent.Refuse), idemhttp.WithRequestLimit(1), idemhttp.WithResponseLimit(2),
		idemhttp.WithDocumentation("/docs")))
}

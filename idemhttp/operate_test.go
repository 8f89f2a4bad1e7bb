package idemhttp_test

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/idemhttp"
	"github.com/idempotent-go/idempotent/idemtest"
)

func textLog(l *lines) *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// An operator finds a request that is refused by what its client was told, and settles it.
func TestOperatorResolves(t *testing.T) {
	t.Parallel()
	var logged lines
	w := serve(t, func(rw http.ResponseWriter, r *http.Request) { idemhttp.OutcomeUnknown(r.Context()) },
		idemhttp.WithInterrupted(idempotent.Refuse), idemhttp.WithLogger(textLog(&logged)))
	w.post("k", "x")
	p := w.post("k", "x").problem(t, http.StatusInternalServerError, idemhttp.TypeInterrupted)
	require.Equal(t, w.mw.Instance("caller ", "", "k"), p.Instance)
	assert.Contains(t, logged.String(), "instance="+p.Instance)

	found, err := w.mw.Peek(t.Context(), p.Instance)
	require.NoError(t, err)
	assert.Equal(t, idempotent.StateInterrupted, found.State)
	was, err := w.mw.Resolve(t.Context(), p.Instance, idemhttp.Recorded{
		Status: http.StatusCreated, Body: []byte(`{"id":"ch_1"}`),
		Header: http.Header{"content-type": {"application/json"}, "Content-Length": {"999"}, "Connection": {"X-Hop"}, "X-Hop": {"1"}, "Set-Cookie": {"a=b"}},
	})
	require.NoError(t, err)
	assert.Equal(t, idempotent.StateInterrupted, was.State)
	got := w.post("k", "x")
	assert.True(t, got.replayed())
	assert.Equal(t, http.StatusCreated, got.StatusCode)
	assert.Equal(t, `{"id":"ch_1"}`, got.body)
	assert.Equal(t, "application/json", got.Header.Get("Content-Type"))
	assert.Empty(t, got.Header.Values("X-Hop"))
	assert.Empty(t, got.Header.Values("Set-Cookie"))
	assert.NotEmpty(t, got.Header.Get(idemhttp.ExpiresHeader))
	w.post("k", "other").problem(t, http.StatusUnprocessableEntity, idemhttp.TypeKeyReused)
	_, err = w.mw.Resolve(t.Context(), p.Instance, idemhttp.Recorded{Status: 200})
	assert.ErrorIs(t, err, idempotent.ErrAlreadyRecorded)
	_, err = w.mw.Resolve(t.Context(), w.mw.Instance("caller ", "", "mistyped"), idemhttp.Recorded{Status: 200})
	assert.ErrorIs(t, err, idempotent.ErrNotFound)
	w.ran(1)

	require.NoError(t, w.mw.Forget(t.Context(), p.Instance))
	w.post("k", "x")
	w.ran(2)
}

func TestOperatorMistakes(t *testing.T) {
	t.Parallel()
	w := serve(t, created)
	for _, name := range []string{"", "k", strings.Repeat("x", 64), strings.Repeat("A", 64), strings.Repeat("a", 65), strings.Repeat("a", 10000)} {
		_, err := w.mw.Peek(t.Context(), name)
		require.ErrorIs(t, err, idempotent.ErrInvalidKey)
		assert.Less(t, len(err.Error()), 400)
		require.ErrorIs(t, w.mw.Forget(t.Context(), name), idempotent.ErrInvalidKey)
		_, err = w.mw.Resolve(t.Context(), name, idemhttp.Recorded{Status: 200})
		require.ErrorIs(t, err, idempotent.ErrInvalidKey)
	}
	for text, bad := range map[string]idemhttp.Recorded{
		"status is 0":                     {},
		"status is 199":                   {Status: 199},
		"status is 1000":                  {Status: 1000},
		"body is 1 bytes with status 204": {Status: 204, Body: []byte("x")},
		`field is "X Y"`:                  {Status: 200, Header: http.Header{"X Y": {"1"}}},
		`field is "X"`:                    {Status: 200, Header: http.Header{"X": {"1\r\nSet-Cookie: a=b"}}},
		`field is "T"`:                    {Status: 200, Trailer: http.Header{"T": {"\n"}}},
	} {
		_, err := w.mw.Resolve(t.Context(), w.mw.Instance("s", "", "k"), bad)
		require.ErrorIs(t, err, idempotent.ErrInvalidOption)
		assert.ErrorContains(t, err, text)
	}
	assert.Empty(t, w.stored())
}

// A client that meets a request in progress is told to come back after half of what that has taken.
func TestRetryAfterGrows(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		rdb := idemtest.NewRedis(t)
		running, finish := make(chan bool, 1), make(chan bool)
		guarded := middleware(t, rdb, idemhttp.WithNoWait(), idemhttp.WithLease(20*time.Second)).Wrap(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			running <- true
			<-finish
		}))
		send := func() *httptest.ResponseRecorder {
			r := httptest.NewRequestWithContext(context.Background(), http.MethodPost, "/", nil)
			r.Header.Set(idemhttp.KeyHeader, "k")
			rec := httptest.NewRecorder()
			guarded.ServeHTTP(rec, r)
			return rec
		}
		go send()
		<-running
		began := time.Now()
		for _, step := range []struct {
			at   time.Duration
			want string
		}{{600 * time.Millisecond, "1"}, {2 * time.Second, "1"}, {3 * time.Second, "2"}, {8 * time.Second, "4"}, {40 * time.Second, "20"}, {10 * time.Minute, "30"}} {
			time.Sleep(step.at - time.Since(began))
			rec := send()
			assert.Equal(t, http.StatusConflict, rec.Code)
			assert.Equal(t, step.want, rec.Header().Get("Retry-After"), step.at)
		}
		close(finish)
	})
}

// Options of Wrap hold for one handler.
func TestOptionsPerRoute(t *testing.T) {
	t.Parallel()
	w := serve(t, created)
	mux := http.NewServeMux()
	mux.Handle("POST /plain", w.mw.Wrap(http.HandlerFunc(created)))
	mux.Handle("PUT /strict", w.mw.Wrap(http.HandlerFunc(created), idemhttp.WithMethods("PUT"), idemhttp.WithRequiredKey(), idemhttp.WithTTL(time.Hour),
		idemhttp.WithScope(idemhttp.SingleTenant), idemhttp.WithPlainFirstAnswer()))
	mux.Handle("POST /with", w.mw.With(idemhttp.WithRequiredKey())(http.HandlerFunc(created)))
	w.server.Config.Handler = mux
	assert.Equal(t, http.StatusCreated, w.send(request{path: "/plain"}).StatusCode)
	assert.Equal(t, http.StatusBadRequest, w.send(request{path: "/with"}).StatusCode)
	strict := request{method: "PUT", path: "/strict"}
	assert.Equal(t, http.StatusBadRequest, w.send(strict).StatusCode)
	strict.key = "k"
	assert.Empty(t, w.send(strict).Header.Get(idemhttp.ReplayedHeader))
	assert.True(t, w.send(strict).replayed())
	left, err := w.redis.TTL(t.Context(), w.stored()[0]).Result()
	require.NoError(t, err)
	assert.InDelta(t, time.Hour, left, float64(time.Minute))
	found, err := w.mw.Peek(t.Context(), w.mw.Instance("single tenant", "/strict", "k"))
	require.NoError(t, err)
	assert.Equal(t, idempotent.StateSucceeded, found.State)
}

func TestWrapRefusesBadOptions(t *testing.T) {
	t.Parallel()
	w := serve(t, created)
	for _, bad := range []idemhttp.RouteOption{nil, idemhttp.WithTTL(0), idemhttp.WithWaitTimeout(0), idemhttp.WithInterrupted(9), idemhttp.WithScope(nil), idemhttp.WithMethods()} {
		func() {
			defer func() {
				err, _ := recover().(error)
				assert.ErrorIs(t, err, idempotent.ErrInvalidOption)
			}()
			w.mw.Wrap(http.HandlerFunc(created), bad)
			t.Error("no panic")
		}()
	}
}

// A middleware in front sees of the request what it would see without this one.
func TestRequestInFront(t *testing.T) {
	t.Parallel()
	w := serve(t, nil)
	mux := http.NewServeMux()
	mux.HandleFunc("POST /a/{id}/{rest...}", func(rw http.ResponseWriter, r *http.Request) { assert.NoError(t, r.ParseForm()) })
	guarded := w.mw.Wrap(mux)
	type seen struct{ pattern, id, rest, form string }
	var got []seen
	w.server.Config.Handler = http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		guarded.ServeHTTP(rw, r)
		got = append(got, seen{r.Pattern, r.PathValue("id"), r.PathValue("rest"), r.PostForm.Get("x")})
	})
	for _, key := range []string{"", "k"} {
		w.send(request{key: key, path: "/a/1/b/c", body: "x=y", header: http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}})
	}
	require.Len(t, got, 2)
	assert.Equal(t, seen{"POST /a/{id}/{rest...}", "1", "b/c", "y"}, got[0])
	assert.Equal(t, got[0], got[1])
}

func TestCloseNotify(t *testing.T) {
	t.Parallel()
	w := serve(t, func(rw http.ResponseWriter, r *http.Request) {
		gone := rw.(http.CloseNotifier).CloseNotify() //nolint:staticcheck // for frameworks that use it
		select {
		case <-gone:
			t.Error("the client is there")
		default:
		}
		created(rw, r)
	})
	assert.Equal(t, http.StatusCreated, w.post("k", "").StatusCode)
}

// With Redis up, a request whose own context has ended is not a reason to run unguarded.
func TestFailOpenDoesNotTakeADeadlineForAnOutage(t *testing.T) {
	t.Parallel()
	w := serve(t, created, idemhttp.WithFailOpen())
	guarded := w.server.Config.Handler
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/", nil)
	r.Header.Set(idemhttp.KeyHeader, "k")
	guarded.ServeHTTP(httptest.NewRecorder(), r)
	w.ran(0)
}

package idemhttp_test

import (
	"context"
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

// Requirement 5: concurrent duplicates.

// A slow handler says that it runs, and answers when it is told.
type slow struct {
	running chan bool
	finish  chan struct{}
}

func newSlow() *slow { return &slow{running: make(chan bool, 100), finish: make(chan struct{})} }

func (s *slow) handle(rw http.ResponseWriter, r *http.Request) {
	s.running <- true
	<-s.finish
	created(rw, r)
}

func TestDuplicatesWaitAndGetTheAnswer(t *testing.T) {
	t.Parallel()
	s := newSlow()
	w := serve(t, s.handle)
	first := w.async(request{key: "k", body: "x"})
	within(t, s.running)
	var others []<-chan answer
	for range 10 {
		others = append(others, w.async(request{key: "k", body: "x"}))
	}
	w.events.Wait(t, idempotent.EventJoined, 10)
	close(s.finish)
	want := within(t, first)
	require.Equal(t, http.StatusCreated, want.StatusCode)
	assert.False(t, want.replayed())
	for _, other := range others {
		got := within(t, other)
		assert.Equal(t, want.StatusCode, got.StatusCode)
		assert.Equal(t, want.body, got.body)
		assert.True(t, got.replayed())
	}
	w.ran(1)
}

func TestWaitIsBounded(t *testing.T) {
	t.Parallel()
	s := newSlow()
	w := serve(t, s.handle, idemhttp.WithWaitTimeout(20*time.Millisecond), idemhttp.WithLease(7*time.Second))
	first := w.async(request{key: "k"})
	within(t, s.running)
	w.post("k", "").conflict(t)
	other := otherProcess(t, w, idemhttp.WithWaitTimeout(20*time.Millisecond))
	do(t, w.server.Client(), request{key: "k"}.build(t, other.URL)).conflict(t)
	close(s.finish)
	assert.Equal(t, http.StatusCreated, within(t, first).StatusCode)
	w.ran(1)
}

func TestConflictAtOnce(t *testing.T) {
	t.Parallel()
	s := newSlow()
	// Were it to wait, it would for an hour.
	opts := []idemhttp.Option{idemhttp.WithNoWait(), idemhttp.WithWaitTimeout(time.Hour), idemhttp.WithLease(7 * time.Second)}
	w := serve(t, s.handle, opts...)
	first := w.async(request{key: "k"})
	within(t, s.running)
	w.post("k", "").conflict(t)
	other := otherProcess(t, w, opts...)
	do(t, w.server.Client(), request{key: "k"}.build(t, other.URL)).conflict(t)
	close(s.finish)
	assert.Equal(t, http.StatusCreated, within(t, first).StatusCode)
	assert.True(t, w.post("k", "").replayed())
	w.ran(1)
}

// conflict checks a 409 for a request that has just begun.
func (a answer) conflict(t testing.TB) {
	t.Helper()
	a.problem(t, http.StatusConflict, idemhttp.TypeInProgress)
	assert.Equal(t, "1", a.Header.Get("Retry-After"), "not the whole lease")
}

// Somebody in front may end the context of a request whose client is still there.
func TestContextEndsInFront(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSlow()
		guarded := middleware(t, idemtest.NewRedis(t)).Wrap(http.HandlerFunc(s.handle))
		send := func(ctx context.Context) *httptest.ResponseRecorder {
			r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/", nil)
			r.Header.Set(idemhttp.KeyHeader, "k")
			rec := httptest.NewRecorder()
			guarded.ServeHTTP(rec, r)
			return rec
		}
		ctx, cancel := context.WithCancel(t.Context())
		first := make(chan *httptest.ResponseRecorder, 1)
		go func() { first <- send(ctx) }()
		<-s.running
		cancel()
		synctest.Wait()
		assert.Empty(t, first, "it does not return while the handler uses the request")
		close(s.finish)
		rec := <-first
		assert.Equal(t, http.StatusConflict, rec.Code)
		assert.Contains(t, rec.Body.String(), idemhttp.TypeInProgress)
		synctest.Wait()
		again := send(t.Context())
		assert.Equal(t, "true", again.Header().Get(idemhttp.ReplayedHeader), "the handler went on")
	})
}

func TestDifferentKeysDoNotWait(t *testing.T) {
	t.Parallel()
	s := newSlow()
	w := serve(t, s.handle)
	first := w.async(request{key: "a"})
	second := w.async(request{key: "b"})
	within(t, s.running)
	within(t, s.running)
	close(s.finish)
	within(t, first)
	within(t, second)
	w.ran(2)
}

package pg_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/internal/redistest"
	"github.com/idempotent-go/idempotent/pg"
)

func failing(context.Context, pgx.Tx, int) (int, error) { return 0, errDeclined }

// inFront returns a Redis executor whose client gives up at once.
func (w *world) inFront(addr string, opts ...idempotent.Option) *idempotent.Executor[int] {
	w.Helper()
	client := redis.NewClient(&redis.Options{Addr: addr, DialTimeout: 200 * time.Millisecond, ReadTimeout: 200 * time.Millisecond, MaxRetries: -1})
	e, err := idempotent.New[int](client, "front", opts...)
	require.NoError(w, err)
	w.Cleanup(func() {
		_ = e.Close()
		_ = client.Close()
	})
	return e
}

func TestThroughRedis(t *testing.T) {
	w := newWorld(t)
	server := redistest.Start(t)
	front := w.inFront(server.Addr())
	e := newExecutor[int](w, pg.Through(front))
	c := newCharge("a")
	value, err := e.Run(t.Context(), "a", c.run)
	require.NoError(t, err)
	assert.Equal(t, 1, value)
	cached, err := front.Get(t.Context(), "a")
	require.NoError(t, err)
	assert.Equal(t, 1, cached)

	// Later calls are replayed without Postgres.
	asked := w.pool.Stat().AcquireCount()
	var report idempotent.Report
	value, err = e.Run(t.Context(), "a", c.run, pg.WithReport(&report))
	require.NoError(t, err)
	assert.Equal(t, 1, value)
	assert.Equal(t, idempotent.Replayed, report.Source)
	assert.Equal(t, asked, w.pool.Stat().AcquireCount())

	// Without Redis's record, it comes from Postgres.
	require.NoError(t, front.Forget(t.Context(), "a"))
	_, err = e.Run(t.Context(), "a", c.run, pg.WithReport(&report))
	require.NoError(t, err)
	assert.Equal(t, idempotent.Replayed, report.Source)

	server.Kill()
	for range 3 {
		value, err = e.Run(t.Context(), "a", c.run)
		require.NoError(t, err)
		assert.Equal(t, 1, value)
	}
	b := newCharge("b")
	value, err = e.Run(t.Context(), "b", b.run, pg.WithReport(&report))
	require.NoError(t, err)
	assert.Equal(t, 1, value)
	assert.Equal(t, idempotent.Executed, report.Source)
	assert.EqualValues(t, 1, c.calls.Load())
	assert.Equal(t, 1, w.effects("a"))
	assert.Equal(t, 1, w.effects("b"))
}

// Redis dies while fn runs: its record is lost, the effect and the caller's outcome are not.
func TestThroughRedisThatDiesWhileFnRuns(t *testing.T) {
	w := newWorld(t)
	server := redistest.Start(t)
	e := newExecutor[int](w, pg.Through(w.inFront(server.Addr(), idempotent.WithLease(300*time.Millisecond))))
	c := newCharge("a")
	c.then = func(_ context.Context, _ pgx.Tx, call int) (int, error) {
		server.Kill()
		return call, nil
	}
	value, err := e.Run(t.Context(), "a", c.run)
	require.NoError(t, err)
	assert.Equal(t, 1, value)
	assert.Equal(t, 1, w.effects("a"))
}

// An error that Postgres has not recorded is not recorded in Redis.
func TestThroughRecordsOnlyWhatPostgresRecorded(t *testing.T) {
	w := newWorld(t)
	front := w.inFront(redistest.Start(t).Addr())
	e := newExecutor[int](w, pg.Through(front), pg.WithShouldIgnoreError(idempotent.IsRetryable))
	c := newCharge("a")
	c.then = func(context.Context, pgx.Tx, int) (int, error) { return 0, idempotent.Retryable(errDeclined) }
	for range 2 {
		_, err := e.Run(t.Context(), "a", c.run)
		assert.ErrorIs(t, err, errDeclined)
	}
	assert.EqualValues(t, 2, c.calls.Load())
	_, err := front.Get(t.Context(), "a")
	assert.ErrorIs(t, err, idempotent.ErrNotFound)

	c.then = failing
	for range 3 {
		_, err := e.Run(t.Context(), "a", c.run)
		assert.EqualError(t, err, "declined")
	}
	assert.EqualValues(t, 3, c.calls.Load())
	require.NoError(t, e.Forget(t.Context(), "a"))
	_, err = front.Get(t.Context(), "a")
	assert.ErrorIs(t, err, idempotent.ErrNotFound)

	// A panic keeps its type: it is replayed from Postgres.
	p := newCharge("p")
	p.then = func(context.Context, pgx.Tx, int) (int, error) { panic("boom") }
	assert.Panics(t, func() { _, _ = e.Run(t.Context(), "p", p.run) })
	for range 2 {
		_, err = e.Run(t.Context(), "p", p.run)
		var panicked *idempotent.PanicError
		assert.ErrorAs(t, err, &panicked)
	}
	assert.EqualValues(t, 1, p.calls.Load())
}

// Callers in several processes, some with Redis in front and some without, run fn once.
func TestThroughAndNotThroughMix(t *testing.T) {
	w := newWorld(t)
	addr := redistest.Start(t).Addr()
	executors := []*pg.Executor[int]{newExecutor[int](w)}
	for range 2 {
		executors = append(executors, newExecutor[int](w, pg.Through(w.inFront(addr))))
	}
	var wg sync.WaitGroup
	for i := range 30 {
		c := newCharge(fmt.Sprint(i))
		for n := range 9 {
			wg.Go(func() {
				value, err := executors[n%3].Run(w.ctx, c.key, c.run)
				assert.NoError(t, err)
				assert.Equal(t, 1, value)
			})
		}
	}
	wg.Wait()
	for i := range 30 {
		assert.Equal(t, 1, w.effects(fmt.Sprint(i)))
	}
}

type observerFunc func(idempotent.Event)

func (f observerFunc) Observe(_ context.Context, event idempotent.Event) { f(event) }

package pg_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/pg"
)

func TestRunOnceAndReplay(t *testing.T) {
	w := newWorld(t)
	e := newExecutor[int](w)
	c := newCharge("a")
	for i := range 3 {
		var report idempotent.Report
		value, err := e.Run(t.Context(), "a", c.run, pg.WithReport(&report))
		require.NoError(t, err)
		assert.Equal(t, 1, value)
		want := idempotent.Replayed
		if i == 0 {
			want = idempotent.Executed
		}
		assert.Equal(t, want, report.Source)
		assert.Equal(t, 1, report.Attempt)
		assert.WithinDuration(t, time.Now(), report.RecordedAt, time.Minute)
	}
	assert.Equal(t, 1, w.effects("a"))
	value, err := e.Get(t.Context(), "a")
	require.NoError(t, err)
	assert.Equal(t, 1, value)
	_, err = e.Get(t.Context(), "b")
	assert.ErrorIs(t, err, idempotent.ErrNotFound)
}

func TestKeyAndNamespaceDoNotCollide(t *testing.T) {
	w := newWorld(t)
	a, err := pg.New[string](w.pool, "a")
	require.NoError(t, err)
	b, err := pg.New[string](w.pool, "a/b")
	require.NoError(t, err)
	for _, call := range []struct {
		e   *pg.Executor[string]
		key string
	}{{a, "b:c"}, {b, "c"}, {a, "\x00\xff"}, {b, ":c"}} {
		want := fmt.Sprintf("%p %q", call.e, call.key)
		for range 2 {
			got, err := call.e.Run(t.Context(), call.key, func(context.Context, pgx.Tx) (string, error) { return want, nil })
			require.NoError(t, err)
			assert.Equal(t, want, got)
		}
	}
}

func TestFiftyCallersInTwoProcessesRunOnce(t *testing.T) {
	w := newWorld(t)
	other := w.connect(w.pool.Config().ConnString())
	e := newExecutor[int](w)
	f, err := pg.New[int](other, "orders")
	require.NoError(t, err)
	c, g := newCharge("a"), newGate()
	c.then = g.then
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			x := e
			if i%2 == 1 {
				x = f
			}
			value, err := x.Run(w.ctx, "a", c.run)
			assert.NoError(t, err)
			assert.Equal(t, 1, value)
		})
	}
	await(w, g.started, "fn")
	w.waitingForLock(1) // one caller of the other process; the others wait in memory
	g.release <- nil
	wg.Wait()
	assert.Equal(t, 1, w.effects("a"))
}

func TestErrorIsRecordedAndItsWritesAreNot(t *testing.T) {
	w := newWorld(t)
	e := newExecutor[int](w, pg.WithErrors(idempotent.NewErrorRegistry(idempotent.Sentinel("declined", errDeclined))))
	c := newCharge("a")
	c.then = func(context.Context, pgx.Tx, int) (int, error) { return 7, fmt.Errorf("card: %w", errDeclined) }
	value, err := e.Run(t.Context(), "a", c.run)
	assert.Zero(t, value)
	assert.ErrorIs(t, err, errDeclined)
	assert.NotErrorIs(t, err, idempotent.ErrReplayed)
	for range 2 {
		_, err = e.Run(t.Context(), "a", c.run)
		assert.ErrorIs(t, err, errDeclined)
		assert.ErrorIs(t, err, idempotent.ErrReplayed)
		assert.EqualError(t, err, "card: declined")
	}
	assert.EqualValues(t, 1, c.calls.Load())
	assert.Equal(t, 0, w.effects("a"))
	assert.Equal(t, 1, w.records())
}

// An error of a statement aborts the transaction; the savepoint makes it usable for the record.
func TestErrorOfAStatementIsRecorded(t *testing.T) {
	w := newWorld(t)
	e := newExecutor[int](w)
	c := newCharge("a")
	c.then = func(ctx context.Context, tx pgx.Tx, _ int) (int, error) {
		_, err := tx.Exec(ctx, `SELECT 1/0`)
		return 0, err
	}
	_, err := e.Run(t.Context(), "a", c.run)
	assert.ErrorContains(t, err, "division by zero")
	_, err = e.Run(t.Context(), "a", c.run)
	assert.ErrorIs(t, err, idempotent.ErrReplayed)
	assert.EqualValues(t, 1, c.calls.Load())
}

func TestSwallowedErrorOfAStatementIsRolledBack(t *testing.T) {
	w := newWorld(t)
	e := newExecutor[int](w)
	c := newCharge("a")
	c.then = func(ctx context.Context, tx pgx.Tx, call int) (int, error) {
		if call == 1 {
			_, _ = tx.Exec(ctx, `SELECT 1/0`)
		}
		return call, nil
	}
	_, err := e.Run(t.Context(), "a", c.run)
	assert.ErrorIs(t, err, pg.ErrRolledBack)
	assert.Equal(t, 0, w.effects("a"))
	value, err := e.Run(t.Context(), "a", c.run)
	assert.NoError(t, err)
	assert.Equal(t, 2, value)
}

func TestIgnoredAndUnknownErrorsRollEverythingBack(t *testing.T) {
	for name, failure := range map[string]error{
		"ignored": idempotent.Retryable(errDeclined),
		"unknown": idempotent.OutcomeUnknown(errDeclined),
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			e := newExecutor[int](w, pg.WithShouldIgnoreError(idempotent.IsRetryable))
			c := newCharge("a")
			c.then = func(_ context.Context, _ pgx.Tx, call int) (int, error) {
				if call == 1 {
					return 0, failure
				}
				return call, nil
			}
			_, err := e.Run(t.Context(), "a", c.run)
			assert.Equal(t, failure, err)
			assert.Equal(t, 0, w.effects("a")+w.records())
			value, err := e.Run(t.Context(), "a", c.run)
			assert.NoError(t, err)
			assert.Equal(t, 2, value)
			assert.Equal(t, 1, w.effects("a"))
		})
	}
}

func TestPanicIsRecordedAndGoesOn(t *testing.T) {
	w := newWorld(t)
	e := newExecutor[int](w)
	c := newCharge("a")
	c.then = func(context.Context, pgx.Tx, int) (int, error) { panic(errDeclined) }
	assert.PanicsWithValue(t, errDeclined, func() { _, _ = e.Run(t.Context(), "a", c.run) })
	_, err := e.Run(t.Context(), "a", c.run)
	panicked, ok := errors.AsType[*idempotent.PanicError](err)
	require.True(t, ok)
	assert.Contains(t, string(panicked.Stack), "TestPanicIsRecordedAndGoesOn")
	assert.EqualValues(t, 1, c.calls.Load())
	assert.Equal(t, 0, w.effects("a"))
}

func TestGoexitFreesTheKey(t *testing.T) {
	w := newWorld(t)
	e := newExecutor[int](w)
	c := newCharge("a")
	c.then = func(_ context.Context, _ pgx.Tx, call int) (int, error) {
		if call == 1 {
			runtime.Goexit()
		}
		return call, nil
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = e.Run(w.ctx, "a", c.run)
	}()
	await(w, done, "the goroutine that exits")
	value, err := e.Run(t.Context(), "a", c.run)
	assert.NoError(t, err)
	assert.Equal(t, 2, value)
	assert.Equal(t, 1, w.effects("a"))
	assert.Zero(t, w.pool.Stat().AcquiredConns())
}

func TestEndedContextRollsBack(t *testing.T) {
	w := newWorld(t)
	e := newExecutor[int](w)
	c, g := newCharge("a"), newGate()
	c.then = g.then
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-g.started
		cancel()
	}()
	_, err := e.Run(ctx, "a", c.run)
	assert.ErrorIs(t, err, context.Canceled)
	assert.Equal(t, 0, w.effects("a")+w.records())
}

// What fn did is committed, also for a caller that has left.
func TestValueAfterTheContextEndedIsCommitted(t *testing.T) {
	w := newWorld(t)
	e := newExecutor[int](w)
	c := newCharge("a")
	ctx, cancel := context.WithCancel(t.Context())
	c.then = func(context.Context, pgx.Tx, int) (int, error) {
		cancel()
		return 5, nil
	}
	value, err := e.Run(ctx, "a", c.run)
	assert.NoError(t, err)
	assert.Equal(t, 5, value)
	assert.Equal(t, 1, w.effects("a"))
}

func TestFnMustNotEndTheTransaction(t *testing.T) {
	for name, end := range map[string]func(context.Context, pgx.Tx) error{
		"Commit":   func(ctx context.Context, tx pgx.Tx) error { return tx.Commit(ctx) },
		"Rollback": func(ctx context.Context, tx pgx.Tx) error { return tx.Rollback(ctx) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			c := newCharge("a")
			c.then = func(ctx context.Context, tx pgx.Tx, _ int) (int, error) {
				assert.Error(t, end(ctx, tx))
				return 1, nil
			}
			_, err := newExecutor[int](w).Run(t.Context(), "a", c.run)
			assert.ErrorIs(t, err, pg.ErrRolledBack)
			assert.Equal(t, 0, w.effects("a")+w.records())
		})
	}
}

func TestFingerprint(t *testing.T) {
	w := newWorld(t)
	e := newExecutor[int](w)
	c := newCharge("a")
	for _, call := range []struct {
		fingerprint string
		want        error
	}{{"one", nil}, {"one", nil}, {"two", idempotent.ErrKeyReused}, {"", nil}} {
		_, err := e.Run(t.Context(), "a", c.run, pg.WithFingerprint([]byte(call.fingerprint)))
		assert.ErrorIs(t, err, call.want, call.fingerprint)
	}
	assert.EqualValues(t, 1, c.calls.Load())
}

func TestTTL(t *testing.T) {
	w := newWorld(t)
	e := newExecutor[int](w)
	c := newCharge("a")
	_, err := e.Run(t.Context(), "a", c.run, pg.WithTTL(time.Millisecond))
	require.NoError(t, err)
	w.eventually("the end of the TTL", func() bool {
		_, err := e.Get(t.Context(), "a")
		return errors.Is(err, idempotent.ErrNotFound)
	})
	value, err := e.Run(t.Context(), "a", c.run, pg.WithTTL(pg.Forever))
	require.NoError(t, err)
	assert.Equal(t, 2, value)
	var forever bool
	require.NoError(t, w.pool.QueryRow(t.Context(), `SELECT expires_at = 'infinity' FROM idempotent_records`).Scan(&forever))
	assert.True(t, forever)

	fails := newCharge("b")
	fails.then = func(context.Context, pgx.Tx, int) (int, error) { return 0, errDeclined }
	_, err = e.Run(t.Context(), "b", fails.run, pg.WithErrorTTL(time.Hour), pg.WithTTL(pg.Forever))
	assert.ErrorIs(t, err, errDeclined)
	var left time.Duration
	require.NoError(t, w.pool.QueryRow(t.Context(), `SELECT expires_at - now() FROM idempotent_records WHERE kind = 'error'`).Scan(&left))
	assert.InDelta(t, time.Hour, left, float64(time.Minute))
}

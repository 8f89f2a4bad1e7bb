package pg_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/pg"
)

func TestRunTxBelongsToTheCallersTransaction(t *testing.T) {
	w := newWorld(t)
	e := newExecutor[int](w)
	c := newCharge("a")
	for _, commit := range []bool{false, true, true} {
		tx := w.begin(pgx.TxOptions{})
		value, err := e.RunTx(t.Context(), tx, "a", c.run)
		require.NoError(t, err)
		if commit {
			require.NoError(t, tx.Commit(t.Context()))
			assert.Equal(t, 2, value)
			assert.Equal(t, 1, w.effects("a"))
		} else {
			require.NoError(t, tx.Rollback(t.Context()))
			assert.Equal(t, 1, value)
			assert.Equal(t, 0, w.effects("a")+w.records())
		}
	}
	assert.EqualValues(t, 2, c.calls.Load())
}

func TestRunTxLeavesTheCallersWritesAlone(t *testing.T) {
	for name, test := range map[string]struct {
		err     error
		records int
	}{
		"recorded error": {errDeclined, 1},
		"ignored error":  {idempotent.Retryable(errDeclined), 0},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			e := newExecutor[int](w, pg.WithShouldIgnoreError(idempotent.IsRetryable))
			c := newCharge("a")
			c.then = func(ctx context.Context, tx pgx.Tx, _ int) (int, error) {
				_, err := tx.Exec(ctx, `SELECT 1/0`) // aborts the transaction up to the savepoint
				assert.Error(t, err)
				return 0, test.err
			}
			require.NoError(t, pgx.BeginFunc(t.Context(), w.pool, func(tx pgx.Tx) error {
				_, err := tx.Exec(t.Context(), `INSERT INTO ledger VALUES ('mine', 1)`)
				require.NoError(t, err)
				_, err = e.RunTx(t.Context(), tx, "a", c.run)
				assert.ErrorIs(t, err, errDeclined)
				return nil
			}))
			assert.Equal(t, 1, w.effects("mine"))
			assert.Equal(t, 0, w.effects("a"))
			assert.Equal(t, test.records, w.records())
		})
	}
}

func TestRunTxWaitsWithinItsTimeout(t *testing.T) {
	w := newWorld(t)
	e := newExecutor[int](w)
	first := w.begin(pgx.TxOptions{})
	_, err := e.RunTx(t.Context(), first, "a", newCharge("a").run)
	require.NoError(t, err)

	second := w.begin(pgx.TxOptions{})
	_, err = second.Exec(t.Context(), `SET LOCAL lock_timeout = '1234ms'`)
	require.NoError(t, err)
	for _, opt := range []pg.RunOption{pg.WithNoWait(), pg.WithWaitTimeout(20 * time.Millisecond)} {
		_, err = e.RunTx(t.Context(), second, "a", newCharge("a").run, opt)
		assert.ErrorIs(t, err, idempotent.ErrInProgress)
	}
	_, err = e.Run(t.Context(), "a", newCharge("a").run, pg.WithWaitTimeout(20*time.Millisecond))
	assert.ErrorIs(t, err, idempotent.ErrInProgress)
	assert.ErrorIs(t, e.Forget(t.Context(), "a"), idempotent.ErrInProgress)

	done := make(chan struct{})
	go func() {
		defer close(done)
		value, err := e.RunTx(w.ctx, second, "a", newCharge("a").run)
		assert.NoError(t, err)
		assert.Equal(t, 1, value)
	}()
	w.waitingForLock(1)
	require.NoError(t, first.Commit(t.Context()))
	await(w, done, "the call that waits")
	var timeout string
	require.NoError(t, second.QueryRow(t.Context(), `SHOW lock_timeout`).Scan(&timeout))
	assert.Equal(t, "1234ms", timeout)
	require.NoError(t, second.Commit(t.Context()))
	assert.Equal(t, 1, w.effects("a"))
}

func TestNestedRunOfTheSameKeyIsRefused(t *testing.T) {
	w := newWorld(t)
	e := newExecutor[int](w)
	c := newCharge("a")
	c.then = func(ctx context.Context, tx pgx.Tx, _ int) (int, error) {
		_, err := e.Run(ctx, "a", newCharge("a").run)
		assert.ErrorIs(t, err, idempotent.ErrInProgress)
		_, err = e.RunTx(ctx, tx, "a", newCharge("a").run)
		assert.ErrorIs(t, err, idempotent.ErrInProgress)
		info, ok := idempotent.RunInfoFromContext(ctx)
		assert.True(t, ok)
		assert.Equal(t, idempotent.RunInfo{Namespace: "orders", Key: "a", Attempt: 1}, info)
		return e.RunTx(ctx, tx, "b", newCharge("b").run)
	}
	value, err := e.Run(t.Context(), "a", c.run)
	require.NoError(t, err)
	assert.Equal(t, 1, value)
	assert.Equal(t, 1, w.effects("a"))
	assert.Equal(t, 1, w.effects("b"))
	assert.Equal(t, 2, w.records())
}

// Two transactions that each lock what the other one wants: Postgres ends one, which is run again.
func TestDeadlockRunsAgain(t *testing.T) {
	w := newWorld(t)
	_, err := w.pool.Exec(t.Context(), `INSERT INTO ledger VALUES ('x', 0), ('y', 0)`)
	require.NoError(t, err)
	e := newExecutor[int](w)
	both := make(chan struct{}, 2)
	go1 := make(chan struct{})
	update := func(first, second string) func(context.Context, pgx.Tx, int) (int, error) {
		return func(ctx context.Context, tx pgx.Tx, call int) (int, error) {
			if _, err := tx.Exec(ctx, `UPDATE ledger SET cents = cents + 1 WHERE key = $1`, first); err != nil {
				return 0, err
			}
			if call == 1 {
				both <- struct{}{}
				select {
				case <-go1:
				case <-ctx.Done():
				}
			}
			_, err := tx.Exec(ctx, `UPDATE ledger SET cents = cents + 1 WHERE key = $1`, second)
			return call, err
		}
	}
	a, b := newCharge("a"), newCharge("b")
	a.then, b.then = update("x", "y"), update("y", "x")
	done := make(chan error, 2)
	for _, c := range []*charge{a, b} {
		go func() {
			_, err := e.Run(w.ctx, c.key, c.run)
			done <- err
		}()
	}
	for range 2 {
		await(w, both, "both first updates")
	}
	close(go1)
	for range 2 {
		assert.NoError(t, await(w, done, "the end of the deadlock"))
	}
	// The one that is run again may update its first row before the other one wakes up, which is the next deadlock.
	assert.Greater(t, a.calls.Load()+b.calls.Load(), int64(2))
	var cents int
	require.NoError(t, w.pool.QueryRow(t.Context(), `SELECT sum(cents) FROM ledger WHERE key IN ('x', 'y')`).Scan(&cents))
	assert.Equal(t, 4, cents)
	assert.Equal(t, 1, w.effects("a"))
	assert.Equal(t, 1, w.effects("b"))
}

func TestSerializationFailureRunsAgainUpToTheLimit(t *testing.T) {
	w := newWorld(t)
	e := newExecutor[int](w, pg.WithIsolation(pgx.Serializable), pg.WithMaxExecutions(3))
	failure := &pgconn.PgError{Code: "40001", Severity: "ERROR", Message: "could not serialize access"}
	c := newCharge("a")
	c.then = func(_ context.Context, _ pgx.Tx, call int) (int, error) {
		if call < 3 {
			return 0, failure
		}
		return call, nil
	}
	value, err := e.Run(t.Context(), "a", c.run)
	require.NoError(t, err)
	assert.Equal(t, 3, value)
	assert.Equal(t, 1, w.effects("a"))

	always := newCharge("b")
	always.then = func(context.Context, pgx.Tx, int) (int, error) { return 0, failure }
	_, err = e.Run(t.Context(), "b", always.run)
	assert.ErrorIs(t, err, pg.ErrRolledBack)
	assert.ErrorIs(t, err, failure)
	assert.EqualValues(t, 3, always.calls.Load())
	assert.Equal(t, 0, w.effects("b"))
}

// A snapshot that is older than the record does not show it: the insert fails, and the next execution replays.
func TestOldSnapshotDoesNotRunTwice(t *testing.T) {
	w := newWorld(t)
	old := w.begin(pgx.TxOptions{IsoLevel: pgx.RepeatableRead})
	_, err := old.Exec(t.Context(), `SELECT count(*) FROM ledger`)
	require.NoError(t, err)
	e := newExecutor[int](w)
	_, err = e.Run(t.Context(), "a", newCharge("a").run)
	require.NoError(t, err)
	_, err = e.RunTx(t.Context(), old, "a", newCharge("a").run)
	assert.ErrorIs(t, err, pg.ErrRolledBack)
	_ = old.Commit(t.Context())
	assert.Equal(t, 1, w.effects("a"))
}

// A deferred constraint is checked by COMMIT.
func TestRefusedCommitIsRolledBack(t *testing.T) {
	w := newWorld(t)
	_, err := w.pool.Exec(t.Context(), `CREATE TABLE once (n int UNIQUE DEFERRABLE INITIALLY DEFERRED); INSERT INTO once VALUES (1)`)
	require.NoError(t, err)
	e := newExecutor[int](w)
	c := newCharge("a")
	c.then = func(ctx context.Context, tx pgx.Tx, _ int) (int, error) {
		_, err := tx.Exec(ctx, `INSERT INTO once VALUES (1)`)
		return 1, err
	}
	_, err = e.Run(t.Context(), "a", c.run)
	assert.ErrorIs(t, err, pg.ErrRolledBack)
	assert.EqualValues(t, 1, c.calls.Load())
	assert.Equal(t, 0, w.effects("a")+w.records())
}

// Postgres ends the session of an owner that is paused between two statements, and frees the key.
func TestPausedOwnerIsEnded(t *testing.T) {
	w := newWorld(t)
	e := newExecutor[int](w, pg.WithIdleTimeout(50*time.Millisecond))
	other, err := pg.New[int](w.connect(w.pool.Config().ConnString()), "orders")
	require.NoError(t, err)
	c := newCharge("a")
	second := newCharge("a")
	c.then = func(context.Context, pgx.Tx, int) (int, error) {
		value, err := other.Run(w.ctx, "a", second.run) // waits until the session of this fn has ended
		assert.NoError(t, err)
		assert.Equal(t, 1, value)
		return 99, nil
	}
	value, err := e.Run(t.Context(), "a", c.run)
	require.NoError(t, err)
	assert.Equal(t, 1, value, "the outcome of the call that took over")
	assert.Equal(t, 1, w.effects("a"))
	assert.EqualValues(t, 1, c.calls.Load())
}

func TestForgetAndPrune(t *testing.T) {
	w := newWorld(t)
	e := newExecutor[int](w)
	c := newCharge("a")
	_, err := e.Run(t.Context(), "a", c.run)
	require.NoError(t, err)
	for range 2 {
		require.NoError(t, e.Forget(t.Context(), "a"))
	}
	value, err := e.Run(t.Context(), "a", c.run)
	require.NoError(t, err)
	assert.Equal(t, 2, value)

	_, err = w.pool.Exec(t.Context(), `INSERT INTO idempotent_records (namespace, key_hash, kind, outcome, expires_at)
		SELECT ns, int4send(n), 'value', '', now() - interval '1s' FROM generate_series(1, 1200) n, (VALUES ('orders'), ('others')) v(ns)`)
	require.NoError(t, err)
	deleted, err := e.Prune(t.Context(), 700)
	require.NoError(t, err)
	assert.Equal(t, 700, deleted)
	deleted, err = e.Prune(t.Context(), 10_000)
	require.NoError(t, err)
	assert.Equal(t, 500, deleted)
	assert.Equal(t, 1+1200, w.records())
}

func TestCorruptRecordIsAnErrorUntilForget(t *testing.T) {
	w := newWorld(t)
	e := newExecutor[int](w)
	c := newCharge("a")
	_, err := e.Run(t.Context(), "a", c.run)
	require.NoError(t, err)
	text, err := pg.New[int](w.pool, "orders", pg.WithCodec(idempotent.JSON[int]()))
	require.NoError(t, err)
	_, err = text.Run(t.Context(), "a", c.run)
	assert.ErrorIs(t, err, idempotent.ErrCorruptRecord)
	_, err = w.pool.Exec(t.Context(), `UPDATE idempotent_records SET outcome = set_byte(outcome, 20, 77)`)
	require.NoError(t, err)
	_, err = e.Run(t.Context(), "a", c.run)
	assert.ErrorIs(t, err, idempotent.ErrCorruptRecord)
	assert.EqualValues(t, 1, c.calls.Load())
	require.NoError(t, e.Forget(t.Context(), "a"))
	value, err := e.Run(t.Context(), "a", c.run)
	require.NoError(t, err)
	assert.Equal(t, 2, value)
}

func TestUnencodableValueIsRolledBack(t *testing.T) {
	w := newWorld(t)
	e := newExecutor[any](w, pg.WithCodec[any](failingCodec{}))
	_, err := e.Run(t.Context(), "a", func(ctx context.Context, tx pgx.Tx) (any, error) {
		_, err := newCharge("a").run(ctx, tx)
		return 1, err
	})
	assert.ErrorIs(t, err, pg.ErrRolledBack)
	assert.ErrorIs(t, err, errDeclined)
	assert.Equal(t, 0, w.effects("a")+w.records())
}

type failingCodec struct{}

func (failingCodec) Encode(any) ([]byte, error) { return nil, errDeclined }
func (failingCodec) Decode([]byte) (any, error) { return nil, errors.New("not called") }

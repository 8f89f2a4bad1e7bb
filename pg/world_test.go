package pg_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent/internal/pgtest"
	"github.com/idempotent-go/idempotent/internal/redistest"
	"github.com/idempotent-go/idempotent/pg"
)

func TestMain(m *testing.M) {
	code := m.Run()
	pgtest.Cleanup()
	redistest.Cleanup()
	os.Exit(code)
}

// patience limits what a test waits for, so that it fails and says what did not happen.
const patience = 30 * time.Second

// A world is an empty database with the tables of this package and a ledger, whose rows are the effects of fn.
type world struct {
	*testing.T
	ctx  context.Context // ends after a minute, and before the cleanup: for calls in goroutines
	pool *pgxpool.Pool
}

func newWorld(t *testing.T) *world {
	t.Helper()
	return newWorldOn(t, pgtest.Database(t))
}

func newWorldOn(t *testing.T, url string) *world {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), 2*patience, errors.New("the test takes too long"))
	t.Cleanup(cancel)
	w := &world{T: t, ctx: ctx}
	w.pool = w.connect(url)
	require.NoError(t, pg.Migrate(t.Context(), w.pool))
	_, err := w.pool.Exec(t.Context(), `CREATE TABLE ledger (key text NOT NULL, cents int NOT NULL)`)
	require.NoError(t, err)
	return w
}

// connect returns a pool that is closed when the test ends.
func (w *world) connect(url string) *pgxpool.Pool {
	w.Helper()
	pool, err := pgxpool.New(context.Background(), url)
	require.NoError(w, err)
	w.Cleanup(func() { w.closePool(pool) })
	return pool
}

// closePool waits for the pool's connections, which pgxpool would do for ever.
func (w *world) closePool(pool *pgxpool.Pool) {
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		pool.Close()
	}()
	select {
	case <-closed:
	case <-time.After(patience):
		w.Errorf("%d connections of a pool are still in use %v after the test", pool.Stat().AcquiredConns(), patience)
	}
}

// begin returns a transaction that is rolled back when the test ends, if it has not ended by then.
func (w *world) begin(options pgx.TxOptions) pgx.Tx {
	w.Helper()
	tx, err := w.pool.BeginTx(w.ctx, options)
	require.NoError(w, err)
	w.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		_ = tx.Rollback(ctx)
	})
	return tx
}

// await returns what ch delivers, or fails the test.
func await[V any](w *world, ch <-chan V, what string) (v V) {
	w.Helper()
	select {
	case v = <-ch:
	case <-time.After(patience):
		w.Fatalf("waited %v for %s", patience, what)
	}
	return v
}

func newExecutor[T any](w *world, opts ...pg.Option) *pg.Executor[T] {
	w.Helper()
	e, err := pg.New[T](w.pool, "orders", opts...)
	require.NoError(w, err)
	return e
}

// effects counts the rows that fn wrote for key.
func (w *world) effects(key string) (n int) {
	w.Helper()
	require.NoError(w, w.pool.QueryRow(w.ctx, `SELECT count(*) FROM ledger WHERE key = $1`, key).Scan(&n))
	return n
}

func (w *world) records() (n int) {
	w.Helper()
	require.NoError(w, w.pool.QueryRow(w.ctx, `SELECT count(*) FROM idempotent_records`).Scan(&n))
	return n
}

// A charge is an fn that writes a row, counts its calls, and then does what the test says.
type charge struct {
	key   string
	calls atomic.Int64
	then  func(ctx context.Context, tx pgx.Tx, call int) (int, error)
}

func newCharge(key string) *charge { return &charge{key: key} }

func (c *charge) run(ctx context.Context, tx pgx.Tx) (int, error) {
	n := int(c.calls.Add(1))
	if _, err := tx.Exec(ctx, `INSERT INTO ledger VALUES ($1, $2)`, c.key, n); err != nil {
		return 0, err
	}
	if c.then != nil {
		return c.then(ctx, tx, n)
	}
	return n, nil
}

// A gate is an fn that says when it runs and ends when it is told.
type gate struct {
	started chan struct{}
	release chan error
}

func newGate() *gate { return &gate{make(chan struct{}, 100), make(chan error, 100)} }

func (g *gate) then(ctx context.Context, _ pgx.Tx, call int) (int, error) {
	g.started <- struct{}{}
	select {
	case err := <-g.release:
		return call, err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// waitingForLock waits until n sessions wait for an advisory lock.
func (w *world) waitingForLock(n int) {
	w.Helper()
	w.eventually(fmt.Sprintf("%d sessions that wait for an advisory lock", n), func() bool {
		var waiting int
		require.NoError(w, w.pool.QueryRow(w.ctx,
			`SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database AND d.datname = current_database()
			 WHERE l.locktype = 'advisory' AND NOT l.granted`).Scan(&waiting))
		return waiting == n
	})
}

// eventually polls what has no signal.
func (w *world) eventually(what string, cond func() bool) {
	w.Helper()
	for deadline := time.Now().Add(patience); !cond(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.Fatalf("waited %v for %s", patience, what)
		}
	}
}

var errDeclined = errors.New("declined")

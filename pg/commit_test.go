package pg_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/internal/pgtest"
	"github.com/idempotent-go/idempotent/pg"
)

// throughProxy returns a proxy of the world's server and a pool that uses it. The pool sends the text of each statement, in
// which the proxy finds COMMIT.
func (w *world) throughProxy() (*pgtest.Proxy, *pgxpool.Pool) {
	w.Helper()
	c := w.pool.Config().ConnConfig
	proxy, err := pgtest.StartProxy(w.pool.Config().ConnConfig.Host + ":" + itoa(c.Port))
	require.NoError(w, err)
	w.Cleanup(proxy.Close)
	pool := w.connect(pgtest.URL(proxy.Addr(), c.Database) + "&default_query_exec_mode=exec")
	return proxy, pool
}

func TestLostAnswerToCommit(t *testing.T) {
	for name, test := range map[string]struct {
		cut   pgtest.Cut
		calls int64
	}{
		"committed":     {pgtest.CutAnswer, 1},
		"not committed": {pgtest.CutRequest, 2},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			proxy, pool := w.throughProxy()
			e, err := pg.New[int](pool, "orders")
			require.NoError(t, err)
			once := true
			proxy.SetCut(func() pgtest.Cut {
				if once {
					once = false
					return test.cut
				}
				return pgtest.CutNothing
			})
			c := newCharge("a")
			var report idempotent.Report
			value, err := e.Run(t.Context(), "a", c.run, pg.WithReport(&report))
			require.NoError(t, err)
			assert.EqualValues(t, test.calls, value)
			assert.Equal(t, test.calls, c.calls.Load())
			assert.Equal(t, idempotent.Executed, report.Source)
			assert.Equal(t, 1, w.effects("a"))
			assert.Equal(t, 1, w.records())
		})
	}
}

// While the old session holds the lock, its commit may still take place.
func TestLostCommitWaitsForItsSession(t *testing.T) {
	w := newWorld(t)
	proxy, pool := w.throughProxy()
	proxy.DropCancelRequests() // pgx sends one for a connection that it gives up: it would end the wait of the COMMIT
	e, err := pg.New[int](pool, "orders", pg.WithCommitTimeout(500*time.Millisecond))
	require.NoError(t, err)
	// The commit waits for a row of another transaction, so its session goes on after the answer was cut.
	_, err = w.pool.Exec(t.Context(), `CREATE TABLE block (n int PRIMARY KEY); INSERT INTO block VALUES (1);
		CREATE FUNCTION blocked() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM n FROM block FOR UPDATE; RETURN NULL; END';
		CREATE CONSTRAINT TRIGGER blocked AFTER INSERT ON ledger DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION blocked()`)
	require.NoError(t, err)
	holder := w.begin(pgx.TxOptions{})
	_, err = holder.Exec(t.Context(), `SELECT n FROM block FOR UPDATE`)
	require.NoError(t, err)
	proxy.SetCut(func() pgtest.Cut { return pgtest.CutBoth })
	c := newCharge("a")
	_, err = e.Run(t.Context(), "a", c.run)
	require.ErrorIs(t, err, pg.ErrCommitUnknown)
	assert.ErrorIs(t, err, idempotent.ErrNotRecorded)
	assert.EqualValues(t, 1, c.calls.Load())

	proxy.SetCut(nil)
	done := make(chan struct{})
	go func() {
		defer close(done)
		value, err := e.Run(w.ctx, "a", c.run)
		assert.NoError(t, err)
		assert.Equal(t, 1, value, "the value whose commit was lost")
	}()
	w.waitingForLock(1)
	require.NoError(t, holder.Rollback(t.Context()))
	await(w, done, "the second call")
	assert.Equal(t, 1, w.effects("a"))
}

// A COMMIT that waits for its synchronous standby, and is canceled, has taken place on the primary alone: a failover would
// lose it, so it is no answer yet.
func TestCommitThatIsNotReplicatedIsUnknown(t *testing.T) {
	server := pgtest.Start(t, "-c", "synchronous_standby_names=none_there")
	w := newWorldOn(t, server.URL()+"&synchronous_commit=local")
	e, err := pg.New[int](w.connect(server.URL()), "orders", pg.WithCommitTimeout(300*time.Millisecond))
	require.NoError(t, err)
	c := newCharge("a")
	_, err = e.Run(t.Context(), "a", c.run)
	require.ErrorIs(t, err, pg.ErrCommitUnknown)

	// Without a standby to wait for, it is one.
	value, err := newExecutor[int](w).Run(t.Context(), "a", c.run)
	require.NoError(t, err)
	assert.Equal(t, 1, value)
	assert.EqualValues(t, 1, c.calls.Load())
	assert.Equal(t, 1, w.effects("a"))
}

func TestPostgresAwayIsUnavailable(t *testing.T) {
	w := newWorld(t)
	proxy, pool := w.throughProxy()
	e, err := pg.New[int](pool, "orders")
	require.NoError(t, err)
	proxy.SetTarget("127.0.0.1:1")
	c := newCharge("a")
	_, err = e.Run(t.Context(), "a", c.run)
	assert.ErrorIs(t, err, pg.ErrUnavailable)
	assert.ErrorIs(t, err, idempotent.ErrUnavailable)
	_, err = e.Get(t.Context(), "a")
	assert.ErrorIs(t, err, pg.ErrUnavailable)
	_, err = e.Prune(t.Context(), 1)
	assert.ErrorIs(t, err, pg.ErrUnavailable)
	assert.Zero(t, c.calls.Load())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = e.Run(ctx, "a", c.run)
	assert.ErrorIs(t, err, context.Canceled)
	assert.NotErrorIs(t, err, pg.ErrUnavailable)
}

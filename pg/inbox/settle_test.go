package inbox_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/internal/pgtest"
	"github.com/idempotent-go/idempotent/pg/inbox"
	"github.com/idempotent-go/idempotent/webhook"
)

// A shop has a store with events whose handler writes a row of a ledger.
type shop struct {
	*testing.T
	pool     *pgxpool.Pool // without a proxy
	store    *inbox.Store
	executor webhook.Executor
	proxy    *pgtest.Proxy
}

func newShop(t *testing.T, opts ...inbox.Option) *shop {
	t.Helper()
	s := &shop{T: t, pool: newPool(t, "")}
	_, err := s.pool.Exec(t.Context(), `CREATE TABLE ledger (key text NOT NULL, UNIQUE (key) DEFERRABLE INITIALLY DEFERRED)`)
	require.NoError(t, err)
	c := s.pool.Config().ConnConfig
	s.proxy, err = pgtest.StartProxy(fmt.Sprintf("%s:%d", c.Host, c.Port))
	require.NoError(t, err)
	t.Cleanup(s.proxy.Close)
	s.store = newStore(t, connect(t, pgtest.URL(s.proxy.Addr(), c.Database)+"&default_query_exec_mode=exec"), opts...)
	s.executor, err = s.store.Executor(webhook.ExecutorConfig{TTL: time.Hour, Lease: time.Minute, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, s.executor.Close()) })
	return s
}

var retention = webhook.Retention{Events: 24 * time.Hour, Bodies: time.Hour, Positions: time.Hour}

func arrival(key string) webhook.Arrival {
	return webhook.Arrival{
		Key: key, Source: "shop", Event: webhook.Event{ID: key, Type: "order.paid"}, Receipt: webhook.Receipt{At: time.Now()},
		Payload: webhook.Payload{Header: http.Header{"X": {"y"}}, Body: []byte("body of " + key)}, Retention: retention,
		Step: webhook.Step{At: time.Now(), State: webhook.Queued},
	}
}

// take accepts an event, unless it is there, and takes it.
func (s *shop) take(key string, lease time.Duration) webhook.Taken {
	s.Helper()
	_, err := s.store.Accept(s.Context(), arrival(key))
	require.NoError(s, err)
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		taken, err := s.store.Take(s.Context(), 1, lease, webhook.Step{At: time.Now(), State: webhook.Running})
		require.NoError(s, err)
		if len(taken) == 1 {
			require.Equal(s, key, taken[0].Key)
			return taken[0]
		}
		if time.Now().After(deadline) {
			s.Fatalf("event %s was not due within %v", key, patience)
		}
	}
}

// execute runs a handler that writes a row and then calls then, and returns the attempt.
func (s *shop) execute(t webhook.Taken, then func(context.Context) error) (attempt int, err error) {
	s.Helper()
	_, attempt, err = s.executor.Execute(s.Context(), webhook.Execution{Key: t.Key, Ticket: t.Ticket, Run: func(ctx context.Context, _ int) (webhook.Outcome, error) {
		if _, err := inbox.Tx(ctx).Exec(ctx, `INSERT INTO ledger VALUES ($1)`, t.Key); err != nil {
			return webhook.Outcome{}, err
		}
		return webhook.Outcome{}, then(ctx)
	}})
	return attempt, err
}

func succeed(context.Context) error { return nil }

func done() webhook.Settlement {
	return webhook.Settlement{State: webhook.Done, Attempts: 1, Retention: retention, Step: webhook.Step{At: time.Now(), State: webhook.Done}}
}

func (s *shop) effects(key string) (n int) {
	s.Helper()
	require.NoError(s, s.pool.QueryRow(s.Context(), `SELECT count(*) FROM ledger WHERE key = $1`, key).Scan(&n))
	return n
}

func (s *shop) state(key string) webhook.State {
	s.Helper()
	r, err := s.store.Get(s.Context(), webhook.Lookup{Key: key})
	require.NoError(s, err)
	return r.State
}

// The handler's writes are visible when the event is done, and not before.
func TestWritesAndStateAreOneTransaction(t *testing.T) {
	s := newShop(t)
	taken := s.take("a", time.Minute)
	attempt, err := s.execute(taken, succeed)
	require.NoError(t, err)
	assert.Equal(t, 1, attempt)
	assert.Equal(t, 0, s.effects("a"))
	assert.Equal(t, webhook.Running, s.state("a"))
	require.NoError(t, s.store.Settle(t.Context(), taken.Ticket, done()))
	assert.Equal(t, 1, s.effects("a"))
	assert.Equal(t, webhook.Done, s.state("a"))
	assert.ErrorIs(t, s.store.Settle(t.Context(), taken.Ticket, done()), webhook.ErrTicketLost)

	// Its outcome is recorded: the run is not executed again.
	out, attempt, err := s.executor.Execute(t.Context(), webhook.Execution{Key: "a", Run: nil})
	require.NoError(t, err)
	assert.Equal(t, 1, attempt)
	assert.Equal(t, webhook.Outcome{}, out)
}

func TestFailedHandlersAreRolledBackAndCounted(t *testing.T) {
	for name, test := range map[string]struct {
		err  error
		next int // attempt; 0 if the error is recorded
	}{
		"retryable": {idempotent.Retryable(errors.New("locked")), 1},
		"unknown":   {idempotent.OutcomeUnknown(errors.New("timeout")), 2},
		"recorded":  {errors.New("permanent: no such order"), 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newShop(t)
			taken := s.take("a", time.Minute)
			_, err := s.execute(taken, func(context.Context) error { return test.err })
			require.ErrorIs(t, err, test.err)
			retry := done()
			retry.State = webhook.Retrying
			require.NoError(t, s.store.Settle(t.Context(), taken.Ticket, retry))
			assert.Equal(t, 0, s.effects("a"))
			again := s.take("a", time.Minute)
			attempt, err := s.execute(again, succeed)
			if test.next == 0 {
				assert.ErrorIs(t, err, idempotent.ErrReplayed)
				assert.EqualError(t, err, test.err.Error())
				return
			}
			require.NoError(t, err)
			assert.Equal(t, test.next, attempt)
			require.NoError(t, s.store.Settle(t.Context(), again.Ticket, done()))
			assert.Equal(t, 1, s.effects("a"))
		})
	}
}

// A handler that cannot be committed is not done, whatever it returned.
func TestHandlerThatCannotBeCommittedIsRetried(t *testing.T) {
	for name, then := range map[string]func(context.Context) error{
		"a statement failed": func(ctx context.Context) error {
			_, _ = inbox.Tx(ctx).Exec(ctx, `SELECT 1/0`)
			return nil
		},
		"the handler committed": func(ctx context.Context) error {
			_ = inbox.Tx(ctx).Commit(ctx)
			return nil
		},
		"COMMIT is refused": func(ctx context.Context) error {
			_, err := inbox.Tx(ctx).Exec(ctx, `INSERT INTO ledger VALUES ('a')`)
			return err
		},
		"the session is ended": func(ctx context.Context) error {
			_, _ = inbox.Tx(ctx).Exec(ctx, `SELECT pg_terminate_backend(pg_backend_pid())`)
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newShop(t)
			taken := s.take("a", time.Minute)
			_, err := s.execute(taken, then)
			require.NoError(t, err)
			assert.ErrorIs(t, s.store.Settle(t.Context(), taken.Ticket, done()), webhook.ErrTicketLost)
			assert.Equal(t, 0, s.effects("a"))
			r, err := s.store.Get(t.Context(), webhook.Lookup{Key: "a"})
			require.NoError(t, err)
			assert.Equal(t, webhook.Retrying, r.State)
			assert.Contains(t, r.Reason, "rolled back")
			again := s.take("a", time.Minute)
			attempt, err := s.execute(again, succeed)
			require.NoError(t, err)
			assert.Equal(t, 2, attempt)
			require.NoError(t, s.store.Settle(t.Context(), again.Ticket, done()))
			assert.Equal(t, 1, s.effects("a"))
		})
	}
}

func TestLostAnswerToTheCommitOfSettle(t *testing.T) {
	for name, test := range map[string]struct {
		cut     pgtest.Cut
		err     error
		effects int
	}{
		"committed":     {pgtest.CutAnswer, nil, 1},
		"not committed": {pgtest.CutRequest, webhook.ErrTicketLost, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newShop(t)
			taken := s.take("a", time.Minute)
			_, err := s.execute(taken, succeed)
			require.NoError(t, err)
			once := true
			s.proxy.SetCut(func() pgtest.Cut {
				if once {
					once = false
					return test.cut
				}
				return pgtest.CutNothing
			})
			assert.ErrorIs(t, s.store.Settle(t.Context(), taken.Ticket, done()), test.err)
			assert.Equal(t, test.effects, s.effects("a"))
			if test.effects == 1 {
				assert.Equal(t, webhook.Done, s.state("a"))
				return
			}
			again := s.take("a", time.Minute)
			_, err = s.execute(again, succeed)
			require.NoError(t, err)
			require.NoError(t, s.store.Settle(t.Context(), again.Ticket, done()))
			assert.Equal(t, 1, s.effects("a"))
		})
	}
}

// A worker that is paused beyond its lease loses the event: its handler's writes are rolled back.
func TestWorkerThatLostItsEventHasNoEffect(t *testing.T) {
	s := newShop(t)
	first := s.take("a", time.Millisecond)
	_, err := s.execute(first, succeed)
	require.NoError(t, err)
	second := s.take("a", time.Minute)
	_, err = s.execute(second, succeed)
	assert.ErrorIs(t, err, idempotent.ErrInProgress) // the first one's transaction is open
	assert.ErrorIs(t, s.store.Settle(t.Context(), first.Ticket, done()), webhook.ErrTicketLost)
	attempt, err := s.execute(second, succeed)
	require.NoError(t, err)
	assert.Equal(t, 2, attempt, "the lease that ran out counts")
	_, err = s.execute(first, succeed)
	assert.Error(t, err)
	require.NoError(t, s.store.Settle(t.Context(), second.Ticket, done()))
	assert.Equal(t, 1, s.effects("a"))
}

// Postgres ends the session of a worker that is paused inside its handler.
func TestPausedHandlerIsEnded(t *testing.T) {
	s := newShop(t, inbox.WithIdleTimeout(20*time.Millisecond))
	first := s.take("a", time.Millisecond)
	_, err := s.execute(first, succeed) // and pauses before Settle
	require.NoError(t, err)
	second := s.take("a", time.Minute)
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		_, err = s.execute(second, succeed)
		if !errors.Is(err, idempotent.ErrInProgress) {
			break
		}
		require.True(t, time.Now().Before(deadline), "the session was not ended within %v", patience)
	}
	require.NoError(t, err)
	require.NoError(t, s.store.Settle(t.Context(), second.Ticket, done()))
	assert.ErrorIs(t, s.store.Settle(t.Context(), first.Ticket, done()), webhook.ErrTicketLost)
	assert.Equal(t, 1, s.effects("a"))
	assert.Equal(t, webhook.Done, s.state("a"))
}

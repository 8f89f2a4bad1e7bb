package inbox_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent/pg/inbox"
	"github.com/idempotent-go/idempotent/webhook"
)

func TestInvalidOptionsAndArguments(t *testing.T) {
	pool := newPool(t, "")
	for text, opts := range map[string][]inbox.Option{
		"WithIdleTimeout: timeout is 0s": {inbox.WithIdleTimeout(0)},
		"option 0 is nil":                {nil},
	} {
		_, err := inbox.New(pool, "shop", opts...)
		assert.ErrorContains(t, err, text)
		assert.ErrorContains(t, err, "allowed: ")
	}
	_, err := inbox.New(nil, "a b")
	assert.ErrorContains(t, err, "pool is nil")
	assert.ErrorContains(t, err, `namespace is "a b"`)
	s := newStore(t, pool)
	for text, call := range map[string]func() error{
		"limit is 0":      func() error { _, err := s.Prune(t.Context(), 0); return err },
		"no source":       func() error { _, _, err := s.Find(t.Context(), webhook.Filter{Object: "a"}, "", 1); return err },
		"limit is -1":     func() error { _, _, err := s.Find(t.Context(), webhook.Filter{}, "", -1); return err },
		`cursor is "x"`:   func() error { _, _, err := s.Find(t.Context(), webhook.Filter{}, "x", 1); return err },
		"name of 0 bytes": func() error { _, err := s.Redrive(t.Context(), nil, webhook.Requeue{PerSecond: 1}); return err },
		"TTL is 0s":       func() error { _, err := s.Executor(webhook.ExecutorConfig{}); return err },
		"no such event":   func() error { _, err := s.Get(t.Context(), webhook.Lookup{Key: "a"}); return err },
		"more than 0 per": func() error {
			_, err := s.Redrive(t.Context(), nil, webhook.Requeue{Name: "a", PerSecond: -1})
			return err
		},
	} {
		assert.ErrorContains(t, call(), text)
	}
}

// Two namespaces of one database are two inboxes.
func TestNamespacesAreApart(t *testing.T) {
	pool := newPool(t, "")
	a := newStore(t, pool)
	b, err := inbox.New(pool, "shop2")
	require.NoError(t, err)
	for _, s := range []*inbox.Store{a, b} {
		n, err := s.Accept(t.Context(), arrival("a"))
		require.NoError(t, err)
		assert.Equal(t, 1, n)
	}
	taken, err := a.Take(t.Context(), 10, time.Minute, webhook.Step{})
	require.NoError(t, err)
	assert.Len(t, taken, 1)
	assert.ErrorIs(t, b.Settle(t.Context(), taken[0].Ticket, done()), webhook.ErrTicketLost)
}

// Postgres's text has no NUL byte, and no bytes that are not UTF-8.
func TestTextsOfAProviderMayHoldAnyBytes(t *testing.T) {
	s := newStore(t, newPool(t, ""))
	a := arrival("key\x00\xff")
	a.Event.ID, a.Event.Type, a.Event.Object = "id\x00\xff", "type\x00", "object\x00"
	_, err := s.Accept(t.Context(), a)
	require.NoError(t, err)
	taken, err := s.Take(t.Context(), 1, time.Minute, webhook.Step{Note: "\x00"})
	require.NoError(t, err)
	require.Len(t, taken, 1)
	to := done()
	to.Reason, to.Move = "reason\x00", &webhook.Move{Order: "order\x00", Position: "position\x00"}
	require.NoError(t, s.Settle(t.Context(), taken[0].Ticket, to))
	r, err := s.Get(t.Context(), webhook.Lookup{Source: "shop", ID: a.Event.ID})
	require.NoError(t, err)
	assert.Equal(t, a.Ref(), r.Ref())
	assert.Equal(t, a.Event.Type, r.Type)
	assert.Equal(t, to.Reason, r.Reason)
	page, _, err := s.Find(t.Context(), webhook.Filter{Source: "shop", Object: a.Event.Object}, "", 10)
	require.NoError(t, err)
	assert.Len(t, page, 1)
}

// Many workers, many objects: no object has two events running, and none is left.
func TestOneEventOfAnObjectRunsAtATime(t *testing.T) {
	s := newStore(t, newPool(t, "&pool_max_conns=12"))
	const objects, each = 5, 20
	for i := range objects * each {
		a := arrival(fmt.Sprint(i))
		a.Event.Object = fmt.Sprint(i % objects)
		_, err := s.Accept(t.Context(), a)
		require.NoError(t, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var running [objects]atomic.Int64
	var settled atomic.Int64
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			for settled.Load() < objects*each && ctx.Err() == nil {
				taken, err := s.Take(ctx, 3, time.Minute, webhook.Step{})
				if !assert.NoError(t, err) {
					return
				}
				for _, e := range taken {
					assert.EqualValues(t, 1, running[e.Object[0]-'0'].Add(1), "running at once")
				}
				for _, e := range taken {
					running[e.Object[0]-'0'].Add(-1)
					assert.NoError(t, s.Settle(ctx, e.Ticket, done()))
					settled.Add(1)
				}
			}
		})
	}
	wg.Wait()
	assert.EqualValues(t, objects*each, settled.Load())
}

// On the day of a partition, the payloads that are still needed are moved, and the others are dropped with it.
func TestPruneDropsPartitionsAndKeepsWhatIsNeeded(t *testing.T) {
	pool := newPool(t, "")
	s := newStore(t, pool)
	for key, state := range map[string]webhook.State{"done": webhook.Done, "dead": webhook.Dead, "queued": ""} {
		_, err := s.Accept(t.Context(), arrival(key))
		require.NoError(t, err)
		if state == "" {
			continue
		}
		taken, err := s.Take(t.Context(), 1, time.Minute, webhook.Step{})
		require.NoError(t, err)
		for _, e := range taken { // whichever is due first
			to := done()
			to.State = webhook.Dead
			require.NoError(t, s.Settle(t.Context(), e.Ticket, to))
		}
	}
	// Seen from two days later: the partition's day is over, and the payload of one settled event is past its retention.
	_, err := pool.Exec(t.Context(), `CREATE TABLE idempotent_inbox_payloads_20200101 PARTITION OF idempotent_inbox_payloads
			FOR VALUES FROM ('2020-01-01') TO ('2020-01-02')`)
	require.NoError(t, err)
	_, err = pool.Exec(t.Context(), `UPDATE idempotent_inbox_payloads SET day = '2020-01-01'`)
	require.NoError(t, err)
	_, err = pool.Exec(t.Context(), `UPDATE idempotent_inbox_events SET payload_day = '2020-01-01'`)
	require.NoError(t, err)
	var over string
	require.NoError(t, pool.QueryRow(t.Context(), `UPDATE idempotent_inbox_events SET payload_until = now()
		WHERE id = (SELECT min(id) FROM idempotent_inbox_events WHERE settled_at IS NOT NULL) RETURNING convert_from(key, 'UTF8')`).Scan(&over))
	_, err = s.Prune(t.Context(), 100)
	require.NoError(t, err)
	_, err = s.Prune(t.Context(), 100)
	require.NoError(t, err)
	for _, key := range []string{"done", "dead", "queued"} {
		r, err := s.Get(t.Context(), webhook.Lookup{Key: key})
		require.NoError(t, err)
		if key == over {
			assert.Nil(t, r.Payload)
			continue
		}
		if assert.NotNil(t, r.Payload, key) {
			assert.Equal(t, "body of "+key, string(r.Payload.Body))
		}
	}
	var partitions, payloads int
	require.NoError(t, pool.QueryRow(t.Context(), `SELECT (SELECT count(*) FROM pg_inherits WHERE inhparent = 'idempotent_inbox_payloads'::regclass
		AND inhrelid::regclass::text LIKE '%20200101'), (SELECT count(*) FROM idempotent_inbox_payloads)`).Scan(&partitions, &payloads))
	assert.Equal(t, 0, partitions)
	assert.Equal(t, 2, payloads)
}

func TestPruneDeletesWhatIsPastItsRetention(t *testing.T) {
	pool := newPool(t, "")
	s := newStore(t, pool)
	x, err := s.Executor(webhook.ExecutorConfig{TTL: time.Hour})
	require.NoError(t, err)
	for i := range 3 {
		a := arrival(fmt.Sprint(i))
		a.Event.Object = "order_1"
		_, err := s.Accept(t.Context(), a)
		require.NoError(t, err)
	}
	taken, err := s.Take(t.Context(), 1, time.Minute, webhook.Step{})
	require.NoError(t, err)
	require.Len(t, taken, 1)
	_, _, err = x.Execute(t.Context(), webhook.Execution{Key: taken[0].Key, Ticket: taken[0].Ticket,
		Run: func(context.Context, int) (webhook.Outcome, error) { return webhook.Outcome{}, nil }})
	require.NoError(t, err)
	to := done()
	to.Move = &webhook.Move{Order: "payment", Position: "paid"}
	require.NoError(t, s.Settle(t.Context(), taken[0].Ticket, to))
	n, err := s.Prune(t.Context(), 100)
	require.NoError(t, err)
	assert.Equal(t, 0, n)
	for _, table := range []string{"events", "runs", "positions"} {
		_, err := pool.Exec(t.Context(), `UPDATE idempotent_inbox_`+table+` SET expires_at = now()`)
		require.NoError(t, err)
	}
	_, err = pool.Exec(t.Context(), `UPDATE idempotent_inbox_objects SET seen_at = now() - interval '2 days'`)
	require.NoError(t, err)
	n, err = s.Prune(t.Context(), 100)
	require.NoError(t, err)
	assert.Equal(t, 3, n, "the settled event, its run and the position; not the unsettled events nor their object")
	taken, err = s.Take(t.Context(), 1, time.Minute, webhook.Step{})
	require.NoError(t, err)
	assert.Len(t, taken, 1)
}

// Events are in the database that says what they survive.
func TestCheckReadsTheSettings(t *testing.T) {
	pool := newPool(t, "&synchronous_commit=off")
	d, err := newStore(t, pool).Check(t.Context())
	require.NoError(t, err)
	assert.True(t, d.Unsafe) // fsync is off in tests
	assert.NotEmpty(t, d.Advice)
	_, err = pool.Exec(t.Context(), `DROP TABLE idempotent_inbox_events`)
	require.NoError(t, err)
	_, err = newStore(t, pool).Check(t.Context())
	assert.ErrorContains(t, err, "pg.Migrate")
}

package idempotent

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func memoryClient(t *testing.T) *redis.Client {
	t.Helper()
	server := miniredis.RunT(t)
	client := redis.NewClient(&redis.Options{Addr: server.Addr()})
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// The time in a record is for people. Who is alive is Redis's to say, by the TTL alone: the
// writer's clock may be wrong by any amount.
func TestClocksAreNotCompared(t *testing.T) {
	const lease, retention = time.Minute, time.Hour
	for name, at := range map[string]time.Time{"behind": time.Unix(1, 0), "ahead": time.Now().Add(1000 * time.Hour)} {
		t.Run(name, func(t *testing.T) {
			client := memoryClient(t)
			e, err := New[string](client)
			require.NoError(t, err)
			defer e.Close()
			running := record{kind: kindRunning, token: newToken(), attempt: 1, at: at, lease: lease, retention: retention}
			fn := func(ctx context.Context) (string, error) { return "charged", nil }

			require.NoError(t, client.Set(t.Context(), redisName("default", "alive"), running.encode(), lease+retention).Err())
			_, err = e.Run(t.Context(), "alive", fn, WithNoWait())
			var busy *InProgressError
			require.ErrorAs(t, err, &busy)
			assert.InDelta(t, lease, busy.RetryAfter, float64(10*time.Second))

			require.NoError(t, client.Set(t.Context(), redisName("default", "dead"), running.encode(), retention).Err())
			var report Report
			_, err = e.Run(t.Context(), "dead", fn, WithNoWait(), WithReport(&report))
			require.NoError(t, err)
			assert.Equal(t, 2, report.Attempt)
		})
	}
}

// A renewal that was under way when its execution was abandoned does not revive it.
func TestLateRenewalDoesNotReviveAnAbandonedExecution(t *testing.T) {
	client := memoryClient(t)
	e, err := New[string](client)
	require.NoError(t, err)
	defer e.Close()
	op := &operation{via: e.core.store.client, key: "order-1", name: redisName("default", "order-1"), cfg: &e.core.defaults, token: newToken()}
	found, err := e.core.claim(t.Context(), op)
	require.NoError(t, err)
	require.NotNil(t, found.lease)
	ctx, cancel := context.WithCancel(t.Context())
	p := &performance{core: e.core, op: op, lease: found.lease, ctx: ctx}
	p.abandon(context.Canceled)
	batch := []renewal{{lease: found.lease}}
	e.core.store.renew(t.Context(), batch)
	cancel()
	require.NoError(t, batch[0].err)
	assert.False(t, batch[0].mine)
	status, err := e.Peek(t.Context(), "order-1")
	require.NoError(t, err)
	assert.Equal(t, StateAbandoned, status.State)
}

// untold counts how often an owner was told of a loss.
type untold int

func (u *untold) leaseLost() { *u++ }

// A renewal that meets the outcome is no loss of the lease.
func TestRenewalAfterTheCommitIsNoLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := new(untold)
		r := newRenewer(nil, time.Minute, func(Event) {}, slog.New(slog.DiscardHandler))
		l := &lease{duration: time.Minute, renewed: time.Now()}
		r.keep(l, p)
		r.ending(l)
		event := r.finish(renewal{lease: l, mine: false}, time.Now())
		assert.Zero(t, event)
		assert.Zero(t, *p)
		r.drop(l)
		r.close()
	})
}

// Commits, renewals and releases by anybody but the owner change nothing.
func TestOnlyTheOwnerWrites(t *testing.T) {
	client := memoryClient(t)
	s := newStore(client, &config{messageLimit: 1 << 10})
	name := redisName("default", "order-1")
	owner := record{kind: kindRunning, token: newToken(), attempt: 1, at: time.Now(), lease: time.Minute, retention: time.Hour}
	require.NoError(t, client.Set(t.Context(), name, owner.encode(), time.Hour+time.Minute).Err())
	before, err := s.read(t.Context(), name)
	require.NoError(t, err)

	stranger := newToken()
	done := record{kind: kindDone, token: stranger, attempt: 1, at: time.Now(), outcome: outcomeValue}
	stored, err := s.commit(t.Context(), client, name, done.encode(), time.Hour)
	require.NoError(t, err)
	assert.False(t, stored)
	require.NoError(t, s.release(t.Context(), name, stranger, []byte{messageFree}, nil))
	batch := []renewal{{lease: &lease{name: name, token: stranger, duration: 9 * time.Hour}}}
	s.renew(t.Context(), batch)
	require.NoError(t, batch[0].err)
	assert.False(t, batch[0].mine)
	_, taken, err := s.takeOver(t.Context(), name, before.raw, done.encode(), time.Hour, owner.retention, false)
	require.NoError(t, err)
	assert.False(t, taken, "its lease is not over")
	_, taken, err = s.takeOver(t.Context(), name, done.encode(), (&record{kind: kindDone, token: newToken(), attempt: 1, at: time.Now(), outcome: outcomeValue}).encode(), time.Hour, -1, false)
	require.NoError(t, err)
	assert.False(t, taken, "it is not the record that was seen")
	other := record{kind: kindDone, token: newToken(), attempt: 1, at: time.Now(), outcome: outcomeValue}
	_, taken, err = s.takeOver(t.Context(), name, nil, other.encode(), time.Hour, -1, false)
	require.NoError(t, err)
	assert.False(t, taken, "none was seen, and there is one")

	after, err := s.read(t.Context(), name)
	require.NoError(t, err)
	assert.Equal(t, before.raw, after.raw)
	assert.LessOrEqual(t, after.ttl, before.ttl)
}

// A claim of unknown fate is released in the background. If that comes late, it must not end what
// the same call has claimed since.
func TestLateReleaseDoesNotEndALaterClaim(t *testing.T) {
	client := memoryClient(t)
	e, err := New[string](client)
	require.NoError(t, err)
	defer e.Close()
	op := &operation{via: e.core.store.client, key: "order-1", name: redisName("default", "order-1"), cfg: &e.core.defaults, token: newToken()}
	doubtful := op.token
	e.core.disown(t.Context(), op, 1)
	require.Eventually(t, func() bool { return e.core.active.state.Load() == 0 }, 10*time.Second, time.Millisecond)
	require.NotEqual(t, doubtful, op.token)

	found, err := e.core.claim(t.Context(), op)
	require.NoError(t, err)
	require.NotNil(t, found.lease)
	require.NoError(t, e.core.giveUp(t.Context(), &operation{name: op.name, cfg: op.cfg, token: doubtful}, 1, nil))
	status, err := e.Peek(t.Context(), "order-1")
	require.NoError(t, err)
	assert.Equal(t, StateRunning, status.State)
}

package idempotent

import (
	"context"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent/internal/record"
	"github.com/idempotent-go/idempotent/internal/store"
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
			e, err := New[string](client, "default")
			require.NoError(t, err)
			defer e.Close()
			running := record.Record{Kind: record.KindRunning, Token: record.NewToken(), Attempt: 1, At: at, Lease: lease, Retention: retention}
			fn := func(ctx context.Context) (string, error) { return "charged", nil }

			require.NoError(t, client.Set(t.Context(), record.Name("default", "alive"), running.Encode(), lease+retention).Err())
			_, err = e.Run(t.Context(), "alive", fn, WithNoWait())
			var busy *InProgressError
			require.ErrorAs(t, err, &busy)
			assert.InDelta(t, lease, busy.RetryAfter, float64(10*time.Second))

			require.NoError(t, client.Set(t.Context(), record.Name("default", "dead"), running.Encode(), retention).Err())
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
	e, err := New[string](client, "default")
	require.NoError(t, err)
	defer e.Close()
	op := &operation{key: "order-1", name: record.Name("default", "order-1"), cfg: &e.core.defaults, token: record.NewToken()}
	found, err := e.core.claim(t.Context(), op)
	require.NoError(t, err)
	require.NotNil(t, found.lease)
	ctx, cancel := context.WithCancel(t.Context())
	p := &execution{runner: &e.core.runner, op: op, lease: found.lease, ctx: ctx}
	p.abandon(context.Canceled)
	batch := []store.Renewal{found.lease.Renewal()}
	e.core.store.Renew(t.Context(), batch)
	cancel()
	require.NoError(t, batch[0].Err)
	assert.False(t, batch[0].Mine)
	status, err := e.Peek(t.Context(), "order-1")
	require.NoError(t, err)
	assert.Equal(t, StateAbandoned, status.State)
}

// A claim of unknown fate is released in the background. If that comes late, it must not end what
// the same call has claimed since.
func TestLateReleaseDoesNotEndALaterClaim(t *testing.T) {
	client := memoryClient(t)
	e, err := New[string](client, "default")
	require.NoError(t, err)
	defer e.Close()
	op := &operation{key: "order-1", name: record.Name("default", "order-1"), cfg: &e.core.defaults, token: record.NewToken()}
	doubtful := op.token
	e.core.releaseInBackground(op, 1)
	require.NotEqual(t, doubtful, op.token)

	found, err := e.core.claim(t.Context(), op)
	require.NoError(t, err)
	require.NotNil(t, found.lease)
	late := e.core.releaseOf(&operation{name: op.name, cfg: op.cfg, token: doubtful}, 0, nil)
	require.NoError(t, e.core.store.Release(t.Context(), &late))
	status, err := e.Peek(t.Context(), "order-1")
	require.NoError(t, err)
	assert.Equal(t, StateRunning, status.State)
}

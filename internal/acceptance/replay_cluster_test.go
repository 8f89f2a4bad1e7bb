package acceptance

import (
	"log/slog"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/internal/redistest"
	"github.com/idempotent-go/idempotent/internal/slot"
)

// cachingOn is an executor with a cache that is in use.
func cachingOn(t *testing.T, client redis.UniversalClient) (*idempotent.Executor[string], *logWatch) {
	t.Helper()
	log := newLogWatch()
	x, err := idempotent.New[string](client, "default", idempotent.WithReplayCache(100), idempotent.WithLogger(slog.New(log)))
	require.NoError(t, err)
	t.Cleanup(func() { _ = x.Close() })
	_, err = x.Get(t.Context(), "unknown")
	require.ErrorIs(t, err, idempotent.ErrNotFound)
	log.await(t, cacheInUse)
	return x, log
}

// What was read from one master is forgotten on another one, after its slot has moved.
func TestReplayCacheOnAClusterThatChanges(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t)
	caches(t, cluster.Client(t), cluster.Client(t))

	x, log := cachingOn(t, cluster.Client(t))
	_, err := x.Run(t.Context(), "order-1", charged)
	require.NoError(t, err)
	name := "idempotent:default:order-1"
	from, err := cluster.MasterOf(t.Context(), name)
	require.NoError(t, err)
	masters, err := cluster.Masters(t.Context())
	require.NoError(t, err)
	to := masters[0]
	if to == from {
		to = masters[1]
	}
	require.NoError(t, cluster.Migrate(t.Context(), slot.Of(name), to))
	other, err := idempotent.New[string](cluster.Client(t), "default")
	require.NoError(t, err)
	defer other.Close()
	require.NoError(t, other.Forget(t.Context(), "order-1"))
	require.Eventually(t, func() bool {
		_, err := x.Get(t.Context(), "order-1")
		return err != nil
	}, longestStale, time.Millisecond)

	_, err = cluster.Failover(t.Context(), to)
	require.NoError(t, err)
	log.await(t, cacheEmptied)
	log.await(t, cacheInUse)
	caches(t, cluster.Client(t), cluster.Client(t))
}

func TestReplayCacheBehindSentinels(t *testing.T) {
	t.Parallel()
	set := redistest.StartSentinel(t)
	x, log := cachingOn(t, set.Client(t))
	_, err := x.Run(t.Context(), "order-1", charged)
	require.NoError(t, err)
	_, err = set.Failover(t.Context())
	require.NoError(t, err)
	log.await(t, cacheEmptied)
	log.await(t, cacheInUse)
	caches(t, set.Client(t), set.Client(t))
}

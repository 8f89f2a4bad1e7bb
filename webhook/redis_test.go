package webhook_test

import (
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/idempotent-go/idempotent/idemtest"
	"github.com/idempotent-go/idempotent/internal/redistest"
	"github.com/idempotent-go/idempotent/webhook"
	"github.com/idempotent-go/idempotent/webhook/webhooktest"
)

func open(t testing.TB, client redis.UniversalClient, namespace string, opts ...webhook.RedisOption) *webhook.RedisStore {
	t.Helper()
	s, err := webhook.NewRedisStore(client, namespace, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// namespaces gives each store of a test binary its own keys.
var namespaces atomic.Int64

func namespace() string { return "test-" + strconv.FormatInt(namespaces.Add(1), 10) }

func TestRedisStore(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "--appendonly", "yes")
	webhooktest.TestStore(t, func(t testing.TB) webhook.Store { return open(t, server.Client(t), namespace()) })
}

func TestRedisStoreOnOneLane(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	webhooktest.TestStore(t, func(t testing.TB) webhook.Store { return open(t, server.Client(t), namespace(), webhook.WithLanes(1)) })
}

func TestRedisStoreOnCluster(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t)
	webhooktest.TestStore(t, func(t testing.TB) webhook.Store {
		return open(t, cluster.Client(t), namespace(), webhook.WithReplicaAck(1, 2*time.Second))
	})
}

func TestRedisStoreInMemory(t *testing.T) {
	t.Parallel()
	webhooktest.TestStore(t, func(t testing.TB) webhook.Store { return open(t, idemtest.NewRedis(t), namespace()) })
}

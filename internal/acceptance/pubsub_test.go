package acceptance

import (
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/internal/behaviour"
	"github.com/idempotent-go/idempotent/internal/redistest"
)

// The subscription is lost, and the outcome recorded before it is back: the waiter reads it then.
func TestSubscriptionKilled(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	onRealRedisAt(t, server.URL(), func(w *world) {
		w.lease = time.Minute // too long to be what helps
		owner, other := w.executor(), w.executor()
		p := w.provider()
		for i, key := range []string{"order-1", "order-2", "order-3"} {
			first := owner.start(w.Context(), key, p.charge)
			<-p.started
			waiting := other.start(w.Context(), key, p.charge)
			other.Wait(w, idempotent.EventWaitStarted, i+1)
			require.Eventually(w, func() bool { // also after the last reconnection
				n, err := owner.client.PubSubNumSub(w.Context(), w.name(key)).Result()
				return err == nil && n[w.name(key)] == 1
			}, time.Minute, time.Millisecond)
			killed, err := owner.client.ClientKillByFilter(w.Context(), "TYPE", "pubsub").Result()
			require.NoError(w, err)
			require.EqualValues(w, 1, killed)
			p.answer("charged", nil)
			first.returned(w, "charged")
			waiting.returned(w, "charged")
		}
		assert.Equal(w, 3, p.count())
	})
}

// Without a subscription, a waiter reads once a second.
func TestWaiterWithoutSubscription(t *testing.T) {
	inFakeTime(t, func(w *world) {
		owner, other := w.executor(), w.executor()
		p := w.provider()
		first := owner.start(w.Context(), "order-1", p.charge)
		<-p.started
		waiting := other.start(w.Context(), "order-1", p.charge)
		other.waits(w)
		other.wire.refuseSubscriptions()
		time.Sleep(10 * time.Second)
		p.answer("charged", nil)
		began := time.Now()
		first.returned(w, "charged")
		waiting.returned(w, "charged")
		assert.LessOrEqual(w, time.Since(began), 2*time.Second)
	})
}

// The connection is there, and nothing comes through it: pings find that out.
func TestSilentSubscription(t *testing.T) {
	inFakeTime(t, func(w *world) {
		owner, other := w.executor(idempotent.WithLease(time.Hour)), w.executor()
		p := w.provider()
		first := owner.start(w.Context(), "order-1", p.charge)
		<-p.started
		waiting := other.start(w.Context(), "order-1", p.charge)
		other.waits(w)
		other.wire.muteSubscriptions()
		p.answer("charged", nil)
		began := time.Now()
		first.returned(w, "charged")
		waiting.returned(w, "charged")
		assert.LessOrEqual(w, time.Since(began), 10*time.Second)
	})
}

// Redis has one set of channels for all its databases.
func TestDatabasesDoNotMeet(t *testing.T) {
	onRealRedis(t, func(w *world) {
		w.options.DB = 1
		p, q := w.provider(), w.provider()
		staging := w.executor()
		stagingRun := staging.start(w.Context(), "order-1", q.charge)
		<-q.started

		w.options.DB = 0
		owner, other := w.executor(), w.executor()
		first := owner.start(w.Context(), "order-1", p.charge)
		<-p.started
		waiting := other.start(w.Context(), "order-1", p.charge)
		other.waits(w)
		q.answer("charged in staging", nil)
		stagingRun.returned(w, "charged in staging")
		<-other.looked // it heard the message, and went to see
		p.answer("charged", nil)
		first.returned(w, "charged")
		waiting.returned(w, "charged")
	})
}

func TestShardedPubSubOnCluster(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "--cluster-enabled", "yes")
	one := server.MakeCluster(t)
	two := redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{server.Addr()}, ReadOnly: true})
	t.Cleanup(func() { _ = two.Close() })
	counts := server.Commands(t, func() { behaviour.Run(t, one, two) })
	assert.Positive(t, counts["ssubscribe"])
	assert.Positive(t, counts["spublish"])
	assert.Zero(t, counts["subscribe"])
	assert.Less(t, counts["publish"], counts["spublish"]/4, "Forget and Resolve alone, for those who cache")
}

// Tracing and metrics wrap clients.
func TestWrappedClients(t *testing.T) {
	t.Parallel()
	type wrappedRing struct{ *redis.Ring }
	type wrappedCluster struct{ *redis.ClusterClient }
	addrs := map[string]string{"one": redistest.Start(t).Addr(), "two": redistest.Start(t).Addr()}
	ring := func() redis.UniversalClient { return wrappedRing{newRing(t, addrs, staysUp)} }
	t.Run("Ring", func(t *testing.T) { behaviour.Run(t, ring(), ring()) })
	t.Run("Cluster", func(t *testing.T) {
		server := redistest.Start(t, "--cluster-enabled", "yes")
		bare := server.MakeCluster(t)
		behaviour.Run(t, wrappedCluster{bare}, bare)
	})
}

func TestRESP2(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	client := func() *redis.Client {
		c := redis.NewClient(&redis.Options{Addr: server.Addr(), Protocol: 2})
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	behaviour.Run(t, client(), client())
}

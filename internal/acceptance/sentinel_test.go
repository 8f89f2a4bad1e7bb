package acceptance

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/internal/behaviour"
	"github.com/idempotent-go/idempotent/internal/redistest"
)

// A sentinelWorld is a world on a master with two replicas, watched by three Sentinels. Leases are
// too long to be what wakes anybody.
type sentinelWorld struct {
	*world
	*redistest.Sentinel
}

// TestSentinel shows all that is about Sentinels on one set of servers.
func TestSentinel(t *testing.T) {
	t.Parallel()
	s := redistest.StartSentinel(t)
	for _, test := range []struct {
		name string
		run  func(sentinelWorld)
	}{
		{"behaviour", func(w sentinelWorld) { behaviour.Run(w.T, w.Sentinel.Client(w), w.Sentinel.Client(w)) }},
		{"failover under load", sentinelFailover},
		{"master killed", sentinelMasterKilled},
	} {
		t.Run(test.name, func(t *testing.T) {
			leavesNothing(t)
			require.NoError(t, s.Settled(t.Context()))
			test.run(sentinelWorld{&world{
				T: t, real: true, lease: time.Minute, over: make(chan struct{}),
				namespace: fmt.Sprintf("test-%d", worlds.Add(1)),
				servers:   servers{Addrs: s.Addrs(), MasterName: redistest.MasterName},
			}, s})
		})
	}
}

// replicated returns when both replicas have all that was written to the master so far.
func (w sentinelWorld) replicated(master *redistest.Server) {
	w.Helper()
	conn := master.Client(w).Conn()
	defer conn.Close()
	require.NoError(w, conn.Set(w.Context(), "barrier", "", time.Minute).Err())
	n, err := conn.Wait(w.Context(), 2, time.Minute).Result()
	require.NoError(w, err)
	require.EqualValues(w, 2, n)
}

func (w sentinelWorld) master() *redistest.Server {
	w.Helper()
	master, err := w.Master(w.Context())
	require.NoError(w, err)
	return master
}

// subscribed returns when n connections are subscribed to the channel of order-1 on the server.
func (w sentinelWorld) subscribed(server *redistest.Server, n int64) {
	w.Helper()
	client, channel := server.Client(w), w.name("order-1")
	require.Eventually(w, func() bool {
		got, err := client.PubSubNumSub(w.Context(), channel).Result()
		return err == nil && got[channel] == n
	}, time.Minute, 5*time.Millisecond)
}

// Those who wait come back to the new master by themselves, and hear what is published there. A
// failover without the old master's help may lose what the new one has not seen, whose keys may run
// again. Nothing else may happen.
func sentinelFailover(w sentinelWorld) {
	owner := w.worker(2)
	require.Equal(w, 1, owner.says("running").Attempt)
	other := w.worker(2)
	other.says("waiting")
	old := w.master()
	w.subscribed(old, 1)
	w.replicated(old)
	load := w.load(w.executorOn(w.Sentinel.Client(w)), w.executorOn(w.Sentinel.Client(w)))
	load.progress(100)
	successor, err := w.Failover(w.Context())
	require.NoError(w, err)
	w.subscribed(successor, 1)
	owner.answer()
	for _, p := range []*worker{owner, other} {
		for range 2 {
			r := p.says("returned")
			require.Empty(w, r.Err)
			require.Equal(w, "charged by attempt 1", r.Value)
		}
	}
	load.progress(100)
	load.stop()
	for key := range load.keys {
		load.check(key, 2)
	}
}

// The master dies while a key runs that its replicas know of; the outcome goes to the next one.
func sentinelMasterKilled(w sentinelWorld) {
	owner, other := w.executorOn(w.Sentinel.Client(w)), w.executorOn(w.Sentinel.Client(w))
	p := w.provider()
	first := owner.start(w.Context(), "order-1", p.charge)
	<-p.started
	waiting := other.start(w.Context(), "order-1", p.charge)
	<-other.looked
	master := w.master()
	w.replicated(master)
	master.Kill()
	p.answer("charged", nil)
	first.returned(w, "charged")
	waiting.returned(w, "charged")
	assert.Equal(w, 1, p.count())
	assert.Zero(w, owner.Count(idempotent.EventLeaseLost))
	_, err := w.Promoted(w.Context(), master)
	require.NoError(w, err)
	require.NoError(w, master.Run())
	require.NoError(w, w.Settled(w.Context()))
	owner.start(w.Context(), "order-1", p.charge).returned(w, "charged")
}

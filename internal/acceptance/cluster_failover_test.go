package acceptance

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent/internal/slot"
)

func TestClusterFailover(t *testing.T) {
	onCluster(t,
		clusterTest{"failover", failedOver},
		clusterTest{"failover, learned late", failedOverLearnedLate},
		clusterTest{"failover under load", failoverUnderLoad},
		clusterTest{"master killed under load", masterKilled},
	)
}

// A replica takes over from its master, which helps, so that nothing is lost. Subscriptions on the
// old master would hear no more.
func failedOver(w clusterWorld) {
	w.failOver(func() {})
}

// The server that is asked who the masters are has not heard of it yet, and the old one takes
// subscriptions like a master. Nothing but looking again finds that out.
func failedOverLearnedLate(w clusterWorld) {
	w.belief = new(belief)
	w.failOver(w.belief.may)
}

// failOver fails a master over whose keys are run and waited for.
func (w clusterWorld) failOver(then func()) {
	w.Helper()
	c := w.crowd(20)
	master, _ := w.masterOf(c.key(0))
	successor, err := w.Failover(w.Context(), master)
	require.NoError(w, err)
	then()
	require.Eventually(w, func() bool {
		return len(w.subscribers(successor)) == 1 && len(w.subscribers(master)) == 0
	}, time.Minute, 5*time.Millisecond)
	c.finish(0, 20)
	c.told()
}

func failoverUnderLoad(w clusterWorld) {
	one, two := w.two()
	load := w.load(one, two)
	for _, m := range w.masters() {
		load.progress(100)
		_, err := w.Failover(w.Context(), m)
		require.NoError(w, err)
	}
	load.progress(100)
	load.stop()
	for key := range load.keys {
		load.check(key, 1)
	}
}

// A master dies under load. What its replica knew goes on there. What it has not seen may be lost,
// and its keys run again. Nothing else may happen.
func masterKilled(w clusterWorld) {
	c := w.crowd(20)
	load := w.load(w.two())
	load.progress(100)
	master, _ := w.masterOf(c.key(0))
	require.NoError(w, w.Rested(w.Context(), master))
	w.replicated(master, c.key(0))
	master.Kill()
	for i, answer := range c.answers {
		answer <- fmt.Sprint("charged ", i)
	}
	for i, first := range c.first {
		first.returned(w, fmt.Sprint("charged ", i))
	}
	c.told()

	successor, err := w.Promoted(w.Context(), master)
	require.NoError(w, err)
	load.progress(100)
	require.NoError(w, master.Run())
	require.NoError(w, w.Settled(w.Context()))
	load.progress(100)
	load.stop()
	for key := range load.keys {
		runs := 1
		if has, err := w.Master(w.Context(), slot.Of(w.name(key))); has == successor {
			runs = 2
			require.NoError(w, err)
		}
		load.check(key, runs)
	}
}

package webhook_test

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/internal/redistest"
	"github.com/idempotent-go/idempotent/internal/slot"
	"github.com/idempotent-go/idempotent/webhook"
)

// creditOnce returns a handler whose receiver does not deduplicate: above attempt 1, it asks first.
func creditOnce(did *effects) *webhook.Router {
	router := webhook.NewRouter()
	router.Handle("stripe", "*", func(_ context.Context, j *webhook.Job) error {
		if j.Attempt > 1 && did.times(j.Reference) > 0 {
			return nil
		}
		did.add(j.Reference, j.ID)
		return nil
	}, webhook.Backoff(20*time.Millisecond, time.Second), webhook.Attempts(100), webhook.Circuit(1000, time.Second))
	return router
}

func acknowledgedOffice(t *testing.T, cluster *redistest.Cluster, name string, did *effects, opts ...webhook.RedisOption) *office {
	store := open(t, cluster.Client(t), name, opts...)
	return newOfficeOf(t, store, []webhook.Source{stripeSource(t)}, creditOnce(did),
		webhook.WithLease(2*time.Second), webhook.WithAnswerWithin(time.Second), webhook.WithBacklog(1<<20))
}

// masterOfLane returns the master that has a lane.
func masterOfLane(t *testing.T, cluster *redistest.Cluster, name string, lane int) (master *redistest.Node, of int) {
	t.Helper()
	of = slot.Of(fmt.Sprintf("webhook:{%s/%d}:queue", name, lane))
	master, err := cluster.Master(t.Context(), of)
	require.NoError(t, err)
	return master, of
}

// While events come in, the slot of a lane moves and a master is killed. Whatever was answered with 2xx is done, once.
func TestClusterLosesNothing(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t)
	var did effects
	o := acknowledgedOffice(t, cluster, "moves", &did, webhook.WithReplicaAck(1, 500*time.Millisecond))
	o.work()
	ending := make(chan struct{})
	var mu sync.Mutex
	var accepted []string
	refused := 0
	send := func() { // as a provider: each event until it is accepted
		id := newID()
		for {
			code := o.post(stripeBody(id, "charge.captured", "ch_"+id, "")).Code
			mu.Lock()
			if code == http.StatusOK {
				accepted = append(accepted, id)
				mu.Unlock()
				return
			}
			refused++
			mu.Unlock()
			select {
			case <-t.Context().Done():
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
	var senders sync.WaitGroup
	for range 4 {
		senders.Go(func() {
			for open := true; open && t.Context().Err() == nil; {
				send()
				select {
				case <-ending:
					open = false
				case <-time.After(5 * time.Millisecond):
				}
			}
		})
	}
	from, moved := masterOfLane(t, cluster, "moves", 0)
	masters, err := cluster.Masters(t.Context())
	require.NoError(t, err)
	to := masters[0]
	if to == from {
		to = masters[1]
	}
	require.NoError(t, cluster.Migrate(t.Context(), moved, to))
	killed, _ := masterOfLane(t, cluster, "moves", 1)
	killed.Kill()
	_, err = cluster.Promoted(t.Context(), killed)
	require.NoError(t, err)
	require.NoError(t, killed.Run()) // as a replica: without one, nothing is acknowledged
	require.NoError(t, cluster.Settled(t.Context()))
	close(ending)
	senders.Wait()
	settled(t, o.store, time.Minute)
	for _, id := range accepted {
		r := o.get(id)
		require.Equal(t, webhook.Done, r.State, "%s: %s", id, r.Reason)
		require.Equal(t, 1, did.times(reference(r)), "effects of %s; trail %+v", id, r.Trail)
	}
	assert.Positive(t, refused, "the failover was noticed")
	assert.Greater(t, len(accepted), 20)
	t.Logf("%d events accepted, %d requests answered with 503", len(accepted), refused)
}

// A master dies with events that its replica does not have. With WithReplicaAck they were answered with 503, so that the
// provider delivers them again. The control without it answers 2xx, and they are lost.
func TestKilledMasterLosesNothingThatWasAnswered(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t)
	for _, c := range []struct {
		name string
		opts []webhook.RedisOption
		code int
	}{
		{"acknowledged", []webhook.RedisOption{webhook.WithReplicaAck(1, 50*time.Millisecond)}, http.StatusServiceUnavailable},
		{"control", nil, http.StatusOK}, // lost, if the provider did not deliver again
	} {
		t.Run(c.name, func(t *testing.T) {
			var did effects
			o := acknowledgedOffice(t, cluster, c.name, &did, append(c.opts, webhook.WithLanes(1))...)
			o.delivered(newID()) // connected, and its scripts are known
			master, _ := masterOfLane(t, cluster, c.name, 0)
			require.NoError(t, cluster.Rested(t.Context(), master))
			resume := cluster.Partner(master).Stall(t)
			require.NoError(t, master.Client().Do(t.Context(), "CLIENT", "KILL", "TYPE", "REPLICA").Err())
			var ids []string
			for range 5 {
				ids = append(ids, newID())
				w := o.post(stripeBody(ids[len(ids)-1], "charge.captured", "", ""))
				require.Equal(t, c.code, w.Code)
			}
			master.Kill()
			resume()
			_, err := cluster.Promoted(t.Context(), master)
			require.NoError(t, err)
			require.NoError(t, master.Run()) // as a replica of its successor
			require.NoError(t, cluster.Settled(t.Context()))
			o = acknowledgedOffice(t, cluster, c.name, &did, append(c.opts, webhook.WithLanes(1))...) // a new client
			found := 0
			for _, id := range ids {
				_, err := o.Get(t.Context(), "stripe", id)
				if err == nil {
					found++
					continue
				}
				require.ErrorIs(t, err, webhook.ErrNotFound)
			}
			assert.Zero(t, found, "events that only the killed master had")
			for _, id := range ids { // the provider delivers again, if it got no 2xx
				o.delivered(id)
			}
			o.work()
			settled(t, o.store, time.Minute)
			for _, id := range ids {
				assert.Equal(t, 1, did.times(reference(o.get(id))), id)
			}
		})
	}
}

// delivered posts an event again and again until it is accepted, as a provider does: a replica that has just come back may
// not acknowledge in time.
func (o *office) delivered(id string) {
	o.t.Helper()
	require.Eventually(o.t, func() bool {
		return o.post(stripeBody(id, "charge.captured", "", "")).Code == http.StatusOK
	}, time.Minute, 10*time.Millisecond, "%s", id)
}

// reference is the Job.Reference of an event.
func reference(r webhook.Record) string { return idempotent.HashKey("webhook", r.Key) }

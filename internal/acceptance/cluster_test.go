package acceptance

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/internal/behaviour"
	"github.com/idempotent-go/idempotent/internal/redistest"
)

// A clusterWorld is a world on a Cluster of three masters with a replica each. Leases are too long
// to be what wakes anybody, unless a test says otherwise.
type clusterWorld struct {
	*world
	*redistest.Cluster
	belief *belief // what clients go by; nil: they ask
}

// A belief is what its first client was told of the Cluster's slots. All clients are told the same, until
// they may learn.
type belief struct {
	refuse
	mu    sync.Mutex
	slots []redis.ClusterSlot
	learn bool
}

func (b *belief) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		if asked, ok := cmd.(*redis.ClusterSlotsCmd); ok && err == nil {
			b.mu.Lock()
			defer b.mu.Unlock()
			if b.slots == nil {
				b.slots = asked.Val()
			}
			if !b.learn {
				asked.SetVal(b.slots)
			}
		}
		return err
	}
}

// may lets clients learn what is.
func (b *belief) may() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.learn = true
}

// A clusterTest is a part of a test that leaves a Cluster as it was, but for who is a master and has
// which slot.
type clusterTest struct {
	name string
	run  func(clusterWorld)
}

// onCluster runs tests one after another on one Cluster, since it takes a while to make.
func onCluster(t *testing.T, tests ...clusterTest) {
	t.Helper()
	t.Parallel()
	c := redistest.StartCluster(t)
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			leavesNothing(t)
			require.NoError(t, c.Settled(t.Context()))
			test.run(clusterWorld{&world{
				T: t, real: true, lease: time.Minute, over: make(chan struct{}),
				namespace: fmt.Sprintf("test-%d", worlds.Add(1)), servers: servers{Addrs: c.Addrs()},
			}, c, nil})
		})
	}
}

func TestCluster(t *testing.T) {
	onCluster(t,
		clusterTest{"behaviour", func(w clusterWorld) { behaviour.Run(w.T, w.Cluster.Client(w), w.Cluster.Client(w)) }},
		clusterTest{"one subscription connection per master", oneSubscriptionPerMaster},
		clusterTest{"processes", processesOnCluster},
	)
}

// two makes executors as two processes have them.
func (w clusterWorld) two(opts ...idempotent.Option) (one, two *executor) {
	w.Helper()
	return w.executorOn(w.client(), opts...), w.executorOn(w.client(), opts...)
}

func (w clusterWorld) client() *redis.ClusterClient {
	w.Helper()
	c := redis.NewClusterClient(&redis.ClusterOptions{Addrs: w.Addrs()})
	if w.belief != nil {
		c.OnNewNode(func(node *redis.Client) { node.AddHook(w.belief) })
	}
	w.Cleanup(func() { _ = c.Close() })
	return c
}

func (w clusterWorld) masters() []*redistest.Node {
	w.Helper()
	all, err := w.Masters(w.Context())
	require.NoError(w, err)
	require.Len(w, all, 3)
	return all
}

// masterOf returns the master that has a key, and another one.
func (w clusterWorld) masterOf(key string) (has, another *redistest.Node) {
	w.Helper()
	has, err := w.MasterOf(w.Context(), w.name(key))
	require.NoError(w, err)
	for _, another = range w.masters() {
		if another != has {
			break
		}
	}
	return has, another
}

// keyOn returns a key that a master has.
func (w clusterWorld) keyOn(master *redistest.Node) string {
	w.Helper()
	for i := 0; ; i++ {
		key := fmt.Sprint("order-", i)
		if has, _ := w.masterOf(key); has == master {
			return key
		}
	}
}

// subscribers returns the IDs of a node's connections that have subscriptions.
func (w clusterWorld) subscribers(node *redistest.Node) (ids []string) {
	w.Helper()
	list, err := node.Client().Do(w.Context(), "CLIENT", "LIST", "TYPE", "PUBSUB").Text()
	require.NoError(w, err)
	for line := range strings.Lines(list) {
		if id, _, ok := strings.Cut(line, " "); ok {
			ids = append(ids, id)
		}
	}
	return ids
}

// replicated returns when the replica has all that was written to its master so far.
func (w clusterWorld) replicated(master *redistest.Node, key string) {
	w.Helper()
	conn := master.Client().Conn()
	defer conn.Close()
	require.NoError(w, conn.Set(w.Context(), w.name(key)+" barrier", "", time.Minute).Err())
	n, err := conn.Wait(w.Context(), 1, time.Minute).Result()
	require.NoError(w, err)
	require.EqualValues(w, 1, n)
}

// counter reads a number out of a node's INFO.
func (w clusterWorld) counter(node *redistest.Node, section, name string) (n int) {
	w.Helper()
	info, err := node.Client().Info(w.Context(), section).Result()
	require.NoError(w, err)
	if _, rest, ok := strings.Cut(info, "\n"+name); ok {
		_, err := fmt.Sscanf(rest, "%d", &n)
		require.NoError(w, err)
	}
	return n
}

// rejected counts the commands of a name that the nodes did not execute.
func rejected(w clusterWorld, command string, nodes ...*redistest.Node) (n int) {
	w.Helper()
	for _, node := range nodes {
		info, err := node.Client().Info(w.Context(), "commandstats").Result()
		require.NoError(w, err)
		if _, rest, ok := strings.Cut(info, "cmdstat_"+command+":"); ok {
			var one int
			_, rest, _ = strings.Cut(rest, "rejected_calls=")
			_, err := fmt.Sscanf(rest, "%d", &one)
			require.NoError(w, err)
			n += one
		}
	}
	return n
}

// errors counts the errors of a kind that a node has answered.
func (w clusterWorld) errors(node *redistest.Node, kind string) int {
	w.Helper()
	return w.counter(node, "errorstats", "errorstat_"+kind+":count=")
}

func oneSubscriptionPerMaster(w clusterWorld) {
	owner, other := w.two()
	p := w.provider()
	const keys = 100
	var calls []*call
	for i := range keys {
		calls = append(calls, owner.start(w.Context(), fmt.Sprint(i), p.charge))
		<-p.started
	}
	for i := range keys {
		calls = append(calls, other.start(w.Context(), fmt.Sprint(i), p.charge))
	}
	for range keys {
		<-other.looked
	}
	for _, m := range w.masters() {
		assert.Len(w, w.subscribers(m), 1)
		assert.Empty(w, w.subscribers(w.Partner(m)))
	}
	for range keys {
		p.answer("charged", nil)
	}
	for _, c := range calls {
		c.returned(w, "charged")
	}
	assert.Equal(w, keys, p.count())
}

func processesOnCluster(w clusterWorld) {
	owner := w.worker(5)
	require.Equal(w, 1, owner.says("running").Attempt)
	master, _ := w.masterOf("order-1")
	workers := []*worker{owner}
	for i := range 2 {
		other := w.worker(5)
		other.says("waiting")
		workers = append(workers, other)
		require.Eventually(w, func() bool { return len(w.subscribers(master)) == i+1 }, time.Minute, 5*time.Millisecond)
	}
	owner.answer()
	for _, p := range workers {
		for range 5 {
			r := p.says("returned")
			require.Empty(w, r.Err)
			require.Equal(w, "charged by attempt 1", r.Value)
		}
	}
}

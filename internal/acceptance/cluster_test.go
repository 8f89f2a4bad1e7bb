package acceptance

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/internal/behaviour"
	"github.com/idempotent-go/idempotent/internal/redistest"
	"github.com/idempotent-go/idempotent/internal/slot"
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

// TestCluster shows all that is about Clusters on one, since it takes a while to make. Each test
// leaves it as it was, but for who is a master and has which slot.
func TestCluster(t *testing.T) {
	t.Parallel()
	c := redistest.StartCluster(t)
	for _, test := range []struct {
		name string
		run  func(clusterWorld)
	}{
		{"behaviour", func(w clusterWorld) { behaviour.Run(w.T, w.Cluster.Client(w), w.Cluster.Client(w)) }},
		{"one subscription connection per master", oneSubscriptionPerMaster},
		{"processes", processesOnCluster},
		{"ASK", sentByASK},
		{"MOVED", sentByMOVED},
		{"ASK and MOVED, acknowledged", acknowledgedWhileMigrated},
		{"slot migrated", slotMigrated},
		{"slot migrated, others stay", othersStay},
		{"slot migrated, never learned", neverLearning(slotMigrated)},
		{"slot migrated, masters disagree", mastersDisagree},
		{"slot migrated, leases renewed", renewedWhileMigrated},
		{"slot migrated, inspected", inspectedWhileMigrated},
		{"failover", failedOver},
		{"failover, learned late", failedOverLearnedLate},
		{"failover under load", failoverUnderLoad},
		{"master killed under load", masterKilled},
	} {
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

// A crowd is many keys of one slot, each run by one process and waited for by another.
type crowd struct {
	w              clusterWorld
	owner, other   *executor
	p              *provider // of those who should not run anything
	first, waiting []*call
	answers        []chan string
}

func (c *crowd) key(i int) string { return fmt.Sprintf("{crowd}-%d", i) }

// crowd returns when all keys are run and waited for.
func (w clusterWorld) crowd(n int, opts ...idempotent.Option) *crowd {
	w.Helper()
	c := &crowd{w: w, p: w.provider()}
	c.owner, c.other = w.two(opts...)
	for i := range n {
		answer, began := make(chan string, 1), make(chan struct{})
		c.answers = append(c.answers, answer)
		c.first = append(c.first, c.owner.start(w.Context(), c.key(i), func(ctx context.Context) (string, error) {
			close(began)
			select {
			case value := <-answer:
				return value, context.Cause(ctx)
			case <-w.over:
				return "", nil
			}
		}))
		<-began
		c.waiting = append(c.waiting, c.other.start(w.Context(), c.key(i), c.p.charge))
	}
	for range n {
		<-c.other.looked
	}
	return c
}

// finish ends the executions from first to last.
func (c *crowd) finish(first, last int) {
	c.w.Helper()
	for i := first; i < last; i++ {
		c.answers[i] <- fmt.Sprint("charged ", i)
		c.first[i].returned(c.w, fmt.Sprint("charged ", i))
	}
}

// told returns when all who waited have what the owners returned, so that none ran it again.
func (c *crowd) told() {
	c.w.Helper()
	for i := range c.waiting {
		c.waiting[i].returned(c.w, fmt.Sprint("charged ", i))
	}
	assert.Zero(c.w, c.owner.Count(idempotent.EventLeaseLost))
}

// A slot moves while keys in it are run and waited for. What ends while the slot is on its way is
// published on the new master, and the subscriptions are on the old one: they are told when the
// slot has arrived.
func slotMigrated(w clusterWorld) {
	c := w.crowd(40)
	_, to := w.masterOf(c.key(0))
	m, err := w.BeginMigration(w.Context(), slot.Of(w.name(c.key(0))), to)
	require.NoError(w, err)
	for i := range 20 {
		require.NoError(w, m.MoveKey(w.Context(), w.name(c.key(i))))
	}
	c.finish(0, 10)
	c.finish(20, 30)
	require.NoError(w, m.MoveKeys(w.Context()))
	require.NoError(w, m.Finish(w.Context()))
	c.finish(10, 20)
	c.finish(30, 40)
	c.told()
}

// The server ends the subscriptions of a slot that moves. Those of others go on as they are, on the
// same connection, and their waiters have nothing to read.
func othersStay(w clusterWorld) {
	moving := w.keyOn(w.masters()[0])
	from, to := w.masterOf(moving)
	staying := ""
	for i := 0; staying == ""; i++ {
		key := fmt.Sprint("invoice-", i)
		if has, _ := w.masterOf(key); has == from && slot.Of(w.name(key)) != slot.Of(w.name(moving)) {
			staying = key
		}
	}
	client := w.client()
	reads := &readsOf{name: w.name(staying)}
	client.AddHook(reads)
	owner, other := w.executorOn(w.client()), w.executorOn(client)
	moves, stays := w.provider(), w.provider()
	first, second := owner.start(w.Context(), moving, moves.charge), owner.start(w.Context(), staying, stays.charge)
	<-moves.started
	<-stays.started
	waiting, bystander := other.start(w.Context(), moving, moves.charge), other.start(w.Context(), staying, stays.charge)
	<-other.looked
	<-other.looked
	connections, refused := w.subscribers(from), rejected(w, "sunsubscribe", from)

	require.NoError(w, w.Migrate(w.Context(), slot.Of(w.name(moving)), to))
	<-other.looked // on the new master
	moves.answer("moved", nil)
	first.returned(w, "moved")
	waiting.returned(w, "moved")
	assert.Subset(w, w.subscribers(from), connections)
	assert.EqualValues(w, 1, reads.n.Load())
	assert.Equal(w, refused, rejected(w, "sunsubscribe", from), "what was refused is not ended")

	stays.answer("stayed", nil)
	second.returned(w, "stayed")
	bystander.returned(w, "stayed")
}

// neverLearning tests clients that go on believing that a slot is where it was: the server that they
// ask has not heard of the move. The old master says where the slot is when it refuses them.
func neverLearning(test func(clusterWorld)) func(clusterWorld) {
	return func(w clusterWorld) {
		w.belief = new(belief)
		test(w)
	}
}

// The old master says that the new one has the slot, and the new one that the old one has it. Nobody
// hurries to and fro between them, and all goes on when they agree.
func mastersDisagree(w clusterWorld) {
	c := w.crowd(1)
	from, to := w.masterOf(c.key(0))
	m, err := w.BeginMigration(w.Context(), slot.Of(w.name(c.key(0))), to)
	require.NoError(w, err)
	require.NoError(w, m.MoveKeys(w.Context()))
	reads, subscriptions := rejected(w, "evalsha", from, to), rejected(w, "ssubscribe", from, to)
	require.NoError(w, from.Client().Do(w.Context(), "CLUSTER", "SETSLOT", m.Slot, "NODE", to.ID).Err())
	require.Eventually(w, func() bool { return rejected(w, "evalsha", from, to) >= reads+20 }, time.Minute, time.Millisecond)
	assert.Less(w, rejected(w, "ssubscribe", from, to), subscriptions+40, "more often than the waiter reads")
	require.NoError(w, m.Finish(w.Context()))
	c.finish(0, 1)
	c.told()
}

// readsOf counts the reads of one name.
type readsOf struct {
	looks
	name string
	n    atomic.Int64
}

func (r *readsOf) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if slices.Contains(cmd.Args(), any(r.name)) && cmd.Name() == "evalsha" {
			r.n.Add(1)
		}
		return next(ctx, cmd)
	}
}

func renewedWhileMigrated(w clusterWorld) {
	w.lease = 3 * time.Second
	const keys = 20
	c := w.crowd(keys)
	from, to := w.masterOf(c.key(0))
	bystander := w.keyOn(from)
	first := c.owner.start(w.Context(), bystander, c.p.charge)
	<-c.p.started
	waiting := c.other.start(w.Context(), bystander, c.p.charge)
	<-c.other.looked
	m, err := w.BeginMigration(w.Context(), slot.Of(w.name(c.key(0))), to)
	require.NoError(w, err)
	renewed := func() {
		c.owner.Wait(w, idempotent.EventRenewed, c.owner.Count(idempotent.EventRenewed)+2*keys)
	}
	require.NoError(w, m.MoveKeys(w.Context()))
	asks := w.errors(from, "ASK")
	renewed()
	assert.Greater(w, w.errors(from, "ASK"), asks)
	require.NoError(w, m.Finish(w.Context()))
	renewed()
	c.p.answer("charged", nil)
	first.returned(w, "charged")
	waiting.returned(w, "charged")
	assert.Equal(w, 1, c.p.count())
	c.finish(0, keys)
	c.told()
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

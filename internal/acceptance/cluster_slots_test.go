package acceptance

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/internal/slot"
)

// Slots move while keys in them are claimed, run and waited for.
func TestClusterSlots(t *testing.T) {
	onCluster(t,
		clusterTest{"ASK", sentByASK},
		clusterTest{"MOVED", sentByMOVED},
		clusterTest{"ASK and MOVED, acknowledged", acknowledgedWhileMigrated},
		clusterTest{"slot migrated", slotMigrated},
		clusterTest{"slot migrated, others stay", othersStay},
		clusterTest{"slot migrated, never learned", neverLearning(slotMigrated)},
		clusterTest{"slot migrated, masters disagree", mastersDisagree},
		clusterTest{"slot migrated, leases renewed", renewedWhileMigrated},
		clusterTest{"slot migrated, inspected", inspectedWhileMigrated},
	)
}

// A crowd is many keys of one slot, each run by one process and waited for by another.
type crowd struct {
	w              clusterWorld
	owner, other   *executor
	p              *provider // of the fns that must not run
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

// The old master says that the new one has the slot, and the new one that the old one has it. No call
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
	readHook
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

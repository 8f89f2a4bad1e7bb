package campaign

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/idempotent-go/idempotent/internal/redistest"
	"github.com/idempotent-go/idempotent/internal/slot"
	"github.com/idempotent-go/idempotent/verify/soak/history"
)

// A clusterSet is a Cluster of three masters with a replica each.
type clusterSet struct {
	*redistest.Cluster
	field *field
}

func launchCluster(f *field) (servers, error) {
	cluster, err := redistest.LaunchCluster()
	return &clusterSet{cluster, f}, err
}

func (c *clusterSet) addrs() []string                   { return c.Addrs() }
func (c *clusterSet) data() []string                    { return c.Addrs() }
func (c *clusterSet) master() string                    { return "" }
func (c *clusterSet) close()                            { c.Close() }
func (c *clusterSet) settled(ctx context.Context) error { return c.Settled(ctx) }

func (c *clusterSet) masters(ctx context.Context) (addrs []string, err error) {
	masters, err := c.Masters(ctx)
	for _, m := range masters {
		addrs = append(addrs, m.Addr())
	}
	return addrs, err
}

func (c *clusterSet) acks() int {
	if c.field.Acks {
		return 1
	}
	return 0
}

func (c *clusterSet) faults() []fault {
	return append(c.field.commonFaults(2*lease),
		c.field.planned("master killed", c.kill),
		c.field.planned("CLUSTER FAILOVER", c.failover),
		c.field.planned("master stopped", c.stop),
		fault{name: "slot migrated", inject: c.migrate},
		fault{name: "slot migrated, slowly", inject: c.migrateSlowly},
	)
}

// some is a master, once the Cluster is settled.
func (c *clusterSet) some(ctx context.Context, r *rand.Rand) (*redistest.Node, error) {
	if err := c.Settled(ctx); err != nil {
		return nil, err
	}
	masters, err := c.Masters(ctx)
	if err != nil || len(masters) == 0 {
		return nil, errors.Join(err, errors.New("there is no master"))
	}
	return masters[r.IntN(len(masters))], nil
}

// slots are the slots of a master.
func (c *clusterSet) slots(ctx context.Context, m *redistest.Node) (ranges []history.Range, err error) {
	all, err := m.Client().ClusterSlots(ctx).Result() //nolint:staticcheck // CLUSTER SHARDS names a master by its shard, and is newer than some servers
	for _, s := range all {
		if len(s.Nodes) > 0 && s.Nodes[0].ID == m.ID {
			ranges = append(ranges, history.Range{From: s.Start, To: s.End})
		}
	}
	return ranges, err
}

// markerIn is a name in one of the slots.
func markerIn(ranges []history.Range) string {
	for i := 0; ; i++ {
		name := fmt.Sprintf("marker %d", i)
		slot := slot.Of(name)
		if slices.ContainsFunc(ranges, func(r history.Range) bool { return r.From <= slot && slot <= r.To }) {
			return name
		}
	}
}

func (c *clusterSet) losing(ctx context.Context, m *redistest.Node, do, done func() error) error {
	slots, err := c.slots(ctx, m)
	if err != nil || len(slots) == 0 {
		return errors.Join(err, fmt.Errorf("%s has %d ranges of slots", m.Addr(), len(slots)))
	}
	return c.field.losing(ctx, m.Addr(), 1, markerIn(slots), slots, do, done)
}

func (c *clusterSet) kill(ctx context.Context, r *rand.Rand) error {
	always := context.WithoutCancel(ctx)
	m, err := c.some(always, r)
	if err != nil {
		return err
	}
	if err := c.losing(always, m, func() error { m.Kill(); return nil }, nothing); err != nil {
		return err
	}
	_, err = c.Promoted(always, m)
	hold(ctx, upTo(r, lease))
	return errors.Join(err, m.Run(), c.Settled(always))
}

// failover: the old master helps, so nothing may be lost.
func (c *clusterSet) failover(ctx context.Context, r *rand.Rand) error {
	always := context.WithoutCancel(ctx)
	m, err := c.some(always, r)
	if err != nil {
		return err
	}
	_, err = c.Failover(always, m)
	return err
}

// stop stops a master until its replica is in its place. When it goes on, it takes writes until it
// is told.
func (c *clusterSet) stop(ctx context.Context, r *rand.Rand) error {
	always := context.WithoutCancel(ctx)
	m, err := c.some(always, r)
	if err != nil {
		return err
	}
	err = c.losing(always, m, func() error {
		return stopServerUntil(always, m.Addr(), func() error {
			return until(always, "the replica to be promoted", func() (bool, error) {
				info, err := c.Partner(m).Client().Info(always, "replication").Result()
				return isMaster(info), err
			})
		})
	}, func() error { return demoted(always, m.Addr()) })
	return errors.Join(err, c.Settled(always))
}

// migrate moves the slot of a key that is in use to another master.
func (c *clusterSet) migrate(ctx context.Context, r *rand.Rand) error {
	return c.move(ctx, r, 0)
}

// migrateSlowly keeps the slot on its way for a while, first with all its keys where they were, then
// with all of them moved.
func (c *clusterSet) migrateSlowly(ctx context.Context, r *rand.Rand) error {
	return c.move(ctx, r, between(r, lease/5, lease))
}

func (c *clusterSet) move(ctx context.Context, r *rand.Rand, slowly time.Duration) error {
	always := context.WithoutCancel(ctx)
	to, err := c.some(always, r)
	if err != nil {
		return err
	}
	slot, err := c.busySlot(always, r, to)
	if err != nil {
		return err
	}
	m, err := c.BeginMigration(always, slot, to)
	if err != nil {
		return err
	}
	hold(ctx, slowly)
	err = m.MoveKeys(always)
	hold(ctx, slowly)
	return errors.Join(err, m.MoveKeys(always), m.Finish(always))
}

// busySlot is the slot of one of the newest keys that is not on that master.
func (c *clusterSet) busySlot(ctx context.Context, r *rand.Rand, not *redistest.Node) (int, error) {
	newest := int(time.Since(c.field.began).Seconds() * newKeys)
	for range 100 {
		slot := slot.Of(fmt.Sprintf("%sk%d", namePrefix, max(0, newest-r.IntN(3*newKeys))))
		if owner, err := c.Master(ctx, slot); err != nil || owner != not {
			return slot, err
		}
	}
	return 0, errors.New("all slots of new keys are on one master")
}

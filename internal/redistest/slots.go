package redistest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/idempotent-go/idempotent/internal/slot"
)

// A view is how one node sees the Cluster.
type view struct {
	from    *Node
	state   string // of cluster_state
	master  bool   // it is one itself
	follows string // the ID of its master
	inStep  bool   // with its master
	owners  [slot.Count]string
	roles   map[string]string // whom a node follows, "-" for a master
}

func (n *Node) view(ctx context.Context) (*view, error) {
	nodes, err := n.client.ClusterNodes(ctx).Result()
	if err != nil {
		return nil, err
	}
	info, err := n.client.ClusterInfo(ctx).Result()
	if err != nil {
		return nil, err
	}
	replication, err := n.client.Info(ctx, "replication").Result()
	if err != nil {
		return nil, err
	}
	v := &view{from: n, roles: make(map[string]string), inStep: strings.Contains(replication, "master_link_status:up")}
	_, state, _ := strings.Cut(info, "cluster_state:")
	v.state, _, _ = strings.Cut(state, "\r\n")
	for line := range strings.Lines(nodes) {
		if err := v.add(strings.Fields(line)); err != nil {
			return nil, fmt.Errorf("redistest: CLUSTER NODES says %q: %w", line, err)
		}
	}
	return v, nil
}

// add takes in one line of CLUSTER NODES.
func (v *view) add(fields []string) error {
	if len(fields) < 8 {
		return errors.New("too few fields")
	}
	id, flags := fields[0], fields[2]
	if !strings.Contains(flags, "handshake") {
		v.roles[id] = fields[3]
	}
	if strings.Contains(flags, "myself") {
		v.master = strings.Contains(flags, "master")
		v.follows = fields[3]
	}
	for _, span := range fields[8:] {
		if strings.HasPrefix(span, "[") { // being migrated
			continue
		}
		from, to, many := strings.Cut(span, "-")
		if !many {
			to = from
		}
		first, err := strconv.Atoi(from)
		if err != nil {
			return err
		}
		last, err := strconv.Atoi(to)
		if err != nil {
			return err
		}
		for slot := first; slot <= last; slot++ {
			v.owners[slot] = id
		}
	}
	return nil
}

// unsettled says what is not yet as it should be.
func (v *view) unsettled(c *Cluster) error {
	at := v.from.Addr()
	switch {
	case v.state != "ok":
		return fmt.Errorf("%s says cluster_state:%s", at, v.state)
	case len(v.roles) != len(c.Nodes):
		return fmt.Errorf("%s knows %d nodes", at, len(v.roles))
	case !v.master && !v.inStep:
		return fmt.Errorf("%s is not in step with its master", at)
	case !v.master && (c.node(v.follows) == nil || !c.node(v.follows).Alive()):
		return fmt.Errorf("%s follows %s, which is not alive", at, v.follows)
	}
	for slot, id := range v.owners {
		if owner := c.node(id); owner == nil || !owner.Alive() {
			return fmt.Errorf("%s sees nobody alive with slot %d", at, slot)
		}
	}
	return nil
}

// A Migration is a slot on its way from one master to another. While it lasts, the old master
// answers ASK for the keys it no longer has.
type Migration struct {
	Slot     int
	From, To *Node
	cluster  *Cluster
}

// Migrate moves a slot, with its keys, to another master.
func (c *Cluster) Migrate(ctx context.Context, slot int, to *Node) error {
	m, err := c.BeginMigration(ctx, slot, to)
	if err != nil {
		return err
	}
	if err := m.MoveKeys(ctx); err != nil {
		return err
	}
	return m.Finish(ctx)
}

// BeginMigration begins to move a slot: no key has moved, and new ones are made on the new master.
func (c *Cluster) BeginMigration(ctx context.Context, slot int, to *Node) (*Migration, error) {
	from, err := c.Master(ctx, slot)
	if err != nil {
		return nil, err
	}
	if from == to {
		return nil, fmt.Errorf("redistest: %s has slot %d already", to.Addr(), slot)
	}
	m := &Migration{Slot: slot, From: from, To: to, cluster: c}
	if err := to.client.Do(ctx, "CLUSTER", "SETSLOT", slot, "IMPORTING", from.ID).Err(); err != nil {
		return nil, err
	}
	return m, from.client.Do(ctx, "CLUSTER", "SETSLOT", slot, "MIGRATING", to.ID).Err()
}

// MoveKeys moves all keys that the old master still has.
func (m *Migration) MoveKeys(ctx context.Context) error {
	for {
		keys, err := m.From.client.ClusterGetKeysInSlot(ctx, m.Slot, 100).Result()
		if err != nil || len(keys) == 0 {
			return err
		}
		if err := m.MoveKey(ctx, keys...); err != nil {
			return err
		}
	}
}

// MoveKey moves the keys named, if they are there.
func (m *Migration) MoveKey(ctx context.Context, keys ...string) error {
	args := []any{"MIGRATE", "127.0.0.1", m.To.port, "", 0, int(patience / time.Millisecond), "KEYS"}
	for _, key := range keys {
		args = append(args, key)
	}
	return m.From.client.Do(ctx, args...).Err()
}

// Finish gives the slot to the new master, and returns when the whole Cluster knows it. All keys
// must have been moved.
func (m *Migration) Finish(ctx context.Context) error {
	for _, n := range []*Node{m.To, m.From} { // the new one first: there is no moment without an owner
		if err := n.client.Do(ctx, "CLUSTER", "SETSLOT", m.Slot, "NODE", m.To.ID).Err(); err != nil {
			return err
		}
	}
	return m.cluster.Settled(ctx)
}

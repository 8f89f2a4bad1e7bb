package redistest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/idempotent-go/idempotent/internal/slot"
)

const clusterMasters = 3

// A Cluster is a Redis Cluster of 3 masters with a replica each. The nodes keep nothing on disk
// but who they are: a master that is killed must not run again before Promoted has returned, or
// it comes back empty and its data is gone.
type Cluster struct {
	Nodes []*Node // the first three are masters at the beginning
}

// A Node is one server of a Cluster. Kill ends it, Run starts it again.
type Node struct {
	*Server
	ID       string // in the Cluster
	client   *redis.Client
	bus      int
	promoted atomic.Int64 // when it last was, Unix ms
}

// termOfVotes is how long a node that was promoted remembers the votes for it. Promoted again in
// this time, it counts those, keeps its old epoch, and its predecessor takes over when it can.
const termOfVotes = 6500 * time.Millisecond

// LaunchCluster starts a Cluster, with further arguments for each server. It lives until Close or
// the end of this process. A master that does not answer for 1.5 s is failed over.
func LaunchCluster(args ...string) (*Cluster, error) {
	c := &Cluster{Nodes: make([]*Node, 2*clusterMasters)}
	err := together(len(c.Nodes), func(i int) (err error) {
		c.Nodes[i], err = launchNode(args)
		return err
	})
	if err == nil {
		err = c.form(context.Background())
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// StartCluster starts a Cluster of the test's own and stops it when the test ends.
func StartCluster(t testing.TB, args ...string) *Cluster {
	t.Helper()
	c, err := LaunchCluster(args...)
	must(t, err)
	t.Cleanup(c.Close)
	return c
}

func launchNode(args []string) (*Node, error) {
	n := &Node{}
	var err error
	n.Server, err = start(func(s *Server) (err error) {
		n.bus, err = freePort()
		s.args = append(s.basics(),
			"--cluster-enabled", "yes", "--cluster-port", strconv.Itoa(n.bus), "--cluster-node-timeout", "1500",
			"--cluster-replica-validity-factor", "0", "--cluster-allow-replica-migration", "no",
			"--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1")
		s.args = append(s.args, args...)
		return err
	})
	if err != nil {
		return nil, err
	}
	n.client = redis.NewClient(&redis.Options{Addr: n.Addr(), MaxRetries: -1})
	n.ID, err = n.client.ClusterMyID(context.Background()).Result()
	return n, err
}

// form makes single nodes a Cluster.
func (c *Cluster) form(ctx context.Context) error {
	for i, master := range c.Nodes[:clusterMasters] {
		first, last := i*slot.Count/clusterMasters, (i+1)*slot.Count/clusterMasters-1
		err := errors.Join(
			master.client.Do(ctx, "CLUSTER", "SET-CONFIG-EPOCH", i+1).Err(),
			master.client.ClusterAddSlotsRange(ctx, first, last).Err())
		if err != nil {
			return err
		}
	}
	for _, n := range c.Nodes[1:] {
		if err := c.Nodes[0].client.Do(ctx, "CLUSTER", "MEET", "127.0.0.1", n.port, n.bus).Err(); err != nil {
			return err
		}
	}
	for i, replica := range c.Nodes[clusterMasters:] {
		err := poll(ctx, "a replica to know its master", func(ctx context.Context) error {
			return replica.client.ClusterReplicate(ctx, c.Nodes[i].ID).Err()
		})
		if err != nil {
			return err
		}
	}
	return c.Settled(ctx)
}

// Close kills all servers for good.
func (c *Cluster) Close() {
	for _, n := range c.Nodes {
		if n == nil {
			continue
		}
		_ = n.client.Close()
		n.Server.Close()
	}
}

// Addrs returns host:port of each node, masters or not, alive or not.
func (c *Cluster) Addrs() []string {
	addrs := make([]string, len(c.Nodes))
	for i, n := range c.Nodes {
		addrs[i] = n.Addr()
	}
	return addrs
}

// Client returns a client that is closed when the test ends.
func (c *Cluster) Client(t testing.TB) *redis.ClusterClient {
	t.Helper()
	client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: c.Addrs()})
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// Client returns the node's own client, to ask it something. Close ends it.
func (n *Node) Client() *redis.Client { return n.client }

// Partner returns the other node of a pair: a master's replica, or a replica's master. Pairs stay
// together for ever.
func (c *Cluster) Partner(n *Node) *Node {
	return c.Nodes[(slices.Index(c.Nodes, n)+clusterMasters)%len(c.Nodes)]
}

// Settled returns when all nodes that are alive agree on who has which slot and who follows whom,
// all slots have a master that is alive, and every replica that is alive is in step with its
// master.
func (c *Cluster) Settled(ctx context.Context) error {
	return poll(ctx, "the cluster to settle", c.unsettled)
}

func (c *Cluster) unsettled(ctx context.Context) error {
	var first *view
	for _, n := range c.alive() {
		v, err := n.view(ctx)
		if err != nil {
			return err
		}
		if err := v.unsettled(c); err != nil {
			return err
		}
		if first == nil {
			first = v
		}
		if first.owners != v.owners {
			return fmt.Errorf("%s disagrees on the slots", n.Addr())
		}
		for _, other := range c.alive() {
			if first.roles[other.ID] != v.roles[other.ID] {
				return fmt.Errorf("%s disagrees on the role of %s", n.Addr(), other.Addr())
			}
		}
	}
	return nil
}

// MasterOf returns the master of a key's slot. In a Cluster that is not settled, it is what the
// first node alive believes.
func (c *Cluster) MasterOf(ctx context.Context, key string) (*Node, error) {
	return c.Master(ctx, slot.Of(key))
}

// Master returns the master of a slot, as MasterOf does.
func (c *Cluster) Master(ctx context.Context, slot int) (*Node, error) {
	for _, n := range c.alive() {
		v, err := n.view(ctx)
		if err != nil {
			return nil, err
		}
		if owner := c.node(v.owners[slot]); owner != nil {
			return owner, nil
		}
	}
	return nil, fmt.Errorf("redistest: slot %d has no master", slot)
}

// Masters returns the nodes that are masters, as they themselves believe.
func (c *Cluster) Masters(ctx context.Context) (masters []*Node, err error) {
	for _, n := range c.alive() {
		v, err := n.view(ctx)
		if err != nil {
			return nil, err
		}
		if v.master {
			masters = append(masters, n)
		}
	}
	return masters, nil
}

// Rested returns when a master's replica may be promoted: 6.5 s after it last was. Wait for it
// before Kill; Failover does so by itself.
func (c *Cluster) Rested(ctx context.Context, master *Node) error {
	rested := time.UnixMilli(c.Partner(master).promoted.Load()).Add(termOfVotes)
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(time.Until(rested)):
		return nil
	}
}

// Failover makes a master's replica the master in its place. The old one helps, so no write is
// lost. It returns the new one when the whole Cluster knows it.
func (c *Cluster) Failover(ctx context.Context, master *Node) (successor *Node, err error) {
	if err := c.Rested(ctx, master); err != nil {
		return nil, err
	}
	var asked time.Time
	return c.promoted(ctx, master, func(ctx context.Context, replica *Node) error {
		if time.Since(asked) < termOfVotes {
			return nil
		}
		asked = time.Now()
		return replica.client.ClusterFailover(ctx).Err()
	})
}

// Promoted returns the node that took the place of a master that was killed or failed over, when
// the whole Cluster knows it.
func (c *Cluster) Promoted(ctx context.Context, old *Node) (successor *Node, err error) {
	return c.promoted(ctx, old, func(context.Context, *Node) error { return nil })
}

func (c *Cluster) promoted(ctx context.Context, old *Node, urge func(context.Context, *Node) error) (successor *Node, err error) {
	successor = c.Partner(old)
	err = poll(ctx, "a replica to be promoted", func(ctx context.Context) error {
		v, err := successor.view(ctx)
		if err != nil || v.master {
			return err
		}
		return errors.Join(errReplica, urge(ctx, successor))
	})
	successor.promoted.Store(time.Now().UnixMilli())
	if err != nil {
		return nil, err
	}
	return successor, c.Settled(ctx)
}

var errReplica = errors.New("it is still a replica")

func (c *Cluster) alive() (nodes []*Node) {
	for _, n := range c.Nodes {
		if n.Alive() {
			nodes = append(nodes, n)
		}
	}
	return nodes
}

func (c *Cluster) node(id string) *Node {
	for _, n := range c.Nodes {
		if n.ID == id {
			return n
		}
	}
	return nil
}

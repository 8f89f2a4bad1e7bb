package pubsub

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/idempotent-go/idempotent/internal/backoff"
	"github.com/idempotent-go/idempotent/internal/topology"
)

// A conn is one subscription connection of a hub. Its goroutine (run) subscribes and unsubscribes; the
// Subscription's goroutine reads.
type conn struct {
	hub     *Hub
	address string
	node    redis.UniversalClient // nil while no server is known; owned by run's goroutine
	lost    bool                  // a session was lost before; owned by run's goroutine

	// Guarded by hub.mu.
	wanted  map[string]struct{}
	dropped map[string]int // unsubscribes that the server has not confirmed yet
	ended   []string       // subscriptions that the server ended by itself
	pending []string       // names that are wanted now, or no longer
	changed chan struct{}
}

const (
	healthInterval = 3 * time.Second
	// idleChecks is how many health checks without a channel close the connection: half a minute.
	idleChecks = 10
	// When the server ends subscriptions, a slot has moved. The connection refreshes the topology at
	// once and twice more, settlePause apart: the servers learn the change one by one, the one that
	// answers may be late, and a new replica accepts subscriptions without delivering everything.
	settlePause = 250 * time.Millisecond
	settleLooks = 2
)

// change notes that name is wanted now, or no longer. The caller holds the mutex.
func (c *conn) change(name string) {
	c.pending = append(c.pending, name)
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

// run keeps the connection until the hub is closed or no channel needs it.
func (c *conn) run() {
	backoff.Reconnect(c.hub.ctx, c.session, func(err error) {
		c.lost = true
		c.invalidate()
		c.hub.logger.Warn("idempotent: subscription lost; waiters poll until it is restored", "error", err.Error())
	})
}

// A session is one connection, from its start to its loss.
type session struct {
	*conn
	ps     *redis.PubSub
	sub    *Subscription       // nil until the first channel is subscribed
	failed chan error          // the subscription's
	have   map[string]struct{} // channels subscribed to
	health *time.Timer
	pinged bool // a ping is unanswered
	looks  int  // how many more times to refresh the topology
	idle   int  // health checks since there was a channel
}

// session returns nil when no channel needs this connection any more.
func (c *conn) session() error {
	if c.lost {
		c.hub.servers.Refresh(c.hub.ctx)
		if c.reroute(); c.retire() {
			return nil
		}
	}
	if c.node == nil {
		return topology.ErrNoServer
	}
	s := &session{conn: c, have: make(map[string]struct{}), failed: make(chan error, 1), health: time.NewTimer(healthInterval)}
	defer s.health.Stop()
	s.ps = s.open()
	defer s.close()
	c.resubscribe()
	for {
		var done bool
		var err error
		select {
		case <-c.hub.ctx.Done():
			return c.hub.ctx.Err()
		case err = <-s.failed:
		case <-c.changed:
			done, err = s.applyChanges()
		case <-s.health.C:
			done, err = s.checkHealth()
		}
		if done || err != nil {
			return err
		}
	}
}

func (s *session) open() *redis.PubSub {
	if s.hub.sharded {
		return s.node.SSubscribe(s.hub.ctx)
	}
	return s.node.Subscribe(s.hub.ctx)
}

func (s *session) close() {
	if s.sub == nil {
		_ = s.ps.Close()
		return
	}
	s.sub.Close()
}

// applyChanges brings the subscriptions up to what is wanted. done says that nothing is.
func (s *session) applyChanges() (done bool, err error) {
	if s.takeEnded() {
		if s.rebalance(true) {
			return true, nil
		}
		s.looks = settleLooks
		s.health.Reset(settlePause)
	}
	add, drop := s.diff(s.have)
	if err := s.subscribe(s.hub.ctx, s.ps, add, drop); err != nil {
		return false, err
	}
	if s.sub == nil && len(add) > 0 {
		s.sub = Receive(s.hub.ctx, s.ps, s.handle, func(err error) { s.failed <- err })
	}
	return false, nil
}

// checkHealth moves channels to where they belong now, pings a silent server and gives up one that
// did not answer the last ping. A connection without channels retires after a while.
func (s *session) checkHealth() (done bool, err error) {
	s.health.Reset(healthInterval)
	if s.rebalance(s.looks > 0) {
		return true, nil
	}
	s.looks = max(0, s.looks-1)
	if len(s.have) == 0 {
		s.pinged = false
		s.idle++
		return s.idle >= idleChecks && s.retire(), nil
	}
	s.idle = 0
	silent := s.sub != nil && !s.sub.TakeTraffic()
	if silent && s.pinged {
		return false, ErrSilent
	}
	if s.pinged = silent; silent {
		return false, s.ps.Ping(s.hub.ctx)
	}
	return false, nil
}

// handle takes what the server sends. It never fails: an error would end the session.
func (s *session) handle(message any) error {
	switch m := message.(type) {
	case *redis.Message:
		s.hub.deliver(m.Channel, []byte(m.Payload))
	case *redis.Subscription:
		switch m.Kind {
		case "subscribe", "ssubscribe":
			s.hub.confirm(m.Channel, s.conn)
		case "unsubscribe", "sunsubscribe":
			s.unsubscribed(m.Channel)
		}
	}
	return nil
}

// rebalance moves channels to the servers they belong on, after a refresh of the topology if asked
// for, and reports whether that left nothing for this connection, which is then out of the hub.
func (c *conn) rebalance(refresh bool) (retired bool) {
	if refresh {
		c.hub.servers.Refresh(c.hub.ctx)
	}
	return c.reroute() && c.retire()
}

// resubscribe makes everything wanted pending, for a new connection.
func (c *conn) resubscribe() {
	c.hub.mu.Lock()
	defer c.hub.mu.Unlock()
	clear(c.dropped)
	c.ended, c.pending = nil, c.pending[:0]
	for name := range c.wanted {
		c.change(name)
	}
}

// diff takes the pending names and brings have up to what is wanted.
func (c *conn) diff(have map[string]struct{}) (add, drop []string) {
	c.hub.mu.Lock()
	defer c.hub.mu.Unlock()
	for _, name := range c.pending {
		_, wanted := c.wanted[name]
		_, held := have[name]
		switch {
		case wanted && !held:
			have[name] = struct{}{}
			add = append(add, name)
		case !wanted && held:
			delete(have, name)
			c.dropped[name]++
			drop = append(drop, name)
		case wanted && held && !c.hub.channels[name].confirmed:
			// Dropped and wanted again before this goroutine saw it. The server still has the
			// subscription, and subscribing once more makes it confirm.
			add = append(add, name)
		}
	}
	c.pending = c.pending[:0]
	return add, drop
}

// subscribe sends the changes. Sharded channels go one by one, because all channels of one command
// must be in the same slot.
func (c *conn) subscribe(ctx context.Context, ps *redis.PubSub, add, drop []string) error {
	if !c.hub.sharded {
		if len(add) > 0 {
			if err := ps.Subscribe(ctx, add...); err != nil {
				return err
			}
		}
		if len(drop) > 0 {
			return ps.Unsubscribe(ctx, drop...)
		}
		return nil
	}
	for _, name := range add {
		if err := ps.SSubscribe(ctx, name); err != nil {
			return err
		}
	}
	for _, name := range drop {
		if err := ps.SUnsubscribe(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

// reroute moves the channels that belong on another server, and reports whether there were any.
// Channels whose server is unknown stay.
func (c *conn) reroute() (moved bool) {
	for _, name := range c.names() {
		address, node := c.hub.route(c.hub.ctx, name)
		switch {
		case node == nil:
		case address == c.address:
			c.node = node
		default:
			moved = c.move(name, address, node) || moved
		}
	}
	return moved
}

func (c *conn) names() []string {
	c.hub.mu.Lock()
	defer c.hub.mu.Unlock()
	return slices.Collect(maps.Keys(c.wanted))
}

func (c *conn) move(name, address string, node redis.UniversalClient) bool {
	c.hub.mu.Lock()
	defer c.hub.mu.Unlock()
	if _, wanted := c.wanted[name]; !wanted {
		return false
	}
	delete(c.wanted, name)
	c.change(name)
	c.hub.attach(name, c.hub.channels[name], address, node)
	return true
}

// retire takes the connection out of the hub if no channel wants it.
func (c *conn) retire() bool {
	c.hub.mu.Lock()
	defer c.hub.mu.Unlock()
	if len(c.wanted) > 0 {
		return false
	}
	delete(c.hub.conns, c.address)
	return true
}

// invalidate makes all waiters on this connection read and poll.
func (c *conn) invalidate() {
	c.hub.mu.Lock()
	defer c.hub.mu.Unlock()
	for name := range c.wanted {
		c.hub.channels[name].invalidate()
	}
}

// unsubscribed handles the server's word that it ended a subscription: on request or, on a Cluster,
// because the channel's slot has moved.
func (c *conn) unsubscribed(name string) {
	c.hub.mu.Lock()
	defer c.hub.mu.Unlock()
	if n := c.dropped[name]; n > 1 {
		c.dropped[name]--
		return
	} else if n == 1 {
		delete(c.dropped, name)
		return
	}
	c.ended = append(c.ended, name)
	c.change(name)
	if _, wanted := c.wanted[name]; wanted {
		c.hub.channels[name].invalidate()
	}
}

// takeEnded removes what the server ended from have, and reports whether there was anything.
func (s *session) takeEnded() (found bool) {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	for _, name := range s.ended {
		delete(s.have, name)
	}
	found, s.ended = len(s.ended) > 0, nil
	return found
}

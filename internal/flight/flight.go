// Package flight joins callers of one key inside one process: one of them leads, the others
// follow what the leader publishes and take its place when it leaves without an outcome.
package flight

import (
	"sync"
	"sync/atomic"
)

// A Group holds the calls under way. S is what leaders publish. The zero Group is ready.
type Group[S any] struct {
	mu    sync.Mutex
	calls map[string]*Call[S]
}

// A Call is one key under way. Its fields are guarded by the group's mutex.
type Call[S any] struct {
	group     *Group[S]
	key       string
	status    S
	lead      chan struct{} // holds one token while nobody leads; made by the first follower
	followers int

	shared atomic.Pointer[shared[S]] // made by the first Watch; read without the mutex
}

// shared is what followers know. Thousands of them read it at the same moment, when it changes, so
// it is not changed but replaced.
type shared[S any] struct {
	status  S
	changed chan struct{} // closed when this is replaced
	settled bool
}

// Enter joins the call for key, or begins it in the zero Call fresh. The caller that leads must
// end with Settle or Vacate, one that follows with Leave or by taking the lead.
func (g *Group[S]) Enter(key string, fresh *Call[S]) (call *Call[S], leads bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if c, ok := g.calls[key]; ok {
		if c.lead == nil {
			c.lead = make(chan struct{}, 1)
		}
		c.followers++
		return c, false
	}
	if g.calls == nil {
		g.calls = make(map[string]*Call[S])
	}
	fresh.group, fresh.key = g, key
	g.calls[key] = fresh
	return fresh, true
}

// Detach makes later callers of key begin a call of their own. Those already in stay together.
func (g *Group[S]) Detach(key string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.calls, key)
}

// Watch returns what was last published, and a channel that is closed when that changes.
func (c *Call[S]) Watch() (status S, changed <-chan struct{}) {
	now := c.shared.Load()
	if now == nil {
		now = c.share()
	}
	return now.status, now.changed
}

func (c *Call[S]) share() *shared[S] {
	c.group.mu.Lock()
	defer c.group.mu.Unlock()
	if now := c.shared.Load(); now != nil {
		return now
	}
	now := &shared[S]{status: c.status, changed: make(chan struct{})}
	c.shared.Store(now)
	return now
}

// Lead returns the channel a follower receives from to take the lead.
func (c *Call[S]) Lead() <-chan struct{} { return c.lead }

// TookLead turns the follower that received from Lead into the leader. Nothing is known then until
// it publishes.
func (c *Call[S]) TookLead() {
	c.group.mu.Lock()
	defer c.group.mu.Unlock()
	c.followers--
	var unknown S
	c.publish(unknown, false)
}

// Publish tells the followers where the call stands.
func (c *Call[S]) Publish(status S) {
	c.group.mu.Lock()
	defer c.group.mu.Unlock()
	c.publish(status, false)
}

// Settle publishes the outcome and ends the call: later callers begin another one.
func (c *Call[S]) Settle(status S) {
	c.group.mu.Lock()
	defer c.group.mu.Unlock()
	c.publish(status, true)
	c.forget()
}

// Vacate ends the leader's part without an outcome: the next follower leads, or the call is over.
// status is what the leader knew last.
func (c *Call[S]) Vacate(status S) {
	c.group.mu.Lock()
	defer c.group.mu.Unlock()
	c.publish(status, false)
	if c.followers == 0 {
		c.forget()
		return
	}
	c.lead <- struct{}{}
}

// Leave takes a follower out of the call.
func (c *Call[S]) Leave() {
	if now := c.shared.Load(); now != nil && now.settled {
		return // there is no lead to take along
	}
	c.group.mu.Lock()
	defer c.group.mu.Unlock()
	c.followers--
	if c.followers > 0 {
		return
	}
	select {
	case <-c.lead: // the last follower takes the unclaimed lead along
		c.forget()
	default:
	}
}

func (c *Call[S]) publish(status S, settled bool) {
	c.status = status
	if last := c.shared.Load(); last != nil {
		c.shared.Store(&shared[S]{status: status, changed: make(chan struct{}), settled: settled})
		close(last.changed)
	}
}

// forget drops the call from the group, unless a later one has its place.
func (c *Call[S]) forget() {
	if c.group.calls[c.key] == c {
		delete(c.group.calls, c.key)
	}
}

// Package flight owns the joining of callers of one key inside one process (single flight): one leads,
// the others follow what it publishes, and one of them leads when it ends without a result. It never
// runs the work, never calls Redis, and starts no goroutine.
package flight

import (
	"sync"
	"sync/atomic"
	"time"
)

// A Group holds the calls in flight. S is what leaders publish. The zero Group is ready to use.
type Group[S any] struct {
	mu        sync.Mutex
	calls     map[string]*Call[S]
	forgotten map[*Call[S]]struct{} // calls that later callers do not join
	unused    []*Call[S]            // ended without followers, for later keys: it saves an allocation of 144 bytes per call
}

// A Call is one key in flight, as its leader has it. The group's mutex guards its fields, which do not
// change once it is settled.
type Call[S any] struct {
	group    *Group[S]
	key      string
	status   S
	settled  atomic.Bool
	queue    queue[S]
	deadline *deadlineTimer // made by the first follower
}

// A Follower is a caller that follows. It belongs to one goroutine.
type Follower[S any] struct {
	call  *Call[S]
	group *wakeGroup[S]
	index int
	wake  <-chan struct{} // closed when there may be something new to poll
}

// A Stage says where a follower is.
type Stage uint8

const (
	// Following: another caller leads, or has been elected.
	Following Stage = iota
	// Elected: the follower must Lead, or Leave, which elects the next one.
	Elected
	// Settled: the call has ended with a result.
	Settled
)

// JoinOptions say when a follower is woken, beyond the result and its election.
type JoinOptions[S any] struct {
	Deadline time.Time    // when to wake it, whatever happens
	WakeOn   func(S) bool // reports whether to wake it for a published state; nil means for none
}

// Enter starts the call for key, which the caller then leads, or joins the one in flight as a follower.
// A leader must end with Settle or HandOver; a follower with Lead, Leave, or a Poll that returns
// Settled. A follower is woken by the result, by its election, at its deadline and by a state that it
// asked for; it may also be woken needlessly.
func (g *Group[S]) Enter(key string, m JoinOptions[S]) (c *Call[S], f Follower[S], joined bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	c, joined = g.calls[key]
	if !joined {
		return g.begin(key), f, false
	}
	f.call = c
	f.group, f.index = c.queue.add(m)
	f.wake = f.group.wakeSignal()
	if c.deadline == nil {
		c.deadline = &deadlineTimer{fire: c.expire}
	}
	c.deadline.set(m.Deadline)
	return c, f, true
}

func (g *Group[S]) begin(key string) (c *Call[S]) {
	if last := len(g.unused) - 1; last >= 0 {
		c, g.unused = g.unused[last], g.unused[:last]
	} else {
		c = &Call[S]{group: g}
	}
	c.key = key
	if g.calls == nil {
		g.calls = make(map[string]*Call[S])
	}
	g.calls[key] = c
	return c
}

// Forget makes later callers of key start a new call; callers already waiting stay with the old one.
func (g *Group[S]) Forget(key string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	c, ok := g.calls[key]
	if !ok {
		return
	}
	delete(g.calls, key)
	if g.forgotten == nil {
		g.forgotten = make(map[*Call[S]]struct{})
	}
	g.forgotten[c] = struct{}{}
}

// WakeAll wakes the followers of all calls.
func (g *Group[S]) WakeAll() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, c := range g.calls {
		c.queue.wakeAll()
	}
	for c := range g.forgotten {
		c.queue.wakeAll()
	}
}

// Publish tells the followers the state of the call. It does nothing after the call is settled, because
// a leader that was replaced without knowing may publish late.
func (c *Call[S]) Publish(status S) {
	c.group.mu.Lock()
	defer c.group.mu.Unlock()
	if !c.settled.Load() {
		c.publish(status)
	}
}

func (c *Call[S]) publish(status S) {
	c.status = status
	c.queue.publish(status)
}

// Settle publishes the result and ends the call, which must not be used any more: later callers start
// another one.
func (c *Call[S]) Settle(status S) {
	if c.settle(status) {
		c.queue.wakeAll() // without the mutex, since it takes a while for a crowd, and a settled queue does not change
	}
}

func (c *Call[S]) settle(status S) (joined bool) {
	g := c.group
	g.mu.Lock()
	defer g.mu.Unlock()
	c.remove()
	if c.deadline == nil { // no follower has ever joined, so no other goroutine has c
		if len(g.unused) < maxUnused {
			*c = Call[S]{group: g}
			g.unused = append(g.unused, c)
		}
		return false
	}
	c.status = status
	c.settled.Store(true)
	return true
}

// maxUnused bounds the memory kept for calls that are about to start.
const maxUnused = 64

// HandOver ends leadership without a result: the follower that has waited longest is elected, or the
// call ends. status is the last state that the leader knew.
func (c *Call[S]) HandOver(status S) {
	c.group.mu.Lock()
	defer c.group.mu.Unlock()
	c.publish(status)
	c.elect()
}

func (c *Call[S]) elect() {
	r, s := c.queue.first()
	if s == nil {
		c.remove()
		return
	}
	s.elected = true
	r.wake()
}

// remove drops a call that has ended from the group.
func (c *Call[S]) remove() {
	if c.deadline != nil {
		c.deadline.stop()
	}
	if c.group.calls[c.key] == c {
		delete(c.group.calls, c.key)
	} else {
		delete(c.group.forgotten, c)
	}
}

// Wait returns false when there may be something new to poll, and true when done is closed.
func (f *Follower[S]) Wait(done <-chan struct{}) (ended bool) {
	if done == nil {
		<-f.wake
		return false
	}
	select {
	case <-f.wake:
		return false
	case <-done:
		return true
	}
}

// Poll stores the last published state in status. A follower whose call is settled must not be used any
// more. A settled call needs no mutex, so a crowd that is woken by the result does not queue for it.
func (f *Follower[S]) Poll(status *S) Stage {
	c := f.call
	if !c.settled.Load() {
		c.group.mu.Lock()
		defer c.group.mu.Unlock()
	}
	*status = c.status
	if c.settled.Load() {
		return Settled
	}
	f.wake = f.group.wakeSignal()
	if f.group.members[f.index].elected {
		return Elected
	}
	return Following
}

// Lead makes an elected follower the leader; the Follower must not be used any more. The published
// state becomes the zero S, because what the last leader knew may no longer hold.
func (f *Follower[S]) Lead() {
	c := f.call
	c.group.mu.Lock()
	defer c.group.mu.Unlock()
	var unknown S
	c.queue.remove(f.group, f.index)
	c.publish(unknown)
}

// Leave takes a follower out of the call. It must not be used any more.
func (f *Follower[S]) Leave() {
	c := f.call
	c.group.mu.Lock()
	defer c.group.mu.Unlock()
	if c.settled.Load() {
		return
	}
	elected := f.group.members[f.index].elected
	c.queue.remove(f.group, f.index)
	if elected {
		c.elect()
	}
}

// expire wakes followers whose deadline has passed.
func (c *Call[S]) expire() {
	c.group.mu.Lock()
	defer c.group.mu.Unlock()
	if c.settled.Load() {
		return
	}
	now := time.Now()
	c.deadline.reset(now, c.queue.expire(now))
}

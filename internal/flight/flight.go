// Package flight joins callers of one key inside one process: one of them leads, the others
// follow what the leader publishes and take its place when it leaves without an outcome.
package flight

import (
	"sync"
	"sync/atomic"
	"time"
)

// A Group holds the calls under way. S is what leaders publish. The zero Group is ready.
type Group[S any] struct {
	mu       sync.Mutex
	calls    map[string]*Call[S]
	detached map[*Call[S]]struct{} // those that later callers do not join any more
	unused   []*Call[S]            // for later keys: nobody joined them
	idle     sync.Pool             // of *Follower[S]
}

// A Call is one key under way, as its leader has it. Its fields are guarded by the group's mutex,
// and do not change any more once it is settled.
type Call[S any] struct {
	group    *Group[S]
	key      string
	status   S
	settled  atomic.Bool
	queue    queue[S]
	deadline *alarm // made by the first follower
}

// A Follower is a caller that follows. It belongs to one goroutine.
type Follower[S any] struct {
	call     *Call[S]
	wake     chan struct{} // holds a token when there may be something to see
	deadline time.Time
	eager    bool
	looked   atomic.Bool // it heeds its wake; until then, others are not to depend on it

	// Guarded by the group's mutex, until the call is settled.
	place   int // in the queue
	elected bool
}

// A Stage is where a follower is.
type Stage uint8

const (
	// Following: somebody else leads, or is about to.
	Following Stage = iota
	// Elected: nobody leads. The follower is to Lead, or to Leave, which lets the next one.
	Elected
	// Settled: the call is over, with an outcome.
	Settled
)

// Enter begins the call for key, which the caller then leads, or joins the one there is as a
// follower. A leader must end with Settle or Vacate, a follower with Lead, with Leave, or when Look
// says that the call is settled. It is woken by the outcome, when it is elected, at its deadline and,
// if it is eager, by all that is published.
func (g *Group[S]) Enter(key string, deadline time.Time, eager bool) (*Call[S], *Follower[S]) {
	g.mu.Lock()
	defer g.mu.Unlock()
	c, ok := g.calls[key]
	if !ok {
		return g.begin(key), nil
	}
	f, ok := g.idle.Get().(*Follower[S])
	if !ok {
		f = &Follower[S]{wake: make(chan struct{}, 1)}
	}
	f.call, f.deadline, f.eager, f.elected = c, deadline, eager, false
	f.looked.Store(false)
	c.queue.add(f)
	if c.deadline == nil {
		c.deadline = &alarm{ring: c.expire}
	}
	c.deadline.expect(deadline)
	return c, f
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

// Detach makes later callers of key begin a call of their own. Those already in stay together.
func (g *Group[S]) Detach(key string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	c, ok := g.calls[key]
	if !ok {
		return
	}
	delete(g.calls, key)
	if g.detached == nil {
		g.detached = make(map[*Call[S]]struct{})
	}
	g.detached[c] = struct{}{}
}

// WakeAll wakes the followers of all calls.
func (g *Group[S]) WakeAll() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, c := range g.calls {
		c.queue.each((*Follower[S]).notify)
	}
	for c := range g.detached {
		c.queue.each((*Follower[S]).notify)
	}
}

// Publish tells the followers where the call stands. A leader that has lost the lead without
// knowing may come too late, when its successor has settled.
func (c *Call[S]) Publish(status S) {
	c.group.mu.Lock()
	defer c.group.mu.Unlock()
	if !c.settled.Load() {
		c.publish(status)
	}
}

func (c *Call[S]) publish(status S) {
	c.status = status
	c.queue.each(func(f *Follower[S]) {
		if f.eager {
			f.notify()
		}
	})
}

// Settle publishes the outcome and ends the call, which is not to be used any more: later callers
// begin another one.
func (c *Call[S]) Settle(status S) {
	if c.settle(status) {
		c.queue.wakeRuns() // outside of the mutex, since it may take a while
	}
}

func (c *Call[S]) settle(status S) (joined bool) {
	g := c.group
	g.mu.Lock()
	defer g.mu.Unlock()
	c.forget()
	if c.deadline == nil { // nobody else knows it
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

// maxUnused is as many calls as are likely to begin while others end.
const maxUnused = 64

// Vacate ends the leader's part without an outcome: the next follower leads, or the call is over.
// status is what the leader knew last.
func (c *Call[S]) Vacate(status S) {
	c.group.mu.Lock()
	defer c.group.mu.Unlock()
	c.publish(status)
	c.elect()
}

func (c *Call[S]) elect() {
	f := c.queue.first()
	if f == nil {
		c.forget()
		return
	}
	c.queue.remove(f)
	f.elected = true
	f.notify()
}

// forget drops a call that is over from the group.
func (c *Call[S]) forget() {
	if c.deadline != nil {
		c.deadline.stop()
	}
	if c.group.calls[c.key] == c {
		delete(c.group.calls, c.key)
	} else {
		delete(c.group.detached, c)
	}
}

// Wait returns when there may be something new to see, or true when done is closed.
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

// Look stores what was published last in status. A follower whose call is settled is not to be used
// any more.
func (f *Follower[S]) Look(status *S) Stage {
	c := f.call
	stage := c.look(f, status)
	if stage == Settled {
		*status = c.status
		c.queue.wakeNext(f)
		f.retire()
	}
	return stage
}

func (c *Call[S]) look(f *Follower[S], status *S) Stage {
	if c.settled.Load() {
		return Settled
	}
	c.group.mu.Lock()
	defer c.group.mu.Unlock()
	if c.settled.Load() {
		return Settled
	}
	f.looked.Store(true)
	*status = c.status
	if f.elected {
		return Elected
	}
	return Following
}

// Lead makes an elected follower the leader; it is not to be used any more. Nothing is known then
// until the leader publishes.
func (f *Follower[S]) Lead() {
	var unknown S
	f.call.Publish(unknown)
	f.retire()
}

// Leave takes a follower out of the call. It is not to be used any more.
func (f *Follower[S]) Leave() {
	if c := f.call; c.leave(f) == Settled {
		c.queue.wakeNext(f)
	}
	f.retire()
}

func (c *Call[S]) leave(f *Follower[S]) Stage {
	c.group.mu.Lock()
	defer c.group.mu.Unlock()
	switch {
	case c.settled.Load():
		return Settled
	case f.elected:
		c.elect()
	default:
		c.queue.remove(f)
	}
	return Following
}

// retire lets f serve another caller. A token for this one may still come: it wakes the other one
// for nothing.
func (f *Follower[S]) retire() {
	g := f.call.group
	f.call = nil
	g.idle.Put(f)
}

func (f *Follower[S]) notify() {
	select {
	case f.wake <- struct{}{}:
	default: // it is to look anyway
	}
}

// expire wakes those whose deadline is over.
func (c *Call[S]) expire() {
	c.group.mu.Lock()
	defer c.group.mu.Unlock()
	if c.settled.Load() {
		return
	}
	now := time.Now()
	var next time.Time
	c.queue.each(func(f *Follower[S]) {
		switch {
		case !f.deadline.After(now):
			f.notify()
		case next.IsZero() || f.deadline.Before(next):
			next = f.deadline
		}
	})
	c.deadline.again(now, next)
}

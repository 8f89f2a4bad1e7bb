// Package flight joins callers of one key inside one process: one of them leads, the others
// follow what the leader publishes and take its place when it leaves without an outcome.
package flight

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// A Group holds the calls under way. S is what leaders publish. The zero Group is ready.
type Group[S any] struct {
	mu        sync.Mutex
	calls     map[string]*Call[S]
	forgotten map[*Call[S]]struct{} // those that later callers do not join any more
	unused    []*Call[S]            // for later keys: nobody joined them
}

// A Call is one key under way, as its leader has it. Its fields are guarded by the group's mutex,
// and do not change any more once it is settled.
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
	wake  <-chan struct{} // closed when there may be something new to see
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

// A Manner is how a caller would follow.
type JoinOptions[S any] struct {
	Deadline time.Time    // when to wake it, whatever happens
	WakeOn   func(S) bool // whether to wake it for what is published; nil if for nothing
	Ready    bool         // it is elected before those that have neither been ready nor looked
}

// Enter begins the call for key, which the caller then leads, or joins the one there is as a
// follower. A leader must end with Settle or Vacate, a follower with Lead, with Leave, or when Look
// says that the call is settled. It is woken by the outcome, when it is elected, at its deadline and
// when something is published that it heeds; it may also be woken for nothing.
func (g *Group[S]) Enter(key string, m JoinOptions[S]) (c *Call[S], f Follower[S], joined bool) {
	g.lock()
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

// lock locks the mutex for one of what may be a crowd. Those who queue for a mutex are handed it one
// by one, each by a switch of goroutines, and what the leader waits for comes behind all of them; so
// who finds it locked lets others run and comes back.
func (g *Group[S]) lock() {
	for range maxYields {
		if g.mu.TryLock() {
			return
		}
		runtime.Gosched()
	}
	g.mu.Lock()
}

// maxYields is far more than it takes, unless the goroutine that holds the mutex does not run.
const maxYields = 1000

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
	c.queue.publish(status)
}

// Settle publishes the outcome and ends the call, which is not to be used any more: later callers
// begin another one.
func (c *Call[S]) Settle(status S) {
	if c.settle(status) {
		c.queue.wakeAll() // outside of the mutex, since it may take a while; nobody else does by now
	}
}

func (c *Call[S]) settle(status S) (joined bool) {
	g := c.group
	g.mu.Lock()
	defer g.mu.Unlock()
	c.remove()
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

// forget drops a call that is over from the group.
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
	own := &f.group.members[f.index]
	own.looked = true
	if own.elected {
		return Elected
	}
	return Following
}

// Lead makes an elected follower the leader; it is not to be used any more. Nothing is known then
// until the leader publishes.
func (f *Follower[S]) Lead() {
	c := f.call
	c.group.mu.Lock()
	defer c.group.mu.Unlock()
	var unknown S
	c.queue.remove(f.group, f.index)
	c.publish(unknown)
}

// Leave takes a follower out of the call. It is not to be used any more.
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

// expire wakes those whose deadline is over.
func (c *Call[S]) expire() {
	c.group.mu.Lock()
	defer c.group.mu.Unlock()
	if c.settled.Load() {
		return
	}
	now := time.Now()
	c.deadline.reset(now, c.queue.expire(now))
}

package flight

import (
	"slices"
	"time"
)

// A queue holds the followers of a call in the order of their arrival. The group's mutex guards it
// until the call is settled; from then on it does not change.
type queue[S any] struct {
	groups []*wakeGroup[S] // none is empty
}

// A wakeGroup is up to 16 followers that share a wake-up channel: one channel each would cost 3
// allocations per caller, one for all would wake thousands to elect one. A follower woken needlessly
// polls and waits again.
type wakeGroup[S any] struct {
	members []member[S]
	left    int           // how many of them have left
	wakeCh  chan struct{} // closed to wake the group; nil if no member has asked for it since
}

const groupSize = 16

// A member is one follower.
type member[S any] struct {
	deadline time.Time
	wakeOn   func(S) bool
	elected  bool
	left     bool
}

// add puts a follower at the end.
func (q *queue[S]) add(o JoinOptions[S]) (g *wakeGroup[S], index int) {
	if last := len(q.groups) - 1; last >= 0 && len(q.groups[last].members) < groupSize {
		g = q.groups[last]
	} else {
		g = new(wakeGroup[S])
		if last >= 0 { // most calls have one follower or none: the first group grows as needed
			g.members = make([]member[S], 0, groupSize)
		}
		q.groups = append(q.groups, g)
	}
	g.members = append(g.members, member[S]{deadline: o.Deadline, wakeOn: o.WakeOn})
	return g, len(g.members) - 1
}

func (q *queue[S]) remove(g *wakeGroup[S], index int) {
	g.members[index] = member[S]{left: true}
	if g.left++; g.left == len(g.members) {
		at := slices.Index(q.groups, g)
		q.groups = slices.Delete(q.groups, at, at+1)
	}
}

// first returns the follower that has waited longest, nil if there is none.
func (q *queue[S]) first() (*wakeGroup[S], *member[S]) {
	for _, g := range q.groups {
		for i := range g.members {
			if m := &g.members[i]; !m.left {
				return g, m
			}
		}
	}
	return nil, nil
}

func (q *queue[S]) wakeAll() {
	for _, g := range q.groups {
		g.wake()
	}
}

// publish wakes the groups with a follower that wants to be woken for status.
func (q *queue[S]) publish(status S) {
	for _, g := range q.groups {
		if g.wakeCh == nil {
			continue // all are awake, and poll before they wait again
		}
		for i := range g.members {
			if wakeOn := g.members[i].wakeOn; wakeOn != nil && wakeOn(status) {
				g.wake()
				break
			}
		}
	}
}

// expire wakes the groups with a deadline that is over, and returns the next one, zero if there is
// none.
func (q *queue[S]) expire(now time.Time) (next time.Time) {
	for _, g := range q.groups {
		over := false
		for _, m := range g.members {
			switch {
			case m.left:
			case !m.deadline.After(now):
				over = true
			case next.IsZero() || m.deadline.Before(next):
				next = m.deadline
			}
		}
		if over {
			g.wake()
		}
	}
	return next
}

// wakeSignal returns the channel that the next wake closes.
func (g *wakeGroup[S]) wakeSignal() <-chan struct{} {
	if g.wakeCh == nil {
		g.wakeCh = make(chan struct{})
	}
	return g.wakeCh
}

func (g *wakeGroup[S]) wake() {
	if g.wakeCh != nil {
		close(g.wakeCh)
		g.wakeCh = nil
	}
}

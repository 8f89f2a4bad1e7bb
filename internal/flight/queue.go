package flight

import (
	"slices"
	"time"
)

// A line holds the followers of a call in the order in which they came. The group's mutex guards
// it, until the call is settled: from then on it does not change.
type queue[S any] struct {
	groups []*wakeGroup[S] // none of which is empty
}

// A row holds some followers, who are woken together, so that thousands do not take a channel each.
// One that is woken for nothing looks and waits again.
type wakeGroup[S any] struct {
	members []member[S]
	left    int           // how many of them have been left
	wakeCh  chan struct{} // closed to wake the row; nil when nobody has asked for it since
}

// rowLength is how many followers are in a row.
const groupSize = 16

// A seat is what a line knows of one follower.
type member[S any] struct {
	deadline time.Time
	wakeOn   func(S) bool
	looked   bool
	elected  bool
	left     bool
}

// add gives a follower the last seat.
func (l *queue[S]) add(m JoinOptions[S]) (r *wakeGroup[S], place int) {
	if last := len(l.groups) - 1; last >= 0 && len(l.groups[last].members) < groupSize {
		r = l.groups[last]
	} else {
		r = new(wakeGroup[S])
		if last >= 0 {
			r.members = make([]member[S], 0, groupSize)
		}
		l.groups = append(l.groups, r)
	}
	r.members = append(r.members, member[S]{deadline: m.Deadline, wakeOn: m.WakeOn, looked: m.Ready})
	return r, len(r.members) - 1
}

func (l *queue[S]) remove(r *wakeGroup[S], place int) {
	r.members[place] = member[S]{left: true}
	if r.left++; r.left == len(r.members) {
		at := slices.Index(l.groups, r)
		l.groups = slices.Delete(l.groups, at, at+1)
	}
}

// first returns the follower that has waited longest, one that has looked if there is one, nil if
// there is none at all.
func (l *queue[S]) first() (first *wakeGroup[S], own *member[S]) {
	for _, r := range l.groups {
		for place := range r.members {
			switch s := &r.members[place]; {
			case s.left:
			case s.looked:
				return r, s
			case own == nil:
				first, own = r, s
			}
		}
	}
	return first, own
}

func (l *queue[S]) wakeAll() {
	for _, r := range l.groups {
		r.wake()
	}
}

// tell wakes those who heed what is published.
func (l *queue[S]) publish(status S) {
	for _, r := range l.groups {
		if r.wakeCh == nil {
			continue // it is awake and looks
		}
		for i := range r.members {
			if heeds := r.members[i].wakeOn; heeds != nil && heeds(status) {
				r.wake()
				break
			}
		}
	}
}

// expire wakes those whose deadline is over, and returns the next one, zero if there is none.
func (l *queue[S]) expire(now time.Time) (next time.Time) {
	for _, r := range l.groups {
		over := false
		for _, s := range r.members {
			switch {
			case s.left:
			case !s.deadline.After(now):
				over = true
			case next.IsZero() || s.deadline.Before(next):
				next = s.deadline
			}
		}
		if over {
			r.wake()
		}
	}
	return next
}

// bell is closed by the next wake.
func (r *wakeGroup[S]) wakeSignal() <-chan struct{} {
	if r.wakeCh == nil {
		r.wakeCh = make(chan struct{})
	}
	return r.wakeCh
}

func (r *wakeGroup[S]) wake() {
	if r.wakeCh != nil {
		close(r.wakeCh)
		r.wakeCh = nil
	}
}

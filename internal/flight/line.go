package flight

import (
	"slices"
	"time"
)

// A line holds the followers of a call in the order in which they came. The group's mutex guards
// it, until the call is settled: from then on it does not change.
type line[S any] struct {
	rows []*row[S] // none of which is empty
}

// A row holds some followers, who are woken together, so that thousands do not take a channel each.
// One that is woken for nothing looks and waits again.
type row[S any] struct {
	seats []seat[S]
	left  int           // how many of them have been left
	rung  chan struct{} // closed to wake the row; nil when nobody has asked for it since
}

// rowLength is how many followers are in a row.
const rowLength = 16

// A seat is what a line knows of one follower.
type seat[S any] struct {
	deadline time.Time
	heeds    func(S) bool
	looked   bool
	elected  bool
	left     bool
}

// add gives a follower the last seat.
func (l *line[S]) add(m Manner[S]) (r *row[S], place int) {
	if last := len(l.rows) - 1; last >= 0 && len(l.rows[last].seats) < rowLength {
		r = l.rows[last]
	} else {
		r = new(row[S])
		if last >= 0 {
			r.seats = make([]seat[S], 0, rowLength)
		}
		l.rows = append(l.rows, r)
	}
	r.seats = append(r.seats, seat[S]{deadline: m.Deadline, heeds: m.Heeds, looked: m.Ready})
	return r, len(r.seats) - 1
}

func (l *line[S]) remove(r *row[S], place int) {
	r.seats[place] = seat[S]{left: true}
	if r.left++; r.left == len(r.seats) {
		at := slices.Index(l.rows, r)
		l.rows = slices.Delete(l.rows, at, at+1)
	}
}

// first returns the follower that has waited longest, one that has looked if there is one, nil if
// there is none at all.
func (l *line[S]) first() (first *row[S], own *seat[S]) {
	for _, r := range l.rows {
		for place := range r.seats {
			switch s := &r.seats[place]; {
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

func (l *line[S]) wakeAll() {
	for _, r := range l.rows {
		r.wake()
	}
}

// tell wakes those who heed what is published.
func (l *line[S]) tell(status S) {
	for _, r := range l.rows {
		if r.rung == nil {
			continue // it is awake and looks
		}
		for i := range r.seats {
			if heeds := r.seats[i].heeds; heeds != nil && heeds(status) {
				r.wake()
				break
			}
		}
	}
}

// expire wakes those whose deadline is over, and returns the next one, zero if there is none.
func (l *line[S]) expire(now time.Time) (next time.Time) {
	for _, r := range l.rows {
		over := false
		for _, s := range r.seats {
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
func (r *row[S]) bell() <-chan struct{} {
	if r.rung == nil {
		r.rung = make(chan struct{})
	}
	return r.rung
}

func (r *row[S]) wake() {
	if r.rung != nil {
		close(r.rung)
		r.rung = nil
	}
}

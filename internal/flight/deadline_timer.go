package flight

import "time"

// A deadlineTimer fires at the first of many deadlines. The group's mutex guards it.
type deadlineTimer struct {
	fire  func()
	timer *time.Timer
	due   time.Time // zero while there is no deadline
}

// timerGrain is the shortest pause between two firings: thousands of followers that arrived one after
// the other would otherwise fire thousands of times.
const timerGrain = time.Millisecond

// set makes it fire at the deadline, or before.
func (t *deadlineTimer) set(deadline time.Time) {
	if !t.due.IsZero() && !deadline.Before(t.due) {
		return
	}
	t.due = deadline
	if t.timer == nil {
		t.timer = time.AfterFunc(time.Until(deadline), t.fire)
	} else {
		t.timer.Reset(time.Until(deadline))
	}
}

// reset arms it again after it has fired: next is the next deadline, zero if there is none.
func (t *deadlineTimer) reset(now, next time.Time) {
	t.due = next
	if !next.IsZero() {
		t.timer.Reset(max(next.Sub(now), timerGrain))
	}
}

func (t *deadlineTimer) stop() { t.timer.Stop() }

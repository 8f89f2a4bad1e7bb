package flight

import "time"

// An alarm goes off at the first of many deadlines. The group's mutex guards it.
type deadlineTimer struct {
	fire  func()
	timer *time.Timer
	due   time.Time // zero while nothing is expected
}

// alarmGrain keeps thousands of deadlines, each a little after the other, from thousands of alarms.
const timerGrain = time.Millisecond

// expect sees to it that ring is called at the deadline, or before.
func (a *deadlineTimer) set(deadline time.Time) {
	if !a.due.IsZero() && !deadline.Before(a.due) {
		return
	}
	a.due = deadline
	if a.timer == nil {
		a.timer = time.AfterFunc(time.Until(deadline), a.fire)
	} else {
		a.timer.Reset(time.Until(deadline))
	}
}

// again is for when it has gone off: next is the deadline that is next, zero if there is none.
func (a *deadlineTimer) reset(now, next time.Time) {
	a.due = next
	if !next.IsZero() {
		a.timer.Reset(max(next.Sub(now), timerGrain))
	}
}

func (a *deadlineTimer) stop() { a.timer.Stop() }

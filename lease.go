package idempotent

import (
	"context"
	"sync"
	"time"
)

// A lease is the right to run fn for one operation, for as long as it is renewed in time.
type lease struct {
	name      string
	token     token
	attempt   uint32
	duration  time.Duration
	retention time.Duration

	// Guarded by the renewer's mutex once it has the lease.
	renewed  time.Time // when the last successful claim or renewal was sent
	renewing bool
	lost     bool
	lose     context.CancelCauseFunc // ends fn's context
	key      string
}

func (l *lease) deadline() time.Time { return l.renewed.Add(l.duration) }

// A renewer keeps the leases of one executor. It sleeps in a timer, without a goroutine, while
// there are leases; and does nothing at all when there are none.
type renewer struct {
	store    *store
	interval time.Duration // a lease is renewed when this old
	tick     time.Duration // how often leases are looked at
	onEvent  func(Event)

	mu     sync.Mutex
	leases map[*lease]struct{}
	timer  *time.Timer // nil while no lease is held
	firing sync.WaitGroup
}

// renewBatch is how many leases go into one pipeline.
const renewBatch = 1000

func newRenewer(s *store, duration time.Duration, onEvent func(Event)) *renewer {
	return &renewer{
		store:    s,
		interval: duration / 3,
		tick:     max(duration/12, time.Millisecond),
		onEvent:  onEvent,
		leases:   make(map[*lease]struct{}),
	}
}

// keep renews l until drop, and calls lose when it is lost.
func (r *renewer) keep(l *lease, lose context.CancelCauseFunc) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l.lose = lose
	r.leases[l] = struct{}{}
	if r.timer == nil {
		r.arm(r.tick)
	}
}

// drop stops renewing l, and reports whether it was lost before.
func (r *renewer) drop(l *lease) (lost bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.leases, l)
	return l.lost
}

// held returns what is left of l as far as this process knows.
func (r *renewer) held(l *lease) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return max(0, time.Until(l.deadline()))
}

// close waits for what the timer started. No lease may be held any more.
func (r *renewer) close() {
	r.mu.Lock()
	if r.timer != nil && r.timer.Stop() {
		r.timer = nil
		r.firing.Done()
	}
	r.mu.Unlock()
	r.firing.Wait()
}

func (r *renewer) arm(d time.Duration) {
	r.firing.Add(1)
	r.timer = time.AfterFunc(d, r.fire)
}

// fire ends the leases that ran out and renews those that are due. It arms the timer again before
// it talks to Redis, so that a Redis that hangs keeps no lease from ending in time.
func (r *renewer) fire() {
	defer r.firing.Done()
	due, lost := r.check(time.Now())
	for _, l := range lost {
		r.onEvent(Event{Kind: EventLeaseLost, Key: l.key, Attempt: int(l.attempt), Err: ErrLeaseLost})
	}
	for len(due) > 0 {
		n := min(len(due), renewBatch)
		r.renew(due[:n])
		due = due[n:]
	}
}

func (r *renewer) check(now time.Time) (due []renewal, lost []*lease) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.leases) == 0 {
		r.timer = nil
		return nil, nil
	}
	next := now.Add(r.tick)
	for l := range r.leases {
		if l.lost {
			continue
		}
		if !now.Before(l.deadline()) {
			r.end(l)
			lost = append(lost, l)
			continue
		}
		if l.deadline().Before(next) {
			next = l.deadline()
		}
		if !l.renewing && now.Sub(l.renewed) >= r.interval {
			l.renewing = true
			due = append(due, renewal{lease: l})
		}
	}
	r.arm(next.Sub(now))
	return due, lost
}

// end marks l lost and cancels its fn. The caller holds the mutex.
func (r *renewer) end(l *lease) {
	l.lost = true
	l.lose(ErrLeaseLost)
}

func (r *renewer) renew(batch []renewal) {
	sent := time.Now()
	r.store.renew(context.Background(), batch)
	for _, done := range batch {
		if event := r.finish(done, sent); event.Kind != 0 {
			r.onEvent(event)
		}
	}
}

func (r *renewer) finish(done renewal, sent time.Time) (event Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := done.lease
	l.renewing = false
	if _, kept := r.leases[l]; !kept || l.lost {
		return Event{}
	}
	event = Event{Key: l.key, Attempt: int(l.attempt)}
	switch {
	case done.err != nil:
		return Event{} // tried again at the next tick, until the lease runs out
	case !done.mine:
		r.end(l)
		event.Kind, event.Err = EventLeaseLost, ErrLeaseLost
	default:
		l.renewed = sent
		event.Kind = EventRenewed
	}
	return event
}

package idempotent

import (
	"context"
	"log/slog"
	"slices"
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
	renewed time.Time // when the last successful claim or renewal was sent
	asked   time.Time // when the renewal under way was begun, zero if none is
	lost    bool
	ending  bool // fn has returned: what becomes of the lease concerns nobody any more
	owner   owner
	key     string
	renewer *renewer
}

// An owner is told once that its lease is lost.
type owner interface{ leaseLost() }

func (l *lease) deadline() time.Time { return l.renewed.Add(l.duration) }

// A renewer keeps the leases of one executor. It sleeps in a timer, without a goroutine, while
// there are leases; and does nothing at all when there are none.
type renewer struct {
	store    *store
	interval time.Duration // a lease is renewed when this old
	tick     time.Duration // how often leases are looked at
	onEvent  func(Event)
	logger   *slog.Logger

	mu     sync.Mutex
	leases map[*lease]struct{}
	timer  *time.Timer // nil while no lease is held
	firing sync.WaitGroup
}

func newRenewer(s *store, duration time.Duration, onEvent func(Event), logger *slog.Logger) *renewer {
	return &renewer{
		store:    s,
		interval: duration / 3,
		tick:     max(duration/12, time.Millisecond),
		onEvent:  onEvent,
		logger:   logger,
		leases:   make(map[*lease]struct{}),
	}
}

// keep renews l until drop, and tells its owner if it is lost before ending.
func (r *renewer) keep(l *lease, by owner) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l.owner, l.renewer = by, r
	r.leases[l] = struct{}{}
	if r.timer == nil {
		r.arm(r.tick)
	}
}

// ending says that fn has returned: l is still renewed, and its loss is no event any more. It
// reports whether l was lost before.
func (r *renewer) ending(l *lease) (lost bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l.ending = true
	return l.lost
}

// drop stops renewing l.
func (r *renewer) drop(l *lease) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.leases, l)
}

// left returns what is left of l as far as this process knows.
func (l *lease) left() time.Duration {
	l.renewer.mu.Lock()
	defer l.renewer.mu.Unlock()
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

// fire ends the leases that ran out and renews those that are due, each server's by itself. It
// armed the timer again before it talks to Redis, so that a server that hangs keeps no lease from
// ending in time, and no other server's lease from being renewed.
func (r *renewer) fire() {
	defer r.firing.Done()
	due, lost := r.check(time.Now())
	for _, batch := range r.batches(due) {
		r.firing.Go(func() { r.renew(batch) })
	}
	for _, l := range lost {
		r.onEvent(lostEvent(l))
	}
}

func lostEvent(l *lease) Event {
	return Event{Kind: EventLeaseLost, Key: l.key, Attempt: int(l.attempt), Err: ErrLeaseLost}
}

// batches groups leases by server, pipelineLimit at most in each group.
func (r *renewer) batches(due []renewal) (batches [][]renewal) {
	byServer := make(map[string][]renewal)
	for _, one := range due {
		address, _, _ := r.store.node(context.Background(), one.lease.name)
		byServer[address] = append(byServer[address], one)
	}
	for _, group := range byServer {
		batches = slices.AppendSeq(batches, slices.Chunk(group, pipelineLimit))
	}
	return batches
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
		if l.lost || l.ending && !now.Before(l.deadline()) {
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
		// A renewal that hangs, on a dead connection say, does not keep the next one from its turn.
		if now.Sub(l.renewed) >= r.interval && now.Sub(l.asked) >= r.interval {
			l.asked = now
			due = append(due, renewal{lease: l})
		}
	}
	r.arm(next.Sub(now))
	return due, lost
}

// end marks l lost. The caller holds the mutex.
func (r *renewer) end(l *lease) {
	l.lost = true
	l.owner.leaseLost()
}

func (r *renewer) renew(batch []renewal) {
	sent := time.Now()
	r.store.renew(context.Background(), batch)
	events := make([]Event, 0, len(batch))
	failed, last := 0, error(nil)
	for _, done := range batch {
		events = append(events, r.finish(done, sent))
		if done.err != nil {
			failed, last = failed+1, done.err
		}
	}
	if failed > 0 {
		r.logger.Warn("idempotent: renewals failed, trying again", "leases", failed, "of", len(batch), "error", redisText(last))
	}
	for _, event := range events {
		if event.Kind != 0 {
			r.onEvent(event)
		}
	}
}

func (r *renewer) finish(done renewal, sent time.Time) (event Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := done.lease
	l.asked = time.Time{}
	_, kept := r.leases[l]
	switch {
	case !kept, l.lost, done.err != nil: // an error: tried again at the next tick, until the lease runs out
		return Event{}
	case done.mine:
		if sent.After(l.renewed) {
			l.renewed = sent
		}
		return Event{Kind: EventRenewed, Key: l.key, Attempt: int(l.attempt)}
	case l.ending: // the record is the outcome by now
		return Event{}
	}
	r.end(l)
	return lostEvent(l)
}

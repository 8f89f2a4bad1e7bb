// Package lease owns how long this process may believe that it holds a key: it renews leases in time
// and ends those that ran out. It never claims or releases a key, and never runs fn.
package lease

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/idempotent-go/idempotent/internal/pipeline"
	"github.com/idempotent-go/idempotent/internal/record"
	"github.com/idempotent-go/idempotent/internal/rediserr"
	"github.com/idempotent-go/idempotent/internal/store"
)

// A Lease is the right to run fn for one key, for as long as it is renewed in time.
type Lease struct {
	Name      string
	Key       string
	Token     record.Token
	Attempt   uint32
	Duration  time.Duration
	Retention time.Duration
	Context   context.Context // fn's, for what is told about the lease

	// Guarded by the renewer's mutex once it has the lease.

	// RenewedAt is when the last successful claim or renewal was sent. Not when its reply arrived:
	// Redis counts from some moment in between, so only the sending is safely early.
	RenewedAt    time.Time
	renewalBegan time.Time // of the renewal in flight, zero if there is none
	lost         bool      // final: a lost lease is not renewed, also if a renewal in flight succeeds
	fnReturned   bool      // the loss is no longer reported: there is no fn to stop
	owner        owner
	renewer      *Renewer
}

// An owner is told once that its lease is lost.
type owner interface{ LeaseLost() }

// deadline is when the lease ends in this process. It is never later than in Redis.
func (l *Lease) deadline() time.Time { return l.RenewedAt.Add(l.Duration - margin(l.Duration)) }

// margin is how much earlier a lease ends for its owner than in Redis. Redis counts in whole milliseconds
// and cuts them down at both ends, and two clocks that are being slewed may run apart by a thousandth.
func margin(d time.Duration) time.Duration { return 2*time.Millisecond + d/1000 }

// A Renewer keeps the leases of one executor. It sleeps in a timer, without a goroutine, while there
// are leases, and does nothing when there are none.
type Renewer struct {
	store    *store.Store
	interval time.Duration // a lease is renewed at this age, a third: two renewals may fail
	tick     time.Duration // how often leases are looked at
	events   Events
	logger   *slog.Logger

	mu     sync.Mutex
	leases map[*Lease]struct{}
	timer  *time.Timer // nil while no lease is held
	firing sync.WaitGroup
}

// Events is told about leases, without the mutex.
type Events interface {
	// LeaseRenewed is called for each reply to a renewal. err is nil if the lease was extended; left is what was left of
	// it before.
	LeaseRenewed(l *Lease, left time.Duration, err error)
	// LeaseLost is called when a lease is lost while fn runs.
	LeaseLost(l *Lease)
}

// NewRenewer returns a Renewer of leases that last duration.
func NewRenewer(s *store.Store, duration time.Duration, events Events, logger *slog.Logger) *Renewer {
	return &Renewer{
		store:    s,
		interval: duration / 3,
		tick:     max(duration/12, time.Millisecond),
		events:   events,
		logger:   logger,
		leases:   make(map[*Lease]struct{}),
	}
}

// Keep renews l until Drop, and tells its owner if it is lost before FnReturned.
func (r *Renewer) Keep(l *Lease, by owner) {
	r.mu.Lock()
	defer r.mu.Unlock()
	// From here on the renewer's mutex guards the lease: the caller must not touch its fields any more.
	l.owner, l.renewer = by, r
	r.leases[l] = struct{}{}
	if r.timer == nil {
		r.arm(r.tick)
	}
}

// FnReturned records that fn has returned, and reports whether l was lost before. The lease is still
// renewed during the commit, but its loss is no longer reported.
func (r *Renewer) FnReturned(l *Lease) (lost bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l.fnReturned = true
	return l.lost
}

// Drop stops renewing l. A renewal in flight may still reach Redis; the release that follows removes the
// token, so that it finds nothing to renew.
func (r *Renewer) Drop(l *Lease) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.leases, l)
}

// Left returns how long l still lasts in Redis, as far as this process knows.
func (l *Lease) Left() time.Duration {
	l.renewer.mu.Lock()
	defer l.renewer.mu.Unlock()
	// Without the margin: this is for other callers, who ask when Redis will let them take over.
	return max(0, time.Until(l.RenewedAt.Add(l.Duration)))
}

// Holds reports whether the owner may still rely on l, which ends a margin before the lease in Redis does.
func (l *Lease) Holds() bool {
	l.renewer.mu.Lock()
	defer l.renewer.mu.Unlock()
	return !l.lost && time.Now().Before(l.deadline())
}

// Close returns when all that the timer started has ended. No lease may be held any more.
func (r *Renewer) Close() {
	r.mu.Lock()
	if r.timer != nil && r.timer.Stop() {
		r.timer = nil
		r.firing.Done()
	}
	r.mu.Unlock()
	r.firing.Wait()
}

// arm starts the timer. The caller holds the mutex.
func (r *Renewer) arm(d time.Duration) {
	r.firing.Add(1)
	r.timer = time.AfterFunc(d, r.fire)
}

// fire ends the leases that ran out and renews those that are due, in a pipeline for each server.
// check arms the timer again before any command is sent, so a server that hangs delays neither the end
// of a lease nor the renewals on another server.
func (r *Renewer) fire() {
	defer r.firing.Done()
	due, lost := r.check(time.Now())
	for _, batch := range r.batches(due) {
		r.firing.Go(func() { r.renew(batch) }) // apart: a server that hangs must not hold up the others
	}
	for _, l := range lost {
		r.events.LeaseLost(l)
	}
}

// Renewal returns the command that renews l. It sets the expiry to lease and retention from now.
func (l *Lease) Renewal() store.Renewal {
	return store.Renewal{Name: l.Name, Token: &l.Token, TTLMillis: (l.Duration + l.Retention).Milliseconds()}
}

// batches groups leases by server, in pipelines that are bounded as all are.
func (r *Renewer) batches(due []*Lease) (batches [][]*Lease) {
	byServer := make(map[string][]*Lease)
	for _, l := range due {
		// A pipeline takes as long as its slowest server. "" if unknown: a group of their own.
		address, _, _ := r.store.Node(context.Background(), l.Name)
		byServer[address] = append(byServer[address], l)
	}
	for _, group := range byServer {
		batches = slices.AppendSeq(batches, slices.Chunk(group, pipeline.MaxCommands))
	}
	return batches
}

// check returns the leases to renew and those that are lost now, and arms the timer for the earlier of
// the next tick and the next deadline: a loss must be noticed in time, not at some tick after it.
func (r *Renewer) check(now time.Time) (due, lost []*Lease) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.leases) == 0 { // an executor that runs nothing must cost nothing
		r.timer = nil
		return nil, nil
	}
	next := now.Add(r.tick)
	for l := range r.leases {
		// The local clock decides, without asking Redis: an owner that is cut off from Redis must stop
		// too, before another process can take over.
		over := !now.Before(l.deadline())
		switch {
		case l.lost, over && l.fnReturned:
			// There is no fn to stop. The commit finds out by the token in the record whether the key is
			// still this owner's.
			continue
		case over:
			r.end(l)
			lost = append(lost, l)
			continue
		}
		if l.deadline().Before(next) {
			next = l.deadline()
		}
		// While a renewal is in flight no other one is sent, unless it hangs: after another interval
		// its connection may be dead, and the next renewal goes on another one.
		if now.Sub(l.RenewedAt) >= r.interval && now.Sub(l.renewalBegan) >= r.interval {
			l.renewalBegan = now
			due = append(due, l)
		}
	}
	r.arm(next.Sub(now))
	return due, lost
}

// end marks l lost and tells its owner, which cancels fn's context. The caller holds the mutex, so that
// FnReturned cannot come in between and miss it.
func (r *Renewer) end(l *Lease) {
	l.lost = true
	l.owner.LeaseLost()
}

// renew sends one batch and applies its replies.
func (r *Renewer) renew(batch []*Lease) {
	sent := time.Now() // before the command: see RenewedAt
	renewals := make([]store.Renewal, len(batch))
	for i, l := range batch {
		renewals[i] = l.Renewal()
	}
	// Under no caller's context: a caller that leaves must not end the renewals of the others. The client's
	// timeouts bound it.
	r.store.Renew(context.Background(), renewals)
	tell := make([]func(), len(batch))
	failed, last := 0, error(nil)
	for i, l := range batch {
		tell[i] = r.finish(l, &renewals[i], sent)
		if err := renewals[i].Err; err != nil {
			failed, last = failed+1, err
		}
	}
	if failed > 0 {
		r.logger.Warn("idempotent: renewals failed, trying again", "leases", failed, "of", len(batch), "error", rediserr.Text(last))
	}
	// After all leases of the batch are up to date: an observer may be slow.
	for _, f := range tell {
		if f != nil {
			f()
		}
	}
}

// finish applies the reply to a renewal that was sent at sent, and returns the callback to call, nil if
// there is nothing to report.
func (r *Renewer) finish(l *Lease, done *store.Renewal, sent time.Time) (tell func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l.renewalBegan = time.Time{}
	left := max(0, time.Until(l.RenewedAt.Add(l.Duration)))
	_, kept := r.leases[l]
	switch {
	case !kept, l.lost:
		return nil // too late: the owner has given up, or was told
	case done.Err != nil: // says nothing about the lease: renewed again at the next tick, until it runs out
		return func() { r.events.LeaseRenewed(l, left, done.Err) }
	case done.Mine:
		// A renewal that hung may return after a later one. Its older time must not shorten the
		// lease, since the later one was executed as well.
		if sent.After(l.RenewedAt) { // counted from its sending: Redis began to count no earlier
			l.RenewedAt = sent
		}
		return func() { r.events.LeaseRenewed(l, left, nil) }
	case l.fnReturned:
		return nil // the record is the outcome already: the commit was faster
	}
	r.end(l) // another owner has the key, or it was forgotten: fn must stop now, not at the deadline
	return func() { r.events.LeaseLost(l) }
}

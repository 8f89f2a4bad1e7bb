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

// A lease is the right to run fn for one operation, for as long as it is renewed in time.
type Lease struct {
	Name      string
	Token     record.Token
	Attempt   uint32
	Duration  time.Duration
	Retention time.Duration

	// Guarded by the renewer's mutex once it has the lease.
	RenewedAt    time.Time // when the last successful claim or renewal was sent
	renewalBegan time.Time // when the renewal under way was begun, zero if none is
	lost         bool
	fnReturned   bool // fn has returned: what becomes of the lease concerns nobody any more
	owner        owner
	Key          string
	renewer      *Renewer
}

// An owner is told once that its lease is lost.
type owner interface{ LeaseLost() }

func (l *Lease) deadline() time.Time { return l.RenewedAt.Add(l.Duration) }

// A renewer keeps the leases of one executor. It sleeps in a timer, without a goroutine, while
// there are leases; and does nothing at all when there are none.
type Renewer struct {
	store     *store.Store
	interval  time.Duration // a lease is renewed when this old
	tick      time.Duration // how often leases are looked at
	onRenewed func(*Lease)
	onLost    func(*Lease)
	logger    *slog.Logger

	mu     sync.Mutex
	leases map[*Lease]struct{}
	timer  *time.Timer // nil while no lease is held
	firing sync.WaitGroup
}

func NewRenewer(s *store.Store, duration time.Duration, onRenewed, onLost func(*Lease), logger *slog.Logger) *Renewer {
	return &Renewer{
		store:     s,
		interval:  duration / 3,
		tick:      max(duration/12, time.Millisecond),
		onRenewed: onRenewed,
		onLost:    onLost,
		logger:    logger,
		leases:    make(map[*Lease]struct{}),
	}
}

// keep renews l until drop, and tells its owner if it is lost before ending.
func (r *Renewer) Keep(l *Lease, by owner) {
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
func (r *Renewer) FnReturned(l *Lease) (lost bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l.fnReturned = true
	return l.lost
}

// drop stops renewing l.
func (r *Renewer) Drop(l *Lease) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.leases, l)
}

// left returns what is left of l as far as this process knows.
func (l *Lease) Left() time.Duration {
	l.renewer.mu.Lock()
	defer l.renewer.mu.Unlock()
	return max(0, time.Until(l.deadline()))
}

// close waits for what the timer started. No lease may be held any more.
func (r *Renewer) Close() {
	r.mu.Lock()
	if r.timer != nil && r.timer.Stop() {
		r.timer = nil
		r.firing.Done()
	}
	r.mu.Unlock()
	r.firing.Wait()
}

func (r *Renewer) arm(d time.Duration) {
	r.firing.Add(1)
	r.timer = time.AfterFunc(d, r.fire)
}

// fire ends the leases that ran out and renews those that are due, each server's by itself. It
// armed the timer again before it talks to Redis, so that a server that hangs keeps no lease from
// ending in time, and no other server's lease from being renewed.
func (r *Renewer) fire() {
	defer r.firing.Done()
	due, lost := r.check(time.Now())
	for _, batch := range r.batches(due) {
		r.firing.Go(func() { r.renew(batch) })
	}
	for _, l := range lost {
		r.onLost(l)
	}
}

func (l *Lease) Renewal() store.Renewal {
	return store.Renewal{Name: l.Name, Token: &l.Token, TTLMillis: (l.Duration + l.Retention).Milliseconds()}
}

// batches groups leases by server, pipelineLimit at most in each group.
func (r *Renewer) batches(due []*Lease) (batches [][]*Lease) {
	byServer := make(map[string][]*Lease)
	for _, one := range due {
		address, _, _ := r.store.Node(context.Background(), one.Name)
		byServer[address] = append(byServer[address], one)
	}
	for _, group := range byServer {
		batches = slices.AppendSeq(batches, slices.Chunk(group, pipeline.MaxCommands))
	}
	return batches
}

func (r *Renewer) check(now time.Time) (due, lost []*Lease) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.leases) == 0 {
		r.timer = nil
		return nil, nil
	}
	next := now.Add(r.tick)
	for l := range r.leases {
		if l.lost || l.fnReturned && !now.Before(l.deadline()) {
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
		if now.Sub(l.RenewedAt) >= r.interval && now.Sub(l.renewalBegan) >= r.interval {
			l.renewalBegan = now
			due = append(due, l)
		}
	}
	r.arm(next.Sub(now))
	return due, lost
}

// end marks l lost. The caller holds the mutex.
func (r *Renewer) end(l *Lease) {
	l.lost = true
	l.owner.LeaseLost()
}

func (r *Renewer) renew(batch []*Lease) {
	sent := time.Now()
	renewals := make([]store.Renewal, len(batch))
	for i, l := range batch {
		renewals[i] = l.Renewal()
	}
	r.store.Renew(context.Background(), renewals)
	tell := make([]func(*Lease), len(batch))
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
	for i, f := range tell {
		if f != nil {
			f(batch[i])
		}
	}
}

// finish returns who is to be told of a renewal, nil for nobody.
func (r *Renewer) finish(l *Lease, done *store.Renewal, sent time.Time) (tell func(*Lease)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l.renewalBegan = time.Time{}
	_, kept := r.leases[l]
	switch {
	case !kept, l.lost, done.Err != nil: // an error: tried again at the next tick, until the lease runs out
		return nil
	case done.Mine:
		if sent.After(l.RenewedAt) {
			l.RenewedAt = sent
		}
		return r.onRenewed
	case l.fnReturned: // the record is the outcome by now
		return nil
	}
	r.end(l)
	return r.onLost
}

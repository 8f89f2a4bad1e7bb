package idempotent

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/idempotent-go/idempotent/internal/flight"
)

// core is an executor without its T: it works on bytes.
type core struct {
	namespace string
	lease     time.Duration
	codec     codecID
	encode    func(value any) ([]byte, error)
	errors    *ErrorRegistry
	observer  Observer // may be nil
	logger    *slog.Logger
	defaults  runConfig

	store   *store
	hub     *hub
	renewer *renewer
	flights flight.Group[standing]
	clocks  clockBook    // of the servers, for Check
	cache   *replayCache // nil when off

	active  *gate           // runs and background work
	closing context.Context // ends when close begins
	endRuns context.CancelFunc
	stopped chan struct{} // closed when close is done

	repeating atomic.Int32 // see inBackground
}

func newCore(cfg *config, s *store, codec codecID, encode func(any) ([]byte, error)) *core {
	c := &core{
		namespace: cfg.namespace,
		lease:     cfg.lease.Truncate(time.Millisecond),
		codec:     codec,
		encode:    encode,
		errors:    cfg.errors,
		observer:  cfg.observer,
		logger:    cfg.logger,
		defaults:  cfg.run,
		store:     s,
		hub:       newHub(s, cfg.logger),
		active:    newGate(),
		stopped:   make(chan struct{}),
	}
	c.defaults.derive(c.lease)
	s.cacheChannel = cacheChannel(cfg.namespace)
	c.closing, c.endRuns = context.WithCancel(context.Background())
	c.renewer = newRenewer(s, c.lease, c.leaseEvent, cfg.logger)
	if cfg.cached {
		c.cache = newReplayCache(cfg.cacheEntries, s, cfg.logger)
	}
	return c
}

// errorLost logs that callers will not find a registered error again.
func (c *core) errorLost(code string) {
	c.logger.Warn("idempotent: registered error not stored or not restored", "code", code, "namespace", c.namespace)
}

func (c *core) leaseEvent(e Event) {
	if e.Kind == EventLeaseLost {
		c.logger.Warn("idempotent: lease lost while fn runs", "key", e.Key, "namespace", c.namespace, "attempt", e.Attempt)
	}
	c.observe(context.Background(), e)
}

// A settlement is what callers get who did not run fn: rec, err beside it, or err alone.
type settlement struct {
	rec    *record
	stored bool
	shared bool // rec may be: with other callers
	source Source
	err    error
}

// A result is what one call came to: a settlement or, if it ran fn, what there is to say of that.
type result struct {
	settlement
	own *performed
}

func failure(err error) settlement { return settlement{err: err} }

// run is one Run below the typed shell: it joins the flight for its key and leads or follows.
func (c *core) run(ctx context.Context, key string, cfg *runConfig, act action, via processor) (res result) {
	nested, err := c.begin(ctx, key)
	if err != nil {
		res.err = err
		return res
	}
	defer c.active.leave()
	if s, hit := c.cached(key); hit {
		res.settlement = c.replay(ctx, key, cfg, s)
		return res
	}
	f := following{began: time.Now(), nested: nested}
	call, follower, joined := c.flights.Enter(key, c.manner(cfg, f.began))
	if joined {
		f.Follower = follower
		if c.follow(ctx, key, cfg, &f, &res.settlement) {
			return res
		}
	}
	op := c.newOperation(key, cfg, nested, f.began)
	op.via, op.followed, op.leading.call = via, joined, call
	return c.lead(ctx, op, &op.leading, act)
}

func (c *core) newOperation(key string, cfg *runConfig, nested bool, began time.Time) *operation {
	return &operation{
		key:         key,
		name:        redisName(c.namespace, key),
		cfg:         cfg,
		token:       newToken(),
		began:       began,
		closing:     c.closingOf(nested),
		fingerprint: cfg.fingerprint,
	}
}

// closingOf is closed when close ends the run, nil if it does not.
func (c *core) closingOf(nested bool) <-chan struct{} {
	if nested {
		return nil
	}
	return c.closing.Done()
}

// begin admits a run, or says why not. The caller must call active.leave. A run that is nested in
// an fn of this executor is part of that fn: close lets it go on.
func (c *core) begin(ctx context.Context, key string) (nested bool, err error) {
	if err := checkKey(key); err != nil {
		return false, err
	}
	if ctx.Err() != nil {
		return false, contextError(ctx)
	}
	return c.admit(ctx, key)
}

// admit counts a run in, unless the executor is closed or the run would wait for itself.
func (c *core) admit(ctx context.Context, key string) (nested bool, err error) {
	nested, same := c.executing(ctx, key)
	switch {
	case same:
		return nested, &InProgressError{}
	case !c.active.enter(nested):
		return nested, ErrClosed
	}
	return nested, nil
}

// close ends the waits, and returns when every run has.
func (c *core) close() {
	first := c.active.close()
	if first {
		c.endRuns()
	}
	c.flights.WakeAll()
	<-c.active.empty
	if first {
		c.store.close()
		c.hub.close()
		c.renewer.close()
		c.cache.close()
		close(c.stopped)
	}
	<-c.stopped
}

// inBackground repeats try until it succeeds, for a lease at most: by then its use is over. close
// ends the repetition. When Redis is away for many at once, most are left to their leases.
func (c *core) inBackground(ctx context.Context, try func(context.Context) error) {
	if c.repeating.Add(1) > maxRepeating {
		c.repeating.Add(-1)
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.lease)
	stop := context.AfterFunc(c.closing, cancel)
	c.active.run(func() {
		defer c.repeating.Add(-1)
		defer cancel()
		defer stop()
		_ = retry(ctx, func() error { return try(context.WithoutCancel(ctx)) }, nil)
	})
}

const maxRepeating = 64

// patience is how long to go on trying to tell Redis about an outcome: three leases, 5 s at least.
func (c *core) patience() time.Duration { return max(3*c.lease, 5*time.Second) }

// leading is the leader's end of a flight. It is ended once, by the leader or by the loss of its
// lease.
type leading struct {
	call *flight.Call[standing]
	over atomic.Bool
}

func (l *leading) settle(s settlement) {
	if l.over.CompareAndSwap(false, true) {
		l.call.Settle(standing{outcome: s})
	}
}

// vacate leaves the lead to the next in line, unless the flight is settled.
func (l *leading) vacate(last standing) {
	if l.over.CompareAndSwap(false, true) {
		l.call.Vacate(last)
	}
}

// lead brings the operation to an outcome, or leaves that to the next caller in line; also when a
// hook of the client panics, say, and somebody above Run recovers: nobody would lead otherwise.
func (c *core) lead(ctx context.Context, op *operation, lead *leading, act action) result {
	returned := false
	defer func() {
		if !returned {
			lead.vacate(standing{})
		}
	}()
	res := c.tryToLead(ctx, op, lead, act)
	returned = true
	return res
}

func (c *core) tryToLead(ctx context.Context, op *operation, lead *leading, act action) result {
	if err := op.ended(ctx); err != nil {
		lead.vacate(standing{})
		return result{settlement: failure(err)}
	}
	f, err := c.acquire(ctx, op, lead)
	return c.acquired(ctx, op, lead, act, f, err)
}

// acquired is what comes of an attempt to own the operation.
func (c *core) acquired(ctx context.Context, op *operation, lead *leading, act action, f finding, err error) result {
	if err == nil && f.lease != nil && ctx.Err() != nil { // fn would begin with a dead context
		c.disown(ctx, op, f.lease.attempt)
		err = contextError(ctx)
	}
	switch {
	case err != nil && concernsAll(err) && ctx.Err() == nil:
		lead.settle(failure(err))
		return result{settlement: failure(err)}
	case err != nil:
		lead.vacate(standingAfter(op, err))
		return result{settlement: failure(err)}
	case f.rec != nil:
		s := f.settlement()
		lead.settle(s)
		return result{settlement: c.replay(ctx, op.key, op.cfg, s)}
	}
	return c.execute(ctx, op, lead, f.lease, act)
}

// concernsAll reports whether err says something about Redis or the record, and so to every
// caller of the key, and not about the caller that met it.
func concernsAll(err error) bool {
	return errorsIsAny(err, ErrUnavailable, ErrCorruptRecord) && !errors.Is(err, errImpatient)
}

// replay is what a caller gets that did not run fn.
func (c *core) replay(ctx context.Context, key string, cfg *runConfig, s settlement) settlement {
	if s.rec == nil {
		return s
	}
	if err := checkFingerprint(cfg.fingerprint, s.rec.fingerprint); err != nil {
		return failure(err)
	}
	if s.rec.outcome == outcomeInterrupted {
		return failure(ErrInterrupted)
	}
	c.observe(ctx, Event{Kind: EventReplayed, Key: key, Attempt: int(s.rec.attempt)})
	return s
}

package idempotent

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/idempotent-go/idempotent/internal/flight"
)

// core is an executor without its T: it works on bytes.
type core struct {
	namespace string
	lease     time.Duration
	codec     codecID
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

	mu      sync.Mutex
	closed  bool
	closing context.Context // ends when close begins
	endRuns context.CancelFunc
	active  sync.WaitGroup // runs and background work
	stopped chan struct{}  // closed when close is done

	repeating atomic.Int32 // see inBackground
}

func newCore(cfg *config, s *store, codec codecID) *core {
	c := &core{
		namespace: cfg.namespace,
		lease:     cfg.lease.Truncate(time.Millisecond),
		codec:     codec,
		errors:    cfg.errors,
		observer:  cfg.observer,
		logger:    cfg.logger,
		defaults:  cfg.run,
		store:     s,
		hub:       newHub(s, cfg.logger),
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

// A standing is where the callers of one key in this process stand.
type standing struct {
	phase       phase
	fingerprint []byte // running: what for
	lease       clock  // running: what is left of the owner's lease
	outcome     settlement
}

// A clock says how much time is left.
type clock interface{ left() time.Duration }

// until is the clock of a fixed moment.
type until time.Time

func (u until) left() time.Duration { return max(0, time.Until(time.Time(u))) }

type phase uint8

const (
	phaseAsking phase = iota
	phaseRunning
	phaseSettled
)

// A settlement is what callers get who did not run fn: rec, err beside it, or err alone.
type settlement struct {
	rec    *record
	stored bool
	source Source
	err    error
}

// A result is a settlement, or what there is to say of a fn that this call ran; the shell has its
// value.
type result struct {
	settlement
	ran     bool
	fnErr   error
	hookErr *HookError // ShouldIgnoreError panicked
	attempt uint32
	at      time.Time // recorded at, zero if not

	panicked *PanicError // detached only: for the caller to panic with
	exited   bool        // detached only: for the caller to exit as well
}

func failure(err error) result { return result{settlement: settlement{err: err}} }

// run is one Run below the typed shell: it joins the flight for its key and leads or follows.
func (c *core) run(ctx context.Context, key string, cfg *runConfig, act action, via processor) result {
	nested, err := c.begin(ctx, key)
	if err != nil {
		return failure(err)
	}
	defer c.active.Done()
	op := c.newOperation(key, cfg, nested)
	op.via = via
	call, leads := c.flights.Enter(op.name, &op.fresh)
	if !leads {
		res, over := c.follow(ctx, op, call)
		if over {
			return res
		}
		op.followed = true
	}
	op.leading.call = call
	return c.lead(ctx, op, &op.leading, act)
}

func (c *core) newOperation(key string, cfg *runConfig, nested bool) *operation {
	op := &operation{
		key:         key,
		name:        redisName(c.namespace, key),
		cfg:         cfg,
		token:       newToken(),
		waitUntil:   time.Now().Add(cfg.waitTimeout),
		fingerprint: cfg.fingerprint,
	}
	if !nested {
		op.closing = c.closing.Done()
	}
	return op
}

// begin admits a run, or says why not. The caller must call active.Done. A run that is nested in
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

// admit counts a run in, unless the executor is closed or the run would wait for itself. Whether
// ctx belongs to an fn that still runs is seen under the mutex, which conclude takes as well: such
// an fn is counted in itself, so close still waits.
func (c *core) admit(ctx context.Context, key string) (nested bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	nested, same := c.executing(ctx, key)
	switch {
	case same:
		return nested, &InProgressError{}
	case c.closed && !nested:
		return nested, ErrClosed
	}
	c.active.Add(1)
	return nested, nil
}

// close ends the waits, and returns when every run has.
func (c *core) close() {
	c.mu.Lock()
	first := !c.closed
	if first {
		c.closed = true
		c.endRuns()
	}
	c.mu.Unlock()
	c.active.Wait()
	if first {
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
	c.active.Go(func() {
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
		l.call.Settle(standing{phase: phaseSettled, outcome: s})
	}
}

// vacate leaves the lead to the next in line, unless the flight is settled.
func (l *leading) vacate(last standing) {
	if l.over.CompareAndSwap(false, true) {
		l.call.Vacate(last)
	}
}

// lead brings the operation to an outcome, or leaves that to the next caller in line.
func (c *core) lead(ctx context.Context, op *operation, lead *leading, act action) result {
	if err := op.ended(ctx); err != nil {
		lead.vacate(standing{})
		return failure(err)
	}
	found, source, err := c.acquire(ctx, op, lead)
	if err == nil && found.lease != nil && ctx.Err() != nil { // fn would begin with a dead context
		c.disown(ctx, op, found.lease.attempt)
		err = contextError(ctx)
	}
	switch {
	case err != nil && concernsAll(err) && ctx.Err() == nil:
		lead.settle(settlement{err: err})
		return failure(err)
	case err != nil:
		lead.vacate(standingAfter(op, err))
		return failure(err)
	case found.rec != nil:
		s := settlement{rec: found.rec, stored: found.stored, source: source}
		lead.settle(s)
		return c.replay(ctx, op, s)
	}
	return c.execute(ctx, op, lead, found.lease, act)
}

// concernsAll reports whether err says something about Redis or the record, and so to every
// caller of the key, and not about the caller that met it.
func concernsAll(err error) bool {
	return errorsIsAny(err, ErrUnavailable, ErrCorruptRecord) && !errors.Is(err, errImpatient)
}

// standingAfter is what those know who take over from a leader that left with err: callers that
// do not wait need not ask again, one after the other, what one of them has just been told.
func standingAfter(op *operation, err error) standing {
	busy, ok := errors.AsType[*InProgressError](err)
	if !ok || !op.cfg.noWait {
		return standing{}
	}
	return standing{phase: phaseRunning, lease: until(time.Now().Add(busy.RetryAfter))}
}

// follow waits for the leader. over is false if the caller is to lead itself.
func (c *core) follow(ctx context.Context, op *operation, call *flight.Call[standing]) (res result, over bool) {
	c.observe(ctx, Event{Kind: EventJoined, Key: op.key})
	giveUp := time.NewTimer(time.Until(op.waitUntil))
	defer giveUp.Stop()
	for {
		now, changed := call.Watch()
		if now.phase != phaseAsking {
			if res, over := c.followed(ctx, op, now); over {
				call.Leave()
				return res, true
			}
		}
		var err error
		select {
		case <-changed:
			continue
		case <-call.Lead():
			call.TookLead()
			return result{}, false
		case <-ctx.Done():
			err = contextError(ctx)
		case <-op.closing:
			err = ErrClosed
		case <-giveUp.C:
			err = now.inProgress()
		}
		call.Leave()
		return failure(err), true
	}
}

// followed says what a standing means to one follower, if it is over for that one.
func (c *core) followed(ctx context.Context, op *operation, now standing) (res result, over bool) {
	if now.phase == phaseSettled {
		s := now.outcome
		if s.source == Executed {
			s.source = Joined
		}
		return c.replay(ctx, op, s), true
	}
	if err := checkFingerprint(op, &record{fingerprint: now.fingerprint}); err != nil {
		return failure(err), true
	}
	if op.cfg.noWait {
		return failure(now.inProgress()), true
	}
	return result{}, false
}

func (s standing) inProgress() error {
	if s.lease == nil { // nobody is known to run it: the leader still asks
		return &InProgressError{}
	}
	return &InProgressError{RetryAfter: s.lease.left()}
}

// replay is what a caller gets that did not run fn.
func (c *core) replay(ctx context.Context, op *operation, s settlement) result {
	if s.rec == nil {
		return result{settlement: s}
	}
	if err := checkFingerprint(op, s.rec); err != nil {
		return failure(err)
	}
	if s.rec.outcome == outcomeInterrupted {
		return failure(ErrInterrupted)
	}
	c.observe(ctx, Event{Kind: EventReplayed, Key: op.key, Attempt: int(s.rec.attempt)})
	res := result{settlement: s, attempt: s.rec.attempt}
	if s.stored {
		res.at = s.rec.at
	}
	return res
}

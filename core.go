package idempotent

import (
	"context"
	"log/slog"
	"sync"
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

	mu      sync.Mutex
	closed  bool
	closing chan struct{}
	active  sync.WaitGroup // runs and background work
}

func newCore(cfg *config, s *store, codec codecID) *core {
	c := &core{
		namespace: cfg.namespace,
		lease:     cfg.lease,
		codec:     codec,
		errors:    cfg.errors,
		observer:  cfg.observer,
		logger:    cfg.logger,
		defaults:  cfg.run,
		store:     s,
		hub:       newHub(s.client, cfg.logger),
		closing:   make(chan struct{}),
	}
	c.renewer = newRenewer(s, cfg.lease, c.leaseEvent)
	return c
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
	fingerprint []byte    // running: what for
	leaseEnd    time.Time // running: when its owner's lease ends unless renewed, zero if unknown
	outcome     settlement
}

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
func (c *core) run(ctx context.Context, key string, cfg *runConfig, act action) result {
	if err := c.begin(ctx, key); err != nil {
		return failure(err)
	}
	defer c.active.Done()
	op := &operation{
		key:       key,
		name:      redisName(c.namespace, key),
		cfg:       cfg,
		token:     newToken(),
		waitUntil: time.Now().Add(cfg.waitTimeout),

		fingerprint: cfg.fingerprint,
	}
	call, leads := c.flights.Enter(op.name)
	if !leads {
		res, over := c.follow(ctx, op, call)
		if over {
			return res
		}
	}
	return c.lead(ctx, op, &leading{call: call}, act)
}

// begin admits a run, or says why not. The caller must call active.Done.
func (c *core) begin(ctx context.Context, key string) error {
	if err := checkKey(key); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return contextError(ctx)
	}
	if c.executing(ctx, key) {
		return &InProgressError{}
	}
	return c.admit()
}

func (c *core) admit() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return ErrClosed
	}
	c.active.Add(1)
	return nil
}

// close ends the waits, and returns when every run has.
func (c *core) close() {
	c.mu.Lock()
	first := !c.closed
	if first {
		c.closed = true
		close(c.closing)
	}
	c.mu.Unlock()
	c.active.Wait()
	if first {
		c.hub.close()
		c.renewer.close()
	}
}

// background runs fn in a goroutine that close waits for, for as long as a commit may take. A run
// must be active.
func (c *core) background(ctx context.Context, fn func(context.Context)) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.patience())
	c.active.Go(func() {
		defer cancel()
		fn(ctx)
	})
}

// patience is how long to go on trying to tell Redis about an outcome: three leases, 5 s at least.
func (c *core) patience() time.Duration { return max(3*c.lease, 5*time.Second) }

// leading is the leader's end of a flight; it is ended once.
type leading struct {
	call *flight.Call[standing]
	over bool
}

func (l *leading) settle(s settlement) {
	l.over = true
	l.call.Settle(standing{phase: phaseSettled, outcome: s})
}

func (l *leading) vacate() {
	if !l.over {
		l.over = true
		l.call.Vacate()
	}
}

// lead brings the operation to an outcome, or leaves that to the next caller in line.
func (c *core) lead(ctx context.Context, op *operation, lead *leading, act action) result {
	if ctx.Err() != nil {
		lead.vacate()
		return failure(contextError(ctx))
	}
	found, source, err := c.acquire(ctx, op, lead)
	switch {
	case err != nil && concernsAll(err) && ctx.Err() == nil:
		lead.settle(settlement{err: err})
		return failure(err)
	case err != nil:
		lead.vacate()
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
	return errorsIsAny(err, ErrUnavailable, ErrCorruptRecord)
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
		case <-c.closing:
			err = ErrClosed
		case <-giveUp.C:
			err = &InProgressError{RetryAfter: now.leaseLeft()}
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
		return failure(&InProgressError{RetryAfter: now.leaseLeft()}), true
	}
	return result{}, false
}

func (s standing) leaseLeft() time.Duration {
	if s.leaseEnd.IsZero() {
		return 0
	}
	return max(0, time.Until(s.leaseEnd))
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

package idempotent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/idempotent-go/idempotent/idemcheck"
	"github.com/idempotent-go/idempotent/internal/record"
	"github.com/idempotent-go/idempotent/internal/runctx"
	"github.com/idempotent-go/idempotent/internal/store"
)

// Get returns the outcome of key to a caller that only wants to know it: it runs nothing and
// writes nothing. While an execution is in flight, it waits for it as Run does. ErrNotFound means
// that none has begun, ErrInterrupted that one ended without an outcome, whatever the
// policy. Options are those of Run; WithNoWait, WithWaitTimeout, WithFingerprint and WithReport
// have an effect.
func (e *Executor[T]) Get(ctx context.Context, key string, opts ...RunOption) (T, error) {
	return watched(e.core.events, ctx, key, func(ctx context.Context, w *watch) (T, error) {
		cfg, err := e.configure(ctx, false, opts, w)
		if err != nil {
			var zero T
			return zero, err
		}
		return e.replayed(ctx, key, cfg, e.core.get(ctx, key, cfg))
	})
}

// Peek says what is stored under key. It never runs anything and never waits.
func (e *Executor[T]) Peek(ctx context.Context, key string) (Status, error) {
	return e.core.peek(ctx, key)
}

// Forget removes whatever is stored under key, so that the next Run runs fn, at attempt 1. Those
// who wait for the key go on at once. A running fn is not stopped at once: it loses its lease at
// its next renewal, and meanwhile another may run. If it returns before that and no other execution has
// begun, its outcome is recorded; docs/guarantees.md has what else can follow. An error means that it
// is not known whether the key was forgotten: look at it before you call Forget again, since
// another caller may have run fn again. Forgetting an unknown key is no error.
func (e *Executor[T]) Forget(ctx context.Context, key string) error {
	began := time.Now()
	err := e.core.forget(ctx, key)
	e.core.asked(ctx, Event{Kind: EventForgotten, Key: key, Duration: time.Since(began), Err: err})
	return err
}

// asked tells observers of a Forget or a Resolve.
func (c *core) asked(ctx context.Context, e Event) {
	if len(c.observers) == 0 {
		return
	}
	if e.Actor = string(c.owner.Get(record.FieldOwner)); ctx == nil {
		ctx = context.Background()
	} else if name, ok := runctx.Value(ctx, actorKey{}).(string); ok {
		e.Actor = name
	}
	c.observe(ctx, e)
}

// Resolve records value as the outcome of key, for an operator who found out what an interrupted
// execution did, and returns what was there before. Waiters for the key get the value, as does
// every later Run until the TTL ends. Resolve also settles an execution that is still running; its fn then
// loses its lease.
//
// A key under which nothing is stored is ErrNotFound, because it may be mistyped; WithAbsent settles it
// all the same. An outcome that is recorded already stays: ErrAlreadyRecorded. The options WithTTL,
// WithFingerprint and WithAbsent have an effect.
func (e *Executor[T]) Resolve(ctx context.Context, key string, value T, opts ...RunOption) (was Status, err error) {
	began := time.Now()
	defer func() {
		e.core.asked(ctx, Event{Kind: EventResolved, Key: key, Attempt: was.Attempt, Duration: time.Since(began), Err: err})
	}()
	cfg, err := e.configure(ctx, false, opts, nil)
	if err != nil {
		return was, err
	}
	payload, err := encodeValue(e.codec, value, e.unchecked)
	if err != nil {
		return was, err
	}
	return e.core.resolve(ctx, key, cfg, payload)
}

// A Status is what Peek or Resolve found.
type Status struct {
	State State
	// Attempt is the number of the execution in question, 0 if there is none.
	Attempt int
	// Age is how long ago the execution began or, when it is over, was recorded, by the clocks of
	// the two processes.
	Age time.Duration
	// Owner names the process that runs fn or, for StateAbandoned and StateInterrupted, that ran it last, as
	// its WithOwner says.
	Owner string
	// Origin is the span of the call that runs fn, or ran it.
	Origin Origin
	// LeaseLeft is how long the owner's lease still lasts, for StateRunning.
	LeaseLeft time.Duration
	// TTLLeft is how long the record still lasts.
	TTLLeft time.Duration
	// Size is the size of the record in bytes.
	Size int
}

// A State is where an operation stands.
type State uint8

const (
	// StateAbsent: nothing is stored; Run would run fn.
	StateAbsent State = iota
	// StateRunning: an owner runs fn and holds its lease.
	StateRunning
	// StateAbandoned: an execution ended without an outcome, and no call has come since. Run
	// would do what WithInterrupted says.
	StateAbandoned
	// StateInterrupted: an execution ended without an outcome and is refused until Forget or
	// Resolve.
	StateInterrupted
	// StateSucceeded: a value is recorded.
	StateSucceeded
	// StateFailed: an error or a panic is recorded.
	StateFailed
	// StateValueNotKept: fn succeeded, and its value could not be stored. Run returns
	// ErrValueNotKept until Forget or Resolve.
	StateValueNotKept
	// StateUnreadable: what is stored is no record that this version reads. Run returns
	// ErrCorruptRecord until Forget. Only an Inspector returns it.
	StateUnreadable
)

var stateNames = [...]string{
	StateAbsent:      "absent",
	StateRunning:     "running",
	StateAbandoned:   "abandoned",
	StateInterrupted: "interrupted",
	StateSucceeded:   "succeeded",
	StateFailed:      "failed",

	StateValueNotKept: "done, value not kept",
	StateUnreadable:   "unreadable",
}

func (s State) String() string {
	if int(s) >= len(stateNames) {
		return fmt.Sprintf("State(%d)", uint8(s))
	}
	return stateNames[s]
}

// enter is begin for the methods that do not run fn.
func (c *core) enter(ctx context.Context, key string) error {
	if ctx == nil {
		return invalid("Executor", "ctx", "nil", "a context")
	}
	if err := checkKey(key); err != nil {
		return err
	}
	_, err := c.admit(ctx, "") // fn may look at its own key
	return err
}

func (c *core) peek(ctx context.Context, key string) (Status, error) {
	if err := c.enter(ctx, key); err != nil {
		return Status{}, err
	}
	defer c.group.Leave()
	got, err := c.store.Read(ctx, record.Name(c.namespace, key))
	if err != nil {
		return Status{}, storeError(ctx, err)
	}
	return statusOf(got)
}

// statusOf describes what was read.
func statusOf(got store.Reading) (Status, error) {
	if got.Raw == nil {
		return Status{}, nil
	}
	rec, err := record.Decode(got.Raw)
	if err != nil {
		return Status{}, err
	}
	return statusOfRecord(rec, len(got.Raw), got.TTL), nil
}

func statusOfRecord(rec *record.Record, size int, ttl time.Duration) Status {
	s := Status{
		State:   StateFailed,
		Attempt: int(rec.Attempt),
		Age:     max(0, time.Since(rec.At)),
		TTLLeft: max(0, ttl),
		Size:    size,
		Owner:   string(rec.Extensions.Get(record.FieldOwner)),
		Origin:  originOf(rec),
	}
	switch {
	case rec.Kind == record.KindRunning && ttl < 0: // without an expiry: nothing says that the owner is dead
		s.State = StateRunning
	case rec.Kind == record.KindRunning && ttl > rec.Retention:
		s.State, s.LeaseLeft = StateRunning, ttl-rec.Retention
	case rec.Kind == record.KindRunning:
		s.State = StateAbandoned
	case rec.Outcome == record.OutcomeInterrupted:
		s.State = StateInterrupted
	case rec.Outcome == record.OutcomeValueNotKept:
		s.State = StateValueNotKept
	case rec.Outcome == record.OutcomeValue:
		s.State = StateSucceeded
	}
	return s
}

// get is a run that runs nothing.
func (c *core) get(ctx context.Context, key string, cfg *runConfig) sharedResult {
	nested, err := c.begin(ctx, key)
	if err != nil {
		return failure(err)
	}
	defer c.group.Leave()
	if s, hit := c.cached(key); hit {
		return c.replay(ctx, key, cfg, s)
	}
	op := c.newOperation(key, cfg, nested, time.Now())
	f, err := c.lookUp(ctx, op)
	switch {
	case err != nil:
		return failure(err)
	case f.final():
	case checkFingerprint(op.cfg.fingerprint, f.rec.Fingerprint) != nil:
		return failure(ErrKeyReused)
	case cfg.noWait:
		return failure(&InProgressError{RetryAfter: f.left})
	default:
		w := &wait{core: &c.waiting, op: op, found: f.rec, read: (*locker).lookUp, claim: (*locker).lookUp}
		if f, err = w.run(ctx); err != nil {
			return failure(err)
		}
	}
	return c.replay(ctx, key, cfg, f.shared())
}

// lookUp is look for callers that only want to know.
func (c *locker) lookUp(ctx context.Context, op *operation) (claimResult, error) {
	f, err := c.find(ctx, op, ErrNotFound)
	switch {
	case err != nil || f.final() || f.left > 0:
		return f, err
	case checkFingerprint(op.cfg.fingerprint, f.rec.Fingerprint) != nil:
		return claimResult{}, ErrKeyReused
	}
	return claimResult{}, ErrInterrupted
}

func (c *core) forget(ctx context.Context, key string) error {
	if err := c.enter(ctx, key); err != nil {
		return err
	}
	defer c.group.Leave()
	name := record.Name(c.namespace, key)
	defer c.crowd.flights.Forget(key) // an answer in flight may be the forgotten one
	defer c.cache.Invalidate(key)     // also when what became of the command is not known
	if err := c.store.Remove(ctx, name); err != nil {
		return redisError(ErrUnavailable, err)
	}
	return nil
}

// resolve replaces what is no outcome by one. It reads again when the record changes in between.
func (c *core) resolve(ctx context.Context, key string, cfg *runConfig, payload []byte) (was Status, err error) {
	if err := c.enter(ctx, key); err != nil {
		return was, err
	}
	defer c.group.Leave()
	name := record.Name(c.namespace, key)
	defer c.crowd.flights.Forget(key)
	defer c.cache.Invalidate(key)
	settled := &record.Record{Kind: record.KindDone, Token: record.NewToken(), Outcome: record.OutcomeValue, Codec: c.runner.codec, Payload: payload}
	for {
		got, err := c.store.Read(ctx, name)
		if err != nil {
			return was, storeError(ctx, err)
		}
		if was, err = prepareResolve(settled, got, cfg); err != nil {
			return was, err
		}
		_, taken, err := c.store.TakeOver(ctx, name, got.Raw, settled.Encode(), cfg.ttl, nil, true)
		switch {
		case errors.Is(err, store.ErrFewReplicas):
			return was, redisError(ErrNotRecorded, err)
		case err != nil:
			return was, storeError(ctx, err)
		case taken:
			return was, nil
		case ctx.Err() != nil:
			return was, contextError(ctx)
		}
	}
}

// prepareResolve completes the record that replaces what was read, unless that must stay.
func prepareResolve(settled *record.Record, got store.Reading, cfg *runConfig) (was Status, err error) {
	settled.At, settled.Attempt, settled.Fingerprint, settled.Extensions = time.Now(), 1, cfg.fingerprint, nil
	if was, err = statusOf(got); err != nil {
		return was, err
	}
	switch was.State {
	case StateSucceeded, StateFailed:
		return was, ErrAlreadyRecorded
	case StateAbsent:
		if !cfg.absent {
			return was, ErrNotFound
		}
		return was, nil
	}
	rec, err := record.Decode(got.Raw)
	if err != nil {
		return was, err
	}
	settled.Attempt = rec.Attempt
	settled.Fingerprint = firstNonEmpty(cfg.fingerprint, rec.Fingerprint)
	settled.Extensions = settled.Extensions.Inherit(rec.Extensions)
	return was, nil
}

// Check looks at the servers behind the client and returns what makes them a bad place for an
// executor's records, the worst first: each master of a Cluster, each shard of a Ring that is up,
// the one server otherwise. No findings mean that all was looked at and is well. It is meant for
// the start of a program, and for a health report now and then.
//
// Check reads INFO, CONFIG GET, TIME and ACL DRYRUN. What the client's user may not ask is a
// FindingNotChecked; without ACL DRYRUN, it tries each command of an executor on a name that is
// no operation's, in a form that changes nothing. It costs about six round trips and, for the
// latter, one connection. Calls may be concurrent.
//
// ErrUnavailable: some server could not be asked, or ctx ended before it had answered; the
// findings beside it are those of the servers that did answer.
func (e *Executor[T]) Check(ctx context.Context) ([]idemcheck.Finding, error) {
	return e.core.check(ctx)
}

func (c *core) check(ctx context.Context) ([]idemcheck.Finding, error) {
	if ctx == nil {
		return nil, invalid("Check", "ctx", "nil", "a context")
	}
	if _, err := c.admit(ctx, ""); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	k, done := c.checker.Start(ctx, c.group.Leave)
	select {
	case <-done:
	case <-c.group.Closing.Done():
		return nil, ErrClosed
	case <-ctx.Done():
		k.Fail(contextError(ctx))
	}
	findings, err := k.Result()
	if err != nil {
		err = redisError(ErrUnavailable, err)
	}
	return findings, err
}

package idempotent

import (
	"context"
	"errors"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/idempotent-go/idempotent/internal/backoff"
	"github.com/idempotent-go/idempotent/internal/errtree"
	"github.com/idempotent-go/idempotent/internal/lease"
	"github.com/idempotent-go/idempotent/internal/record"
	"github.com/idempotent-go/idempotent/internal/rediserr"
	"github.com/idempotent-go/idempotent/internal/store"
)

// An action is fn, whatever its T.
type untypedFn interface {
	run(ctx context.Context) (value any, err error)
}

// An ending is how fn ended.
type fnResult struct {
	value     any
	payload   []byte // the encoded value
	err       error
	encodeErr error // fn succeeded, its value cannot be encoded
	panicked  *PanicError
	exited    bool // runtime.Goexit
}

func (e *fnResult) cause() error {
	if e.panicked != nil {
		return e.panicked
	}
	return e.err
}

// A runner runs fn under leases.
type runner struct {
	*locker
	renewer *lease.Renewer
	codec   record.CodecID
	encode  func(value any) ([]byte, error)
	errors  *ErrorRegistry
}

// errorLost logs that callers will not find a registered error again.
func (c *runner) errorLost(code string) {
	c.logger.Warn("idempotent: registered error not stored or not restored", "code", code, "namespace", c.namespace)
}

func (c *runner) leaseRenewed(l *lease.Lease) {
	c.observe(context.Background(), Event{Kind: EventRenewed, Key: l.Key, Attempt: int(l.Attempt)})
}

func (c *runner) leaseLost(l *lease.Lease) {
	c.logger.Warn("idempotent: lease lost while fn runs", "key", l.Key, "namespace", c.namespace, "attempt", int(l.Attempt))
	c.observe(context.Background(), Event{Kind: EventLeaseLost, Key: l.Key, Attempt: int(l.Attempt), Err: ErrLeaseLost})
}

// patience is how long to go on trying to tell Redis about an outcome: three leases, 5 s at least.
func (c *runner) commitRetryWindow() time.Duration { return max(3*c.lease, 5*time.Second) }

// A performance is one execution of fn under a lease, from the claim to the last word in Redis.
type execution struct {
	*runner
	op    *operation
	lead  *leadership
	lease *lease.Lease
	fn    untypedFn

	ctx   context.Context // the caller's
	fnCtx context.Context // fn's
	end   context.CancelCauseFunc
	inner *runContext
	ended time.Time // fn
	out   ownResult
}

// execute runs fn as the owner of the operation, and records what comes of it.
func (c *runner) execute(ctx context.Context, op *operation, lead *leadership, l *lease.Lease, fn untypedFn) result {
	p := &execution{runner: c, op: op, lead: lead, lease: l, fn: fn, ctx: ctx}
	p.inner = &runContext{info: RunInfo{Namespace: c.namespace, Key: op.key, Attempt: int(l.Attempt)}, by: c.locker}
	p.inner.outer, _ = ctx.Value(runContextKey{}).(*runContext)
	base := ctx
	if op.cfg.detached {
		base = context.WithoutCancel(ctx)
	}
	p.fnCtx, p.end = context.WithCancelCause(context.WithValue(base, runContextKey{}, p.inner))
	l.Key = op.key
	c.renewer.Keep(l, p)
	lead.call.Publish(flightState{phase: phaseRunning, fingerprint: op.fingerprint, lease: l})
	p.observeClaimed()
	if op.cfg.detached {
		return p.runDetached()
	}
	return result{own: p.runFn()}
}

// observeClaimed gives the operation up if the observer exits the goroutine: it would be renewed
// for ever otherwise, and fn never run.
func (p *execution) observeClaimed() {
	returned := false
	defer func() {
		if !returned {
			p.end(context.Canceled)
			p.renewer.Drop(p.lease)
			p.releaseInBackground(p.ctx, p.op, p.lease.Attempt)
		}
	}()
	p.observe(p.ctx, Event{Kind: EventClaimed, Key: p.op.key, Attempt: int(p.lease.Attempt)})
	returned = true
}

// leaseLost ends fn's context.
func (p *execution) LeaseLost() {
	p.end(ErrLeaseLost)
	p.lead.vacate(flightState{}) // the others are not to wait for a fn that may never return
}

// perform runs fn in this goroutine. A panic goes on, after it was recorded, from the very stack
// it came from; so does Goexit.
func (p *execution) runFn() (out *ownResult) {
	began := time.Now()
	returned := false
	defer func() {
		if returned {
			return
		}
		value := recover()
		if value == nil {
			p.conclude(&fnResult{exited: true}, began)
			return
		}
		out = p.conclude(&fnResult{panicked: &PanicError{Value: value, Stack: debug.Stack()}}, began)
		if !p.op.cfg.detached {
			panic(value)
		}
	}()
	var end fnResult
	if end.value, end.err = p.fn.run(p.fnCtx); end.err == nil {
		end.payload, end.encodeErr = p.encode(end.value)
	}
	returned = true
	return p.conclude(&end, began)
}

// performDetached runs fn in a goroutine of its own, which the caller may leave behind.
func (p *execution) runDetached() result {
	done := make(chan *ownResult, 1)
	p.group.Go(func() {
		out := &ownResult{exited: true} // unless perform returns
		defer func() { done <- out }()
		out = p.runFn()
	})
	select {
	case out := <-done:
		return out.deliver()
	case <-p.ctx.Done():
	}
	select {
	case out := <-done:
		return out.deliver()
	default:
		return result{sharedResult: failure(contextError(p.ctx))}
	}
}

// deliver ends the caller's goroutine as fn ended its own.
func (o *ownResult) deliver() result {
	if o.panicked != nil {
		panic(o.panicked.Value)
	}
	if o.exited {
		runtime.Goexit()
	}
	return result{own: o}
}

// conclude settles the operation after fn ended: in Redis, for the followers, for the caller.
func (p *execution) conclude(end *fnResult, began time.Time) *ownResult {
	defer p.lead.vacate(flightState{}) // unless it was settled
	p.ended = time.Now()
	p.inner.over.Store(true)
	lost := p.renewer.FnReturned(p.lease)
	defer p.renewer.Drop(p.lease) // renewed for as long as the commit takes
	stopped := p.fnCtx.Err() != nil
	cause := context.Cause(p.fnCtx)
	p.end(context.Canceled)
	p.out = ownResult{value: end.value, fnErr: end.err, attempt: p.lease.Attempt, panicked: end.panicked}
	told := false
	defer func() {
		if !told { // the observer exits the goroutine; what fn did is to be recorded all the same
			p.finish(end, lost, stopped, cause)
		}
	}()
	p.observe(p.ctx, Event{Kind: EventExecuted, Key: p.op.key, Attempt: int(p.lease.Attempt), Duration: p.ended.Sub(began), Err: end.cause()})
	told = true
	p.finish(end, lost, stopped, cause)
	return &p.out
}

// finish says in Redis and to the followers what became of fn. lost says that the lease was by then;
// stopped and cause, whether and why fn's context had ended.
func (p *execution) finish(end *fnResult, lost, stopped bool, cause error) {
	if end.panicked != nil && p.op.cfg.detached {
		p.logger.Error("idempotent: detached fn panicked", "key", p.op.key, "namespace", p.namespace, "stack", string(end.panicked.Stack))
	}
	switch {
	case end.exited:
		p.release(nil, errExited)
	case end.encodeErr != nil:
		p.recordWithoutValue(end.encodeErr)
	case end.err != nil && (stopped && cutShort(end.err, cause) || isUnknown(end.err)):
		if lost {
			p.out.err = ErrLeaseLost
		}
		p.abandon(end.err)
	default:
		p.settle(end)
	}
}

var errExited = errors.New("idempotent: fn exited its goroutine")

// cutShort reports whether fn, whose context has ended, failed because of that. Drivers that set
// the context's deadline on a connection report it as a timeout of the network.
func cutShort(err, cause error) (short bool) {
	errtree.Walk(err, func(node error) bool {
		timeout, ok := node.(interface{ Timeout() bool })
		short = errtree.Matches(node, context.Canceled) || errtree.Matches(node, context.DeadlineExceeded) || errtree.Matches(node, cause) || ok && timeout.Timeout()
		return !short
	})
	return short
}

func isUnknown(err error) (unknown bool) {
	errtree.Walk(err, func(node error) bool {
		_, unknown = node.(*unknownError)
		return !unknown
	})
	return unknown
}

// settle records the outcome, or releases the operation if its error is one to ignore.
func (p *execution) settle(end *fnResult) {
	rec := p.doneRecord(record.OutcomeValue)
	rec.Payload = end.payload
	ignore := false
	if err := end.cause(); err != nil {
		rec.Outcome, rec.Codec, rec.Payload = record.OutcomeError, record.CodecMsgpack, p.errors.encode(err, p.errorLost)
		if end.panicked != nil {
			rec.Outcome = record.OutcomePanic
		}
		ignore, p.out.hookErr = ignored(p.op.cfg, err)
	}
	raw := rec.Encode()
	rec.Payload = record.PayloadIn(raw, len(rec.Payload)) // a copy: the value is the caller's now
	switch {
	case !ignore:
		p.commit(rec, raw, nil)
	case p.op.cfg.ignored == ShareWithWaiters:
		p.release(append([]byte{store.MessageShared}, raw...), end.cause())
		p.lead.settle(sharedResult{rec: rec, source: Executed})
	default:
		p.release(nil, end.cause())
	}
}

func (p *execution) doneRecord(outcome record.Outcome) *record.Record {
	return &record.Record{
		Kind:        record.KindDone,
		Token:       p.op.token,
		Attempt:     p.lease.Attempt,
		At:          time.UnixMilli(p.ended.UnixMilli()), // as it is read from Redis
		Fingerprint: p.op.fingerprint,
		Outcome:     outcome,
		Codec:       p.codec,
	}
}

// recordWithoutValue records that fn succeeded, and not its value, which why says cannot be stored.
// Without a record, the next caller would run fn again.
func (p *execution) recordWithoutValue(why error) {
	rec := p.doneRecord(record.OutcomeValueNotKept)
	p.logger.Error("idempotent: value not kept", "key", p.op.key, "namespace", p.namespace, "error", why)
	p.commit(rec, rec.Encode(), why)
	if p.out.err == nil {
		p.out.err = &causeError{text: ErrNotRecorded.Error() + ": " + why.Error(), sentinel: ErrNotRecorded, cause: why}
	}
}

// ignored asks ShouldIgnoreError. If that panics, the error is recorded.
func ignored(cfg *runConfig, err error) (ignore bool, panicked *HookError) {
	if cfg.shouldIgnore == nil {
		return false, nil
	}
	defer func() {
		if p := recover(); p != nil {
			ignore, panicked = false, &HookError{Hook: "ShouldIgnoreError", Value: p}
		}
	}()
	return cfg.shouldIgnore(err), nil
}

// errRefused: the record is somebody else's.
var errTakenOver = errors.New("somebody else has taken over")

// commit stores the outcome. It goes on trying when the caller's context has ended, for a
// bounded time. notKept says why the record lacks the value, nil if it does not.
func (p *execution) commit(rec *record.Record, raw []byte, notKept error) {
	event := Event{Key: p.op.key, Attempt: int(rec.Attempt), Size: len(raw)}
	stamp := p.cache.Stamp()
	ttl := p.op.cfg.recordTTL(rec.Outcome)
	stored, err := p.store.Commit(context.WithoutCancel(p.ctx), p.op.via, p.op.name, raw, ttl)
	if err != nil {
		stored, err = p.commitAgain(raw, ttl, event, err)
	}
	event.Duration = time.Since(p.ended)
	switch {
	case err == nil && !stored:
		event.Kind, event.Err = EventCommitFailed, errTakenOver
		p.out.err = &causeError{text: ErrLeaseLost.Error() + ": " + errTakenOver.Error(), sentinel: ErrLeaseLost, cause: errTakenOver}
	case err != nil:
		event.Kind, event.Err = EventCommitFailed, err
		p.out.err = redisError(ErrNotRecorded, err)
		p.lead.settle(sharedResult{rec: rec, source: Executed, err: p.out.err})
	default:
		event.Kind, event.Err = EventRecorded, notKept
		if notKept == nil {
			p.out.at = rec.At
		}
		stamp.Store(p.op.key, rec, len(raw), ttl)
		p.lead.settle(sharedResult{rec: rec, stored: true, source: Executed})
	}
	if event.Kind == EventCommitFailed {
		p.logger.Error("idempotent: outcome not recorded", "key", p.op.key, "namespace", p.namespace, "error", rediserr.Text(event.Err))
	}
	p.observe(p.ctx, event)
}

// commitAgain repeats a commit that failed with err. A first commit is bounded by the client's
// timeouts.
func (p *execution) commitAgain(raw []byte, ttl time.Duration, event Event, err error) (stored bool, _ error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(p.ctx), p.commitRetryWindow())
	defer cancel()
	failed := func(err error) {
		p.logger.Warn("idempotent: commit failed, trying again", "key", p.op.key, "namespace", p.namespace, "error", rediserr.Text(err))
		retried := event
		retried.Kind, retried.Err = EventCommitRetried, err
		p.observe(p.ctx, retried)
	}
	err = backoff.Resume(ctx, err, func() (err error) {
		stored, err = p.store.Commit(ctx, nil, p.op.name, raw, ttl)
		return err
	}, failed)
	return stored, err
}

// abandon ends the lease at once and keeps the attempt number: what fn did is not known, so the
// next one is told, or refused.
func (p *execution) abandon(why error) {
	p.leave(EventInterrupted, why, func(ctx context.Context) error {
		return p.store.Release(ctx, p.op.name, p.op.token, []byte{store.MessageRead}, p.abandonedRecord(p.op, p.lease.Attempt))
	})
}

// release gives the operation up after an execution that is as good as none. shared is the
// outcome for those who wait, if they are to have it.
func (p *execution) release(shared []byte, why error) {
	p.leave(EventReleased, why, func(ctx context.Context) error {
		return p.locker.release(ctx, p.op, p.lease.Attempt, shared)
	})
}

// leave ends the ownership without an outcome. When Redis does not answer, it goes on trying in
// the background; the lease bounds the harm.
func (p *execution) leave(kind EventKind, why error, release func(context.Context) error) {
	p.renewer.Drop(p.lease)
	ctx := context.WithoutCancel(p.ctx)
	if release(ctx) != nil {
		p.group.RetryInBackground(ctx, release)
	}
	p.observe(p.ctx, Event{Kind: kind, Key: p.op.key, Attempt: int(p.lease.Attempt), Err: why})
}

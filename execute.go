package idempotent

import (
	"context"
	"errors"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/idempotent-go/idempotent/internal/lease"
	"github.com/idempotent-go/idempotent/internal/record"
	"github.com/idempotent-go/idempotent/internal/runctx"
	"github.com/idempotent-go/idempotent/internal/store"
)

// errorLost logs that callers will not find a registered error again.
func (c *runner) errorLost(code string) {
	c.logger.Warn("idempotent: registered error not stored or not restored", "code", code, "namespace", c.namespace)
}

// LeaseRenewed implements lease.Events.
func (c *runner) LeaseRenewed(l *lease.Lease, left time.Duration, err error) {
	e := Event{Kind: EventRenewed, Key: l.Key, Attempt: int(l.Attempt), Left: left, Lease: l.Duration, Err: err}
	if err != nil {
		e.Kind = EventRenewalFailed
	}
	c.observe(l.Context, e)
}

// LeaseLost implements lease.Events.
func (c *runner) LeaseLost(l *lease.Lease) {
	c.logger.WarnContext(l.Context, "idempotent: lease lost while fn runs", "key", l.Key, "namespace", c.namespace, "attempt", int(l.Attempt))
	c.observe(l.Context, Event{Kind: EventLeaseLost, Key: l.Key, Attempt: int(l.Attempt), Err: ErrLeaseLost})
}

// execute runs fn as the owner of the operation, and records its outcome.
func (c *runner) execute(ctx context.Context, op *operation, lead *leadership, l *lease.Lease, fn untypedFn) result {
	p := &execution{runner: c, op: op, lead: lead, lease: l, fn: fn, ctx: ctx}
	p.inner = &runContext{info: RunInfo{Namespace: c.namespace, Key: op.key, Attempt: int(l.Attempt)}, by: c.keyspace}
	p.inner.outer, _ = runctx.Value(ctx, runContextKey{}).(*runContext)
	base := p.startTrace()
	if op.cfg.detached {
		base = context.WithoutCancel(base)
	}
	p.fnCtx, p.cancel = context.WithCancelCause(context.WithValue(base, runContextKey{}, p.inner))
	l.Key, l.Context = op.key, p.fnCtx
	c.renewer.Keep(l, p)
	lead.call.Publish(flightState{phase: phaseRunning, fingerprint: op.fingerprint, lease: l})
	p.observeClaimed()
	if op.cfg.detached {
		return p.runDetached()
	}
	return p.begin()
}

// startTrace returns the context of fn's span. It gives the key up if the tracer ends the goroutine.
func (p *execution) startTrace() (ctx context.Context) {
	if p.tracer == nil {
		return p.ctx
	}
	returned := false
	defer func() {
		if !returned {
			p.releaseInBackground(p.op, p.lease.Attempt)
		}
	}()
	ctx = p.start(Tracer.StartExecution, p.ctx, p.inner.info)
	returned = true
	return ctx
}

// observeClaimed gives the key up if the observer ends the goroutine: the lease would be renewed for
// ever otherwise, and fn never run.
func (p *execution) observeClaimed() {
	returned := false
	defer func() {
		if !returned {
			p.dropUnbegun(errExited)
		}
	}()
	p.observe(p.ctx, Event{Kind: EventClaimed, Key: p.op.key, Attempt: int(p.lease.Attempt)})
	returned = true
}

// dropUnbegun gives up a key whose fn does not begin.
func (p *execution) dropUnbegun(why error) {
	p.cancel(context.Canceled)
	p.renewer.Drop(p.lease)
	p.releaseInBackground(p.op, p.lease.Attempt)
	p.lead.handOver(flightState{})
	p.end(Tracer.EndExecution, p.fnCtx, Event{Kind: EventExecuted, Key: p.op.key, Attempt: int(p.lease.Attempt), Err: why})
}

// LeaseLost ends fn's context. Another caller of this process leads from now on, since fn may never
// return.
func (p *execution) LeaseLost() {
	p.cancel(ErrLeaseLost)
	p.lead.handOver(flightState{})
}

// begin runs fn if its lease still holds. The process may have been slow since the reply to the claim,
// and another one may own the key by now; this is the last moment to find out.
func (p *execution) begin() result {
	if !p.lease.Holds() { //nolint:errorlint // a caller's cause may wrap the loss of another lease
		p.dropUnbegun(errLate)
		return result{sharedResult: failure(redisError(ErrUnavailable, errLate))}
	}
	return result{own: p.runFn()}
}

var errLate = errors.New("the lease ended before fn could begin")

// runFn runs fn in this goroutine. A panic continues, once it is recorded, on the stack that it came
// from; so does Goexit.
func (p *execution) runFn() (out *ownResult) {
	p.began = time.Now()
	defer func() {
		if p.phase == fnSilent { // callFn did not return here: Goexit
			p.outcome.exited = true
			p.conclude()
		}
	}()
	p.callFn()
	if p.phase != fnSilent {
		return &p.out
	}
	// recover returned nil and execution went on: panic(nil).
	p.phase = fnDone
	p.outcome.panicked = &PanicError{Value: new(runtime.PanicNilError), Stack: debug.Stack()}
	p.conclude()
	if !p.op.cfg.detached {
		panic(p.outcome.panicked.Value)
	}
	return &p.out
}

// callFn runs fn, encodes its value and concludes the execution. It leaves a silent end to its caller,
// because recover cannot tell Goexit from panic(nil).
func (p *execution) callFn() {
	r := &p.outcome
	defer func() {
		switch p.phase {
		case fnDone:
			return
		case fnEnded: // the codec ended the goroutine; fn has had its effect
			r.encodeErr = errCodecExited
			p.conclude()
			return
		}
		value := recover()
		if value == nil {
			p.phase = fnSilent
			return
		}
		p.phase = fnDone
		r.panicked = &PanicError{Value: value, Stack: debug.Stack()}
		p.conclude()
		if !p.op.cfg.detached {
			panic(value)
		}
	}()
	r.value, r.err = p.fn.run(p.fnCtx)
	p.phase = fnEnded
	if r.err == nil {
		r.payload, r.encodeErr = p.encode(r.value)
	}
	p.phase = fnDone
	p.conclude()
}

var (
	errCodecExited = errors.New("the codec exited its goroutine")
	errExited      = errors.New("idempotent: fn exited its goroutine")
)

// runDetached runs fn in a goroutine of its own, which the caller may leave behind.
func (p *execution) runDetached() result {
	done := make(chan result, 1)
	p.group.Go(func() {
		res := result{own: &ownResult{exited: true}} // unless begin returns
		defer func() { done <- res }()
		res = p.begin()
	})
	select {
	case res := <-done:
		return res.deliver()
	case <-p.ctx.Done():
	}
	select {
	case res := <-done:
		return res.deliver()
	default:
		return result{sharedResult: failure(contextError(p.ctx))}
	}
}

// deliver ends the caller's goroutine as fn ended its own.
func (r result) deliver() result {
	switch {
	case r.own == nil:
	case r.own.panicked != nil:
		panic(r.own.panicked.Value)
	case r.own.exited:
		runtime.Goexit()
	}
	return r
}

// conclude settles the operation after fn ended: in Redis, for the followers, for the caller.
func (p *execution) conclude() {
	p.phase = fnDone
	r := &p.outcome
	defer p.lead.handOver(flightState{}) // unless it was settled
	p.ended = time.Now()
	p.inner.over.Store(true)
	lost := p.renewer.FnReturned(p.lease)
	unknown, hookErr := p.isUnknown(r)
	p.cancel(context.Canceled)
	p.out = ownResult{value: r.value, fnErr: r.err, attempt: p.lease.Attempt, panicked: r.panicked, hookErr: hookErr}
	defer p.finish(r, lost, unknown) // also if the observer ends the goroutine
	if w := p.op.cfg.watch; w != nil {
		w.panicked.Store(r.panicked)
		e := Event{Kind: EventExecuted, Key: p.op.key, Attempt: int(p.lease.Attempt), Duration: p.ended.Sub(p.began), Err: r.cause()}
		if r.exited {
			e.Err = errExited
		}
		defer p.end(Tracer.EndExecution, p.fnCtx, e)
		p.observe(p.ctx, e)
	}
}

// finish commits, releases or abandons the execution in Redis, and publishes the result to local
// followers. lost says that the lease was lost before fn returned.
func (p *execution) finish(r *fnResult, lost, unknown bool) {
	if r.panicked != nil && p.op.cfg.detached {
		p.logger.ErrorContext(p.fnCtx, "idempotent: detached fn panicked", "key", p.op.key, "namespace", p.namespace, "stack", string(r.panicked.Stack))
	}
	switch {
	case r.exited:
		p.release(nil, errExited)
	case r.encodeErr != nil:
		p.recordWithoutValue(r.encodeErr)
	case unknown:
		if lost {
			p.out.err = ErrLeaseLost
		}
		p.abandon(r.cause())
	default:
		p.settle(r)
	}
}

// settle records the outcome, or frees the key if the error is one to ignore.
func (p *execution) settle(r *fnResult) {
	rec := p.doneRecord(record.OutcomeValue)
	rec.Payload = r.payload
	err := r.cause()
	if err != nil {
		rec.Outcome, rec.Codec, rec.Payload = record.OutcomeError, record.CodecMsgpack, p.errors.encode(err, p.errorLost)
		if r.panicked != nil {
			rec.Outcome = record.OutcomePanic
		}
	}
	raw := rec.Encode()
	rec.Payload = record.PayloadIn(raw, len(rec.Payload)) // a copy: the value is the caller's now
	if err == nil {
		p.commit(rec, raw, nil)
		return
	}
	p.settleError(rec, raw, err)
}

func (p *execution) doneRecord(outcome record.Outcome) *record.Record {
	return &record.Record{
		Kind:        record.KindDone,
		Token:       p.op.token,
		Attempt:     p.lease.Attempt,
		At:          time.UnixMilli(p.ended.UnixMilli()), // as it is read from Redis
		Fingerprint: p.op.fingerprint,
		Extensions:  p.op.extensions.Without(record.FieldOwner),
		Outcome:     outcome,
		Codec:       p.codec,
	}
}

// recordWithoutValue records that fn succeeded, and not its value, which cannot be stored for the reason
// why. Without a record, the next caller would run fn again.
func (p *execution) recordWithoutValue(why error) {
	rec := p.doneRecord(record.OutcomeValueNotKept)
	p.logger.ErrorContext(p.fnCtx, "idempotent: value not kept", "key", p.op.key, "namespace", p.namespace, "error", why.Error())
	p.commit(rec, rec.Encode(), why)
	if p.out.err == nil {
		p.out.err = &causeError{text: ErrNotRecorded.Error() + ": " + why.Error(), sentinel: ErrNotRecorded, cause: why}
	}
}

func (p *execution) settleError(rec *record.Record, raw []byte, err error) {
	decided := false
	defer func() {
		if !decided { // ShouldIgnoreError ended the goroutine: the error is recorded, as if it had panicked
			p.commit(rec, raw, nil)
		}
	}()
	ignore, hookErr := ask("ShouldIgnoreError", p.op.cfg.shouldIgnore, err)
	decided = true
	if hookErr != nil {
		ignore, p.out.hookErr = false, hookErr
	}
	switch {
	case !ignore:
		p.commit(rec, raw, nil)
	case p.op.cfg.ignored == ShareWithWaiters:
		p.release(append([]byte{store.MessageShared}, raw...), err)
		p.lead.settle(sharedResult{rec: rec, source: Executed})
	default:
		p.release(nil, err)
	}
}

// abandon ends the lease at once and keeps the attempt number: the effect of fn is unknown, so the next
// execution is told by its number, or refused.
func (p *execution) abandon(why error) {
	p.leave(EventInterrupted, why, store.Release{
		Name: p.op.name, Token: p.op.token, Message: []byte{store.MessageRead}, Stays: p.abandonedRecord(p.op, p.lease.Attempt),
	})
}

// release frees the key after an execution whose error is not recorded. From attempt 2 on the number
// stays: what the earlier executions did is still unknown. shared is the result for the waiters, if they
// get it.
func (p *execution) release(shared []byte, why error) {
	attempt := p.lease.Attempt
	if attempt == 1 {
		attempt = 0
	}
	p.leave(EventReleased, why, p.releaseOf(p.op, attempt, shared))
}

// leave ends the ownership without an outcome. While Redis does not answer, the release goes on in the
// background.
func (p *execution) leave(kind EventKind, why error, r store.Release) {
	p.renewer.Drop(p.lease)
	ctx := context.WithoutCancel(p.ctx)
	if !p.within(p.commitWait(), func() bool { return p.store.Release(ctx, &r) == nil }) {
		p.releases.Add(store.Release{Name: r.Name, Token: r.Token, Message: r.Message, Stays: r.Stays}, false)
	}
	p.observe(p.ctx, Event{Kind: kind, Key: p.op.key, Attempt: int(p.lease.Attempt), Err: why})
}

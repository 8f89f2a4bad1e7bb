package webhook

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/internal/errtree"
)

// An execution is one run of a handler for a taken event.
type execution struct {
	*worker
	taken   *Taken
	route   *route
	job     *Job
	handler Handler
	move    *Move // of the object, if the handler succeeds

	// Set by the handler's run.
	ran     bool
	number  int   // of the attempt
	called  *Step // with the attempt's trace; nil if the handler was not called
	err     error // the handler's
	cause   Cause // of err
	outcome Outcome
}

// run runs the handler through the executor, unless the circuit is open, and returns the event's settlement.
func (x *execution) run(ctx context.Context) Settlement {
	r := &x.taken.Record
	s := Settlement{Attempts: r.Attempts}
	ok, probe, wait := x.route.circuit.allow(time.Now())
	if !ok {
		s.After = wait + backoff{first: x.route.circuit.pause / 4, limit: x.route.circuit.pause / 4}.after(1)
		return s.as(Retrying, CauseCircuit, "the circuit of the handler is open")
	}
	out, attempt, err := x.executor.Execute(ctx, Execution{Key: x.runKey(), Refuse: x.route.refuse, Run: x.attempt, Ticket: x.taken.Ticket})
	x.route.circuit.record(x.result(), probe, time.Now())
	if x.ran {
		return x.own()
	}
	if attempt > 0 {
		s.Attempts = max(r.Attempts, r.AttemptsBefore+attempt)
	}
	return x.others(s, out, err)
}

// runKey is the executor's key. A redrive gets its own: what an execution left under its key stays. Forget would do as
// well, but not if two redrives overlapped.
func (x *execution) runKey() string {
	if n := x.taken.Record.Redrives; n > 0 {
		return idempotent.HashKey("redrive", x.job.Key, strconv.Itoa(n))
	}
	return x.job.Key
}

// attempt is called by the executor. The error it returns tells the executor whether to record it.
func (x *execution) attempt(ctx context.Context, attempt int) (Outcome, error) {
	r := &x.taken.Record
	x.ran = true
	x.number = max(r.Attempts, r.AttemptsBefore+attempt-1) + 1
	tries := x.number - r.AttemptsBefore
	if tries > x.route.attempts { // the last one took its process with it
		x.number--
		x.cause, x.err = CauseAttempts, fmt.Errorf("given up after %d attempts: the last one ended without an outcome", x.route.attempts)
		return Outcome{}, x.recorded()
	}
	x.job.Attempt = x.number
	x.err = x.call(ctx)
	x.outcome.Changed = x.job.changed
	if skip, ok := errors.AsType[*skipError](x.err); ok {
		x.outcome.Skipped, x.outcome.Reason = true, cut(skip.reason)
		x.err = nil
	}
	if x.err == nil {
		return x.outcome, nil
	}
	_, permanent := errors.AsType[*permanentError](x.err)
	retryable := idempotent.IsRetryable(x.err)
	switch {
	case permanent:
		x.cause = CausePermanent
	case tries >= x.route.attempts:
		x.cause = CauseAttempts
	case retryable:
		x.cause = CauseError
		return Outcome{}, idempotent.Retryable(x.err)
	default: // the effect may have taken place
		if x.cause == "" {
			x.cause = CauseError
		}
		return Outcome{}, idempotent.OutcomeUnknown(x.err)
	}
	if !permanent && !retryable { // the last attempt, and its effect is unknown
		return Outcome{}, idempotent.OutcomeUnknown(x.err)
	}
	return Outcome{}, x.recorded()
}

// recorded returns the error that the executor records as final. It has the text of the handler's error without its
// type, because a type (context.DeadlineExceeded) could make it one that is not recorded.
func (x *execution) recorded() error {
	return errors.New(string(x.cause) + ": " + cut(errtree.Text(x.err)))
}

// call calls the handler. A panic is an error whose effect is unknown: one event must not end the process for all others.
func (x *execution) call(ctx context.Context) (err error) {
	r := &x.taken.Record
	ctx, cancel := context.WithTimeout(ctx, x.route.timeout)
	defer cancel()
	ctx, traceparent := x.cfg.tracer.StartAttempt(ctx, x.job, r.TraceParent)
	step := x.step("", validTraceparent(traceparent), x.number, "")
	x.called = &step
	defer func() {
		if p := recover(); p != nil {
			x.report.event(ctx, errorLevel, "webhook: handler panicked", r, x.number, step.TraceID, panicAttrs(p, debug.Stack())...)
			x.cause, err = CausePanic, fmt.Errorf("the handler panicked with a %T", p)
		}
		x.cfg.tracer.EndAttempt(ctx, err)
	}()
	x.report.observe(ctx, Observation{
		Kind: ObservedStarted, Source: r.Source, Type: r.Type, ID: r.ID, Key: r.Key, Object: r.Object,
		Attempt: x.number, Lag: time.Since(r.ReceivedAt),
	})
	return x.handler(ctx, x.job)
}

// result is what the execution says about the circuit.
func (x *execution) result() result {
	switch {
	case x.called == nil || x.cause == CausePermanent: // not called, or no sign of an outage
		return resultNone
	case x.err != nil:
		return resultFailure
	}
	return resultSuccess
}

// own returns the settlement of an event whose handler ran here. If the executor could not record the outcome, the
// settlement does.
func (x *execution) own() Settlement {
	s := Settlement{Attempts: x.number}
	if x.called != nil {
		s.Step = *x.called
	}
	tries := x.number - x.taken.Record.AttemptsBefore
	switch {
	case x.err == nil:
		return x.succeeded(s, x.outcome)
	case x.cause == CausePermanent, x.cause == CauseAttempts:
		s = s.as(Dead, x.cause, errtree.Text(x.err))
	case x.route.refuse && !idempotent.IsRetryable(x.err):
		s = s.as(Dead, CauseInterrupted, "the effect is unknown: "+errtree.Text(x.err))
	default:
		s = s.as(Retrying, x.cause, errtree.Text(x.err))
		s.After = max(retryAfter(x.err), 0)
		if s.After == 0 {
			s.After = x.route.backoff.after(tries)
		}
	}
	s.Step.State = s.State
	return s
}

// succeeded returns the settlement of a handler's outcome.
func (x *execution) succeeded(s Settlement, out Outcome) Settlement {
	s.State, s.Changed, s.Move = Done, out.Changed, x.move
	if out.Skipped {
		s = s.as(Skipped, CauseSkip, out.Reason)
	}
	s.Step.State = s.State
	return s
}

// others returns the settlement of an event whose handler did not run here.
func (x *execution) others(s Settlement, out Outcome, err error) Settlement {
	tries := s.Attempts - x.taken.Record.AttemptsBefore
	switch {
	case err == nil:
		return x.succeeded(s, out)
	case errors.Is(err, idempotent.ErrReplayed):
		cause, reason, ok := strings.Cut(err.Error(), ": ")
		if !ok {
			cause, reason = string(CausePermanent), err.Error()
		}
		return s.as(Dead, Cause(cause), reason)
	case errors.Is(err, idempotent.ErrInterrupted):
		return s.as(Dead, CauseInterrupted, "an attempt ended without an outcome, and its effect is unknown")
	case errors.Is(err, idempotent.ErrCorruptRecord):
		return s.as(Dead, CauseUnreadable, "the executor's record cannot be read")
	case errors.Is(err, idempotent.ErrInProgress):
		s.After = time.Second
		if running, ok := errors.AsType[*idempotent.InProgressError](err); ok {
			s.After = max(s.After, running.RetryAfter)
		}
		return s.as(Retrying, CauseInProgress, "another worker runs its handler")
	}
	s.After = x.route.backoff.after(max(1, tries))
	return s.as(Retrying, CauseUnavailable, storeErrorText(err))
}

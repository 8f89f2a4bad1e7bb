package idemotel

import (
	"context"
	"errors"

	"github.com/idempotent-go/idempotent"
)

// Observe implements idempotent.Observer.
func (t *Telemetry) Observe(ctx context.Context, e idempotent.Event) {
	i, s := &t.instruments, t.of(e.Namespace)
	switch e.Kind {
	case idempotent.EventReturned:
		m := &s.run[boundedSource(e.Source)][typeOfReturned(&e)]
		m.count.Add(1)
		i.run.Record(ctx, e.Duration.Seconds(), m.record...)
	case idempotent.EventReplayed:
		s.source[boundedSource(e.Source)].count.Add(1)
		i.age.Record(ctx, e.Age.Seconds(), s.err[noError].record...)
		if e.Age > e.TTL/5*4 {
			s.late.count.Add(1)
		}
	case idempotent.EventExecuted:
		i.execution.Record(ctx, e.Duration.Seconds(), s.err[typeOfFn(e.Err)].record...)
	case idempotent.EventRecorded:
		i.commit.Record(ctx, e.Duration.Seconds(), s.err[noError].record...)
		i.size.Record(ctx, int64(e.Size), s.err[noError].record...)
	case idempotent.EventCommitRetried:
		i.commitRetries.Add(ctx, 1, s.err[noError].add...)
	case idempotent.EventCommitFailed:
		failure := notRecorded
		if errors.Is(e.Err, idempotent.ErrLeaseLost) {
			failure = leaseLost
		}
		i.commitFailures.Add(ctx, 1, s.err[failure].add...)
		i.commit.Record(ctx, e.Duration.Seconds(), s.err[failure].record...)
	default:
		t.observeOthers(ctx, s, &e)
	}
	if ended, waits := waitOf(e.Kind); ended {
		i.waiting.Add(ctx, -1, s.wait[waits][noError].add...)
		i.wait.Record(ctx, e.Duration.Seconds(), s.wait[waits][typeOf(e.Err)].record...)
	}
	noteOnSpan(ctx, &e)
}

func (t *Telemetry) observeOthers(ctx context.Context, s *series, e *idempotent.Event) {
	i := &t.instruments
	switch e.Kind {
	case idempotent.EventWaitStarted:
		i.waiting.Add(ctx, 1, s.wait[forProcess][noError].add...)
	case idempotent.EventJoined:
		i.waiting.Add(ctx, 1, s.wait[forCaller][noError].add...)
	case idempotent.EventRenewed:
		i.renewals.Add(ctx, 1, s.err[noError].add...)
		i.headroom.Record(ctx, e.Left.Seconds()/e.Lease.Seconds(), s.err[noError].record...)
	case idempotent.EventRenewalFailed:
		i.renewals.Add(ctx, 1, s.err[unavailable].add...)
	case idempotent.EventLeaseLost:
		i.lost.Add(ctx, 1, s.err[noError].add...)
	case idempotent.EventInterrupted:
		i.interrupted.Add(ctx, 1, s.err[noError].add...)
	case idempotent.EventForgotten:
		i.actions.Add(ctx, 1, s.action[forget][typeOf(e.Err)].add...)
	case idempotent.EventResolved:
		i.actions.Add(ctx, 1, s.action[resolve][typeOf(e.Err)].add...)
	}
}

// waitOf reports whether an event ends a wait, and for what.
func waitOf(kind idempotent.EventKind) (ended bool, waits int) {
	switch kind {
	case idempotent.EventWaitEnded:
		return true, forProcess
	case idempotent.EventJoinEnded:
		return true, forCaller
	}
	return false, 0
}

func typeOfReturned(e *idempotent.Event) errorType {
	if e.Source == 0 {
		return typeOf(e.Err)
	}
	return typeOfOutcome(e.Err)
}

// boundedSource keeps a source that a later version adds out of the arrays.
func boundedSource(s idempotent.Source) idempotent.Source {
	if s > idempotent.Cached {
		return 0
	}
	return s
}

package behaviour

import (
	"context"
	"errors"

	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
)

// takeOver: when the lease is over, one of those waiting runs, and knows that it is the second.
// What the first one comes to is refused.
func takeOver(s *scene) {
	owner, other := s.withoutRenewals(), s.executor(s.two)
	p, q := s.provider(), s.provider()
	first := owner.start(s.Context(), "order-1", p.charge)
	p.begun(1)
	waiting := other.start(s.Context(), "order-1", q.charge)
	q.begun(2)
	owner.Wait(s, idempotent.EventLeaseLost, 1)
	q.answer("charged by the second", nil)
	waiting.returned(s, "charged by the second", idempotent.Executed, 2)
	p.answer("charged by the first", nil)
	first.failedWith(s, idempotent.ErrLeaseLost)
	require.Equal(s, "charged by the first", first.value, "so that it can be undone")
	for _, x := range []*executor{owner, other} {
		x.start(s.Context(), "order-1", s.mustNotRun).returned(s, "charged by the second", idempotent.Replayed, 2)
	}
}

// lateOutcome: nobody took over, so the outcome of an owner without a lease counts.
func lateOutcome(s *scene) {
	owner, other := s.withoutRenewals(), s.executor(s.two)
	p := s.provider()
	first := owner.start(s.Context(), "order-1", p.charge)
	p.begun(1)
	owner.Wait(s, idempotent.EventLeaseLost, 1)
	p.answer("charged", nil)
	first.returned(s, "charged", idempotent.Executed, 1)
	other.start(s.Context(), "order-1", s.mustNotRun).returned(s, "charged", idempotent.Replayed, 1)
}

func refuseDeadOwner(s *scene) {
	owner, other := s.withoutRenewals(), s.executor(s.two)
	p := s.provider()
	first := owner.start(s.Context(), "order-1", p.chargeOrLeave, idempotent.WithInterrupted(idempotent.Refuse))
	p.begun(1)
	waiting := other.start(s.Context(), "order-1", s.mustNotRun)
	other.Wait(s, idempotent.EventWaitStarted, 1)
	first.failedWith(s, idempotent.ErrLeaseLost)
	waiting.failed(s, idempotent.ErrInterrupted)
	for _, x := range []*executor{owner, other} {
		x.start(s.Context(), "order-1", s.mustNotRun).failed(s, idempotent.ErrInterrupted)
	}
	s.state(other, "order-1", idempotent.StateInterrupted, 1)
	require.NoError(s, other.Forget(s.Context(), "order-1"))
	p.answer("charged", nil)
	other.start(s.Context(), "order-1", p.charge).returned(s, "charged", idempotent.Executed, 1)
}

func refuseUnknownOutcome(s *scene) {
	owner, other := s.pair(idempotent.WithInterrupted(idempotent.Refuse))
	p := s.provider()
	first := owner.start(s.Context(), "order-1", p.charge)
	p.begun(1)
	waiting := other.start(s.Context(), "order-1", s.mustNotRun)
	other.Wait(s, idempotent.EventWaitStarted, 1)
	timeout := errors.New("no answer")
	p.answer("", idempotent.OutcomeUnknown(timeout))
	first.failedWith(s, timeout)
	waiting.failed(s, idempotent.ErrInterrupted)
	require.NoError(s, settle(other, s.Context(), "order-1", "charged, says the provider"))
	for _, x := range []*executor{owner, other} {
		x.start(s.Context(), "order-1", s.mustNotRun).returned(s, "charged, says the provider", idempotent.Replayed, 1)
	}
}

// state checks what Peek says, and that it will not stay for ever.
func (s *scene) state(x *executor, key string, state idempotent.State, attempt int) idempotent.Status {
	s.Helper()
	status, err := x.Peek(s.Context(), key)
	require.NoError(s, err)
	require.Equal(s, state, status.State)
	require.Equal(s, attempt, status.Attempt)
	if state == idempotent.StateAbsent {
		require.Zero(s, status)
		return status
	}
	require.Positive(s, status.Size)
	require.Positive(s, status.TTLLeft)
	require.LessOrEqual(s, status.TTLLeft, ttl+lease)
	return status
}

func peek(s *scene) {
	owner, other := s.pair()
	p := s.provider()
	s.state(other, "order-1", idempotent.StateAbsent, 0)
	ctx, cancel := context.WithCancel(s.Context())
	first := owner.start(ctx, "order-1", p.chargeOrLeave)
	p.begun(1)
	status := s.state(other, "order-1", idempotent.StateRunning, 1)
	require.Positive(s, status.LeaseLeft)
	require.LessOrEqual(s, status.LeaseLeft, lease)
	cancel()
	first.failedWith(s, context.Canceled)
	s.state(other, "order-1", idempotent.StateAbandoned, 1)
	p.answer("charged", nil)
	owner.start(s.Context(), "order-1", p.charge).returned(s, "charged", idempotent.Executed, 2)
	s.state(other, "order-1", idempotent.StateSucceeded, 2)
	p.answer("", errors.New("declined"))
	owner.start(s.Context(), "order-2", p.charge).wait(s)
	s.state(other, "order-2", idempotent.StateFailed, 1)
}

func get(s *scene) {
	owner, other := s.pair()
	p := s.provider()
	other.startGet(s.Context(), "order-1").failed(s, idempotent.ErrNotFound)
	ctx, cancel := context.WithCancel(s.Context())
	first := owner.start(ctx, "order-1", p.chargeOrLeave)
	p.begun(1)
	waiting := other.startGet(s.Context(), "order-1")
	other.Wait(s, idempotent.EventWaitStarted, 1)
	cancel()
	first.failedWith(s, context.Canceled)
	waiting.failed(s, idempotent.ErrInterrupted)

	first = owner.start(s.Context(), "order-1", p.charge)
	p.begun(2)
	waiting = other.startGet(s.Context(), "order-1")
	other.Wait(s, idempotent.EventWaitStarted, 2)
	p.answer("charged", nil)
	first.returned(s, "charged", idempotent.Executed, 2)
	waiting.returned(s, "charged", idempotent.Waited, 2)
	other.startGet(s.Context(), "order-1").returned(s, "charged", idempotent.Replayed, 2)
	p.called(2)
}

func forget(s *scene) {
	owner, other := s.pair()
	p := s.provider()
	require.NoError(s, other.Forget(s.Context(), "order-1"), "an unknown key")
	p.answer("charged", nil)
	owner.start(s.Context(), "order-1", p.charge).returned(s, "charged", idempotent.Executed, 1)
	require.NoError(s, other.Forget(s.Context(), "order-1"))
	s.state(owner, "order-1", idempotent.StateAbsent, 0)
	p.answer("charged anew", nil)
	owner.start(s.Context(), "order-1", p.charge).returned(s, "charged anew", idempotent.Executed, 1)
}

// forgetWakes: those who wait for a forgotten key go on, and its owner loses its lease.
func forgetWakes(s *scene) {
	owner, other := s.executor(s.one, idempotent.WithLease(shortLease)), s.executor(s.two)
	p, q := s.provider(), s.provider()
	first := owner.start(s.Context(), "order-1", p.chargeOrLeave)
	p.begun(1)
	waiting := other.start(s.Context(), "order-1", q.charge)
	other.looked(s, "order-1")
	require.NoError(s, other.Forget(s.Context(), "order-1"))
	q.begun(1)
	first.failedWith(s, idempotent.ErrLeaseLost)
	q.answer("charged anew", nil)
	waiting.returned(s, "charged anew", idempotent.Executed, 1)
	owner.start(s.Context(), "order-1", s.mustNotRun).returned(s, "charged anew", idempotent.Replayed, 1)
}

func resolve(s *scene) {
	owner, other := s.pair()
	p := s.provider()
	require.NoError(s, settle(other, s.Context(), "order-1", "settled"), "a key that nobody has run")
	owner.start(s.Context(), "order-1", s.mustNotRun).returned(s, "settled", idempotent.Replayed, 1)
	p.answer("", errors.New("declined"))
	owner.start(s.Context(), "order-2", p.charge).wait(s)
	for _, key := range []string{"order-1", "order-2"} {
		require.ErrorIs(s, settle(other, s.Context(), key, "settled otherwise"), idempotent.ErrAlreadyRecorded)
	}
	owner.start(s.Context(), "order-2", s.mustNotRun).replayed(s, "declined", idempotent.Replayed)
}

func resolveWakes(s *scene) {
	owner, other := s.pair()
	p := s.provider()
	first := owner.start(s.Context(), "order-1", p.charge)
	p.begun(1)
	waiting := other.start(s.Context(), "order-1", s.mustNotRun)
	other.looked(s, "order-1")
	require.NoError(s, settle(other, s.Context(), "order-1", "charged, says the provider"))
	waiting.returned(s, "charged, says the provider", idempotent.Waited, 1)
	p.answer("charged", nil)
	first.failedWith(s, idempotent.ErrLeaseLost)
	owner.start(s.Context(), "order-1", s.mustNotRun).returned(s, "charged, says the provider", idempotent.Replayed, 1)
}

package behaviour

import (
	"context"
	"errors"
	"fmt"

	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
)

// replayed checks an error that comes from another call's fn.
func (c *call) replayed(s *scene, text string, source idempotent.Source) {
	s.Helper()
	c.wait(s)
	require.ErrorIs(s, c.err, idempotent.ErrReplayed)
	require.Equal(s, text, c.err.Error())
	require.Equal(s, source, c.report.Source)
}

func replayErrors(s *scene) {
	owner, other := s.pair()
	p := s.provider()
	declined := errors.New("declined")
	first := owner.start(s.Context(), "order-1", p.charge)
	p.begun(1)
	waiting := other.start(s.Context(), "order-1", s.mustNotRun)
	other.Wait(s, idempotent.EventWaitStarted, 1)
	p.answer("", declined)
	require.Same(s, declined, first.wait(s).err)
	waiting.replayed(s, "declined", idempotent.Waited)
	other.start(s.Context(), "order-1", s.mustNotRun).replayed(s, "declined", idempotent.Replayed)
	other.startGet(s.Context(), "order-1").replayed(s, "declined", idempotent.Replayed)
}

type limitError struct{ Limit int }

func (e *limitError) Error() string { return fmt.Sprintf("over the limit of %d", e.Limit) }

func registeredErrors(s *scene) {
	errDeclined := errors.New("declined")
	registry := idempotent.NewErrorRegistry(idempotent.Sentinel("declined", errDeclined), idempotent.ErrorType[*limitError]("limit"))
	owner, other := s.pair(idempotent.WithErrors(registry))
	p := s.provider()
	p.answer("", fmt.Errorf("order-1: %w", errors.Join(errDeclined, &limitError{Limit: 7})))
	first := owner.start(s.Context(), "order-1", p.charge).wait(s)
	again := other.start(s.Context(), "order-1", s.mustNotRun)
	again.replayed(s, first.err.Error(), idempotent.Replayed)
	require.ErrorIs(s, again.err, errDeclined)
	limit := new(limitError)
	require.ErrorAs(s, again.err, &limit)
	require.Equal(s, 7, limit.Limit)
}

func panics(s *scene) {
	owner, other := s.pair()
	p := s.provider()
	first := owner.start(s.Context(), "order-1", func(ctx context.Context) (string, error) {
		_, err := p.charge(ctx)
		panic(err)
	})
	p.begun(1)
	waiting := other.start(s.Context(), "order-1", s.mustNotRun)
	other.Wait(s, idempotent.EventWaitStarted, 1)
	oops := errors.New("oops")
	p.answer("", oops)
	require.Same(s, oops, first.wait(s).panicked)
	for _, c := range []*call{waiting, other.start(s.Context(), "order-1", s.mustNotRun)} {
		c.wait(s)
		require.Nil(s, c.panicked)
		require.ErrorIs(s, c.err, idempotent.ErrReplayed)
		crash := new(idempotent.PanicError)
		require.ErrorAs(s, c.err, &crash)
		require.Equal(s, "oops", crash.Value)
	}
}

var errBusy = idempotent.Retryable(errors.New("provider is busy"))

func ignoredNextRuns(s *scene) {
	owner, other := s.pair(idempotent.WithShouldIgnoreError(idempotent.IsRetryable))
	p := s.provider()
	first := owner.start(s.Context(), "order-1", p.charge)
	p.begun(1)
	waiting := []*call{other.start(s.Context(), "order-1", p.charge), other.start(s.Context(), "order-1", p.charge)}
	other.Wait(s, idempotent.EventWaitStarted, 1)
	other.Wait(s, idempotent.EventJoined, 1)
	p.answer("", errBusy)
	require.Same(s, errBusy, first.wait(s).err)
	p.begun(1) // one of them
	p.answer("charged", nil)
	for _, c := range waiting {
		c.got(s, "charged")
	}
	p.called(2)
}

func ignoredShared(s *scene) {
	owner, other := s.pair(
		idempotent.WithShouldIgnoreError(idempotent.IsRetryable), idempotent.WithIgnoredErrors(idempotent.ShareWithWaiters))
	p := s.provider()
	first := owner.start(s.Context(), "order-1", p.charge)
	p.begun(1)
	joined := owner.start(s.Context(), "order-1", s.mustNotRun)
	owner.Wait(s, idempotent.EventJoined, 1)
	waiting := other.start(s.Context(), "order-1", s.mustNotRun)
	other.looked(s, "order-1")
	p.answer("", errBusy)
	require.Same(s, errBusy, first.wait(s).err)
	joined.replayed(s, "provider is busy", idempotent.Joined)
	waiting.replayed(s, "provider is busy", idempotent.Waited)
	require.Zero(s, waiting.report.RecordedAt, "it is not recorded")
	p.answer("charged", nil)
	other.start(s.Context(), "order-1", p.charge).returned(s, "charged", idempotent.Executed, 1)
}

func fingerprints(s *scene) {
	owner, other := s.pair()
	p := s.provider()
	ten, twenty := idempotent.WithFingerprint([]byte("10 EUR")), idempotent.WithFingerprint([]byte("20 EUR"))
	first := owner.start(s.Context(), "order-1", p.charge, ten)
	p.begun(1)
	for _, x := range []*executor{owner, other} {
		x.start(s.Context(), "order-1", s.mustNotRun, twenty).failed(s, idempotent.ErrKeyReused)
	}
	waiting := other.start(s.Context(), "order-1", s.mustNotRun, ten)
	other.Wait(s, idempotent.EventWaitStarted, 1)
	p.answer("charged", nil)
	first.returned(s, "charged", idempotent.Executed, 1)
	waiting.returned(s, "charged", idempotent.Waited, 1)
	for _, x := range []*executor{owner, other} {
		x.start(s.Context(), "order-1", s.mustNotRun, twenty).failed(s, idempotent.ErrKeyReused)
		x.start(s.Context(), "order-1", s.mustNotRun, ten).returned(s, "charged", idempotent.Replayed, 1)
		x.start(s.Context(), "order-1", s.mustNotRun).returned(s, "charged", idempotent.Replayed, 1)
	}
}

// leave: what a function did whose caller left is not known, so the next one is told.
func leave(s *scene) {
	owner, other := s.pair()
	p := s.provider()
	ctx, cancel := context.WithCancel(s.Context())
	first := owner.start(ctx, "order-1", p.chargeOrLeave)
	p.begun(1)
	waiting := other.start(s.Context(), "order-1", p.charge)
	other.Wait(s, idempotent.EventWaitStarted, 1)
	cancel()
	first.failedWith(s, context.Canceled)
	p.begun(2)
	p.answer("charged", nil)
	waiting.returned(s, "charged", idempotent.Executed, 2)
	p.called(2)
}

func detached(s *scene) {
	owner, other := s.pair()
	p := s.provider()
	ctx, cancel := context.WithCancel(s.Context())
	first := owner.start(ctx, "order-1", p.chargeOrLeave, idempotent.WithDetached())
	p.begun(1)
	waiting := other.start(s.Context(), "order-1", s.mustNotRun)
	other.Wait(s, idempotent.EventWaitStarted, 1)
	cancel()
	first.failedWith(s, context.Canceled)
	p.answer("charged", nil)
	waiting.returned(s, "charged", idempotent.Waited, 1)
	owner.start(s.Context(), "order-1", s.mustNotRun).got(s, "charged")
	p.called(1)
}

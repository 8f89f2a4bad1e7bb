package acceptance

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
)

var errBusy = idempotent.Retryable(errors.New("provider is busy"))

func TestIgnoredErrorIsNotRecorded(t *testing.T) {
	everywhere(t, func(w *world) {
		x := w.executor(idempotent.WithShouldIgnoreError(idempotent.IsRetryable))
		p := w.provider()
		p.answer("", errBusy)
		p.answer("charged", nil)
		first := x.start(w.Context(), "order-1", p.charge).wait(w)
		require.Same(w, errBusy, first.err)
		status, err := x.Peek(w.Context(), "order-1")
		require.NoError(w, err)
		require.Equal(w, idempotent.StateAbsent, status.State)
		x.start(w.Context(), "order-1", p.charge).returned(w, "charged")
		x.start(w.Context(), "order-1", p.charge).returned(w, "charged")
		assert.Equal(w, 2, p.count())
		assert.Equal(w, 1, p.last().Attempt)
	})
}

func TestIgnoredErrorNextWaiterRuns(t *testing.T) {
	everywhere(t, func(w *world) {
		ignore := idempotent.WithShouldIgnoreError(idempotent.IsRetryable)
		owner, other, third := w.executor(ignore), w.executor(ignore), w.executor(ignore)
		p := w.provider()
		first := owner.start(w.Context(), "order-1", p.charge)
		<-p.started
		waiting := []*call{
			owner.start(w.Context(), "order-1", p.charge), other.start(w.Context(), "order-1", p.charge),
			other.start(w.Context(), "order-1", p.charge), third.start(w.Context(), "order-1", p.charge),
		}
		owner.Wait(w, idempotent.EventJoined, 1)
		other.Wait(w, idempotent.EventWaitStarted, 1)
		other.Wait(w, idempotent.EventJoined, 1)
		third.Wait(w, idempotent.EventWaitStarted, 1)
		w.settled()
		p.answer("", errBusy)
		require.Same(w, errBusy, first.wait(w).err)
		<-p.started // exactly one of those waiting
		w.settled()
		p.answer("charged", nil)
		for _, c := range waiting {
			c.returned(w, "charged")
		}
		assert.Equal(w, 2, p.count())
	})
}

func TestIgnoredErrorShared(t *testing.T) {
	everywhere(t, func(w *world) {
		opts := []idempotent.Option{
			idempotent.WithShouldIgnoreError(idempotent.IsRetryable),
			idempotent.WithIgnoredErrors(idempotent.ShareWithWaiters),
		}
		owner, other := w.executor(opts...), w.executor(opts...)
		p := w.provider()
		first := owner.start(w.Context(), "order-1", p.charge)
		<-p.started
		joined := owner.start(w.Context(), "order-1", p.charge)
		owner.Wait(w, idempotent.EventJoined, 1)
		waited := other.start(w.Context(), "order-1", p.charge)
		other.waits(w)
		p.answer("", errBusy)
		require.Same(w, errBusy, first.wait(w).err)
		for source, c := range map[idempotent.Source]*call{idempotent.Joined: joined, idempotent.Waited: waited} {
			c.wait(w)
			require.ErrorIs(w, c.err, idempotent.ErrReplayed)
			require.Equal(w, "provider is busy", c.err.Error())
			require.Equal(w, source, c.report.Source)
			require.True(w, c.report.RecordedAt.IsZero(), "it is not recorded")
		}
		p.answer("charged", nil)
		other.start(w.Context(), "order-1", p.charge).returned(w, "charged")
		assert.Equal(w, 2, p.count())
	})
}

// ShouldIgnoreError that panics leaves the safe side: the error is recorded.
func TestShouldIgnoreErrorThatPanics(t *testing.T) {
	everywhere(t, func(w *world) {
		x := w.executor(idempotent.WithShouldIgnoreError(func(error) bool { panic("oops") }))
		p := w.provider()
		declined := errors.New("declined")
		p.answer("", declined)
		c := x.start(w.Context(), "order-1", p.charge).wait(w)
		var hook *idempotent.HookError
		require.ErrorAs(w, c.err, &hook)
		assert.Equal(w, "ShouldIgnoreError", hook.Hook)
		assert.Equal(w, "oops", hook.Value)
		require.ErrorIs(w, c.err, declined)
		again := w.executor().start(w.Context(), "order-1", p.charge).wait(w)
		require.ErrorIs(w, again.err, idempotent.ErrReplayed)
		require.Equal(w, "declined", again.err.Error())
		assert.Equal(w, 1, p.count())
	})
}

// fn failed with an error to ignore, and Redis cannot be told. The key is not free then: nobody
// knows that nothing happened. When the lease is over, it counts as interrupted.
func TestIgnoredErrorThatRedisIsNotTold(t *testing.T) {
	for name, policy := range map[string]idempotent.InterruptedPolicy{"rerun": idempotent.Rerun, "refuse": idempotent.Refuse} {
		t.Run(name, func(t *testing.T) {
			inFakeTime(t, func(w *world) {
				options := []idempotent.Option{
					idempotent.WithShouldIgnoreError(idempotent.IsRetryable), idempotent.WithInterrupted(policy),
				}
				owner, other := w.executor(options...), w.executor(options...)
				p := w.provider()
				first := owner.start(w.Context(), "order-1", p.charge)
				<-p.started
				owner.wire.sever()
				p.answer("", errBusy)
				require.Same(w, errBusy, first.wait(w).err)

				p.answer("charged", nil)
				second := other.start(w.Context(), "order-1", p.charge).wait(w)
				if policy == idempotent.Refuse {
					require.ErrorIs(w, second.err, idempotent.ErrInterrupted)
					return
				}
				require.NoError(w, second.err)
				assert.Equal(w, 2, second.report.Attempt, "the next one is told")
			})
		})
	}
}

// What an earlier attempt did stays unknown, however often later ones end without an outcome.
func TestAttemptNumberOutlivesIgnoredErrors(t *testing.T) {
	for name, policy := range map[string]idempotent.IgnoredPolicy{"next waiter runs": idempotent.NextWaiterRuns, "shared": idempotent.ShareWithWaiters} {
		t.Run(name, func(t *testing.T) {
			everywhere(t, func(w *world) {
				x := w.executor(idempotent.WithShouldIgnoreError(idempotent.IsRetryable), idempotent.WithIgnoredErrors(policy))
				p := w.provider()
				ctx, cancel := context.WithCancel(w.Context())
				cut := x.start(ctx, "order-1", p.chargeOrLeave)
				<-p.started
				cancel()
				require.ErrorIs(w, cut.wait(w).err, context.Canceled)
				p.answer("", errBusy)
				require.Same(w, errBusy, x.start(w.Context(), "order-1", p.charge).wait(w).err)
				assert.Equal(w, 2, p.last().Attempt)
				p.answer("charged", nil)
				x.start(w.Context(), "order-1", p.charge).returned(w, "charged")
				assert.Equal(w, 3, p.last().Attempt)
			})
		})
	}
}

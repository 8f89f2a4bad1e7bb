package acceptance

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
)

// An owner that is cut off from Redis is as good as dead to everybody else.

func TestDeadOwnerIsTakenOver(t *testing.T) {
	everywhere(t, func(w *world) {
		owner, other := w.executor(), w.executor()
		p, q := w.provider(), w.provider()
		first := owner.start(w.Context(), "order-1", p.charge)
		<-p.started
		waiting := other.start(w.Context(), "order-1", q.charge)
		other.waits(w)
		owner.wire.sever()

		<-q.started
		assert.Equal(w, idempotent.RunInfo{Namespace: w.namespace, Key: "order-1", Attempt: 2}, q.last())
		assert.Equal(w, 1, other.Count(idempotent.EventInterrupted))
		q.answer("charged by the second", nil)
		waiting.returned(w, "charged by the second")
		assert.Equal(w, idempotent.Executed, waiting.report.Source)
		assert.Equal(w, 2, waiting.report.Attempt)

		// The first comes back: its result is refused, and it is told.
		owner.wire.mend()
		p.answer("charged by the first", nil)
		first.wait(w)
		require.ErrorIs(w, first.err, idempotent.ErrLeaseLost)
		require.Equal(w, "charged by the first", first.value, "so that it can be refunded")
		other.start(w.Context(), "order-1", p.charge).returned(w, "charged by the second")
		owner.start(w.Context(), "order-1", p.charge).returned(w, "charged by the second")
		assert.Equal(w, 1, p.count())
		assert.Equal(w, 1, q.count())
	})
}

func TestOwnerIsNotTakenOverBeforeItsLeaseEnds(t *testing.T) {
	inFakeTime(t, func(w *world) {
		owner, other := w.executor(), w.executor()
		p := w.provider()
		began := time.Now()
		first := owner.start(w.Context(), "order-1", p.charge)
		<-p.started
		owner.wire.sever()
		waiting := other.start(w.Context(), "order-1", p.charge)
		<-p.started
		assert.GreaterOrEqual(w, time.Since(began), w.lease)
		assert.Less(w, time.Since(began), w.lease+time.Second)
		owner.wire.mend()
		p.answer("charged", nil)
		p.answer("charged", nil)
		waiting.wait(w)
		first.wait(w)
	})
}

func TestNoWaitTakesDeadOwnerOver(t *testing.T) {
	inFakeTime(t, func(w *world) {
		owner, other := w.executor(), w.executor()
		p := w.provider()
		first := owner.start(w.Context(), "order-1", p.charge)
		<-p.started
		owner.wire.sever()
		time.Sleep(w.lease + time.Millisecond)
		p.answer("charged", nil)
		p.answer("charged", nil)
		other.start(w.Context(), "order-1", p.charge, idempotent.WithNoWait()).returned(w, "charged")
		assert.Equal(w, 2, p.last().Attempt)
		owner.wire.mend()
		first.wait(w)
	})
}

func TestAttemptNumberOutlivesTheLease(t *testing.T) {
	inFakeTime(t, func(w *world) {
		owner, other := w.executor(), w.executor()
		p, q := w.provider(), w.provider()
		first := owner.start(w.Context(), "order-1", p.charge)
		<-p.started
		owner.wire.sever()
		time.Sleep(23 * time.Hour)
		status, err := other.Peek(w.Context(), "order-1")
		require.NoError(w, err)
		assert.Equal(w, idempotent.StateAbandoned, status.State)
		q.answer("charged", nil)
		other.start(w.Context(), "order-1", q.charge).returned(w, "charged")
		assert.Equal(w, 2, q.last().Attempt)
		owner.wire.mend()
		p.answer("charged", nil)
		first.wait(w)
	})
}

func TestRefuse(t *testing.T) {
	for name, policies := range map[string][2]idempotent.InterruptedPolicy{
		"of the owner":  {idempotent.Refuse, idempotent.Rerun},
		"of the caller": {idempotent.Rerun, idempotent.Refuse},
	} {
		t.Run(name, func(t *testing.T) {
			everywhere(t, func(w *world) {
				owner := w.executor(idempotent.WithInterrupted(policies[0]))
				other, third := w.executor(idempotent.WithInterrupted(policies[1])), w.executor()
				p := w.provider()
				first := owner.start(w.Context(), "order-1", p.charge)
				<-p.started
				waiting := other.start(w.Context(), "order-1", p.charge)
				joined := other.start(w.Context(), "order-1", p.charge)
				owner.wire.sever()
				for _, c := range []*call{waiting, joined} {
					require.ErrorIs(w, c.wait(w).err, idempotent.ErrInterrupted)
				}
				_, err := third.Run(w.Context(), "order-1", p.charge)
				require.ErrorIs(w, err, idempotent.ErrInterrupted)
				status, err := third.Peek(w.Context(), "order-1")
				require.NoError(w, err)
				assert.Equal(w, idempotent.StateInterrupted, status.State)
				assert.Equal(w, 1, status.Attempt)
				assert.Positive(w, status.TTLLeft)
				assert.Equal(w, 1, p.count())

				require.NoError(w, resolve(third, w.Context(), "order-1", "charged, says the provider"))
				third.start(w.Context(), "order-1", p.charge).returned(w, "charged, says the provider")
				owner.wire.mend()
				p.answer("charged", nil)
				require.ErrorIs(w, first.wait(w).err, idempotent.ErrLeaseLost)
				third.start(w.Context(), "order-1", p.charge).returned(w, "charged, says the provider")
			})
		})
	}
}

func TestLostLeaseCancelsFn(t *testing.T) {
	everywhere(t, func(w *world) {
		owner := w.executor()
		p := w.provider()
		began := time.Now()
		cause := make(chan error, 1)
		c := owner.start(w.Context(), "order-1", func(ctx context.Context) (string, error) {
			p.started <- struct{}{}
			<-ctx.Done()
			cause <- context.Cause(ctx)
			return "", ctx.Err()
		})
		<-p.started
		owner.wire.sever()
		require.ErrorIs(w, <-cause, idempotent.ErrLeaseLost)
		if !w.real {
			margin := 2*time.Millisecond + w.lease/1000 // for Redis's millisecond clock
			assert.Equal(w, w.lease-margin, time.Since(began), "a margin before the lease runs out in Redis")
		}
		owner.Wait(w, idempotent.EventLeaseLost, 1)
		require.ErrorIs(w, c.wait(w).err, idempotent.ErrLeaseLost)
		require.ErrorIs(w, c.err, context.Canceled)
	})
}

// The owner lost its lease, but nobody took over: a late commit beats a lost charge.
func TestLateCommitIsAccepted(t *testing.T) {
	everywhere(t, func(w *world) {
		owner := w.executor()
		p := w.provider()
		first := owner.start(w.Context(), "order-1", p.charge)
		<-p.started
		owner.wire.sever()
		owner.Wait(w, idempotent.EventLeaseLost, 1)
		owner.wire.mend()
		p.answer("charged", nil)
		first.returned(w, "charged")
		w.executor().start(w.Context(), "order-1", p.charge).returned(w, "charged")
		assert.Equal(w, 1, p.count())
	})
}

func TestFnMayTakeLongerThanTheLease(t *testing.T) {
	everywhere(t, func(w *world) {
		owner, other := w.executor(), w.executor()
		p := w.provider()
		first := owner.start(w.Context(), "order-1", p.charge)
		<-p.started
		waiting := other.start(w.Context(), "order-1", p.charge)
		owner.Wait(w, idempotent.EventRenewed, 7) // more than two leases
		assert.Zero(w, other.Count(idempotent.EventInterrupted))
		p.answer("charged", nil)
		first.returned(w, "charged")
		waiting.returned(w, "charged")
		assert.Equal(w, 1, p.count())
		assert.Zero(w, owner.Count(idempotent.EventLeaseLost))
	})
}

func TestShortFnIsNotRenewed(t *testing.T) {
	inFakeTime(t, func(w *world) {
		x := w.executor()
		_, err := x.Run(w.Context(), "order-1", func(context.Context) (string, error) {
			time.Sleep(w.lease/3 - time.Millisecond)
			return "charged", nil
		})
		require.NoError(w, err)
		time.Sleep(w.lease)
		assert.Zero(w, x.Count(idempotent.EventRenewed))
	})
}

// A Redis that fails for less than the lease costs nothing.
func TestPassingErrorDoesNotEndTheLease(t *testing.T) {
	inFakeTime(t, func(w *world) {
		x := w.executor()
		p := w.provider()
		c := x.start(w.Context(), "order-1", p.charge)
		<-p.started
		w.memory.Fail("LOADING Redis is loading the dataset in memory")
		time.Sleep(w.lease - time.Second)
		w.memory.Fail("")
		x.Wait(w, idempotent.EventRenewed, 1)
		assert.Zero(w, x.Count(idempotent.EventLeaseLost))
		p.answer("charged", nil)
		c.returned(w, "charged")
	})
}

func TestManyLeasesAreRenewed(t *testing.T) {
	everywhere(t, func(w *world) {
		x := w.executor()
		p := w.provider()
		const n = 1500 // more than one pipeline
		var calls []*call
		for i := range n {
			calls = append(calls, x.start(w.Context(), idempotent.HashKey("order", string(rune('0'+i))), p.charge))
		}
		for range n {
			<-p.started
		}
		x.Wait(w, idempotent.EventRenewed, 3*n)
		assert.Zero(w, x.Count(idempotent.EventLeaseLost))
		for range n {
			p.answer("charged", nil)
		}
		for _, c := range calls {
			c.returned(w, "charged")
		}
	})
}

func TestDownstreamKeyIsTheSameForEveryAttempt(t *testing.T) {
	everywhere(t, func(w *world) {
		owner, other := w.executor(), w.executor()
		p, q := w.provider(), w.provider()
		first := owner.start(w.Context(), "order-1", p.charge)
		<-p.started
		owner.wire.sever()
		second := other.start(w.Context(), "order-1", q.charge)
		<-q.started
		require.Equal(w, p.last().DownstreamKey(), q.last().DownstreamKey())
		require.NotEqual(w, p.last(), q.last())
		owner.wire.mend()
		p.answer("charged", nil)
		q.answer("charged", nil)
		first.wait(w)
		second.returned(w, "charged")
	})
}

// fn ignores that its lease is lost. The callers of its process do not wait for it any more.
func TestFnThatIgnoresItsLostLease(t *testing.T) {
	everywhere(t, func(w *world) {
		owner, operator := w.executor(), w.executor()
		p := w.provider()
		first := owner.start(w.Context(), "order-1", p.charge)
		<-p.started
		joined := owner.start(w.Context(), "order-1", p.charge)
		owner.Wait(w, idempotent.EventJoined, 1)
		require.NoError(w, resolve(operator, w.Context(), "order-1", "settled"))
		joined.returned(w, "settled")
		owner.start(w.Context(), "order-1", p.charge).returned(w, "settled")
		p.answer("charged", nil)
		require.ErrorIs(w, first.wait(w).err, idempotent.ErrLeaseLost)
	})
}

// The lease of the outer run is lost, not that of the one inside its fn.
func TestNestedRunKeepsItsLease(t *testing.T) {
	everywhere(t, func(w *world) {
		x := w.executor()
		p := w.provider()
		inner := make(chan error, 1)
		outer := x.start(w.Context(), "outer", func(ctx context.Context) (string, error) {
			_, err := x.Run(ctx, "inner", p.chargeOrLeave)
			inner <- err
			return "", err
		})
		<-p.started
		require.NoError(w, resolve(w.executor(), w.Context(), "outer", "settled"))
		err := <-inner
		require.ErrorIs(w, err, context.Canceled)
		require.NotErrorIs(w, err, idempotent.ErrLeaseLost)
		require.ErrorIs(w, outer.wait(w).err, idempotent.ErrLeaseLost)
	})
}

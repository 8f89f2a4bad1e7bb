package acceptance

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
)

// Callers that do not wait are not made to queue for the same answer.
func TestNoWaitIsAnsweredTogether(t *testing.T) {
	inFakeTime(t, func(w *world) {
		owner, other := w.executor(), w.executor()
		p := w.provider()
		first := owner.start(w.Context(), "order-1", p.charge)
		<-p.started
		other.client.AddHook(slow{delay: 5 * time.Millisecond})
		began := time.Now()
		var calls []*call
		for range 200 {
			calls = append(calls, other.start(w.Context(), "order-1", p.charge, idempotent.WithNoWait()))
		}
		for _, c := range calls {
			require.ErrorIs(w, c.wait(w).err, idempotent.ErrInProgress)
		}
		assert.Less(w, time.Since(began), 50*time.Millisecond)
		p.answer("charged", nil)
		first.returned(w, "charged")
	})
}

// One caller's patience is its own.
func TestImpatientLeaderDoesNotSpeakForOthers(t *testing.T) {
	inFakeTime(t, func(w *world) {
		owner, other := w.executor(idempotent.WithLease(time.Hour)), w.executor()
		p := w.provider()
		first := owner.start(w.Context(), "order-1", p.charge)
		<-p.started
		hasty := other.start(w.Context(), "order-1", p.charge, idempotent.WithWaitTimeout(5*time.Second))
		other.waits(w)
		patient := other.start(w.Context(), "order-1", p.charge, idempotent.WithWaitTimeout(time.Hour))
		other.Wait(w, idempotent.EventJoined, 1)
		w.memory.Fail("LOADING Redis is loading the dataset in memory")
		other.wire.sever()
		other.wire.mend()
		require.ErrorIs(w, hasty.wait(w).err, idempotent.ErrUnavailable)
		w.settled()
		w.memory.Fail("")
		p.answer("charged", nil)
		first.returned(w, "charged")
		patient.returned(w, "charged")
	})
}

// A caller that does not wait does not wait for one that sits an outage out, either.
func TestNoWaitDuringAnOutage(t *testing.T) {
	inFakeTime(t, func(w *world) {
		x := w.executor()
		p, q := w.provider(), w.provider()
		first := x.start(w.Context(), "order-1", p.charge)
		<-p.started
		second := x.start(w.Context(), "order-1", q.charge)
		x.Wait(w, idempotent.EventJoined, 1)
		x.wire.sever()
		x.Wait(w, idempotent.EventLeaseLost, 1)
		x.Wait(w, idempotent.EventWaitStarted, 1) // the second leads, and waits for Redis
		began := time.Now()
		_, err := x.Run(w.Context(), "order-1", q.charge, idempotent.WithNoWait())
		require.ErrorIs(w, err, idempotent.ErrInProgress)
		assert.Zero(w, time.Since(began))
		x.wire.mend()
		p.answer("charged", nil)
		first.wait(w)
		q.answer("charged", nil)
		second.returned(w, "charged")
	})
}

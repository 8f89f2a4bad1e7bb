package idempotent_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
)

func TestPeek(t *testing.T) {
	inFakeTime(t, func(w *world) {
		x := w.executor(idempotent.WithTTL(24*time.Hour), idempotent.WithErrorTTL(time.Hour))
		p := w.provider()
		peek := func(key string) idempotent.Status {
			s, err := x.Peek(w.Context(), key)
			require.NoError(w, err)
			return s
		}
		require.Equal(w, idempotent.Status{}, peek("order-1"))

		c := x.start(w.Context(), "order-1", p.charge)
		<-p.started
		time.Sleep(time.Second)
		s := peek("order-1")
		require.Positive(w, s.Size)
		s.Size = 0
		require.Equal(w, idempotent.Status{
			State: idempotent.StateRunning, Attempt: 1, Age: time.Second, LeaseLeft: w.lease - time.Second, TTLLeft: 24*time.Hour + w.lease - time.Second,
		}, s)
		p.answer("charged", nil)
		c.returned(w, "charged")
		time.Sleep(time.Hour)
		s = peek("order-1")
		require.Positive(w, s.Size)
		s.Size = 0
		require.Equal(w, idempotent.Status{State: idempotent.StateSucceeded, Attempt: 1, Age: time.Hour, TTLLeft: 23 * time.Hour}, s)

		p.answer("", errors.New("declined"))
		x.start(w.Context(), "order-2", p.charge).wait(w)
		s = peek("order-2")
		require.Equal(w, idempotent.StateFailed, s.State)
		require.Equal(w, time.Hour, s.TTLLeft)
		assert.Equal(w, 2, p.count(), "Peek runs nothing")
	})
}

func TestForget(t *testing.T) {
	everywhere(t, func(w *world) {
		x, other := w.executor(), w.executor()
		p := w.provider()
		require.NoError(w, x.Forget(w.Context(), "order-1"), "an unknown key")
		p.answer("charged", nil)
		p.answer("charged anew", nil)
		x.start(w.Context(), "order-1", p.charge).returned(w, "charged")
		require.NoError(w, other.Forget(w.Context(), "order-1"))
		x.start(w.Context(), "order-1", p.charge).returned(w, "charged anew")
		assert.Equal(w, 1, p.last().Attempt)
	})
}

func TestForgetWakesWaiters(t *testing.T) {
	everywhere(t, func(w *world) {
		owner := w.executor(idempotent.WithLease(time.Minute)) // nobody would notice its death for long
		other, operator := w.executor(), w.executor()
		p := w.provider()
		first := owner.start(w.Context(), "order-1", p.charge)
		<-p.started
		waiting := other.start(w.Context(), "order-1", p.charge)
		other.waits(w)
		began := time.Now()
		require.NoError(w, operator.Forget(w.Context(), "order-1"))
		<-p.started
		assert.Less(w, time.Since(began), 30*time.Second)
		assert.Equal(w, 1, p.last().Attempt)
		p.answer("charged", nil)
		p.answer("charged", nil)
		waiting.wait(w)
		first.wait(w)
	})
}

func TestResolveWakesWaiters(t *testing.T) {
	everywhere(t, func(w *world) {
		owner, other := w.executor(idempotent.WithLease(time.Minute)), w.executor()
		p := w.provider()
		first := owner.start(w.Context(), "order-1", p.charge, idempotent.WithFingerprint([]byte("10")))
		<-p.started
		waiting := other.start(w.Context(), "order-1", p.charge)
		other.waits(w)
		require.NoError(w, other.Resolve(w.Context(), "order-1", "charged, says the provider"))
		waiting.returned(w, "charged, says the provider")
		p.answer("charged", nil)
		require.ErrorIs(w, first.wait(w).err, idempotent.ErrLeaseLost)
		_, err := other.Run(w.Context(), "order-1", p.charge, idempotent.WithFingerprint([]byte("20")))
		require.ErrorIs(w, err, idempotent.ErrKeyReused, "the fingerprint stays")
		assert.Equal(w, 1, p.count())
	})
}

func TestResolve(t *testing.T) {
	everywhere(t, func(w *world) {
		x := w.executor()
		p := w.provider()
		require.NoError(w, x.Resolve(w.Context(), "unknown", "settled"), "a key nobody has run")
		x.start(w.Context(), "unknown", p.charge).returned(w, "settled")

		p.answer("charged", nil)
		x.start(w.Context(), "order-1", p.charge).returned(w, "charged")
		require.ErrorIs(w, x.Resolve(w.Context(), "order-1", "other"), idempotent.ErrAlreadyRecorded)
		x.start(w.Context(), "order-1", p.charge).returned(w, "charged")

		p.answer("", errors.New("declined"))
		x.start(w.Context(), "order-2", p.charge).wait(w)
		require.ErrorIs(w, x.Resolve(w.Context(), "order-2", "other"), idempotent.ErrAlreadyRecorded)

		require.ErrorIs(w, x.Resolve(w.Context(), "order-3", "v", idempotent.WithTTL(-1)), idempotent.ErrInvalidOption)
		ctx, cancel := context.WithCancel(w.Context())
		c := x.start(ctx, "order-3", p.chargeOrLeave)
		for range 3 {
			<-p.started
		}
		cancel()
		c.wait(w)
		require.NoError(w, x.Resolve(w.Context(), "order-3", "settled", idempotent.WithTTL(time.Hour)))
		again := x.start(w.Context(), "order-3", p.charge)
		again.returned(w, "settled")
		assert.Equal(w, 1, again.report.Attempt)
		s, err := x.Peek(w.Context(), "order-3")
		require.NoError(w, err)
		assert.InDelta(w, time.Hour, s.TTLLeft, float64(time.Minute))
	})
}

func TestForgottenOwnerLosesItsLease(t *testing.T) {
	everywhere(t, func(w *world) {
		x := w.executor()
		p := w.provider()
		c := x.start(w.Context(), "order-1", p.chargeOrLeave)
		<-p.started
		require.NoError(w, x.Forget(w.Context(), "order-1"))
		require.ErrorIs(w, c.wait(w).err, idempotent.ErrLeaseLost)
	})
}

package acceptance

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
		x := w.executor(idempotent.WithTTL(24*time.Hour), idempotent.WithErrorTTL(time.Hour), idempotent.WithOwner("web-1:1"))
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
			State: idempotent.StateRunning, Attempt: 1, Owner: "web-1:1", Age: time.Second, LeaseLeft: w.lease - time.Second, TTLLeft: 24*time.Hour + w.lease - time.Second,
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
		require.NoError(w, resolve(other, w.Context(), "order-1", "charged, says the provider"))
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
		require.NoError(w, resolve(x, w.Context(), "unknown", "settled"), "a key nobody has run")
		x.start(w.Context(), "unknown", p.charge).returned(w, "settled")

		p.answer("charged", nil)
		x.start(w.Context(), "order-1", p.charge).returned(w, "charged")
		require.ErrorIs(w, resolve(x, w.Context(), "order-1", "other"), idempotent.ErrAlreadyRecorded)
		x.start(w.Context(), "order-1", p.charge).returned(w, "charged")

		p.answer("", errors.New("declined"))
		x.start(w.Context(), "order-2", p.charge).wait(w)
		require.ErrorIs(w, resolve(x, w.Context(), "order-2", "other"), idempotent.ErrAlreadyRecorded)

		require.ErrorIs(w, resolve(x, w.Context(), "order-3", "v", idempotent.WithTTL(-1)), idempotent.ErrInvalidOption)
		ctx, cancel := context.WithCancel(w.Context())
		c := x.start(ctx, "order-3", p.chargeOrLeave)
		for range 3 {
			<-p.started
		}
		cancel()
		c.wait(w)
		require.NoError(w, resolve(x, w.Context(), "order-3", "settled", idempotent.WithTTL(time.Hour)))
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

func TestGet(t *testing.T) {
	everywhere(t, func(w *world) {
		x, other := w.executor(), w.executor()
		p := w.provider()
		_, err := other.Get(w.Context(), "order-1")
		require.ErrorIs(w, err, idempotent.ErrNotFound)

		ten, twenty := idempotent.WithFingerprint([]byte("10")), idempotent.WithFingerprint([]byte("20"))
		first := x.start(w.Context(), "order-1", p.charge, ten)
		<-p.started
		var busy *idempotent.InProgressError
		_, err = other.Get(w.Context(), "order-1", idempotent.WithNoWait())
		require.ErrorAs(w, err, &busy)
		assert.Positive(w, busy.RetryAfter)
		_, err = other.Get(w.Context(), "order-1", twenty)
		require.ErrorIs(w, err, idempotent.ErrKeyReused)
		type outcome struct {
			value  string
			err    error
			report idempotent.Report
		}
		waiting := make(chan outcome)
		for _, reader := range []*executor{x, other} {
			go func() {
				var o outcome
				o.value, o.err = reader.Get(w.Context(), "order-1", idempotent.WithReport(&o.report))
				waiting <- o
			}()
			reader.Wait(w, idempotent.EventWaitStarted, 1)
		}
		w.settled()
		p.answer("charged", nil)
		first.returned(w, "charged")
		for range 2 {
			o := <-waiting
			require.NoError(w, o.err)
			assert.Equal(w, "charged", o.value)
			assert.Equal(w, 1, o.report.Attempt)
		}
		value, err := other.Get(w.Context(), "order-1")
		require.NoError(w, err)
		require.Equal(w, "charged", value)
		_, err = other.Get(w.Context(), "order-1", twenty)
		require.ErrorIs(w, err, idempotent.ErrKeyReused)
		assert.Equal(w, 1, p.count())
	})
}

func TestGetOfWhatHasNoValue(t *testing.T) {
	everywhere(t, func(w *world) {
		x := w.executor(idempotent.WithShouldIgnoreError(idempotent.IsRetryable))
		p := w.provider()
		p.answer("", errors.New("declined"))
		x.start(w.Context(), "failed", p.charge).wait(w)
		_, err := x.Get(w.Context(), "failed")
		require.ErrorIs(w, err, idempotent.ErrReplayed)
		require.EqualError(w, err, "declined")

		p.answer("", idempotent.OutcomeUnknown(errors.New("connection reset")))
		x.start(w.Context(), "unknown", p.charge).wait(w)
		for range 2 {
			_, err = x.Get(w.Context(), "unknown")
			require.ErrorIs(w, err, idempotent.ErrInterrupted)
		}
		s, err := x.Peek(w.Context(), "unknown")
		require.NoError(w, err)
		assert.Equal(w, idempotent.StateAbandoned, s.State, "Get writes nothing")
		assert.Equal(w, 1, s.Attempt)

		_, err = x.Run(w.Context(), "itself", func(ctx context.Context) (string, error) { return x.Get(ctx, "itself") })
		require.ErrorIs(w, err, idempotent.ErrInProgress)

		c := x.start(w.Context(), "ignored", p.charge)
		for range 3 {
			<-p.started
		}
		got := make(chan error)
		go func() {
			_, err := x.Get(w.Context(), "ignored")
			got <- err
		}()
		<-x.looked
		p.answer("", errBusy)
		c.wait(w)
		require.ErrorIs(w, <-got, idempotent.ErrNotFound)
	})
}

func TestGetOfADeadOwner(t *testing.T) {
	everywhere(t, func(w *world) {
		owner, other := w.executor(), w.executor()
		p := w.provider()
		first := owner.start(w.Context(), "order-1", p.charge)
		<-p.started
		owner.wire.sever()
		_, err := other.Get(w.Context(), "order-1")
		require.ErrorIs(w, err, idempotent.ErrInterrupted)
		owner.wire.mend()
		p.answer("charged", nil)
		first.returned(w, "charged") // late, and nobody has taken over
		value, err := other.Get(w.Context(), "order-1")
		require.NoError(w, err)
		require.Equal(w, "charged", value)
	})
}

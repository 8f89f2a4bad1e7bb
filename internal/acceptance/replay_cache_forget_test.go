package acceptance

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
)

func TestReplayCacheOfForgottenKeys(t *testing.T) {
	everywhere(t, func(w *world) {
		x, other := w.caching(), w.caching()
		p := w.provider()
		for _, value := range []string{"1", "2", "3"} {
			p.answer(value, nil)
			x.start(w.Context(), "order-1", p.charge).returned(w, value)
			other.replays(w, "order-1", value)
			other.replays(w, "order-1", value)
			require.NoError(w, x.Forget(w.Context(), "order-1"))
			_, err := x.Get(w.Context(), "order-1")
			require.ErrorIs(w, err, idempotent.ErrNotFound, "it forgot it itself")
			w.hears(other, "order-1")
		}
		p.answer("4", nil)
		other.start(w.Context(), "order-1", p.charge).returned(w, "4")
	})
}

// hears returns when x does not know a key any more.
func (w *world) hears(x *cachingExecutor, key string) {
	w.Helper()
	w.settled()
	gone := func() bool {
		_, err := x.Get(w.Context(), key)
		return errors.Is(err, idempotent.ErrNotFound)
	}
	if !w.real {
		require.True(w, gone(), "at once")
		return
	}
	require.Eventually(w, gone, time.Minute, time.Millisecond)
}

// Redis lost the record, an operator settles the key by hand: caches with the old outcome
// are told.
func TestReplayCacheOfResolvedKeys(t *testing.T) {
	everywhere(t, func(w *world) {
		x, other := w.caching(), w.caching()
		p := w.provider()
		p.answer("charged", nil)
		x.start(w.Context(), "order-1", p.charge).returned(w, "charged")
		other.replays(w, "order-1", "charged")
		require.NoError(w, x.client.Del(w.Context(), w.name("order-1")).Err())
		x.replays(w, "order-1", "charged")
		require.NoError(w, resolve(x, w.Context(), "order-1", "settled"))
		x.replays(w, "order-1", "settled")
		w.settled()
		settled := func() bool {
			value, err := other.Get(w.Context(), "order-1")
			return err == nil && value == "settled"
		}
		require.Eventually(w, settled, time.Minute, time.Millisecond)
	})
}

func TestReplayCacheOfUnfinishedKeys(t *testing.T) {
	everywhere(t, func(w *world) {
		x := w.caching(idempotent.WithInterrupted(idempotent.Refuse))
		p := w.provider()
		p.answer("", idempotent.OutcomeUnknown(errors.New("connection reset")))
		x.start(w.Context(), "order-1", p.charge).wait(w)
		for range 3 { // taken over and refused, read, read again
			assert.Positive(w, x.commands(func() {
				_, err := x.Run(w.Context(), "order-1", p.charge)
				require.ErrorIs(w, err, idempotent.ErrInterrupted)
			}), "interrupted")
		}
		running := x.start(w.Context(), "order-2", p.charge)
		<-p.started
		<-p.started
		for range 2 {
			_, err := x.Get(w.Context(), "order-2", idempotent.WithNoWait())
			require.ErrorIs(w, err, idempotent.ErrInProgress)
		}
		p.answer("charged", nil)
		running.returned(w, "charged")
		x.replays(w, "order-2", "charged")

		ignored := idempotent.WithShouldIgnoreError(func(error) bool { return true })
		for i := range 2 {
			p.answer("", errBusy)
			c := x.start(w.Context(), "order-3", p.charge, ignored, idempotent.WithIgnoredErrors(idempotent.ShareWithWaiters)).wait(w)
			require.ErrorIs(w, c.err, errBusy)
			assert.Equal(w, 3+i, p.count(), "an ignored error is not kept")
		}
	})
}

func TestReplayCacheEndsWithTheRecord(t *testing.T) {
	inFakeTime(t, func(w *world) {
		x, other := w.caching(), w.caching()
		p := w.provider()
		p.answer("charged", nil)
		p.answer("", errors.New("declined"))
		ttl := []idempotent.RunOption{idempotent.WithTTL(time.Hour), idempotent.WithErrorTTL(time.Minute)}
		x.start(w.Context(), "order-1", p.charge, ttl...).returned(w, "charged")
		x.start(w.Context(), "order-2", p.charge, ttl...).wait(w)
		began := time.Now()
		at := func(d time.Duration) { time.Sleep(time.Until(began.Add(d))) }
		get := func(key string) { _, _ = x.Get(w.Context(), key) }
		assert.Zero(w, x.commands(func() { get("order-1"); get("order-2") }))

		at(time.Minute - 50*time.Millisecond) // a thousandth is left to the clocks
		assert.EqualValues(w, 1, x.commands(func() { get("order-2") }), "an error has a life of its own")
		assert.Zero(w, x.commands(func() { get("order-1") }))

		at(30 * time.Minute)
		other.replays(w, "order-1", "charged") // with half an hour to live
		at(time.Hour - 3*time.Second)
		assert.EqualValues(w, 1, x.commands(func() { get("order-1") }), "it ends a little before the record")
		assert.Zero(w, other.commands(func() { other.replays(w, "order-1", "charged") }), "half the time, half the tolerance")
		at(time.Hour - time.Second)
		assert.EqualValues(w, 1, other.commands(func() { other.replays(w, "order-1", "charged") }))
		at(time.Hour + time.Millisecond)
		for _, reader := range []*cachingExecutor{x, other} {
			_, err := reader.Get(w.Context(), "order-1")
			require.ErrorIs(w, err, idempotent.ErrNotFound)
		}
	})
}

func TestReplayCacheIsBounded(t *testing.T) {
	everywhere(t, func(w *world) {
		x := w.caching()
		fill := func(n int) {
			for i := range n {
				value := string(rune('a' + i%26))
				_, err := x.Run(w.Context(), idempotent.HashKey(string(rune(i))), func(context.Context) (string, error) { return value, nil })
				require.NoError(w, err)
			}
		}
		fill(300)
		misses := x.commands(func() { fill(300) })
		assert.GreaterOrEqual(w, misses, int64(200), "100 entries")

		large := strings.Repeat("x", 64<<10)
		p := w.provider()
		p.answer(large, nil)
		x.start(w.Context(), "large", p.charge).returned(w, large)
		assert.EqualValues(w, 2, x.commands(func() {
			x.replays(w, "large", large)
			x.replays(w, "large", large)
		}), "too large to keep")
	})
}

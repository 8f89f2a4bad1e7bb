package acceptance

import (
	"context"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
)

// closing runs Close in a goroutine.
func (x *executor) closing() <-chan error {
	done := make(chan error, 1)
	go func() { done <- x.Close() }()
	return done
}

func TestCloseLetsFnFinish(t *testing.T) {
	everywhere(t, func(w *world) {
		x := w.executor()
		p := w.provider()
		first := x.start(w.Context(), "order-1", p.charge)
		<-p.started
		joined := x.start(w.Context(), "order-1", p.charge)
		x.Wait(w, idempotent.EventJoined, 1)
		done, again := x.closing(), x.closing()
		require.ErrorIs(w, joined.wait(w).err, idempotent.ErrClosed)
		select {
		case <-done:
			w.Error("Close returned while fn runs")
		case <-again:
			w.Error("the second Close returned while fn runs")
		case <-first.done:
			w.Error("fn was ended")
		default:
		}
		p.answer("charged", nil)
		first.returned(w, "charged")
		require.NoError(w, <-done)
		require.NoError(w, <-again)
		require.NoError(w, x.client.Ping(w.Context()).Err(), "the client stays open")
		w.executor().start(w.Context(), "order-1", p.charge).returned(w, "charged")
		assert.Equal(w, 1, p.count())
	})
}

func TestCloseEndsWaits(t *testing.T) {
	everywhere(t, func(w *world) {
		owner, other := w.executor(), w.executor()
		p := w.provider()
		first := owner.start(w.Context(), "order-1", p.charge)
		<-p.started
		waiting := []*call{other.start(w.Context(), "order-1", p.charge), other.start(w.Context(), "order-1", p.charge)}
		other.waits(w)
		other.Wait(w, idempotent.EventJoined, 1)
		require.NoError(w, <-other.closing())
		for _, c := range waiting {
			require.ErrorIs(w, c.wait(w).err, idempotent.ErrClosed)
		}
		p.answer("charged", nil)
		first.returned(w, "charged")
		assert.Equal(w, 1, p.count())
	})
}

func TestCloseLetsCommitFinish(t *testing.T) {
	everywhere(t, func(w *world) {
		x := w.executor(idempotent.WithLease(idempotent.DefaultLease))
		p := w.provider()
		first := x.start(w.Context(), "order-1", p.charge)
		<-p.started
		x.wire.sever()
		p.answer("charged", nil)
		x.Wait(w, idempotent.EventCommitRetried, 1)
		done := x.closing()
		x.wire.mend()
		first.returned(w, "charged")
		require.NoError(w, <-done)
		w.executor().start(w.Context(), "order-1", p.charge).returned(w, "charged")
		assert.Equal(w, 1, p.count())
	})
}

func TestCloseWaitsForDetachedFn(t *testing.T) {
	everywhere(t, func(w *world) {
		x := w.executor(idempotent.WithDetached())
		p := w.provider()
		ctx, cancel := context.WithCancel(w.Context())
		first := x.start(ctx, "order-1", p.charge)
		<-p.started
		cancel()
		require.ErrorIs(w, first.wait(w).err, context.Canceled)
		done := x.closing()
		p.answer("charged", nil)
		require.NoError(w, <-done)
		w.executor().start(w.Context(), "order-1", p.charge).returned(w, "charged")
		assert.Equal(w, 1, p.count())
	})
}

func TestClosed(t *testing.T) {
	everywhere(t, func(w *world) {
		x := w.executor()
		p := w.provider()
		require.NoError(w, x.Close())
		require.NoError(w, x.Close(), "a second time")
		_, err := x.Run(w.Context(), "order-1", p.charge)
		require.ErrorIs(w, err, idempotent.ErrClosed)
		_, err = x.Peek(w.Context(), "order-1")
		require.ErrorIs(w, err, idempotent.ErrClosed)
		require.ErrorIs(w, x.Forget(w.Context(), "order-1"), idempotent.ErrClosed)
		require.ErrorIs(w, resolve(x, w.Context(), "order-1", "v"), idempotent.ErrClosed)
		assert.Zero(w, p.count())
	})
}

// A run inside an fn is part of it: were it ended by Close, its ErrClosed would be recorded as
// the outcome of the outer one.
func TestCloseLetsNestedRunsFinish(t *testing.T) {
	everywhere(t, func(w *world) {
		x, other := w.executor(), w.executor()
		p, q := w.provider(), w.provider()
		busy := other.start(w.Context(), "inner-2", q.charge)
		<-q.started
		outer := x.start(w.Context(), "outer", func(ctx context.Context) (string, error) {
			if _, err := p.charge(ctx); err != nil {
				return "", err
			}
			one, err := x.Run(ctx, "inner-1", func(context.Context) (string, error) { return "one", nil })
			if err != nil {
				return "", err
			}
			two, err := x.Run(ctx, "inner-2", q.charge) // waits for the other process
			return one + " and " + two, err
		})
		<-p.started
		done := x.closing()
		w.settled()
		p.answer("", nil)
		x.Wait(w, idempotent.EventWaitStarted, 1)
		q.answer("two", nil)
		outer.returned(w, "one and two")
		busy.returned(w, "two")
		require.NoError(w, <-done)
	})
}

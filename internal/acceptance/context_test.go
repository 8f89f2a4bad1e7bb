package acceptance

import (
	"context"
	"net"
	"os"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
)

// The caller's context ends while the claim is in flight: fn does not begin, and the key is free.
func TestContextEndsClaim(t *testing.T) {
	everywhere(t, func(w *world) {
		x, other := w.executor(idempotent.WithInterrupted(idempotent.Refuse)), w.executor()
		p := w.provider()
		ctx, cancel := context.WithCancel(w.Context())
		x.client.AddHook(replyHook{change: func(cmd redis.Cmder) error {
			if cmd.Name() == "set" {
				cancel()
			}
			return nil
		}})
		require.ErrorIs(w, x.start(ctx, "order-1", p.charge).wait(w).err, context.Canceled)
		assert.Zero(w, p.count())
		p.answer("charged", nil)
		other.start(w.Context(), "order-1", p.charge).returned(w, "charged")
		assert.Equal(w, 1, p.last().Attempt)
	})
}

// A driver may report the end of fn's context as a timeout of its connection.
func TestContextEndsFnThatReportsATimeout(t *testing.T) {
	everywhere(t, func(w *world) {
		x := w.executor()
		p := w.provider()
		ctx, cancel := context.WithTimeout(w.Context(), time.Second) // a busy machine claims the key within
		defer cancel()
		timeout := &net.OpError{Op: "read", Err: os.ErrDeadlineExceeded}
		c := x.start(ctx, "order-1", func(ctx context.Context) (string, error) {
			<-ctx.Done()
			return "", timeout
		}).wait(w)
		require.ErrorIs(w, c.err, os.ErrDeadlineExceeded)
		p.answer("charged", nil)
		x.start(w.Context(), "order-1", p.charge).returned(w, "charged")
		assert.Equal(w, 2, p.last().Attempt)

		p.answer("", timeout) // its own, while the context lives: an error like any other
		x.start(w.Context(), "order-2", p.charge).wait(w)
		s, err := x.Peek(w.Context(), "order-2")
		require.NoError(w, err)
		assert.Equal(w, idempotent.StateFailed, s.State)
	})
}

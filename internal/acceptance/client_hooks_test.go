package acceptance

import (
	"context"
	"errors"
	"log/slog"
	"runtime"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
)

// A hook of the client that panics is an error of the command, of which it is not known whether it was
// executed. It costs neither an outcome nor the process.
func TestClientHookPanics(t *testing.T) {
	panics := func() { panic("in a hook") }
	t.Run("in the claim", func(t *testing.T) {
		inFakeTime(t, func(w *world) {
			x := w.executor()
			x.client.AddHook(&dropper{name: "set", do: panics})
			p := w.provider()
			p.answer("charged", nil)
			_, err := x.Run(w.Context(), "k", p.charge)
			require.ErrorIs(w, err, idempotent.ErrUnavailable)
			assert.Zero(w, p.count())
			x.start(w.Context(), "k", p.charge).returned(w, "charged")
			assert.Equal(w, 1, p.calls[0].Attempt)
		})
	})
	t.Run("in the commit", func(t *testing.T) {
		inFakeTime(t, func(w *world) {
			x := w.executor()
			x.client.AddHook(&dropper{name: "evalsha", do: panics})
			p := w.provider()
			p.answer("charged", nil)
			x.start(w.Context(), "k", p.charge).returned(w, "charged")
			assert.Equal(w, 1, x.Count(idempotent.EventCommitRetried))
			w.executor().start(w.Context(), "k", p.charge).returned(w, "charged")
			assert.Equal(w, 1, p.count())
		})
	})
	t.Run("in the commit, acknowledged", func(t *testing.T) {
		onReplicatedRedis(t, func(w *replicated) {
			x := w.executor(acked)
			hook := &dropper{name: "evalsha", do: panics}
			hook.done.Store(true) // pipelines alone
			x.client.AddHook(hook)
			p := w.provider()
			first := x.start(w.Context(), "k", p.charge)
			<-p.started
			hook.inPipeline.Store(true)
			p.answer("charged", nil)
			first.returned(w.world, "charged")
			assert.False(w, hook.inPipeline.Load())
			assert.Equal(w, 1, x.Count(idempotent.EventCommitRetried))
			w.executor().start(w.Context(), "k", p.charge).returned(w.world, "charged")
			assert.Equal(w, 1, p.count())
		})
	})
	t.Run("in a renewal", func(t *testing.T) {
		inFakeTime(t, func(w *world) {
			survivesRenewal(w, w.executor(), panics)
		})
	})
	t.Run("in a renewal, acknowledged", func(t *testing.T) {
		onReplicatedRedis(t, func(w *replicated) {
			w.lease = 3 * time.Second
			survivesRenewal(w.world, w.executor(acked), panics)
		})
	})
	t.Run("with the error of a claim, not acknowledged", func(t *testing.T) {
		onRealRedis(t, func(w *world) {
			x := w.executor(acked) // there are no replicas
			x.client.AddHook(rethrower{})
			p := w.provider()
			p.answer("charged", nil)
			require.ErrorIs(w, x.start(w.Context(), "k", p.charge).wait(w).err, idempotent.ErrUnavailable)
			assert.Zero(w, p.count())
		})
	})
	t.Run("in a release", func(t *testing.T) {
		inFakeTime(t, func(w *world) {
			x := w.executor(idempotent.WithShouldIgnoreError(idempotent.IsRetryable))
			x.client.AddHook(&dropper{name: "evalsha", do: panics})
			p := w.provider()
			p.answer("", idempotent.Retryable(errors.New("busy")))
			require.EqualError(w, x.start(w.Context(), "k", p.charge).wait(w).err, "busy")
			p.answer("charged", nil)
			x.start(w.Context(), "k", p.charge).returned(w, "charged")
		})
	})
	t.Run("in Peek and Check", func(t *testing.T) {
		onRealRedis(t, func(w *world) {
			x := w.executor()
			x.client.AddHook(&dropper{name: "evalsha", do: panics})
			x.client.AddHook(&dropper{name: "time", do: panics})
			_, err := x.Peek(w.Context(), "k")
			require.ErrorIs(w, err, idempotent.ErrUnavailable)
			_, err = x.Check(w.Context())
			require.ErrorIs(w, err, idempotent.ErrUnavailable)
			_, err = x.Check(w.Context())
			require.NoError(w, err)
		})
	})
	t.Run("in the question of a cache", func(t *testing.T) {
		onRealRedis(t, func(w *world) {
			log := newLogWatch()
			x := w.executor(idempotent.WithReplayCache(100), idempotent.WithLogger(slog.New(log)))
			hook := &dropper{name: "publish", do: panics}
			x.client.AddHook(hook)
			_, err := x.Get(w.Context(), "unknown")
			require.ErrorIs(w, err, idempotent.ErrNotFound)
			log.await(w, cacheInUse)
			assert.True(w, hook.done.Load())
		})
	})
	for name, do := range map[string]func(){"while a caller waits": panics, "while a caller waits, and exits": runtime.Goexit} {
		t.Run(name, func(t *testing.T) {
			inFakeTime(t, func(w *world) {
				owner, other := w.executor(), w.executor()
				hook := &dropper{name: "evalsha", do: do}
				other.client.AddHook(hook)
				p := w.provider()
				first := owner.start(w.Context(), "k", p.charge)
				<-p.started
				waiting := other.start(w.Context(), "k", p.charge)
				other.waits(w)
				require.True(w, hook.done.Load())
				p.answer("charged", nil)
				first.returned(w, "charged")
				waiting.returned(w, "charged")
				assert.Equal(w, 1, p.count())
			})
		})
	}
}

// survivesRenewal has one pipeline of renewals panic, and the lease be kept all the same.
func survivesRenewal(w *world, x *executor, panics func()) {
	w.Helper()
	hook := &dropper{name: "evalsha", do: panics}
	hook.done.Store(true) // pipelines alone
	x.client.AddHook(hook)
	p := w.provider()
	first := x.start(w.Context(), "k", p.charge)
	<-p.started
	hook.inPipeline.Store(true)
	x.Wait(w, idempotent.EventRenewed, 1)
	assert.False(w, hook.inPipeline.Load())
	p.answer("charged", nil)
	first.returned(w, "charged")
}

// A rethrower panics with the redis.Nil of the first command of a pipeline.
type rethrower struct{ refuse }

func (rethrower) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		err := next(ctx, cmds)
		if first := cmds[0].Err(); errors.Is(first, redis.Nil) {
			panic(first)
		}
		return err
	}
}

package acceptance

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
)

// The ways in which a caller's context, or fn itself, can end.

func TestContextEndedBefore(t *testing.T) {
	everywhere(t, func(w *world) {
		x := w.executor()
		p := w.provider()
		ctx, cancel := context.WithCancel(w.Context())
		cancel()
		_, err := x.Run(ctx, "order-1", p.charge)
		require.ErrorIs(w, err, context.Canceled)
		assert.Zero(w, p.count())
	})
}

// A waiter leaves at once with its context, while the owner goes on; the others stay.
func TestContextEndsWait(t *testing.T) {
	everywhere(t, func(w *world) {
		owner, other := w.executor(), w.executor()
		p := w.provider()
		first := owner.start(w.Context(), "order-1", p.charge)
		<-p.started
		why := errors.New("client went away")
		ctx, cancel := context.WithCancelCause(w.Context())
		leaving := map[string]*call{
			"same process": owner.start(ctx, "order-1", p.charge), "other process": other.start(ctx, "order-1", p.charge),
		}
		owner.Wait(w, idempotent.EventJoined, 1)
		other.waits(w)
		staying := other.start(w.Context(), "order-1", p.charge)
		other.Wait(w, idempotent.EventJoined, 1)
		cancel(why)
		for name, c := range leaving {
			c.wait(w)
			require.ErrorIs(w, c.err, context.Canceled, name)
			require.ErrorIs(w, c.err, why, name)
		}
		select {
		case <-first.done:
			w.Error("the owner has returned")
		default:
		}
		p.answer("charged", nil)
		first.returned(w, "charged")
		staying.returned(w, "charged")
		assert.Equal(w, 1, p.count())
	})
}

// A Redis that hangs does not hold a waiter back.
func TestContextEndsWaitWhileRedisHangs(t *testing.T) {
	inFakeTime(t, func(w *world) {
		owner, other := w.executor(), w.executor()
		p := w.provider()
		first := owner.start(w.Context(), "order-1", p.charge)
		<-p.started
		other.client.AddHook(hanging{})
		ctx, cancel := context.WithTimeout(w.Context(), time.Second)
		defer cancel()
		began := time.Now()
		c := other.start(ctx, "order-1", p.charge).wait(w)
		require.ErrorIs(w, c.err, context.DeadlineExceeded)
		assert.Equal(w, time.Second, time.Since(began))
		p.answer("charged", nil)
		first.returned(w, "charged")
	})
}

// The caller's context ends, and fn gives up for it: that is no outcome. What fn did is unknown,
// so the next execution is attempt 2.
func TestContextEndsFn(t *testing.T) {
	everywhere(t, func(w *world) {
		x := w.executor()
		p := w.provider()
		ctx, cancel := context.WithCancel(w.Context())
		first := x.start(ctx, "order-1", p.chargeOrLeave)
		<-p.started
		waiting := x.start(w.Context(), "order-1", p.charge)
		x.Wait(w, idempotent.EventJoined, 1)
		cancel()
		first.wait(w)
		require.ErrorIs(w, first.err, context.Canceled)
		require.NotErrorIs(w, first.err, idempotent.ErrLeaseLost)
		p.answer("charged", nil)
		waiting.returned(w, "charged")
		assert.Equal(w, 2, p.last().Attempt)
		x.start(w.Context(), "order-1", p.charge).returned(w, "charged")
		assert.Equal(w, 2, p.count())
	})
}

func TestDeadlineEndsFn(t *testing.T) {
	everywhere(t, func(w *world) {
		x := w.executor(idempotent.WithInterrupted(idempotent.Refuse))
		p := w.provider()
		ctx, cancel := context.WithTimeout(w.Context(), time.Second) // a busy machine claims the key within
		defer cancel()
		c := x.start(ctx, "order-1", p.chargeOrLeave).wait(w)
		require.ErrorIs(w, c.err, context.DeadlineExceeded)
		_, err := x.Run(w.Context(), "order-1", p.charge)
		require.ErrorIs(w, err, idempotent.ErrInterrupted)
		assert.Equal(w, 1, p.count())
	})
}

// A value, and an error that is registered, count even if the caller's context has ended meanwhile.
func TestOutcomeAfterContextEnded(t *testing.T) {
	declined := errors.New("declined")
	for name, a := range map[string]answer{"value": {value: "charged"}, "error": {err: declined}} {
		t.Run(name, func(t *testing.T) {
			everywhere(t, func(w *world) {
				x := w.executor(idempotent.WithErrors(idempotent.NewErrorRegistry(idempotent.Sentinel("declined", declined))))
				p := w.provider()
				ctx, cancel := context.WithCancel(w.Context())
				first := x.start(ctx, "order-1", p.charge)
				<-p.started
				cancel()
				p.answer(a.value, a.err)
				first.wait(w)
				require.Equal(w, a.err, first.err)
				again := x.start(w.Context(), "order-1", p.charge).wait(w)
				assert.Equal(w, a.value, again.value)
				assert.Equal(w, a.err != nil, errors.Is(again.err, idempotent.ErrReplayed))
				assert.Equal(w, 1, p.count())
			})
		})
	}
}

// A timeout of fn's own, while its caller's context lives, is an error like any other.
func TestOwnTimeoutOfFnIsRecorded(t *testing.T) {
	everywhere(t, func(w *world) {
		x := w.executor()
		p := w.provider()
		p.answer("", context.DeadlineExceeded)
		c := x.start(w.Context(), "order-1", p.charge).wait(w)
		require.ErrorIs(w, c.err, context.DeadlineExceeded)
		again := x.start(w.Context(), "order-1", p.charge).wait(w)
		require.ErrorIs(w, again.err, idempotent.ErrReplayed)
		require.NotErrorIs(w, again.err, context.DeadlineExceeded, "it is not this caller's deadline")
		assert.Equal(w, 1, p.count())
	})
}

func TestDetached(t *testing.T) {
	everywhere(t, func(w *world) {
		x := w.executor(idempotent.WithDetached())
		p := w.provider()
		type key struct{}
		ctx, cancel := context.WithCancel(context.WithValue(w.Context(), key{}, "value"))
		seen := make(chan any, 1)
		first := x.start(ctx, "order-1", func(ctx context.Context) (string, error) {
			seen <- ctx.Value(key{})
			return p.chargeOrLeave(ctx)
		})
		<-p.started
		require.Equal(w, "value", <-seen)
		joined := x.start(w.Context(), "order-1", p.charge)
		x.Wait(w, idempotent.EventJoined, 1)
		cancel()
		require.ErrorIs(w, first.wait(w).err, context.Canceled)
		require.Zero(w, first.report)
		p.answer("charged", nil)
		joined.returned(w, "charged")
		w.executor().start(w.Context(), "order-1", p.charge).returned(w, "charged")
		assert.Equal(w, 1, p.count())
		x.start(w.Context(), "order-1", p.charge).returned(w, "charged")
	})
}

type panicking struct{ text string }

func runAndRecover(x *executor, ctx context.Context, fn func(context.Context) (string, error), opts ...idempotent.RunOption) (value any, stack string) {
	defer func() {
		value = recover()
		buf := make([]byte, 64<<10)
		stack = string(buf[:runtime.Stack(buf, false)])
	}()
	_, _ = x.Run(ctx, "order-1", fn, opts...)
	return nil, ""
}

//go:noinline
func blowUp(p *provider, value any) (string, error) {
	p.started <- struct{}{}
	<-p.answers
	panic(value)
}

func TestPanic(t *testing.T) {
	for name, opts := range map[string][]idempotent.Option{"attached": nil, "detached": {idempotent.WithDetached()}} {
		t.Run(name, func(t *testing.T) {
			everywhere(t, func(w *world) {
				owner, other := w.executor(opts...), w.executor()
				p := w.provider()
				original := &panicking{"out of cheese"}
				type recovered struct {
					value any
					stack string
				}
				first := make(chan recovered, 1)
				go func() {
					value, stack := runAndRecover(owner, w.Context(), func(context.Context) (string, error) { return blowUp(p, original) })
					first <- recovered{value, stack}
				}()
				<-p.started
				joined := owner.start(w.Context(), "order-1", p.charge)
				owner.Wait(w, idempotent.EventJoined, 1)
				waited := other.start(w.Context(), "order-1", p.charge)
				other.Wait(w, idempotent.EventWaitStarted, 1)
				p.answer("", nil)
				r := <-first
				require.Same(w, original, r.value, "the very value")
				if name == "attached" {
					require.Contains(w, r.stack, "blowUp", "the very stack")
				}
				executed := owner.Wait(w, idempotent.EventExecuted, 1)
				var seen *idempotent.PanicError
				require.ErrorAs(w, executed.Err, &seen)
				require.Contains(w, string(seen.Stack), "blowUp")
				later := w.executor().start(w.Context(), "order-1", p.charge)
				for _, c := range []*call{joined, waited, later} {
					c.wait(w)
					var replayed *idempotent.PanicError
					require.ErrorAs(w, c.err, &replayed)
					require.ErrorIs(w, c.err, idempotent.ErrReplayed)
					assert.Contains(w, c.err.Error(), "out of cheese")
					assert.Contains(w, string(replayed.Stack), "blowUp")
				}
				assert.Zero(w, p.count(), "nobody ran it again")
			})
		})
	}
}

func TestIgnoredPanicFreesTheKey(t *testing.T) {
	everywhere(t, func(w *world) {
		x := w.executor(idempotent.WithShouldIgnoreError(func(err error) bool {
			p, ok := errors.AsType[*idempotent.PanicError](err)
			return ok && p.Value == "again"
		}))
		p := w.provider()
		p.answer("", nil)
		value, _ := runAndRecover(x, w.Context(), func(context.Context) (string, error) { return blowUp(p, "again") })
		require.Equal(w, "again", value)
		p.answer("charged", nil)
		x.start(w.Context(), "order-1", p.charge).returned(w, "charged")
	})
}

func TestGoexitFreesTheKey(t *testing.T) {
	for name, opts := range map[string][]idempotent.Option{"attached": nil, "detached": {idempotent.WithDetached()}} {
		t.Run(name, func(t *testing.T) {
			everywhere(t, func(w *world) {
				x := w.executor(opts...)
				p := w.provider()
				exited := make(chan bool)
				go func() {
					returned := false
					defer func() { exited <- !returned }()
					_, _ = x.Run(w.Context(), "order-1", func(context.Context) (string, error) {
						p.started <- struct{}{}
						<-p.answers
						runtime.Goexit()
						return "", nil
					})
					returned = true
				}()
				<-p.started
				waiting := x.start(w.Context(), "order-1", p.charge)
				x.Wait(w, idempotent.EventJoined, 1)
				p.answer("", nil)
				require.True(w, <-exited, "the goroutine of the caller exits as well")
				p.answer("charged", nil)
				waiting.returned(w, "charged")
				assert.Equal(w, 1, p.last().Attempt)
			})
		})
	}
}

// A detached fn that panics after its caller left loses nothing and takes nothing down.
func TestDetachedPanicAfterTheCallerLeft(t *testing.T) {
	everywhere(t, func(w *world) {
		x := w.executor(idempotent.WithDetached())
		p := w.provider()
		ctx, cancel := context.WithCancel(w.Context())
		c := x.start(ctx, "order-1", func(context.Context) (string, error) { return blowUp(p, "late") })
		<-p.started
		cancel()
		require.ErrorIs(w, c.wait(w).err, context.Canceled)
		p.answer("", nil)
		x.Wait(w, idempotent.EventRecorded, 1)
		_, err := x.Run(w.Context(), "order-1", p.charge)
		var panicked *idempotent.PanicError
		require.ErrorAs(w, err, &panicked)
		require.ErrorContains(w, err, "late")
	})
}

// fn cannot say whether the customer was charged: nothing is recorded, and the next execution is
// told to ask.
func TestOutcomeUnknown(t *testing.T) {
	require.NoError(t, idempotent.OutcomeUnknown(nil))
	broken := errors.New("connection reset")
	everywhere(t, func(w *world) {
		for name, opts := range map[string][]idempotent.Option{
			"plain": nil, "goes before ignoring": {idempotent.WithShouldIgnoreError(func(error) bool { return true })},
		} {
			x := w.executor(opts...)
			p := w.provider()
			first := x.start(w.Context(), name, p.charge)
			<-p.started
			joined := x.start(w.Context(), name, p.charge)
			x.Wait(w, idempotent.EventJoined, 1)
			p.answer("", fmt.Errorf("charge: %w", idempotent.OutcomeUnknown(broken)))
			require.ErrorIs(w, first.wait(w).err, broken)
			require.Equal(w, "charge: connection reset", first.err.Error())
			p.answer("charged", nil)
			joined.returned(w, "charged")
			assert.Equal(w, 2, p.last().Attempt)
		}
		x := w.executor(idempotent.WithInterrupted(idempotent.Refuse))
		p := w.provider()
		p.answer("", idempotent.OutcomeUnknown(broken))
		require.ErrorIs(w, x.start(w.Context(), "refused", p.charge).wait(w).err, broken)
		require.ErrorIs(w, x.start(w.Context(), "refused", p.charge).wait(w).err, idempotent.ErrInterrupted)
	})
}

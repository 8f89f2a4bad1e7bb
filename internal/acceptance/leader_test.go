package acceptance

import (
	"context"
	"errors"
	"os"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
)

// A dropper does something instead of sending the first command of a name.
type dropper struct {
	name       string
	do         func()
	done       atomic.Bool
	inPipeline atomic.Bool // instead of the next pipeline that begins with it
}

func (*dropper) DialHook(next redis.DialHook) redis.DialHook { return next }

func (d *dropper) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if cmds[0].Name() == d.name && d.inPipeline.CompareAndSwap(true, false) {
			d.do()
		}
		return next(ctx, cmds)
	}
}

func (d *dropper) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if cmd.Name() == d.name && d.done.CompareAndSwap(false, true) {
			d.do()
		}
		return next(ctx, cmd)
	}
}

// A leader whose goroutine ends in another package's code, under a server that recovers say, leaves the
// key to others.
func TestLeaderEndsOutsideOfFn(t *testing.T) {
	fn := func(context.Context) (string, error) { return "v", nil }
	for name, do := range map[string]func(){"panics": func() { panic("in a hook") }, "exits": runtime.Goexit} {
		t.Run("a hook of the client "+name, func(t *testing.T) {
			inFakeTime(t, func(w *world) {
				x := w.executor()
				x.client.AddHook(&dropper{name: "set", do: do})
				endsLeader(w, x, fn)
			})
		})
	}
	for _, kind := range []idempotent.EventKind{idempotent.EventClaimed, idempotent.EventWaitStarted, idempotent.EventWaitEnded} {
		t.Run("the observer exits when "+kind.String(), func(t *testing.T) {
			inFakeTime(t, func(w *world) {
				var exited atomic.Bool
				x := w.executor(idempotent.WithObserver(idempotent.ObserverFunc(func(_ context.Context, e idempotent.Event) {
					if e.Kind == kind && exited.CompareAndSwap(false, true) {
						runtime.Goexit()
					}
				})))
				if kind != idempotent.EventClaimed { // there is an owner to wait for
					go w.executor().Run(w.Context(), "k", func(context.Context) (string, error) {
						time.Sleep(time.Second)
						return "v", nil
					})
					w.settled()
				}
				endsLeader(w, x, fn)
			})
		})
	}
}

func endsLeader(w *world, x *executor, fn func(context.Context) (string, error)) {
	w.Helper()
	over := make(chan struct{})
	go func() {
		defer close(over)
		defer func() { _ = recover() }()
		_, _ = x.Run(w.Context(), "k", fn)
	}()
	<-over
	next := x.start(w.Context(), "k", fn)
	next.returned(w, "v")
	assert.Zero(w, x.Count(idempotent.EventLeaseLost))
	if next.report.Source == idempotent.Executed {
		assert.Equal(w, 1, next.report.Attempt, "nothing ran before")
	}
}

// neverClaims answers no claim before the client gives up.
type neverClaims struct {
	refuse
	on atomic.Bool
}

func (h *neverClaims) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if h.on.Load() && cmd.Name() == "set" {
			time.Sleep(12 * time.Second) // four attempts of 3 s
			cmd.SetErr(os.ErrDeadlineExceeded)
			return os.ErrDeadlineExceeded
		}
		return next(ctx, cmd)
	}
}

// A follower that comes to lead while Redis hangs still leaves when its context or its wait timeout ends.
func TestElectedWhileRedisHangs(t *testing.T) {
	const patience = 2 * time.Second
	for name, limit := range map[string]func(context.Context) (context.Context, context.CancelFunc, []idempotent.RunOption){
		"context": func(ctx context.Context) (context.Context, context.CancelFunc, []idempotent.RunOption) {
			ctx, cancel := context.WithTimeout(ctx, patience)
			return ctx, cancel, nil
		},
		"wait timeout": func(ctx context.Context) (context.Context, context.CancelFunc, []idempotent.RunOption) {
			return ctx, func() {}, []idempotent.RunOption{idempotent.WithWaitTimeout(patience)}
		},
	} {
		t.Run(name, func(t *testing.T) {
			inFakeTime(t, func(w *world) {
				x := w.executor(idempotent.WithShouldIgnoreError(func(error) bool { return true }))
				server := &neverClaims{}
				x.client.AddHook(server)
				p := w.provider()
				first := x.start(w.Context(), "k", p.charge)
				<-p.started
				ctx, cancel, opts := limit(w.Context())
				defer cancel()
				began := time.Now()
				second := x.start(ctx, "k", p.charge, opts...)
				time.Sleep(patience / 2)
				server.on.Store(true)
				p.answer("", errors.New("busy"))
				first.wait(w)
				second.wait(w)
				require.Error(w, second.err)
				assert.Equal(w, patience, time.Since(began))
				assert.Equal(w, 1, p.count())
			})
		})
	}
}

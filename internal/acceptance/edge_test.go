package acceptance

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/internal/redistest"
)

// afterwards changes what the client makes of a command that the server has executed.
type afterwards struct {
	refuse
	change func(cmd redis.Cmder) error
}

func (a afterwards) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		if err != nil && !errors.Is(err, redis.Nil) {
			return err
		}
		if changed := a.change(cmd); changed != nil {
			cmd.SetErr(changed)
			return changed
		}
		return err
	}
}

// serverError is an error that Redis itself answers.
type serverError string

func (e serverError) Error() string { return string(e) }
func (serverError) RedisError()     {}

func isTakeOver(cmd redis.Cmder) bool {
	return (cmd.Name() == "evalsha" || cmd.Name() == "eval") && len(cmd.Args()) == 12
}

// The server executes a take-over, its reply is lost, and the repetitions by go-redis are
// answered with an error. The waiter must not think later that its claim is fresh.
func TestTakeOverOfUnknownFate(t *testing.T) {
	everywhere(t, func(w *world) {
		dead, other, third := w.executor(), w.executor(), w.executor()
		failed := false
		other.client.AddHook(afterwards{change: func(cmd redis.Cmder) error {
			if failed || !isTakeOver(cmd) {
				return nil
			}
			failed = true
			return serverError("LOADING Redis is loading the dataset in memory")
		}})
		p, q := w.provider(), w.provider()
		first := dead.start(w.Context(), "order-1", p.charge)
		<-p.started
		waiting := other.start(w.Context(), "order-1", q.charge)
		other.waits(w)
		dead.wire.sever()
		<-q.started
		assert.True(w, failed)
		assert.Equal(w, 2, q.last().Attempt, "fn never began under the take-over whose reply was lost")
		s, err := third.Peek(w.Context(), "order-1")
		require.NoError(w, err)
		assert.Equal(w, idempotent.StateRunning, s.State)
		assert.Greater(w, s.LeaseLeft, w.lease/2)
		q.answer("charged", nil)
		waiting.returned(w, "charged")
		dead.wire.mend()
		p.answer("charged", nil)
		first.wait(w)
		assert.Equal(w, 1, q.count())
	})
}

// What an earlier attempt did stays unknown, however often later ones end without an outcome.
func TestAttemptNumberOutlivesIgnoredErrors(t *testing.T) {
	for name, policy := range map[string]idempotent.IgnoredPolicy{"next waiter runs": idempotent.NextWaiterRuns, "shared": idempotent.ShareWithWaiters} {
		t.Run(name, func(t *testing.T) {
			everywhere(t, func(w *world) {
				x := w.executor(idempotent.WithShouldIgnoreError(idempotent.IsRetryable), idempotent.WithIgnoredErrors(policy))
				p := w.provider()
				ctx, cancel := context.WithCancel(w.Context())
				cut := x.start(ctx, "order-1", p.chargeOrLeave)
				<-p.started
				cancel()
				require.ErrorIs(w, cut.wait(w).err, context.Canceled)
				p.answer("", errBusy)
				require.Same(w, errBusy, x.start(w.Context(), "order-1", p.charge).wait(w).err)
				assert.Equal(w, 2, p.last().Attempt)
				p.answer("charged", nil)
				x.start(w.Context(), "order-1", p.charge).returned(w, "charged")
				assert.Equal(w, 3, p.last().Attempt)
			})
		})
	}
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

// The caller's context ends while the claim is under way: fn does not begin, and the key is free.
func TestContextEndsClaim(t *testing.T) {
	everywhere(t, func(w *world) {
		x, other := w.executor(idempotent.WithInterrupted(idempotent.Refuse)), w.executor()
		p := w.provider()
		ctx, cancel := context.WithCancel(w.Context())
		x.client.AddHook(afterwards{change: func(cmd redis.Cmder) error {
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

// fn succeeded and its value cannot be encoded: neither callers that joined nor later ones run it again.
func TestValueThatCannotBeEncoded(t *testing.T) {
	everywhere(t, func(w *world) {
		x, err := idempotent.New[chan int](w.client(nil), w.namespace, idempotent.WithLease(w.lease), idempotent.WithUncheckedType())
		require.NoError(w, err)
		defer x.Close()
		gate, runs := make(chan struct{}), make(chan int, 100)
		made := make(chan int, 1)
		fn := func(ctx context.Context) (chan int, error) {
			info, _ := idempotent.RunInfoFromContext(ctx)
			runs <- info.Attempt
			<-gate
			return made, nil
		}
		type outcome struct {
			value chan int
			err   error
		}
		outcomes := make(chan outcome)
		for range 10 {
			go func() {
				v, err := x.Run(w.Context(), "order-1", fn)
				outcomes <- outcome{v, err}
			}()
		}
		require.Equal(w, 1, <-runs)
		w.settled()
		close(gate)
		values := 0
		for range 10 {
			if o := <-outcomes; o.value != nil {
				require.ErrorIs(w, o.err, idempotent.ErrNotRecorded)
				values++
			} else {
				require.ErrorIs(w, o.err, idempotent.ErrValueNotKept)
			}
		}
		assert.Equal(w, 1, values, "the caller that ran fn has the value")
		_, err = x.Run(w.Context(), "order-1", fn)
		require.ErrorIs(w, err, idempotent.ErrValueNotKept)
		assert.Empty(w, runs)
	})
}

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

// A claim is executed and its reply lost, and Redis is full when go-redis repeats it. The caller
// must neither wait for itself nor take itself over.
func TestClaimOfUnknownFateOnAFullRedis(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "--maxmemory-policy", "noeviction")
	onRealRedisAt(t, server.URL(), func(w *world) {
		admin := server.Client(w)
		x, other := w.executor(), w.executor()
		warm := w.provider()
		warm.answer("warm", nil)
		x.start(w.Context(), "warm", warm.charge).returned(w, "warm")

		p := w.provider()
		x.wire.onLost = func() { assert.NoError(w, admin.ConfigSet(context.Background(), "maxmemory", "1").Err()) }
		x.wire.loseReplyTo("px")
		c := x.start(w.Context(), "order-1", p.charge).wait(w)
		require.Equal(w, 1, x.wire.repliesLost())
		require.ErrorIs(w, c.err, idempotent.ErrUnavailable)
		require.Zero(w, p.count())
		require.NoError(w, admin.ConfigSet(w.Context(), "maxmemory", "0").Err())
		p.answer("charged", nil)
		other.start(w.Context(), "order-1", p.charge).returned(w, "charged")
		assert.Equal(w, 1, p.last().Attempt)
	})
}

// An execution with a fingerprint was interrupted, and a caller without one takes over without
// ever knowing it: the fingerprint stays.
func TestFingerprintOutlivesATakeOverOfUnknownFate(t *testing.T) {
	everywhere(t, func(w *world) {
		x, other, third := w.executor(), w.executor(), w.executor()
		p := w.provider()
		p.answer("", idempotent.OutcomeUnknown(errors.New("connection reset")))
		x.start(w.Context(), "order-1", p.charge, idempotent.WithFingerprint([]byte("10"))).wait(w)
		other.client.AddHook(afterwards{change: func(cmd redis.Cmder) error {
			if isTakeOver(cmd) {
				return serverError("LOADING Redis is loading the dataset in memory")
			}
			return nil
		}})
		_, err := other.Run(w.Context(), "order-1", p.charge, idempotent.WithNoWait())
		require.ErrorIs(w, err, idempotent.ErrUnavailable)
		_, err = third.Run(w.Context(), "order-1", p.charge, idempotent.WithFingerprint([]byte("20")))
		require.ErrorIs(w, err, idempotent.ErrKeyReused)
		_, err = third.Get(w.Context(), "order-1", idempotent.WithFingerprint([]byte("20")))
		require.ErrorIs(w, err, idempotent.ErrKeyReused)
		assert.Equal(w, 1, p.count())
	})
}

// A driver may report the end of fn's context as a timeout of its connection.
func TestContextEndsFnThatReportsATimeout(t *testing.T) {
	everywhere(t, func(w *world) {
		x := w.executor()
		p := w.provider()
		ctx, cancel := context.WithTimeout(w.Context(), 50*time.Millisecond)
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

// claims collects the tokens that claims are sent with.
type claims struct {
	mu     sync.Mutex
	tokens []string
}

func (*claims) DialHook(next redis.DialHook) redis.DialHook { return next }

func (c *claims) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if cmd.Name() == "set" {
			c.mu.Lock()
			c.tokens = append(c.tokens, string(cmd.Args()[2].([]byte)[2:18]))
			c.mu.Unlock()
		}
		return next(ctx, cmd)
	}
}

func (*claims) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// The client may have sent the first claim twice, and one of the two may still be under way.
func TestEachClaimHasItsOwnToken(t *testing.T) {
	everywhere(t, func(w *world) {
		owner, other := w.executor(idempotent.WithShouldIgnoreError(idempotent.IsRetryable)), w.executor()
		c := &claims{}
		other.client.AddHook(c)
		p := w.provider()
		first := owner.start(w.Context(), "order-1", p.charge)
		<-p.started
		second := other.start(w.Context(), "order-1", p.charge)
		other.waits(w)
		p.answer("", idempotent.Retryable(errors.New("busy")))
		first.wait(w)
		p.answer("charged", nil)
		second.returned(w, "charged")
		require.Len(w, c.tokens, 2)
		assert.NotEqual(w, c.tokens[0], c.tokens[1])
	})
}

// An observer that takes its time, or ends its goroutine, harms no other caller.
func TestObserverHoldsUpItsOwnCallerAlone(t *testing.T) {
	type busy struct{}
	errAgain := errors.New("again")
	for name, first := range map[string]error{"outcome": nil, "lead": errAgain} {
		blocks := map[string]func(over chan struct{}){name + ", exits": func(chan struct{}) { runtime.Goexit() }}
		if first == nil { // an elected caller leads when its own observer returns
			blocks[name+", slow"] = func(over chan struct{}) { <-over }
		}
		for name, block := range blocks {
			t.Run(name, func(t *testing.T) {
				inFakeTime(t, func(w *world) {
					over := make(chan struct{})
					x := w.executor(
						idempotent.WithShouldIgnoreError(func(err error) bool { return errors.Is(err, errAgain) }),
						idempotent.WithObserver(idempotent.ObserverFunc(func(ctx context.Context, e idempotent.Event) {
							if e.Kind == idempotent.EventJoined && ctx.Value(busy{}) != nil {
								block(over)
							}
						})))
					begun, finish := make(chan struct{}), make(chan struct{})
					go x.Run(w.Context(), "k", func(context.Context) (string, error) {
						close(begun)
						<-finish
						return "", first
					})
					<-begun
					fn := func(context.Context) (string, error) { return "", nil }
					go x.Run(context.WithValue(w.Context(), busy{}, true), "k", fn)
					w.settled()
					done := make(chan error, 1)
					go func() {
						_, err := x.Run(w.Context(), "k", fn)
						done <- err
					}()
					w.settled()
					close(finish)
					w.settled()
					select {
					case err := <-done:
						assert.NoError(w, err)
					default:
						w.Error("a caller waits for another one's observer")
					}
					close(over)
				})
			})
		}
	}
}

// A follower whose patience ends before it gets to waiting is told so, too.
func TestObserverOutlastsTheWait(t *testing.T) {
	inFakeTime(t, func(w *world) {
		x := w.executor(idempotent.WithObserver(idempotent.ObserverFunc(func(_ context.Context, e idempotent.Event) {
			if e.Kind == idempotent.EventJoined {
				time.Sleep(2 * time.Second)
			}
		})))
		begun, finish := make(chan struct{}), make(chan struct{})
		go x.Run(w.Context(), "k", func(context.Context) (string, error) {
			close(begun)
			<-finish
			return "", nil
		})
		<-begun
		began := time.Now()
		_, err := x.Run(w.Context(), "k", func(context.Context) (string, error) { return "", nil }, idempotent.WithWaitTimeout(time.Second))
		assert.ErrorIs(w, err, idempotent.ErrInProgress)
		assert.Equal(w, 2*time.Second, time.Since(began))
		close(finish)
	})
}

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

// A leader whose goroutine ends in somebody else's code, under a server that recovers say, leaves the
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
				if kind != idempotent.EventClaimed { // there is somebody to wait for
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

// A hook of the client that panics is an error of the command, of which nobody knows whether it was
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
	for name, do := range map[string]func(){"while somebody waits": panics, "while somebody waits, and exits": runtime.Goexit} {
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

// fn's outcome is there for others although the caller's own goroutine ended on the way.
func TestObserverExitsAfterFn(t *testing.T) {
	inFakeTime(t, func(w *world) {
		x := w.executor(idempotent.WithObserver(idempotent.ObserverFunc(func(_ context.Context, e idempotent.Event) {
			if e.Kind == idempotent.EventExecuted {
				runtime.Goexit()
			}
		})))
		over := make(chan struct{})
		go func() {
			defer close(over)
			_, _ = x.Run(w.Context(), "k", func(context.Context) (string, error) { return "charged", nil })
		}()
		<-over
		p := w.provider()
		w.executor().start(w.Context(), "k", p.charge).returned(w, "charged")
		assert.Zero(w, p.count())
	})
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

// A follower that comes to lead while Redis hangs still leaves when it has enough.
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

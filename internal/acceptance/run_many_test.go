package acceptance

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
)

func numbered(n int, fn func(i int) (string, error)) []idempotent.BatchCall[string] {
	calls := make([]idempotent.BatchCall[string], n)
	for i := range calls {
		calls[i] = idempotent.BatchCall[string]{
			Key: strconv.Itoa(i),
			Fn:  func(context.Context) (string, error) { return fn(i) },
		}
	}
	return calls
}

func TestRunMany(t *testing.T) {
	everywhere(t, func(w *world) {
		x, other := w.executor(), w.executor()
		const n = 300
		var ran atomic.Int64
		calls := numbered(n, func(i int) (string, error) {
			ran.Add(1)
			if i%3 == 0 {
				return "", fmt.Errorf("declined %d", i)
			}
			return strconv.Itoa(i), nil
		})
		for _, x := range []*executor{x, x, other} {
			for i, out := range x.RunMany(w.Context(), calls) {
				if i%3 == 0 {
					assert.ErrorContains(w, out.Err, fmt.Sprintf("declined %d", i))
					continue
				}
				assert.NoError(w, out.Err)
				assert.Equal(w, strconv.Itoa(i), out.Value)
			}
		}
		assert.EqualValues(w, n, ran.Load())
		assert.Empty(w, x.RunMany(w.Context(), nil))
	})
}

// sends counts what goes out alone and what in pipelines, and holds pipelines back.
type sends struct {
	alone, pipelines, together atomic.Int64
	gate                       atomic.Pointer[chan struct{}]
}

// ours tells the executor's commands from those that set up a connection.
func ours(cmd redis.Cmder) bool { return cmd.Name() == "set" || cmd.Name() == "evalsha" }

// hold keeps pipelines from going on until the function it returns is called.
func (s *sends) hold() (release func()) {
	gate := make(chan struct{})
	s.gate.Store(&gate)
	return func() { close(gate) }
}

func (*sends) DialHook(next redis.DialHook) redis.DialHook { return next }

func (s *sends) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if ours(cmd) {
			s.alone.Add(1)
		}
		return next(ctx, cmd)
	}
}

func (s *sends) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if ours(cmds[0]) {
			s.pipelines.Add(1)
			s.together.Add(int64(len(cmds)))
			<-*s.gate.Load()
		}
		return next(ctx, cmds)
	}
}

func TestRunManySendsPipelines(t *testing.T) {
	inFakeTime(t, func(w *world) {
		x := w.executor()
		_, err := x.Run(w.Context(), "loads the script", func(context.Context) (string, error) { return "", nil })
		require.NoError(w, err)
		s := &sends{}
		release := s.hold()
		x.client.AddHook(s)
		const n = 100
		begun := make(chan struct{}, n)
		finish := make(chan struct{})
		done := make(chan []idempotent.BatchResult[string])
		go func() {
			done <- x.RunMany(w.Context(), numbered(n, func(int) (string, error) {
				begun <- struct{}{}
				<-finish
				return "done", nil
			}))
		}()
		w.settled() // a pipeline is held, and all claims that are not in it wait for it
		release()
		for range n {
			<-begun
		}
		assert.LessOrEqual(w, s.pipelines.Load(), int64(3), "claims")
		release = s.hold()
		close(finish)
		w.settled()
		release()
		for _, out := range <-done {
			assert.Equal(w, idempotent.BatchResult[string]{Value: "done"}, out)
		}
		assert.LessOrEqual(w, s.pipelines.Load(), int64(6), "with the commits")
		// Two of the commits find out that this server has no SET with IFEQ, and go again by script.
		assert.InDelta(w, 2*n+1, s.together.Load(), 1)
		assert.Zero(w, s.alone.Load())
	})
}

func TestRunManyOneHarmsNoOther(t *testing.T) {
	everywhere(t, func(w *world) {
		x := w.executor()
		fine := func(context.Context) (string, error) { return "fine", nil }
		boom := errors.New("boom")
		var report idempotent.Report
		outcomes := x.RunMany(w.Context(), []idempotent.BatchCall[string]{
			{Key: "panics", Fn: func(context.Context) (string, error) { panic(boom) }},
			{Key: "exits", Fn: func(context.Context) (string, error) { runtime.Goexit(); return "", nil }},
			{Key: "", Fn: fine},
			{Key: "no fn"},
			{Key: "bad option", Fn: fine, Options: []idempotent.RunOption{idempotent.WithTTL(-1)}},
			{Key: "fine", Fn: fine, Options: []idempotent.RunOption{idempotent.WithReport(&report)}},
		})
		panicked, ok := errors.AsType[*idempotent.PanicError](outcomes[0].Err)
		require.True(w, ok)
		assert.Equal(w, boom, panicked.Value)
		assert.Contains(w, string(panicked.Stack), "TestRunManyOneHarmsNoOther")
		assert.ErrorContains(w, outcomes[1].Err, "fn exited its goroutine")
		assert.ErrorIs(w, outcomes[2].Err, idempotent.ErrInvalidKey)
		assert.ErrorIs(w, outcomes[3].Err, idempotent.ErrInvalidOption)
		assert.ErrorIs(w, outcomes[4].Err, idempotent.ErrInvalidOption)
		assert.Equal(w, idempotent.BatchResult[string]{Value: "fine"}, outcomes[5])
		assert.Equal(w, idempotent.Executed, report.Source)

		_, err := x.Run(w.Context(), "panics", fine)
		assert.ErrorIs(w, err, idempotent.ErrReplayed, "the panic is recorded")
		value, err := x.Run(w.Context(), "exits", fine)
		assert.NoError(w, err, "the key is free again")
		assert.Equal(w, "fine", value)

		var none context.Context
		for _, out := range x.RunMany(none, numbered(2, nil)) {
			assert.ErrorIs(w, out.Err, idempotent.ErrInvalidOption)
		}
	})
}

// Calls wait for other processes, and for each other.
func TestRunManyWaits(t *testing.T) {
	everywhere(t, func(w *world) {
		owner, x := w.executor(), w.executor()
		p := w.provider()
		elsewhere := owner.start(w.Context(), "elsewhere", p.charge)
		<-p.started
		done := make(chan []idempotent.BatchResult[string])
		go func() {
			done <- x.RunMany(w.Context(), []idempotent.BatchCall[string]{
				{Key: "elsewhere", Fn: p.charge},
				{Key: "twice", Fn: p.charge},
				{Key: "twice", Fn: p.charge},
			})
		}()
		<-p.started
		x.waits(w)
		p.answer("charged", nil)
		p.answer("charged", nil)
		elsewhere.returned(w, "charged")
		for _, out := range <-done {
			assert.Equal(w, idempotent.BatchResult[string]{Value: "charged"}, out)
		}
		assert.Equal(w, 2, p.count())
	})
}

// A detached fn outlives RunMany, and its outcome is recorded.
func TestRunManyLeavesDetached(t *testing.T) {
	everywhere(t, func(w *world) {
		x := w.executor()
		p := w.provider()
		ctx, cancel := context.WithCancel(w.Context())
		done := make(chan []idempotent.BatchResult[string])
		go func() {
			done <- x.RunMany(ctx, []idempotent.BatchCall[string]{{
				Key: "order", Fn: p.charge, Options: []idempotent.RunOption{idempotent.WithDetached()},
			}})
		}()
		<-p.started
		cancel()
		assert.ErrorIs(w, (<-done)[0].Err, context.Canceled)
		p.answer("charged", nil)
		x.Wait(w, idempotent.EventRecorded, 1)
		x.start(w.Context(), "order", p.charge).returned(w, "charged")
	})
}

func TestRunManyOutlastsAnOutage(t *testing.T) {
	everywhere(t, func(w *world) {
		x := w.executor()
		p := w.provider()
		done := make(chan []idempotent.BatchResult[string])
		go func() {
			done <- x.RunMany(w.Context(), []idempotent.BatchCall[string]{{Key: "a", Fn: p.charge}, {Key: "b", Fn: p.charge}})
		}()
		<-p.started
		<-p.started
		x.wire.sever()
		p.answer("charged", nil)
		p.answer("charged", nil)
		x.Wait(w, idempotent.EventCommitRetried, 2)
		x.wire.mend()
		for _, out := range <-done {
			assert.Equal(w, idempotent.BatchResult[string]{Value: "charged"}, out)
		}
		assert.Less(w, x.Count(idempotent.EventCommitFailed), 1)
	})
}

func TestRunManyAfterClose(t *testing.T) {
	inFakeTime(t, func(w *world) {
		x := w.executor()
		require.NoError(w, x.Close())
		for _, out := range x.RunMany(w.Context(), numbered(2, func(int) (string, error) { return "", nil })) {
			assert.ErrorIs(w, out.Err, idempotent.ErrClosed)
		}
	})
}

// Detached fns go on when their callers have left, and so do their commits, while RunMany returns.
func TestDetachedOutliveRunMany(t *testing.T) {
	onRealRedis(t, func(w *world) {
		x := w.executor()
		for round := range 100 {
			ctx, cancel := context.WithCancel(w.Context())
			calls := numbered(20, func(i int) (string, error) {
				if i == 5 {
					cancel()
				}
				if i > 5 { // these end after their callers have left
					<-ctx.Done()
				}
				return "", nil
			})
			for i := range calls {
				calls[i].Key = fmt.Sprint(round, " ", i)
				calls[i].Options = []idempotent.RunOption{idempotent.WithDetached()}
			}
			x.RunMany(ctx, calls)
			cancel()
		}
		require.NoError(w, x.Close()) // when the last of them is recorded
		assert.Positive(w, x.Count(idempotent.EventExecuted))
		assert.Equal(w, x.Count(idempotent.EventExecuted), x.Count(idempotent.EventRecorded))
	})
}

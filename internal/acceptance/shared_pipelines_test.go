package acceptance

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
)

// traffic is a hook that holds claims back, alone and in pipelines, and counts them.
type traffic struct {
	mu        sync.Mutex
	alone     int
	pipelines []int // how many claims are in each
	goOn      chan struct{}
	stuck     chan struct{} // the first pipelines wait for this instead
	nStuck    int
	before    func() // called in the hook, for each pipeline
}

func (*traffic) DialHook(next redis.DialHook) redis.DialHook { return next }

func (tr *traffic) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if cmd.Name() == "set" {
			tr.mu.Lock()
			tr.alone++
			tr.mu.Unlock()
			<-tr.goOn
		}
		return next(ctx, cmd)
	}
}

func (tr *traffic) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		claims := 0
		for _, cmd := range cmds {
			if cmd.Name() == "set" {
				claims++
			}
		}
		if claims > 0 {
			if tr.before != nil {
				tr.before()
			}
			<-tr.gateOf(claims)
		}
		return next(ctx, cmds)
	}
}

func (tr *traffic) gateOf(size int) chan struct{} {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.pipelines = append(tr.pipelines, size)
	if len(tr.pipelines) <= tr.nStuck {
		return tr.stuck
	}
	return tr.goOn
}

// pooled is a client that says how many connections it has. It may have more: go-redis shares the
// timers of those who wait for one with all clients, which fake time does not allow.
type pooled struct {
	*redis.Client
	connections int
}

func (c pooled) Options() *redis.Options {
	options := *c.Client.Options()
	options.PoolSize = c.connections
	return &options
}

// crowded is an executor on a client with few connections, whose claims go through traffic.
func (w *world) crowded(connections int, tr *traffic) *executor {
	w.Helper()
	tr.goOn, tr.stuck = make(chan struct{}), make(chan struct{})
	w.options.PoolSize = 100
	client := w.client(nil)
	client.AddHook(tr)
	return w.executorOn(pooled{client, connections})
}

// sent returns how many claims went alone, and in each pipeline.
func (tr *traffic) sent() (alone int, pipelines []int) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return tr.alone, slices.Clone(tr.pipelines)
}

// callMany starts n calls, each of a key of its own, one after the other.
func (x *executor) callMany(w *world, first, n int) []*call {
	calls := make([]*call, n)
	for i := range calls {
		key := fmt.Sprint("key ", first+i)
		calls[i] = x.start(w.Context(), key, func(context.Context) (string, error) { return key, nil })
		synctest.Wait()
	}
	return calls
}

func returnedAll(t testing.TB, first int, calls []*call) {
	t.Helper()
	for i, c := range calls {
		c.returned(t, fmt.Sprint("key ", first+i))
	}
}

// While there are connections, each command has one of its own. What is more shares pipelines.
func TestCommandsShareWhatConnectionsAreFew(t *testing.T) {
	inFakeTime(t, func(w *world) {
		tr := &traffic{}
		x := w.crowded(4, tr)
		alone := x.callMany(w, 0, 4)
		n, pipelines := tr.sent()
		assert.Equal(w, 4, n)
		assert.Empty(w, pipelines)
		together := x.callMany(w, 4, 20)
		n, pipelines = tr.sent()
		assert.Equal(w, 4, n)
		assert.Equal(w, []int{1}, pipelines, "the first one goes at once, the others wait for it")
		close(tr.goOn)
		returnedAll(w, 0, alone)
		returnedAll(w, 4, together)
		_, pipelines = tr.sent()
		assert.Equal(w, []int{1, 19}, pipelines)
		later := x.callMany(w, 24, 1)
		returnedAll(w, 24, later)
		n, _ = tr.sent()
		assert.Equal(w, 5, n, "the crowd is gone")
	})
}

// A pipeline can be on a connection that is dead, until a timeout.
func TestLatePipelineHoldsUpNoOther(t *testing.T) {
	inFakeTime(t, func(w *world) {
		tr := &traffic{nStuck: 2}
		x := w.crowded(1, tr)
		x.callMany(w, 0, 1) // alone
		held := x.callMany(w, 1, 2)
		_, pipelines := tr.sent()
		assert.Equal(w, []int{1}, pipelines)
		time.Sleep(10 * time.Millisecond)
		synctest.Wait()
		_, pipelines = tr.sent()
		assert.Equal(w, []int{1, 1}, pipelines, "the second one is held as well")
		close(tr.goOn)
		began := time.Now()
		returnedAll(w, 10, x.callMany(w, 10, 5))
		assert.Less(w, time.Since(began), time.Second)
		close(tr.stuck)
		returnedAll(w, 1, held)
	})
}

func TestPipelinesUnderWayAreBounded(t *testing.T) {
	inFakeTime(t, func(w *world) {
		tr := &traffic{}
		x := w.crowded(1, tr)
		var calls []*call
		for i := range 20 {
			calls = append(calls, x.callMany(w, i, 1)...)
			time.Sleep(10 * time.Millisecond)
		}
		_, pipelines := tr.sent()
		assert.Len(w, pipelines, 8)
		close(tr.goOn)
		returnedAll(w, 0, calls)
	})
}

// Those that stay in the queue are sent without those that left it.
func TestQueuedCallersLeaveOthersBehind(t *testing.T) {
	inFakeTime(t, func(w *world) {
		tr := &traffic{}
		x := w.crowded(1, tr)
		held := x.callMany(w, 0, 2) // one alone, one in a pipeline
		staying := x.callMany(w, 10, 5)
		ctx, cancel := context.WithCancel(w.Context())
		fn := func(context.Context) (string, error) { return "", nil }
		leaving := []*call{x.start(ctx, "leaving", fn), x.start(ctx, "leaving too", fn)}
		synctest.Wait()
		cancel()
		for _, c := range leaving {
			assert.ErrorIs(w, c.wait(w).err, context.Canceled)
		}
		staying = append(staying, x.callMany(w, 20, 3)...)
		close(tr.goOn)
		returnedAll(w, 0, held)
		for i, c := range staying {
			assert.NoError(w, c.wait(w).err, i)
		}
		for _, key := range []string{"leaving", "leaving too"} {
			status, err := x.Peek(w.Context(), key)
			require.NoError(w, err)
			assert.Equal(w, idempotent.StateAbsent, status.State)
		}
	})
}

// A caller that leaves takes its command along while that is queued: a claim that is sent after its
// release would keep the key.
func TestQueuedCallerLeavesAtOnce(t *testing.T) {
	inFakeTime(t, func(w *world) {
		tr := &traffic{}
		x := w.crowded(1, tr)
		held := x.callMany(w, 0, 2) // one alone, one in a pipeline
		ctx, cancel := context.WithCancel(w.Context())
		queued := x.start(ctx, "queued", func(context.Context) (string, error) { return "", nil })
		synctest.Wait()
		cancel()
		synctest.Wait()
		assert.ErrorIs(w, queued.wait(w).err, context.Canceled)
		close(tr.goOn)
		returnedAll(w, 0, held)
		_, pipelines := tr.sent()
		assert.Equal(w, []int{1}, pipelines)
		status, err := x.Peek(w.Context(), "queued")
		require.NoError(w, err)
		assert.Equal(w, idempotent.StateAbsent, status.State)
	})
}

// A hook of the client that fails a pipeline fails its callers, and nobody else.
func TestHookThatEndsAPipeline(t *testing.T) {
	for name, end := range map[string]func(){
		"panics": func() { panic("in a hook") },
		"exits":  runtime.Goexit,
	} {
		t.Run(name, func(t *testing.T) {
			inFakeTime(t, func(w *world) {
				tr := &traffic{}
				x := w.crowded(1, tr)
				alone := x.callMany(w, 0, 1)
				tr.before = end
				failed := x.callMany(w, 1, 3)
				tr.before = nil
				for _, c := range failed {
					assert.ErrorIs(w, c.wait(w).err, idempotent.ErrUnavailable)
					assert.ErrorContains(w, c.err, "hook")
				}
				close(tr.goOn)
				returnedAll(w, 0, alone)
				returnedAll(w, 1, x.callMany(w, 1, 3))
			})
		})
	}
}

// Clients whose commands end with their contexts, and those that speak to several servers, send each
// command alone.
func TestClientsThatShareNoPipelines(t *testing.T) {
	inFakeTime(t, func(w *world) {
		w.options.ContextTimeoutEnabled = true
		tr := &traffic{}
		x := w.crowded(1, tr)
		calls := x.callMany(w, 0, 5)
		n, pipelines := tr.sent()
		assert.Equal(w, 5, n)
		assert.Empty(w, pipelines)
		close(tr.goOn)
		returnedAll(w, 0, calls)
	})
}

// Hundreds at once, through two connections: first runs, replays, errors and large values.
func TestCrowdOnFewConnections(t *testing.T) {
	onRealRedis(t, func(w *world) {
		w.options.PoolSize = 2
		x, other := w.executor(), w.executor()
		const n = 400
		run := func(x *executor, i int) (string, error) {
			return x.Run(w.Context(), fmt.Sprint(i), func(context.Context) (string, error) {
				switch {
				case i%7 == 0:
					return "", fmt.Errorf("declined %d", i)
				case i%50 == 1:
					return strings.Repeat(fmt.Sprint(i, " "), 100_000), nil
				}
				return fmt.Sprint(i, " "), nil
			})
		}
		for range 3 {
			var all sync.WaitGroup
			for i := range 2 * n {
				all.Go(func() {
					x, i := []*executor{x, other}[i%2], i/2
					value, err := run(x, i)
					if i%7 == 0 {
						assert.EqualError(w, err, fmt.Sprintf("declined %d", i))
						return
					}
					assert.NoError(w, err)
					assert.Contains(w, []int{1, 100_000}, strings.Count(value, fmt.Sprint(i, " ")))
				})
			}
			all.Wait()
		}
		require.Equal(w, n, x.Count(idempotent.EventExecuted)+other.Count(idempotent.EventExecuted))
	})
}

package acceptance

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/internal/behaviour"
	"github.com/idempotent-go/idempotent/internal/redistest"
)

// few is a pool so small that what is under way at once shares pipelines.
const few = 2

// A sharing counts the claims and commits that travel in pipelines, and can interfere with these.
type sharing struct {
	refuse
	claims, commits atomic.Int64
	broken          chan struct{}         // one token for each pipeline that failed, if there is room
	begun           chan struct{}         // one for each pipeline that begins, if there is room
	closed          atomic.Pointer[error] // in the place of each pipeline, if set
}

func newSharing() *sharing {
	return &sharing{broken: make(chan struct{}, 1000), begun: make(chan struct{}, 1)}
}

// offer puts a token into a channel if there is room.
func offer(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// commits tells a commit from a renewal, which publishes nothing, and from a release, which publishes
// before it names a record and its TTL.
func commits(cmd redis.Cmder) bool {
	return cmd.Name() == "evalsha" && slices.Index(cmd.Args(), any("PUBLISH")) == 6
}

func (s *sharing) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if !s.counted(cmds) {
			return next(ctx, cmds)
		}
		offer(s.begun)
		err := s.send(func() error { return next(ctx, cmds) })
		if err != nil {
			offer(s.broken)
		}
		return err
	}
}

func (s *sharing) send(next func() error) error {
	if err := s.closed.Load(); err != nil {
		return *err
	}
	return next()
}

// counted reports whether there is a claim or a commit among cmds.
func (s *sharing) counted(cmds []redis.Cmder) (any bool) {
	for _, cmd := range cmds {
		switch {
		case cmd.Name() == "set":
			s.claims.Add(1)
		case commits(cmd):
			s.commits.Add(1)
		default:
			continue
		}
		any = true
	}
	return any
}

func TestPipelines(t *testing.T) {
	server := redistest.Start(t)
	for name, wrap := range map[string]func(*redis.Client) redis.UniversalClient{
		"of what is too much for the pool": func(c *redis.Client) redis.UniversalClient { return c },
		"of everything":                    func(c *redis.Client) redis.UniversalClient { return pooled{c, 0} },
	} {
		t.Run(name, func(t *testing.T) {
			shared := newSharing()
			client := func() redis.UniversalClient {
				c := redis.NewClient(&redis.Options{Addr: server.Addr(), PoolSize: few})
				t.Cleanup(func() { _ = c.Close() })
				c.AddHook(shared)
				return wrap(c)
			}
			behaviour.Run(t, client(), client())
			assert.Positive(t, shared.claims.Load(), "claims in pipelines")
			assert.Positive(t, shared.commits.Load(), "commits in pipelines")
		})
	}
}

// fewConnections returns an executor whose commands share pipelines, on a client with options of
// its own.
func (w *world) fewConnections(shared *sharing, change func(*redis.Options), opts ...idempotent.Option) *executor {
	w.Helper()
	before := w.options
	defer func() { w.options = before }()
	w.options.PoolSize = few
	change(&w.options)
	x := w.executor(opts...)
	x.client.AddHook(shared)
	return x
}

// A pipeline may fail as a whole, and its commands say nothing of it: a hook refuses to send it, or
// the server to take the password. Nothing is recorded then, and the commits are repeated.
func TestPipelineThatIsRefused(t *testing.T) {
	server := redistest.Start(t)
	admin := server.Client(t)
	errOpen := errors.New("circuit open")
	for _, test := range []struct {
		name         string
		err          error // nil: any
		refuse, mend func(shared *sharing)
	}{
		{"by a hook", errOpen, func(s *sharing) {
			s.closed.Store(&errOpen)
		}, func(s *sharing) { s.closed.Store(nil) }},
		{"by the server", nil, func(s *sharing) {
			require.NoError(t, admin.Do(t.Context(), "acl", "deluser", "app").Err())
		}, func(s *sharing) {
			setUser(t, admin, []string{"on", ">password", "~*", "&*", "+@all"})
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			onRealRedisAt(t, server.URL(), func(w *world) {
				setUser(t, admin, []string{"on", ">password", "~*", "&*", "+@all"})
				shared := newSharing()
				x := w.fewConnections(shared, func(o *redis.Options) { o.Username, o.Password = "app", "password" })
				x.start(w.Context(), "loads the script", func(context.Context) (string, error) { return "", nil }).returned(w, "")
				p := w.provider()
				const callers = 100
				var calls []*call
				for i := range callers {
					calls = append(calls, x.start(w.Context(), fmt.Sprint("order-", i), p.charge))
				}
				for range callers {
					<-p.started
				}
				test.refuse(shared)
				for range callers {
					p.answer("charged", nil)
				}
				<-shared.broken
				test.mend(shared)
				for i, c := range calls {
					c.returned(w, "charged")
					status, err := x.Peek(w.Context(), fmt.Sprint("order-", i))
					require.NoError(w, err)
					require.Equal(w, idempotent.StateSucceeded, status.State, "order-%d", i)
				}
				for _, e := range x.Events(idempotent.EventCommitRetried) {
					require.ErrorIs(w, e.Err, cmp.Or(test.err, e.Err))
				}
			})
		})
	}
}

// hung answers no pipeline, and lets each fail after a while.
type hung struct {
	refuse
	takes time.Duration
}

func (h hung) ProcessPipelineHook(redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(context.Context, []redis.Cmder) error {
		time.Sleep(h.takes)
		return errCut
	}
}

// Replies were so large that each command has a pipeline of its own. When Redis hangs then, callers
// do not wait for one timeout after another.
func TestPipelinesThatHang(t *testing.T) {
	inFakeTime(t, func(w *world) {
		client := w.client(nil)
		x := w.executorOn(pooled{client, 0})
		large := strings.Repeat("x", 1<<20)
		for range 2 { // the second is replayed
			x.start(w.Context(), "order", func(context.Context) (string, error) { return large, nil }).returned(w, large)
		}
		client.AddHook(hung{takes: time.Second})
		began := time.Now()
		var calls []*call
		for i := range 100 {
			calls = append(calls, x.start(w.Context(), fmt.Sprint("order-", i), w.provider().charge))
		}
		for _, c := range calls {
			require.ErrorIs(w, c.wait(w).err, idempotent.ErrUnavailable)
		}
		assert.LessOrEqual(w, time.Since(began), 3*time.Second)
	})
}

// A flood is callers of distinct keys, all at once, on two executors: each key has a caller on both.
type flood struct {
	*world
	executors []*executor
	later     *executor // asks when all is over; no connection of its own was cut

	mu   sync.Mutex
	runs map[string][]int // by key, the attempts of its executions
}

// order is the fn of a key.
func (f *flood) order(key string) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		info, _ := idempotent.RunInfoFromContext(ctx)
		f.mu.Lock()
		defer f.mu.Unlock()
		f.runs[key] = append(f.runs[key], info.Attempt)
		return fmt.Sprint(key, " by attempt ", info.Attempt), nil
	}
}

// rise makes the calls for n keys, and returns when all have.
func (f *flood) rise(prefix string, n int) map[string][]*call {
	calls := make(map[string][]*call)
	for i := range n {
		key := fmt.Sprint(prefix, "-", i)
		for _, x := range f.executors {
			calls[key] = append(calls[key], x.start(f.Context(), key, f.order(key)))
		}
	}
	for _, of := range calls {
		for _, c := range of {
			c.wait(f)
		}
	}
	return calls
}

// check holds what became of a key against docs/guarantees.md, and asks for it once more: what a
// caller was told is recorded has to be there.
func (f *flood) check(key string, calls []*call) {
	f.Helper()
	ran := slices.Clone(f.runs[key])
	require.IsIncreasing(f, append([]int{0}, ran...), "%s: attempts", key)
	recorded, failed := "", false
	for _, c := range calls {
		switch {
		case c.err == nil:
			require.Contains(f, []string{"", c.value}, recorded, "%s has two outcomes", key)
			recorded = c.value
			continue
		case errors.Is(c.err, idempotent.ErrLeaseLost):
			require.Greater(f, len(ran), 1, "%s: nobody took over", key)
		default:
			require.ErrorIs(f, c.err, idempotent.ErrUnavailable, key)
		}
		failed = true
	}
	if !failed {
		require.Equal(f, []int{1}, ran, key)
	}
	again := f.later.start(f.Context(), key, f.order(key)).wait(f)
	require.NoError(f, again.err, key)
	if recorded != "" {
		require.Equal(f, recorded, again.value, key)
		require.Equal(f, ran, f.runs[key], "%s ran again after it was recorded", key)
	}
}

// cut ends all connections but its own, each time somebody begins to send a pipeline. stop ends
// that, and says how many there were.
func (w *world) cut(begun <-chan struct{}) (stop func() (killed int64)) {
	admin := w.client(nil)
	over := make(chan struct{})
	killed := int64(0)
	var cutting sync.WaitGroup
	cutting.Go(func() {
		for {
			select {
			case <-begun:
				n, err := admin.ClientKillByFilter(context.Background(), "type", "normal", "skipme", "yes").Result()
				assert.NoError(w, err)
				killed += n
			case <-over:
				return
			}
		}
	})
	return func() int64 {
		close(over)
		cutting.Wait()
		return killed
	}
}

// Connections break under the pipelines of hundreds of callers: no key runs twice as the same
// attempt, what is recorded stays, and every caller returns. A client that does not repeat commands
// leaves that to the executor, which repeats commits and no claims.
func TestPipelinesThatAreCut(t *testing.T) {
	server := redistest.Start(t)
	for name, maxRetries := range map[string]int{"sent again by the client": 0, "sent again by the executor": -1} {
		t.Run(name, func(t *testing.T) {
			onRealRedisAt(t, server.URL(), func(w *world) {
				shared := newSharing()
				f := &flood{world: w, runs: make(map[string][]int)}
				for range 2 {
					f.executors = append(f.executors, w.fewConnections(shared, func(o *redis.Options) { o.MaxRetries = maxRetries }))
				}
				stop := w.cut(shared.begun)
				calls := make(map[string][]*call)
				for round := range 3 {
					maps.Copy(calls, f.rise(fmt.Sprint("order-", round), 300))
				}
				require.Positive(w, stop(), "connections cut")
				require.Positive(w, shared.commits.Load(), "commits in pipelines")
				if maxRetries < 0 {
					require.NotEmpty(w, shared.broken)
				}
				f.later = w.executor()
				for key, of := range calls {
					f.check(key, of)
				}
			})
		})
	}
}

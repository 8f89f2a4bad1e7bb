package acceptance

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/idemtest"
	"github.com/idempotent-go/idempotent/internal/redistest"
)

// held keeps the reply to one script about a key from the library until it is released.
type held struct {
	refuse
	name    string
	done    *atomic.Bool
	reached chan struct{}
	release chan struct{}
}

func hold(name string) held {
	return held{name: name, done: new(atomic.Bool), reached: make(chan struct{}), release: make(chan struct{})}
}

func (h held) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		if cmd.Name() == "evalsha" && len(cmd.Args()) > 3 && cmd.Args()[3] == h.name && h.done.CompareAndSwap(false, true) {
			close(h.reached)
			<-h.release
		}
		return err
	}
}

// heardAll returns when x has dropped what other forgot before.
func (x *cachingExecutor) heardAll(w *world, other *executor) {
	w.Helper()
	p := w.provider()
	p.answer("marker", nil)
	x.start(w.Context(), "marker", p.charge).returned(w, "marker")
	require.NoError(w, other.Forget(w.Context(), "marker"))
	w.hears(x, "marker")
}

func (w *world) record(x *executor, key string) {
	w.Helper()
	p := w.provider()
	p.answer("charged", nil)
	x.start(w.Context(), key, p.charge).returned(w, "charged")
}

// What was read before it was forgotten must not come into the cache after that was heard.
func TestReadingUnderWayWhenForgotten(t *testing.T) {
	everywhere(t, func(w *world) {
		for _, forgets := range []string{"this process", "another process"} {
			x, other := w.caching(), w.executor()
			w.record(other, "order-1")
			h := hold(w.name("order-1"))
			x.client.AddHook(h)
			reading := x.start(w.Context(), "order-1", charged)
			<-h.reached
			if forgets == "this process" {
				require.NoError(w, x.Forget(w.Context(), "order-1"))
			} else {
				require.NoError(w, other.Forget(w.Context(), "order-1"))
				x.heardAll(w, other)
			}
			close(h.release)
			reading.returned(w, "charged")
			_, err := x.Get(w.Context(), "order-1")
			require.ErrorIs(w, err, idempotent.ErrNotFound, forgets)
		}
	})
}

func TestCommitUnderWayWhenForgotten(t *testing.T) {
	everywhere(t, func(w *world) {
		x, other := w.caching(), w.executor()
		p := w.provider()
		running := x.start(w.Context(), "order-1", p.charge)
		<-p.started
		h := hold(w.name("order-1"))
		x.client.AddHook(h)
		p.answer("charged", nil)
		<-h.reached
		require.NoError(w, other.Forget(w.Context(), "order-1"))
		x.heardAll(w, other)
		close(h.release)
		running.returned(w, "charged")
		_, err := x.Get(w.Context(), "order-1")
		require.ErrorIs(w, err, idempotent.ErrNotFound)
	})
}

// The subscription is cut while a record is read, and stands again before it is there; what was
// forgotten meanwhile was not heard.
func TestReadingUnderWayWhenTheChannelIsCut(t *testing.T) {
	everywhere(t, func(w *world) {
		x, other := w.caching(), w.executor()
		w.record(other, "order-1")
		h := hold(w.name("order-1"))
		x.client.AddHook(h)
		reading := x.start(w.Context(), "order-1", charged)
		<-h.reached
		x.wire.refuseSubscriptions()
		x.log.await(w, cacheEmptied)
		require.NoError(w, other.Forget(w.Context(), "order-1"))
		x.wire.allowSubscriptions()
		x.log.await(w, cacheInUse)
		close(h.release)
		reading.returned(w, "charged")
		_, err := x.Get(w.Context(), "order-1")
		require.ErrorIs(w, err, idempotent.ErrNotFound)
	})
}

func TestReplayCacheWithoutItsChannel(t *testing.T) {
	everywhere(t, func(w *world) {
		x := w.caching()
		w.record(x.executor, "order-1")
		x.wire.refuseSubscriptions()
		x.log.await(w, cacheEmptied)
		for range 2 {
			assert.EqualValues(w, 1, x.commands(func() { x.replays(w, "order-1", "charged") }), "nothing is kept")
		}
		x.wire.allowSubscriptions()
		x.log.await(w, cacheInUse)
		assert.EqualValues(w, 1, x.commands(func() { x.replays(w, "order-1", "charged") }), "what was kept is gone")
		assert.Zero(w, x.commands(func() { x.replays(w, "order-1", "charged") }))
	})
}

func (w *wire) allowSubscriptions() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.deaf = false
}

// The connection is there, and nothing comes through it.
func TestReplayCacheOnASilentChannel(t *testing.T) {
	inFakeTime(t, func(w *world) {
		for late := range 10 { // anywhere between two proofs
			x, other := w.caching(), w.executor()
			w.record(x.executor, "order-1")
			time.Sleep(time.Duration(late) * 100 * time.Millisecond)
			w.settled()
			x.wire.muteSubscriptions()
			require.NoError(w, other.Forget(w.Context(), "order-1"))
			x.replays(w, "order-1", "charged")
			time.Sleep(longestStale)
			_, err := x.Get(w.Context(), "order-1")
			require.ErrorIs(w, err, idempotent.ErrNotFound)
			x.log.await(w, cacheEmptied)
			x.log.await(w, cacheInUse)
			w.record(x.executor, "order-1")
			assert.Zero(w, x.commands(func() { x.replays(w, "order-1", "charged") }))
		}
	})
}

// While nothing is lost, a quiet channel stays.
func TestReplayCacheStaysWhenNothingHappens(t *testing.T) {
	inFakeTime(t, func(w *world) {
		x := w.caching()
		w.record(x.executor, "order-1")
		for range 100 {
			time.Sleep(700 * time.Millisecond)
			require.Zero(w, x.commands(func() { x.replays(w, "order-1", "charged") }))
		}
	})
}

// The commands go to another server by now, as after a failover, and the subscription, which
// stands, is still with the old one.
func TestReplayCacheWhenTheAddressMeansAnotherServer(t *testing.T) {
	inFakeTime(t, func(w *world) {
		x := w.caching()
		w.record(x.executor, "order-1")
		successor := idemtest.NewRedis(w)
		w.dial = func(ctx context.Context) (net.Conn, error) { return successor.Options().Dialer(ctx, "", "") }
		x.wire.severCommands()
		time.Sleep(longestStale)
		_, err := x.Get(w.Context(), "order-1")
		require.ErrorIs(w, err, idempotent.ErrNotFound, "the new server was asked")
		x.log.await(w, cacheInUse)
	})
}

// severCommands ends the connections that are no subscriptions.
func (w *wire) severCommands() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for c := range w.conns {
		if !c.subs.Load() {
			_ = c.Conn.Close()
		}
	}
}

func TestReplayCacheClosesWithoutRedis(t *testing.T) {
	everywhere(t, func(w *world) {
		x := w.executor(idempotent.WithReplayCache(1))
		x.wire.sever()
		_, err := x.Run(w.Context(), "order-1", charged)
		require.ErrorIs(w, err, idempotent.ErrUnavailable)
		require.NoError(w, x.Close())
	})
}

// Under load, an executor never replays what it has forgotten itself, and comes to know what
// others forgot.
func TestReplayCacheUnderLoad(t *testing.T) {
	onRealRedis(t, func(w *world) {
		x, y, plain := w.caching(), w.caching(), w.executor()
		var runs atomic.Int64
		fn := func(context.Context) (string, error) { return fmt.Sprint(runs.Add(1)), nil }
		ctx, stop := context.WithCancel(w.Context())
		var load sync.WaitGroup
		defer load.Wait()
		defer stop()
		for _, node := range []*cachingExecutor{x, x, y, y} {
			load.Go(func() {
				for ctx.Err() == nil {
					_, _ = node.Run(ctx, "order-1", fn)
				}
			})
		}
		for range 30 {
			require.NoError(w, x.Forget(w.Context(), "order-1"))
			mine, err := x.Run(w.Context(), "order-1", fn)
			require.NoError(w, err)
			truth, err := plain.Get(w.Context(), "order-1")
			require.NoError(w, err)
			require.Equal(w, truth, mine)
			require.Eventually(w, func() bool {
				heard, err := y.Run(w.Context(), "order-1", fn)
				return err == nil && heard == truth
			}, longestStale, time.Microsecond)
		}
	})
}

// caches is what any client must do for a cache: hear of all keys that another one forgets.
func caches(t *testing.T, one, two redis.UniversalClient, opts ...idempotent.Option) {
	t.Helper()
	log := newLogWatch()
	newExecutor := func(client redis.UniversalClient, more ...idempotent.Option) *idempotent.Executor[string] {
		x, err := idempotent.New[string](client, "caches", append(opts, more...)...)
		require.NoError(t, err)
		t.Cleanup(func() { _ = x.Close() })
		return x
	}
	rec := &idemtest.Recorder{}
	x := newExecutor(one, idempotent.WithReplayCache(100), idempotent.WithLogger(slog.New(log)), idempotent.WithObserver(rec))
	other := newExecutor(two)
	_, err := x.Get(t.Context(), "unknown")
	require.ErrorIs(t, err, idempotent.ErrNotFound)
	log.await(t, cacheInUse)
	const keys = 20 // on several slots and shards
	for i := range keys {
		key := idempotent.HashKey("order", fmt.Sprint(i))
		require.Eventually(t, func() bool { // a machine too busy for the proofs bypasses the cache for a while
			_, err := x.Run(t.Context(), key, charged)
			require.NoError(t, err)
			require.NoError(t, two.Del(t.Context(), "idempotent:caches:"+key).Err())
			_, err = x.Get(t.Context(), key)
			return err == nil
		}, time.Minute, time.Millisecond, "it is in the cache, and nowhere else")
		require.NoError(t, other.Forget(t.Context(), key))
		require.Eventually(t, func() bool {
			_, err := x.Get(t.Context(), key)
			return err != nil
		}, longestStale, time.Millisecond)
		_, err = x.Get(t.Context(), key)
		require.ErrorIs(t, err, idempotent.ErrNotFound)
	}
}

func TestReplayCacheOfEveryClient(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	t.Run("RESP2", func(t *testing.T) {
		client := redis.NewClient(&redis.Options{Addr: server.Addr(), Protocol: 2})
		t.Cleanup(func() { _ = client.Close() })
		caches(t, client, server.Client(t))
	})
	t.Run("AutoPipeliner", func(t *testing.T) {
		client, err := server.Client(t).AutoPipelineWithOptions(&redis.AutoPipelineOptions{FullDuplex: true})
		require.NoError(t, err)
		t.Cleanup(func() { _ = client.Close() })
		caches(t, client, server.Client(t))
	})
	t.Run("Cluster", func(t *testing.T) {
		server := redistest.Start(t, "--cluster-enabled", "yes")
		one := server.MakeCluster(t)
		two := redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{server.Addr()}, ReadOnly: true})
		t.Cleanup(func() { _ = two.Close() })
		caches(t, one, two)
		caches(t, two, one)
	})
	t.Run("Ring", func(t *testing.T) {
		addrs := map[string]string{"one": redistest.Start(t).Addr(), "two": redistest.Start(t).Addr(), "three": redistest.Start(t).Addr()}
		ring := func() redis.UniversalClient {
			r := redis.NewRing(&redis.RingOptions{Addrs: addrs, HeartbeatFn: staysUp})
			t.Cleanup(func() { _ = r.Close() })
			return struct{ *redis.Ring }{r} // as tracing wraps it
		}
		caches(t, ring(), ring())
	})
}

// A shard of a Ring dies: what it had is on another one from then on, and the cache begins anew.
func TestReplayCacheWhenAShardDies(t *testing.T) {
	t.Parallel()
	dying := redistest.Start(t)
	addrs := map[string]string{"one": dying.Addr(), "two": redistest.Start(t).Addr()}
	client := redis.NewRing(&redis.RingOptions{Addrs: addrs, HeartbeatFn: ejects(dying), HeartbeatFrequency: 50 * time.Millisecond})
	t.Cleanup(func() { _ = client.Close() })
	_, log := cachingOn(t, client)
	dying.Kill()
	log.await(t, cacheEmptied)
	log.await(t, cacheInUse)
	require.NoError(t, dying.Run())
	log.await(t, cacheEmptied)
	log.await(t, cacheInUse)
}

// The users that docs/redis.md describes, narrowed to one namespace, may do what a cache needs.
func TestPermissions(t *testing.T) {
	t.Parallel()
	lines := regexp.MustCompile(`(?m)^ACL SETUSER app (on .*)$`).FindAllStringSubmatch(readText(t, "docs/redis.md"), -1)
	require.Len(t, lines, 2)
	rules := func(line []string) (args []any) {
		args = []any{"acl", "setuser", "app"}
		for rule := range strings.FieldsSeq(strings.ReplaceAll(line[1], "idempotent:*", "idempotent:caches:*")) {
			args = append(args, rule)
		}
		return args
	}
	t.Run("one server", func(t *testing.T) {
		server := redistest.Start(t)
		require.NoError(t, server.Client(t).Do(t.Context(), rules(lines[0])...).Err())
		client := redis.NewClient(&redis.Options{Addr: server.Addr(), Username: "app", Password: "password"})
		t.Cleanup(func() { _ = client.Close() })
		caches(t, client, client)
	})
	t.Run("Cluster", func(t *testing.T) {
		server := redistest.Start(t, "--cluster-enabled", "yes")
		server.MakeCluster(t)
		require.NoError(t, server.Client(t).Do(t.Context(), append(rules(lines[1]), "+subscribe")...).Err())
		client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{server.Addr()}, Username: "app", Password: "password"})
		t.Cleanup(func() { _ = client.Close() })
		caches(t, client, client)
	})
}

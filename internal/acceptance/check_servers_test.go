package acceptance

import (
	"cmp"
	"context"
	"io"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/internal/redistest"
)

func TestCheckFindsReplicas(t *testing.T) {
	t.Parallel()
	master := redistest.Start(t, "--repl-diskless-sync-delay", "0")
	replica := follow(t, master, durable...)
	assert.Equal(t, []string{"unsafe replica"}, codes(check(t, replica.Client(t))))
	assert.ElementsMatch(t, []string{"warning no-persistence", "warning cut-off-master"}, codes(check(t, master.Client(t))))

	t.Run("too few", func(t *testing.T) {
		ack := func(n int) idempotent.Option { return idempotent.WithReplicaAck(n, time.Second) }
		assert.ElementsMatch(t, []string{"warning no-persistence"}, codes(check(t, master.Client(t), ack(1))))
		assert.ElementsMatch(t, []string{"warning no-persistence", "unsafe few-replicas"}, codes(check(t, master.Client(t), ack(2))))
	})
	t.Run("without INFO", func(t *testing.T) {
		require.NoError(t, replica.Client(t).Do(t.Context(), "acl", "setuser", "app", "on", ">password", "~*", "&*", "+@all", "-info").Err())
		assert.ElementsMatch(t, []string{"unsafe replica", "notice not-checked"}, codes(check(t, loggedIn(t, replica.Addr()))))
	})
}

func TestCheckFindsASentinel(t *testing.T) {
	t.Parallel()
	addr := redistest.StartSentinel(t).Addrs()[0]
	client := redis.NewClient(&redis.Options{Addr: addr})
	defer client.Close()
	found := codes(check(t, client))
	require.NotEmpty(t, found)
	assert.Contains(t, found, "unsafe wrong-client")
}

// Every master is looked at, and named.
func TestCheckLooksAtEveryServer(t *testing.T) {
	t.Parallel()
	t.Run("Cluster", func(t *testing.T) {
		cluster := redistest.StartCluster(t, durable...)
		nodes, err := cluster.Masters(t.Context())
		require.NoError(t, err)
		x := checker(t, cluster.Client(t), idempotent.WithLease(time.Minute))
		for _, node := range nodes {
			require.NoError(t, node.Client().ConfigSet(t.Context(), "maxmemory-policy", "volatile-lru").Err())
			require.NoError(t, node.Client().ConfigSet(t.Context(), "maxmemory", "1kb").Err())
			findings, err := x.Check(t.Context())
			require.NoError(t, err)
			assert.Equal(t, []string{"unsafe writes-refused", "unsafe eviction"}, codes(findings))
			for _, f := range findings {
				assert.Equal(t, node.Addr(), f.Server)
			}
			require.NoError(t, node.Client().ConfigSet(t.Context(), "maxmemory", "0").Err())
			require.NoError(t, node.Client().ConfigSet(t.Context(), "maxmemory-policy", "noeviction").Err())
		}
		short := checker(t, cluster.Client(t), idempotent.WithLease(time.Second))
		findings, err := short.Check(t.Context())
		require.NoError(t, err)
		assert.Equal(t, []string{"warning short-lease", "warning short-lease", "warning short-lease"}, codes(findings))
	})
	t.Run("Ring", func(t *testing.T) {
		good, bad := redistest.Start(t, durable...), redistest.Start(t)
		findings := check(t, ringOf(t, good, bad))
		require.Equal(t, []string{"unsafe no-persistence"}, codes(findings))
		assert.Equal(t, bad.Addr(), findings[0].Server)
	})
}

// A Ring goes on without a shard, and does not say so.
func TestCheckFindsAShardThatIsDown(t *testing.T) {
	t.Parallel()
	servers := []*redistest.Server{redistest.Start(t, durable...), redistest.Start(t, durable...)}
	addrs := map[string]string{"a": servers[0].Addr(), "b": servers[1].Addr()}
	ring := redis.NewRing(&redis.RingOptions{Addrs: addrs, HeartbeatFn: ejects(servers...), HeartbeatFrequency: 10 * time.Millisecond})
	defer ring.Close()
	x := checker(t, ring)
	servers[1].Kill()
	require.Eventually(t, func() bool { return ring.Len() == 1 }, time.Minute, time.Millisecond) // go-redis has no event for it
	findings, err := x.Check(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"unsafe shard-down"}, codes(findings))
	assert.Equal(t, servers[1].Addr(), findings[0].Server)
	servers[0].Kill()
	require.Eventually(t, func() bool { return ring.Len() == 0 }, time.Minute, time.Millisecond)
	_, err = x.Check(t.Context())
	require.ErrorIs(t, err, idempotent.ErrUnavailable)
}

// A rewriting hook changes what the server says.
type rewriting struct {
	refuse
	change func(redis.Cmder)
}

func (r rewriting) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		r.change(cmd)
		return cmp.Or(err, cmd.Err())
	}
}

func (r rewriting) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		err := next(ctx, cmds)
		for _, cmd := range cmds {
			r.change(cmd)
		}
		return err
	}
}

var versionLine = regexp.MustCompile(`(redis|valkey)_version:[^\r\n]*`)

func version(v string) rewriting {
	return rewriting{change: func(cmd redis.Cmder) {
		if info, ok := cmd.(*redis.StringCmd); ok && cmd.Name() == "info" {
			info.SetVal("redis_version:" + v + "\r\n" + versionLine.ReplaceAllLiteralString(info.Val(), ""))
		}
	}}
}

func TestCheckFindsOldVersions(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, durable...)
	for v, want := range map[string][]string{
		"4.0.14": {"unsafe old-version"},
		"5.0.0":  {"warning old-version"},
		"6.2.14": {"warning old-version"},
		"7.0.0":  nil,
		"8.2.1":  nil,
		"10.0.0": nil,
		"?":      nil,
	} {
		client := server.Client(t)
		client.AddHook(version(v))
		findings := check(t, client)
		assert.Equal(t, want, codes(findings), v)
		if strings.HasPrefix(v, "6") {
			assert.Contains(t, findings[0].Detail, "claim.lua")
		}
	}
	t.Run("Cluster", func(t *testing.T) {
		node := redistest.Start(t, append(durable, "--cluster-enabled", "yes", "--cluster-node-timeout", "1000")...)
		node.MakeCluster(t)
		client := hookedCluster(t, map[string]redis.Hook{node.Addr(): version("6.2.14")}, node.Addr())
		assert.Equal(t, []string{"unsafe old-version"}, codes(check(t, client)))
	})
}

// infoOf changes what INFO tells.
func infoOf(old, changed string) rewriting {
	return rewriting{change: func(cmd redis.Cmder) {
		if info, ok := cmd.(*redis.StringCmd); ok && cmd.Name() == "info" {
			info.SetVal(strings.Replace(info.Val(), old, changed, 1))
		}
	}}
}

// Two masters that accept the same writes grant the same claim.
func TestCheckFindsActiveActive(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, durable...)
	setting := rewriting{change: func(cmd redis.Cmder) {
		if got, ok := cmd.(*redis.MapStringStringCmd); ok && cmd.Args()[2] == "active-replica" {
			got.SetVal(map[string]string{"active-replica": "yes"})
		}
	}}
	for name, hook := range map[string]rewriting{
		"with a peer":    infoOf("role:master", "role:active-replica"),
		"without a peer": setting,
	} {
		client := server.Client(t)
		client.AddHook(hook)
		assert.Equal(t, []string{"unsafe active-active"}, codes(check(t, client)), name)
	}
}

// Valkey tells its mode and version under names of its own; redis_version is then not its version.
func TestCheckReadsValkey(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, durable...)
	client := server.Client(t)
	client.AddHook(rewriting{change: func(cmd redis.Cmder) {
		if info, ok := cmd.(*redis.StringCmd); ok && cmd.Name() == "info" {
			info.SetVal("redis_version:6.2.0\r\nvalkey_version:9.1.2\r\nserver_mode:sentinel\r\n")
		}
	}})
	assert.Equal(t, []string{"unsafe wrong-client"}, codes(check(t, client)))
}

// hookedCluster has hooks on the clients of single nodes.
func hookedCluster(t *testing.T, hooks map[string]redis.Hook, addrs ...string) *redis.ClusterClient {
	t.Helper()
	client := redis.NewClusterClient(&redis.ClusterOptions{
		Addrs: addrs,
		NewClient: func(opt *redis.Options) *redis.Client {
			node := redis.NewClient(opt)
			for addr, hook := range hooks {
				if strings.HasSuffix(addr, opt.Addr) { // a Cluster of one does not know its host
					node.AddHook(hook)
				}
			}
			return node
		},
	})
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// A clock is a server's clock that a test sets.
type clock struct {
	ahead atomic.Int64
	gone  atomic.Bool
}

func (c *clock) hook() redis.Hook {
	return rewriting{change: func(cmd redis.Cmder) {
		if now, ok := cmd.(*redis.TimeCmd); ok {
			now.SetVal(now.Val().Add(time.Duration(c.ahead.Load())))
			if c.gone.Load() {
				now.SetErr(io.ErrUnexpectedEOF)
			}
		}
	}}
}

func TestCheckFindsAClockThatIsOff(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, durable...)
	for ahead, want := range map[time.Duration][]string{
		7 * time.Second:        {"warning clock-off"},
		-time.Minute:           {"warning clock-off"},
		500 * time.Millisecond: nil,
	} {
		client, set := server.Client(t), &clock{}
		client.AddHook(set.hook())
		set.ahead.Store(int64(ahead))
		assert.Equal(t, want, codes(check(t, client)), "%v", ahead)
	}
}

// An expiry is replicated as a moment of the master's clock.
func TestCheckFindsReplicasWithAnotherClock(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t, durable...)
	masters, err := cluster.Masters(t.Context())
	require.NoError(t, err)
	replica, set := cluster.Partner(masters[0]), &clock{}
	client := hookedCluster(t, map[string]redis.Hook{replica.Addr(): set.hook()}, cluster.Addrs()...)
	x := checker(t, client, idempotent.WithLease(time.Minute))
	for _, test := range []struct {
		ahead time.Duration
		want  []string
	}{
		{0, nil},
		{-10 * time.Second, []string{"warning replica-clock"}},
		{time.Minute, []string{"unsafe replica-clock"}},
	} {
		set.ahead.Store(int64(test.ahead))
		findings, err := x.Check(t.Context())
		require.NoError(t, err)
		require.Equal(t, test.want, codes(findings), "%v", test.ahead)
		for _, f := range findings {
			assert.Equal(t, replica.Addr(), f.Server)
			assert.Contains(t, f.Detail, masters[0].Addr())
		}
	}
}

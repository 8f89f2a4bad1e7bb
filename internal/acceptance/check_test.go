package acceptance

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/idemcheck"
	"github.com/idempotent-go/idempotent/idemtest"
	"github.com/idempotent-go/idempotent/internal/redistest"
)

// durable are the arguments of a server about which there is nothing to find.
var durable = []string{"--appendonly", "yes", "--appendfsync", "always"}

// check makes an executor on client and looks.
func check(t *testing.T, client redis.UniversalClient, opts ...idempotent.Option) []idemcheck.Finding {
	t.Helper()
	findings, err := checker(t, client, opts...).Check(t.Context())
	require.NoError(t, err)
	for _, f := range findings {
		assert.NotEmpty(t, f.Advice, "%v", f)
	}
	return findings
}

func checker(t *testing.T, client redis.UniversalClient, opts ...idempotent.Option) *idempotent.Executor[string] {
	t.Helper()
	x, err := idempotent.New[string](client, "check", opts...)
	require.NoError(t, err)
	t.Cleanup(func() { _ = x.Close() })
	return x
}

// codes are the findings as "severity code".
func codes(findings []idemcheck.Finding) (codes []string) {
	for _, f := range findings {
		codes = append(codes, fmt.Sprintf("%v %s", f.Severity, f.Code))
	}
	return codes
}

// follow makes a replica of master, and returns when the two are in step.
func follow(t *testing.T, master *redistest.Server, args ...string) *redistest.Server {
	t.Helper()
	host, port, _ := strings.Cut(master.Addr(), ":")
	replica := redistest.Start(t, append([]string{"--replicaof", host, port, "--repl-diskless-sync-delay", "0"}, args...)...)
	client := master.Client(t)
	require.Eventually(t, func() bool { // the master has no event for it
		info, err := client.Info(t.Context(), "replication").Result()
		return err == nil && strings.Contains(info, "state=online")
	}, time.Minute, 10*time.Millisecond)
	return replica
}

func TestCheckFindsNothing(t *testing.T) {
	t.Parallel()
	t.Run("single server", func(t *testing.T) {
		assert.Empty(t, check(t, redistest.Start(t, durable...).Client(t)))
	})
	t.Run("with a replica", func(t *testing.T) {
		master := redistest.Start(t, append(durable, "--min-replicas-to-write", "1", "--repl-diskless-sync-delay", "0")...)
		follow(t, master)
		assert.Empty(t, check(t, master.Client(t)))
	})
	t.Run("AutoPipeliner", func(t *testing.T) {
		pipeliner, err := redistest.Start(t, durable...).Client(t).AutoPipeline()
		require.NoError(t, err)
		defer pipeliner.Close()
		assert.Empty(t, check(t, pipeliner))
	})
	t.Run("RESP2", func(t *testing.T) {
		client := redis.NewClient(&redis.Options{Addr: redistest.Start(t, durable...).Addr(), Protocol: 2})
		defer client.Close()
		assert.Empty(t, check(t, client))
	})
	t.Run("Ring", func(t *testing.T) {
		ring := ringOf(t, redistest.Start(t, durable...), redistest.Start(t, durable...))
		assert.Empty(t, check(t, ring))
	})
	t.Run("Sentinel", func(t *testing.T) {
		set := redistest.StartSentinel(t, append(durable, "--min-replicas-to-write", "1")...)
		assert.Empty(t, check(t, set.Client(t)))
	})
	t.Run("Cluster", func(t *testing.T) {
		cluster := redistest.StartCluster(t, append(durable, "--cluster-node-timeout", "5000")...)
		assert.Empty(t, check(t, cluster.Client(t)))
	})
}

func ringOf(t *testing.T, servers ...*redistest.Server) *redis.Ring {
	t.Helper()
	addrs := make(map[string]string)
	for _, s := range servers {
		addrs[s.Addr()] = s.Addr()
	}
	ring := redis.NewRing(&redis.RingOptions{Addrs: addrs, HeartbeatFn: staysUp})
	t.Cleanup(func() { _ = ring.Close() })
	return ring
}

// Each misconfigured server gives its finding and no other.
func TestCheckFinds(t *testing.T) {
	t.Parallel()
	volatile := []string{"--maxmemory", "100mb", "--maxmemory-policy"}
	tests := map[string]struct {
		args []string // beyond the durable ones
		opts []idempotent.Option
		want []string
	}{
		"volatile-lru":              {args: append(volatile, "volatile-lru"), want: []string{"unsafe eviction"}},
		"volatile-lfu":              {args: append(volatile, "volatile-lfu"), want: []string{"unsafe eviction"}},
		"volatile-random":           {args: append(volatile, "volatile-random"), want: []string{"unsafe eviction"}},
		"volatile-ttl":              {args: append(volatile, "volatile-ttl"), want: []string{"unsafe eviction"}},
		"allkeys-lru":               {args: append(volatile, "allkeys-lru"), want: []string{"unsafe eviction"}},
		"noeviction":                {args: append(volatile, "noeviction"), want: nil},
		"a policy without a limit":  {args: []string{"--maxmemory-policy", "volatile-ttl"}, want: []string{"warning eviction"}},
		"no persistence":            {args: []string{"--appendonly", "no"}, want: []string{"unsafe no-persistence"}},
		"snapshots":                 {args: []string{"--appendonly", "no", "--save", "3600 1"}, want: []string{"warning no-append-only-file"}},
		"both":                      {args: []string{"--save", "3600 1"}, want: nil},
		"everysec":                  {args: []string{"--appendfsync", "everysec"}, want: []string{"notice fsync"}},
		"no fsync":                  {args: []string{"--appendfsync", "no"}, want: []string{"warning fsync"}},
		"small buffer":              {args: []string{"--client-output-buffer-limit", "pubsub 32kb 8kb 60"}, want: []string{"warning pubsub-buffer"}},
		"small buffer and messages": {args: []string{"--client-output-buffer-limit", "pubsub 32kb 8kb 60"}, opts: []idempotent.Option{idempotent.WithMessageLimit(32 << 10)}, want: nil},
		"no buffer limit":           {args: []string{"--client-output-buffer-limit", "pubsub 0 0 0"}, want: nil},
		"full":                      {args: []string{"--maxmemory", "1kb"}, want: []string{"unsafe writes-refused"}},
		"replicas missing":          {args: []string{"--min-replicas-to-write", "1"}, want: []string{"unsafe writes-refused"}},
		"node of a Cluster":         {args: []string{"--cluster-enabled", "yes", "--cluster-node-timeout", "1000"}, want: []string{"unsafe writes-refused", "unsafe wrong-client"}}, // it has no slots
		"GETRANGE renamed":          {args: []string{"--rename-command", "GETRANGE", ""}, want: []string{"unsafe missing-command"}},
		"CONFIG renamed":            {args: []string{"--rename-command", "CONFIG", ""}, want: []string{"notice not-checked"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			server := redistest.Start(t, append(slices.Clip(durable), test.args...)...)
			findings := check(t, server.Client(t), test.opts...)
			assert.Equal(t, test.want, codes(findings))
			for _, f := range findings {
				assert.Equal(t, server.Addr(), f.Server)
				assert.Contains(t, f.String(), string(f.Code))
				assert.Contains(t, f.String(), server.Addr())
			}
		})
	}
}

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

func TestCheckFindsADiskThatFails(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	require.NoError(t, os.Mkdir(dir, 0o700))
	server := redistest.Start(t, "--save", "3600 1", "--dir", dir)
	client := server.Client(t)
	require.NoError(t, os.RemoveAll(dir))
	require.NoError(t, client.BgSave(t.Context()).Err())
	require.Eventually(t, func() bool { // the server has no event for it
		info, err := client.Info(t.Context(), "persistence").Result()
		return err == nil && strings.Contains(info, "rdb_last_bgsave_status:err")
	}, time.Minute, 10*time.Millisecond)
	assert.ElementsMatch(t, []string{"unsafe writes-refused", "warning persistence-fails", "warning no-append-only-file"}, codes(check(t, client)))
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

func TestCheckOfAServerThatIsAway(t *testing.T) {
	t.Parallel()
	t.Run("gone", func(t *testing.T) {
		server := redistest.Start(t)
		x := checker(t, server.Client(t))
		server.Kill()
		findings, err := x.Check(t.Context())
		require.ErrorIs(t, err, idempotent.ErrUnavailable)
		assert.Empty(t, findings)
	})
	t.Run("hangs", func(t *testing.T) {
		server := redistest.Start(t)
		client := server.Client(t)
		info, err := client.Info(t.Context(), "server").Result()
		require.NoError(t, err)
		var pid int
		_, rest, _ := strings.Cut(info, "process_id:")
		_, err = fmt.Sscan(rest, &pid)
		require.NoError(t, err)
		require.NoError(t, syscall.Kill(pid, syscall.SIGSTOP))
		defer func() { _ = syscall.Kill(pid, syscall.SIGCONT) }()
		x := checker(t, client)
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		began := time.Now()
		_, err = x.Check(ctx)
		require.ErrorIs(t, err, idempotent.ErrUnavailable)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Less(t, time.Since(began), 2*time.Second, "the client's own timeout is 5 s")
		_ = syscall.Kill(pid, syscall.SIGCONT)
	})
	t.Run("hangs, and Close", func(t *testing.T) {
		client := redistest.Start(t).Client(t)
		asked, answer := make(chan struct{}, 100), make(chan struct{})
		client.AddHook(rewriting{change: func(redis.Cmder) {
			asked <- struct{}{}
			<-answer
		}})
		x := checker(t, client)
		checked := make(chan error)
		go func() {
			_, err := x.Check(t.Context())
			checked <- err
		}()
		<-asked
		closed := make(chan struct{})
		go func() {
			defer close(closed)
			_ = x.Close()
		}()
		require.ErrorIs(t, <-checked, idempotent.ErrClosed)
		close(answer)
		<-closed
	})
	t.Run("one of a Ring", func(t *testing.T) {
		bad, gone := redistest.Start(t), redistest.Start(t)
		ring := ringOf(t, bad, gone)
		x := checker(t, ring)
		gone.Kill()
		findings, err := x.Check(t.Context())
		require.ErrorIs(t, err, idempotent.ErrUnavailable)
		require.ErrorContains(t, err, gone.Addr())
		assert.Equal(t, []string{"unsafe no-persistence"}, codes(findings), "of the other one")
	})
	t.Run("a client that is closed", func(t *testing.T) {
		client := redistest.Start(t).Client(t)
		x := checker(t, client)
		require.NoError(t, client.Close())
		_, err := x.Check(t.Context())
		require.ErrorIs(t, err, idempotent.ErrUnavailable)
	})
}

func TestCheckArguments(t *testing.T) {
	t.Parallel()
	x := checker(t, redistest.Start(t).Client(t))
	_, err := x.Check(nil) //nolint:staticcheck // this is the case
	require.ErrorIs(t, err, idempotent.ErrInvalidOption)
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("the program ends"))
	_, err = x.Check(ctx)
	require.ErrorIs(t, err, idempotent.ErrUnavailable)
	require.ErrorIs(t, err, context.Canceled)
	require.NoError(t, x.Close())
	_, err = x.Check(t.Context())
	require.ErrorIs(t, err, idempotent.ErrClosed)
}

// Check changes nothing in Redis, with or without ACL DRYRUN, and what others store stays.
func TestCheckChangesNothing(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	admin := server.Client(t)
	x := checker(t, admin)
	_, err := x.Run(t.Context(), "0", func(context.Context) (string, error) { return "charged", nil })
	require.NoError(t, err)
	require.NoError(t, admin.Do(t.Context(), "acl", "setuser", "app", "on", ">password", "~*", "&*", "+@all", "-acl").Err())
	limited := checker(t, loggedIn(t, server.Addr()))
	before, err := admin.Dump(t.Context(), "idempotent:check:0").Result()
	require.NoError(t, err)
	changes := func() string {
		info, err := admin.Info(t.Context(), "persistence").Result()
		require.NoError(t, err)
		_, rest, _ := strings.Cut(info, "rdb_changes_since_last_save:")
		n, _, _ := strings.Cut(rest, "\r")
		return n
	}
	were := changes()
	require.NotEmpty(t, were)
	var checks sync.WaitGroup
	for _, x := range []*idempotent.Executor[string]{x, limited} {
		for range 8 {
			checks.Go(func() {
				findings, err := x.Check(t.Context())
				assert.NoError(t, err)
				assert.Equal(t, []string{"unsafe no-persistence"}, codes(findings))
			})
		}
	}
	checks.Wait()
	assert.Equal(t, were, changes())
	after, err := admin.Dump(t.Context(), "idempotent:check:0").Result()
	require.NoError(t, err)
	assert.Equal(t, before, after)
}

// The names that Check writes to, in vain, may be those of operations.
func TestCheckOnAClusterLeavesOperationsAlone(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t)
	masters, err := cluster.Masters(t.Context())
	require.NoError(t, err)
	for _, master := range masters {
		require.NoError(t, master.Client().Do(t.Context(), "acl", "setuser", "app", "on", ">password", "~*", "&*", "+@all", "-acl").Err())
	}
	x := checker(t, loggedIntoCluster(t, cluster))
	const keys = 100
	for i := range keys {
		_, err := x.Run(t.Context(), fmt.Sprint(i), func(context.Context) (string, error) { return "charged", nil })
		require.NoError(t, err)
	}
	_, err = x.Check(t.Context())
	require.NoError(t, err)
	for i := range keys {
		status, err := x.Peek(t.Context(), fmt.Sprint(i))
		require.NoError(t, err)
		assert.Equal(t, idempotent.StateSucceeded, status.State)
		assert.Greater(t, status.TTLLeft, idempotent.DefaultTTL-time.Hour)
	}
}

func TestCheckCosts(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t, durable...).Client(t)
	assert.Empty(t, check(t, client)) // the connections are made
	trips := &trips{}
	client.AddHook(trips)
	assert.Empty(t, check(t, client))
	assert.EqualValues(t, 6, trips.n.Load())
}

// trips counts round trips.
type trips struct {
	refuse
	n atomic.Int64
}

func (c *trips) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		c.n.Add(1)
		return next(ctx, cmd)
	}
}

func (c *trips) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		c.n.Add(1)
		return next(ctx, cmds)
	}
}

// What users test with is no reason to refuse to start.
func TestCheckOfTheServerForTests(t *testing.T) {
	for _, f := range check(t, idemtest.NewRedis(t)) {
		assert.Equal(t, idemcheck.SeverityNotice, f.Severity, "%v", f)
	}
}

// loggedIn is a client of the user app.
func loggedIn(t *testing.T, addr string) *redis.Client {
	t.Helper()
	c := redis.NewClient(&redis.Options{Addr: addr, Username: "app", Password: "password"})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

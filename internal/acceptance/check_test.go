package acceptance

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
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

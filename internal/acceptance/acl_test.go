package acceptance

import (
	"context"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/idemcheck"
	"github.com/idempotent-go/idempotent/internal/behaviour"
	"github.com/idempotent-go/idempotent/internal/redistest"
)

// aclRules are the rules of the ACL lines in docs/redis.md: the user of a single server, that of a
// Cluster, and what Check reads beyond.
func aclRules(t *testing.T) (single, cluster, check []string) {
	t.Helper()
	lines := regexp.MustCompile(`(?m)^ACL SETUSER app (.*)$`).FindAllStringSubmatch(readText(t, "docs/redis.md"), -1)
	require.Len(t, lines, 3)
	return strings.Fields(lines[0][1]), strings.Fields(lines[1][1]), strings.Fields(lines[2][1])
}

// setUser resets the user app to the rules, and allows the command that docs/redis.md adds for a clean
// log where the server has it: Redis 7.2 and later, Valkey.
func setUser(t *testing.T, admin redis.Cmdable, rules ...[]string) {
	t.Helper()
	args := []any{"acl", "setuser", "app", "reset"}
	for _, rule := range slices.Concat(rules...) {
		args = append(args, rule)
	}
	set := func(args ...any) error {
		return admin.(interface {
			Process(context.Context, redis.Cmder) error
		}).Process(t.Context(), redis.NewStatusCmd(t.Context(), args...))
	}
	require.NoError(t, set(args...))
	if err := set("acl", "setuser", "app", "+client|setinfo"); err != nil {
		require.ErrorContains(t, err, "Unknown command")
	}
}

func requireEmptyLog(t *testing.T, admin *redis.Client) {
	t.Helper()
	log, err := admin.ACLLog(t.Context(), 10).Result()
	require.NoError(t, err)
	for _, entry := range log {
		t.Errorf("refused: %s of %s in %s", entry.Reason, entry.Object, entry.Context)
	}
}

// loggedIntoCluster is a client of the user app.
func loggedIntoCluster(t *testing.T, c *redistest.Cluster) *redis.ClusterClient {
	t.Helper()
	client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: c.Addrs(), Username: "app", Password: "password"})
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// The user in docs/redis.md can do everything.
func TestDocumentedUser(t *testing.T) {
	t.Parallel()
	single, onCluster, _ := aclRules(t)
	t.Run("single server", func(t *testing.T) {
		server := redistest.Start(t)
		admin := server.Client(t)
		setUser(t, admin, single)
		behaviour.Run(t, loggedIn(t, server.Addr()), loggedIn(t, server.Addr()))
		requireEmptyLog(t, admin)
	})
	t.Run("Ring", func(t *testing.T) {
		servers := []*redistest.Server{redistest.Start(t), redistest.Start(t)}
		addrs := make(map[string]string)
		for _, server := range servers {
			setUser(t, server.Client(t), single)
			addrs[server.Addr()] = server.Addr()
		}
		ring := redis.NewRing(&redis.RingOptions{Addrs: addrs, HeartbeatFn: staysUp, Username: "app", Password: "password"})
		defer ring.Close()
		behaviour.Run(t, ring, ring)
		for _, server := range servers {
			requireEmptyLog(t, server.Client(t))
		}
	})
	t.Run("Cluster", func(t *testing.T) {
		cluster := redistest.StartCluster(t)
		masters, err := cluster.Masters(t.Context())
		require.NoError(t, err)
		for _, master := range masters {
			setUser(t, master.Client(), onCluster)
			setUser(t, cluster.Partner(master).Client(), onCluster)
		}
		behaviour.Run(t, loggedIntoCluster(t, cluster), loggedIntoCluster(t, cluster))
		for _, master := range masters {
			requireEmptyLog(t, master.Client())
			requireEmptyLog(t, cluster.Partner(master).Client())
		}
	})
}

// missing is what Check has to find when a rule is taken away.
func missing(rule string) (code idemcheck.FindingCode, severity idemcheck.Severity) {
	switch {
	case strings.HasPrefix(rule, "~"):
		return idemcheck.FindingMissingKeys, idemcheck.SeverityUnsafe
	case strings.HasPrefix(rule, "&"):
		return idemcheck.FindingMissingChannels, idemcheck.SeverityUnsafe
	}
	switch strings.TrimPrefix(rule, "+") {
	case "subscribe", "unsubscribe", "ssubscribe", "sunsubscribe", "ping":
		return idemcheck.FindingMissingCommand, idemcheck.SeverityWarning
	case "command":
		return idemcheck.FindingMissingCommand, idemcheck.SeverityNotice
	}
	return idemcheck.FindingMissingCommand, idemcheck.SeverityUnsafe
}

// requireMissing requires that the findings of each server are that one rule is missing.
func requireMissing(t *testing.T, findings []idemcheck.Finding, rule string, servers int) {
	t.Helper()
	code, severity := missing(rule)
	found := 0
	for _, f := range findings {
		if f.Code == idemcheck.FindingNotChecked {
			continue
		}
		found++
		assert.Equal(t, code, f.Code, "%v", f)
		assert.Equal(t, severity, f.Severity, "%v", f)
		if code == idemcheck.FindingMissingCommand {
			assert.True(t, strings.HasPrefix(f.Detail, strings.ToUpper(rule[1:])+" is refused"), "%v", f)
			assert.Contains(t, f.Advice, "Add "+rule+" to the user")
		} else {
			assert.Contains(t, f.Advice, "Add "+rule[:1]+"idempotent:check:*")
		}
	}
	assert.Equal(t, servers, found, "servers")
}

// Check finds each right that is missing, and no other: by asking, or by trying.
func TestDocumentedUserNeedsEachRight(t *testing.T) {
	t.Parallel()
	single, onCluster, reading := aclRules(t)
	ways := map[string][]string{"by asking": reading, "by trying": nil}
	server := redistest.Start(t, durable...)
	admin := server.Client(t)
	cluster := redistest.StartCluster(t, append(durable, "--cluster-node-timeout", "5000")...)
	masters, err := cluster.Masters(t.Context())
	require.NoError(t, err)
	for way, more := range ways {
		notChecked := 3 // INFO, CONFIG GET, TIME
		if more != nil {
			notChecked = 0
		}
		t.Run("single server, "+way, func(t *testing.T) {
			setUser(t, admin, single, more)
			assert.Len(t, check(t, loggedIn(t, server.Addr())), notChecked, "nothing is missing")
			for i, rule := range single {
				if i < 2 { // on >password
					continue
				}
				t.Run(rule, func(t *testing.T) {
					setUser(t, admin, slices.Delete(slices.Clone(single), i, i+1), more)
					requireMissing(t, check(t, loggedIn(t, server.Addr())), rule, 1)
				})
			}
		})
		t.Run("Cluster, "+way, func(t *testing.T) {
			give := func(rules []string) {
				for _, master := range masters {
					setUser(t, master.Client(), rules, more)
					setUser(t, cluster.Partner(master).Client(), rules, more)
				}
			}
			give(onCluster)
			assert.Len(t, check(t, loggedIntoCluster(t, cluster)), notChecked*len(masters), "nothing is missing")
			for i, rule := range onCluster {
				if i < 2 {
					continue
				}
				t.Run(rule, func(t *testing.T) {
					give(slices.Delete(slices.Clone(onCluster), i, i+1))
					if rule == "+cluster|slots" {
						_, err := checker(t, loggedIntoCluster(t, cluster)).Check(t.Context())
						require.ErrorIs(t, err, idempotent.ErrUnavailable)
						return
					}
					requireMissing(t, check(t, loggedIntoCluster(t, cluster)), rule, len(masters))
				})
			}
		})
	}
}

func TestCheckFindsMissingWait(t *testing.T) {
	t.Parallel()
	single, _, reading := aclRules(t)
	master := redistest.Start(t, append(durable, "--repl-diskless-sync-delay", "0")...)
	follow(t, master)
	for _, more := range [][]string{reading, nil} {
		for _, rule := range []string{"+wait", "-wait"} {
			setUser(t, master.Client(t), single, more, []string{rule})
			findings := check(t, loggedIn(t, master.Addr()), idempotent.WithReplicaAck(1, time.Second))
			servers := 0
			if rule == "-wait" {
				servers = 1
			}
			requireMissing(t, findings, "+wait", servers)
		}
	}
}

// The cache's subscription on a Cluster is not sharded, unlike all others.
func TestCheckFindsMissingSubscribe(t *testing.T) {
	t.Parallel()
	_, onCluster, reading := aclRules(t)
	server := redistest.Start(t, append(durable, "--cluster-enabled", "yes")...)
	server.MakeCluster(t)
	for _, more := range [][]string{reading, nil} {
		for rule, servers := range map[string]int{"+subscribe": 0, "-subscribe": 1} {
			setUser(t, server.Client(t), onCluster, more, []string{rule})
			client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{server.Addr()}, Username: "app", Password: "password"})
			t.Cleanup(func() { _ = client.Close() })
			missing := slices.DeleteFunc(check(t, client, idempotent.WithReplayCache(10)), func(f idemcheck.Finding) bool {
				return f.Code != idemcheck.FindingMissingCommand
			})
			requireMissing(t, missing, "+subscribe", servers)
		}
	}
}

// What Check may not read, it says, and finds the rest all the same.
func TestCheckOfWhatItMayNotRead(t *testing.T) {
	t.Parallel()
	single, _, reading := aclRules(t)
	server := redistest.Start(t, "--appendonly", "no", "--maxmemory", "100mb", "--maxmemory-policy", "volatile-ttl")
	all := []string{"unsafe eviction", "unsafe no-persistence"}
	for i, rule := range reading {
		want := all
		switch rule {
		case "+info":
			want = []string{"notice not-checked"}
		case "+config|get": // then nobody knows whether there are snapshots
			want = []string{"unsafe eviction", "warning no-append-only-file", "notice not-checked"}
		case "+time":
			want = append(slices.Clone(all), "notice not-checked")
		}
		t.Run(rule, func(t *testing.T) {
			setUser(t, server.Client(t), single, slices.Delete(slices.Clone(reading), i, i+1))
			assert.ElementsMatch(t, want, codes(check(t, loggedIn(t, server.Addr()))))
		})
	}
}

// Rights to read names but not to write them are told from none.
func TestCheckFindsReadOnlyNames(t *testing.T) {
	t.Parallel()
	single, _, _ := aclRules(t)
	server := redistest.Start(t, durable...)
	rules := slices.Clone(single)
	rules[2] = "%R~idempotent:*"
	setUser(t, server.Client(t), rules)
	for _, f := range check(t, loggedIn(t, server.Addr())) {
		if f.Code == idemcheck.FindingNotChecked {
			continue
		}
		assert.Equal(t, idemcheck.FindingMissingKeys, f.Code)
		assert.Contains(t, f.Detail, "SET, DEL, PEXPIRE")
		assert.NotContains(t, f.Detail, "GETRANGE")
	}
}

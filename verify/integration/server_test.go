package integration

import (
	"context"
	"net"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A server runs in a container.
type server struct{ addr string }

// admin is a client of the default user, who may do everything.
func (s *server) admin(t *testing.T) *redis.Client {
	t.Helper()
	c := redis.NewClient(&redis.Options{Addr: s.addr})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// dial connects to the server, whatever address it believes to have.
func (s *server) dial(ctx context.Context, network, _ string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, network, s.addr)
}

// makeCluster turns a server into a Cluster of one.
func (s *server) makeCluster(t *testing.T) {
	t.Helper()
	node := s.admin(t)
	require.NoError(t, node.ClusterAddSlotsRange(t.Context(), 0, 16383).Err())
	require.Eventually(t, func() bool { // the node has no event for this
		info, err := node.ClusterInfo(t.Context()).Result()
		return err == nil && strings.Contains(info, "cluster_state:ok")
	}, 30*time.Second, 10*time.Millisecond)
}

type user struct{ name, password string }

var aclRule = regexp.MustCompile(`(?m)^    (ACL SETUSER (\S+) on >(\S+) .*)$`)

// restrict makes the user of docs/redis.md: its rule 0 is for a single server, rule 1 for Cluster.
func (s *server) restrict(t *testing.T, rule int) user {
	t.Helper()
	text, err := os.ReadFile("../../docs/redis.md")
	require.NoError(t, err)
	rules := aclRule.FindAllStringSubmatch(string(text), -1)
	require.Len(t, rules, 2)
	var command []any
	for word := range strings.FieldsSeq(rules[rule][1]) {
		command = append(command, word)
	}
	c := s.admin(t)
	require.NoError(t, c.Do(t.Context(), command...).Err())
	require.NoError(t, c.ACLLogReset(t.Context()).Err())
	return user{name: rules[rule][2], password: rules[rule][3]}
}

// refusedNothing checks that the user was refused nothing but what go-redis does not need.
func (s *server) refusedNothing(t *testing.T, u user) {
	t.Helper()
	entries, err := s.admin(t).ACLLog(t.Context(), 100).Result()
	require.NoError(t, err)
	for _, e := range entries {
		if e.Username == u.name && e.Object != "client|setinfo" && e.Object != "client|maint_notifications" {
			assert.Fail(t, "refused", "%s %s, %s", e.Reason, e.Object, e.Context)
		}
	}
}

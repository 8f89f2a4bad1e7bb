package topology_test

import (
	"context"
	"errors"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent/internal/topology"
)

const nowhere = "127.0.0.1:1"

func single(t *testing.T) *redis.Client {
	c := redis.NewClient(&redis.Options{Addr: nowhere, MaxRetries: -1})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func cluster(t *testing.T) *redis.ClusterClient {
	c := redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{nowhere}})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func ringOf(t *testing.T, alive func(context.Context, *redis.Client) bool) *redis.Ring {
	r := redis.NewRing(&redis.RingOptions{Addrs: map[string]string{"one": nowhere}, HeartbeatFn: alive})
	t.Cleanup(func() { _ = r.Close() })
	return r
}

func staysUp(context.Context, *redis.Client) bool { return true }

func TestUnsupportedClients(t *testing.T) {
	overSingle, err := single(t).AutoPipeline()
	require.NoError(t, err)
	overCluster, err := cluster(t).AutoPipeline()
	require.NoError(t, err)
	type wrappedRing struct{ *redis.Ring }
	type wrappedPipeliner struct{ *redis.AutoPipeliner }
	for name, test := range map[string]struct {
		client redis.UniversalClient
		says   string // "" for a client that works
	}{
		"one server":                         {single(t), ""},
		"Cluster":                            {cluster(t), ""},
		"Ring that keeps its keys":           {ringOf(t, staysUp), ""},
		"Ring by default":                    {ringOf(t, nil), "HeartbeatFn"},
		"Ring whose heartbeat pings":         {ringOf(t, func(ctx context.Context, shard *redis.Client) bool { return shard.Ping(ctx).Err() == nil }), "HeartbeatFn"},
		"wrapped Ring by default":            {wrappedRing{ringOf(t, nil)}, "HeartbeatFn"},
		"AutoPipeliner":                      {overSingle, ""},
		"wrapped AutoPipeliner":              {wrappedPipeliner{overSingle}, ""},
		"AutoPipeliner over Cluster":         {overCluster, "Cluster client itself"},
		"wrapped AutoPipeliner over Cluster": {wrappedPipeliner{overCluster}, "Cluster client itself"},
	} {
		problem, allowed := topology.Unsupported(test.client)
		if test.says == "" {
			assert.Empty(t, problem+allowed, name)
			continue
		}
		assert.NotEmpty(t, problem, name)
		assert.Contains(t, allowed, test.says, name)
	}
}

func TestNodeOfOneServerIsTheClient(t *testing.T) {
	client := single(t)
	address, node, err := topology.Of(client).Node(t.Context(), "name")
	require.NoError(t, err)
	assert.Empty(t, address)
	assert.Same(t, client, node)
	nodes, err := topology.Of(client).Nodes(t.Context())
	require.NoError(t, err)
	assert.Nil(t, nodes)
}

func TestNodeOfARingIsItsShard(t *testing.T) {
	servers := topology.Of(ringOf(t, staysUp))
	address, node, err := servers.Node(t.Context(), "name")
	require.NoError(t, err)
	assert.Equal(t, nowhere, address)
	assert.Equal(t, nowhere, node.(*redis.Client).Options().Addr)
	nodes, err := servers.Nodes(t.Context())
	require.NoError(t, err)
	assert.Contains(t, nodes, nowhere)
}

// masters is a Cluster client that counts how often its topology is reloaded.
type masters struct {
	*redis.ClusterClient
	nodes    []*redis.Client
	reloads  int
	visits   int
	failWith error
}

func (m *masters) MasterForKey(context.Context, string) (*redis.Client, error) {
	if m.failWith != nil {
		return nil, m.failWith
	}
	return m.nodes[0], nil
}

func (m *masters) ForEachMaster(ctx context.Context, do func(context.Context, *redis.Client) error) error {
	m.visits++
	for _, node := range m.nodes {
		_ = do(ctx, node)
	}
	return m.failWith
}

func (m *masters) ReloadState(context.Context) { m.reloads++ }

// serverError is an error that a server replied.
type serverError string

func (e serverError) Error() string { return string(e) }
func (serverError) RedisError()     {}

func TestTopologyIsRefreshedWhenNoReplyCame(t *testing.T) {
	m := &masters{ClusterClient: cluster(t)}
	s := topology.Of(m)
	lost := errors.New("EOF")
	assert.NoError(t, s.RefreshOnError(nil))
	assert.Equal(t, serverError("OOM"), s.RefreshOnError(serverError("OOM")))
	assert.Zero(t, m.reloads, "a server that answers is where it was")
	assert.Equal(t, lost, s.RefreshOnError(lost))
	assert.Equal(t, 1, m.reloads)
	s.Refresh(t.Context())
	assert.Equal(t, 1, m.visits)
	assert.Equal(t, lost, topology.Of(single(t)).RefreshOnError(lost))
}

func TestClusterWithoutMasters(t *testing.T) {
	m := &masters{ClusterClient: cluster(t)}
	_, err := topology.Of(m).Nodes(t.Context())
	assert.ErrorIs(t, err, topology.ErrNoServer)
	m.failWith = errors.New("down")
	_, err = topology.Of(m).Nodes(t.Context())
	assert.ErrorIs(t, err, m.failWith)
	_, node, err := topology.Of(m).Node(t.Context(), "name")
	assert.ErrorIs(t, err, m.failWith)
	assert.Nil(t, node)
}

// spreads hides which servers it spreads keys over.
type spreads struct{ redis.UniversalClient }

func (spreads) GetShardClientForKey(string) (*redis.Client, error) { return nil, nil }
func (spreads) Options() *redis.RingOptions                        { return &redis.RingOptions{} }

func TestCanSubscribe(t *testing.T) {
	assert.True(t, topology.CanSubscribe(single(t)))
	assert.True(t, topology.CanSubscribe(cluster(t)))
	assert.True(t, topology.CanSubscribe(ringOf(t, staysUp)))
	assert.False(t, topology.CanSubscribe(spreads{single(t)}))
}

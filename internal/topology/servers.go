// Package topology owns the question which server has a name, and which kinds of client can be used at
// all. It sends no command of the protocol and keeps no connection: both belong to the client.
package topology

import (
	"context"
	"errors"
	"net"
	"sync"

	"github.com/redis/go-redis/v9"
)

// The clients that speak to several servers, also when they are wrapped by another type.
type (
	// Cluster is a client of a Redis Cluster.
	Cluster interface {
		MasterForKey(ctx context.Context, key string) (*redis.Client, error)
		ForEachMaster(ctx context.Context, do func(context.Context, *redis.Client) error) error
		ReloadState(ctx context.Context)
	}
	ring interface {
		GetShardClientForKey(key string) (*redis.Client, error)
		Options() *redis.RingOptions
	}
	// sharded is a client that lists the servers it spreads keys over.
	sharded interface {
		ForEachShard(ctx context.Context, do func(context.Context, *redis.Client) error) error
	}
	autoPipeliner interface {
		Config() redis.AutoPipelineOptions
		Watch(ctx context.Context, fn func(*redis.Tx) error, keys ...string) error
	}
)

// Servers are what a client speaks to: a Cluster, a Ring or, when neither is set, one server.
type Servers struct {
	Client  redis.UniversalClient
	Cluster Cluster
	Ring    ring
}

// Of returns the servers behind client.
func Of(client redis.UniversalClient) *Servers {
	s := &Servers{Client: client}
	switch c := client.(type) {
	case Cluster:
		s.Cluster = c
	case ring:
		s.Ring = c
	}
	return s
}

// Unsupported says what is wrong with a client on which an operation could run twice, or whose
// waiters would miss messages, and what is allowed instead. Both are empty for a client that works.
func Unsupported(client redis.UniversalClient) (problem, allowed string) {
	switch c := client.(type) {
	case Cluster:
	case ring:
		// The default heartbeat moves the keys of a shard that does not answer to other shards, where
		// nobody knows what runs or is done.
		if ejects(c) {
			return "a Ring that moves the keys of a shard that does not answer to other shards, where operations would run again",
				"a Ring with a RingOptions.HeartbeatFn that always returns true, so that such a shard's operations are ErrUnavailable until it is back"
		}
	case autoPipeliner:
		if overCluster(c) {
			return "an AutoPipeliner over a Cluster client, which hides which master has a key",
				"the Cluster client itself, or an AutoPipeliner over the client of one server"
		}
	}
	return "", ""
}

// ejects reports whether a Ring takes a shard that cannot be reached out of use. NewRing fills in a
// default heartbeat, so only a call shows what the function does.
func ejects(r ring) bool {
	options := r.Options()
	if options.HeartbeatFn == nil {
		return true
	}
	down := &redis.Options{
		MaxRetries: -1, DialerRetries: 1,
		Dialer: func(context.Context, string, string) (net.Conn, error) { return nil, ErrNoServer },
	}
	for _, down.Addr = range options.Addrs {
		break
	}
	shard := redis.NewClient(down)
	defer shard.Close()
	return !options.HeartbeatFn(context.Background(), shard)
}

// overCluster reports whether the client needs a key to choose a server. Watch without keys sends
// nothing: on one server it calls its function, on a Cluster it fails.
func overCluster(client autoPipeliner) bool {
	oneServer := false
	_ = client.Watch(context.Background(), func(*redis.Tx) error {
		oneServer = true
		return nil
	})
	return !oneServer
}

// Node returns the server that has the name: its address, and a client for it alone. With one server
// the address is "" and the client is the caller's own.
func (s *Servers) Node(ctx context.Context, name string) (address string, node redis.UniversalClient, err error) {
	var server *redis.Client
	switch {
	case s.Cluster != nil:
		server, err = s.Cluster.MasterForKey(ctx, name)
	case s.Ring != nil:
		server, err = s.Ring.GetShardClientForKey(name)
	default:
		return "", s.Client, nil
	}
	if err != nil {
		return "", nil, err
	}
	return server.Options().Addr, server, nil
}

// Refresh reloads the topology of a Cluster and returns when that is done. A client does so by
// itself when a master redirects it, but not when a master is dead.
func (s *Servers) Refresh(ctx context.Context) {
	if s.Cluster != nil {
		_ = s.Cluster.ForEachMaster(ctx, func(context.Context, *redis.Client) error { return nil })
	}
}

// RefreshOnError reloads the topology of a Cluster in the background if a command got no reply. It
// returns err unchanged.
func (s *Servers) RefreshOnError(err error) error {
	if _, answered := errors.AsType[redis.Error](err); s.Cluster != nil && err != nil && !answered {
		s.Cluster.ReloadState(context.Background()) // in a goroutine of the client
	}
	return err
}

// CanSubscribe reports whether messages about every key can be received through a client: it is over
// one server, or lists its servers.
func CanSubscribe(client redis.UniversalClient) bool {
	_, spreads := client.(ring)
	_, lists := client.(sharded)
	return lists || !spreads
}

// Nodes lists, by address, the servers that can have records. It is nil for a client that speaks to
// one server.
func (s *Servers) Nodes(ctx context.Context) (map[string]*redis.Client, error) {
	var each func(context.Context, func(context.Context, *redis.Client) error) error
	if s.Cluster != nil {
		each = s.Cluster.ForEachMaster
	} else if c, ok := s.Client.(sharded); ok {
		each = c.ForEachShard
	} else {
		return nil, nil
	}
	var mu sync.Mutex // each calls its function concurrently
	found := make(map[string]*redis.Client)
	err := each(ctx, func(_ context.Context, node *redis.Client) error {
		mu.Lock()
		defer mu.Unlock()
		found[node.Options().Addr] = node
		return nil
	})
	if err == nil && len(found) == 0 {
		err = ErrNoServer
	}
	return found, err
}

// ErrNoServer: no server is known, for a name or at all.
var ErrNoServer = errors.New("no server is known")

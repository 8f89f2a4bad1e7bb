package idempotent

import (
	"context"
	"errors"
	"net"
	"reflect"

	"github.com/redis/go-redis/v9"
)

// The clients that speak to several servers, also when they are wrapped.
type (
	cluster interface {
		MasterForKey(ctx context.Context, key string) (*redis.Client, error)
		ForEachMaster(ctx context.Context, do func(context.Context, *redis.Client) error) error
		ReloadState(ctx context.Context)
	}
	ring interface {
		GetShardClientForKey(key string) (*redis.Client, error)
		Options() *redis.RingOptions
	}
	autoPipeliner interface {
		Config() redis.AutoPipelineOptions
		Watch(ctx context.Context, fn func(*redis.Tx) error, keys ...string) error
	}
)

// servers are what a client speaks to: a Cluster, a Ring or, when neither is set, one server.
type servers struct {
	cluster cluster
	ring    ring
}

func serversOf(client redis.UniversalClient) servers {
	switch c := client.(type) {
	case cluster:
		return servers{cluster: c}
	case ring:
		return servers{ring: c}
	case autoPipeliner:
		if below, _ := clientBelow(c); below != nil {
			return serversOf(below)
		}
	}
	return servers{}
}

// checkServers refuses clients with which an operation could run twice, or its waiters hear
// nothing.
func checkServers(client redis.UniversalClient) error {
	switch c := client.(type) {
	case cluster:
	case ring:
		if ejects(c) {
			return invalid("New", "client", "a Ring that moves the keys of a shard that does not answer to other shards, where operations would run again",
				"a Ring with a RingOptions.HeartbeatFn that always returns true, so that such a shard's operations are ErrUnavailable until it is back")
		}
	case autoPipeliner:
		if _, known := clientBelow(c); !known && severalServers(c) {
			return invalid("New", "client", "an AutoPipeliner over a Cluster client that cannot be reached through it",
				"the *redis.AutoPipeliner itself, of a go-redis version that this library knows, or the Cluster client")
		}
	}
	return nil
}

// clientBelow returns the client that an AutoPipeliner was made by, if it is a single server's or a
// Cluster's. go-redis does not let it out, so this looks where it is; known is false when it is not
// there.
func clientBelow(client autoPipeliner) (below redis.UniversalClient, known bool) {
	ap, ok := client.(*redis.AutoPipeliner)
	if !ok {
		return nil, false
	}
	field := reflect.ValueOf(ap).Elem().FieldByName("pipeliner")
	if field.Kind() != reflect.Interface {
		return nil, false
	}
	made := field.Elem()
	if !made.IsValid() {
		return nil, true
	}
	switch made.Type() {
	case reflect.TypeFor[*redis.ClusterClient]():
		return (*redis.ClusterClient)(made.UnsafePointer()), true
	case reflect.TypeFor[*redis.Client]():
		return (*redis.Client)(made.UnsafePointer()), true
	}
	return nil, true
}

// severalServers reports whether the client needs a key to know where to send something. Nothing
// is sent to find that out.
func severalServers(client autoPipeliner) bool {
	one := false
	_ = client.Watch(context.Background(), func(*redis.Tx) error {
		one = true
		return nil
	})
	return !one
}

// ejects reports whether a Ring takes a shard for dead that cannot be reached.
func ejects(r ring) bool {
	options := r.Options()
	if options.HeartbeatFn == nil {
		return true
	}
	down := &redis.Options{
		MaxRetries: -1, DialerRetries: 1,
		Dialer: func(context.Context, string, string) (net.Conn, error) { return nil, errNoServer },
	}
	for _, down.Addr = range options.Addrs {
		break
	}
	shard := redis.NewClient(down)
	defer shard.Close()
	return !options.HeartbeatFn(context.Background(), shard)
}

// node says which server has the name, for clients that speak to several: its address, and a
// client for it alone. With one server it is the client itself.
func (s *store) node(ctx context.Context, name string) (address string, node redis.UniversalClient, err error) {
	var server *redis.Client
	switch {
	case s.cluster != nil:
		server, err = s.cluster.MasterForKey(ctx, name)
	case s.ring != nil:
		server, err = s.ring.GetShardClientForKey(name)
	default:
		return "", s.client, nil
	}
	if err != nil {
		return "", nil, err
	}
	return server.Options().Addr, server, nil
}

// lookAround asks a Cluster who its masters are. A client does so by itself when one of them sends
// it to another one, but not when one is dead.
func (s *store) lookAround(ctx context.Context) {
	if s.cluster != nil {
		_ = s.cluster.ForEachMaster(ctx, func(context.Context, *redis.Client) error { return nil })
	}
}

// heed begins to look around when a command had no answer. It returns err.
func (s *store) heed(err error) error {
	if _, answered := errors.AsType[redis.Error](err); s.cluster != nil && err != nil && !answered {
		s.cluster.ReloadState(context.Background()) // in a goroutine of the client
	}
	return err
}

// newBatcher is for a client that speaks to one server: pipelines to several would wait for the
// slowest. It is nil for others, and for those whose commands end with their contexts.
func (s *store) newBatcher() *batcher {
	if s.cluster != nil || s.ring != nil {
		return nil
	}
	pooled := s.client
	if ap, ok := s.client.(autoPipeliner); ok {
		pooled, _ = clientBelow(ap) // it is made for commands, and takes pipelines apart again
	}
	c, ok := pooled.(interface{ Options() *redis.Options })
	if !ok || c.Options().ContextTimeoutEnabled {
		return nil
	}
	b := newBatcher(context.Background(), pooled, c.Options().PoolSize)
	b.single = s.client
	return b
}

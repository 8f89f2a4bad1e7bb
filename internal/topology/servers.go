package topology

import (
	"context"
	"errors"
	"net"
	"reflect"
	"sync"

	"github.com/redis/go-redis/v9"
)

// The clients that speak to several servers, also when they are wrapped.
type (
	Cluster interface {
		MasterForKey(ctx context.Context, key string) (*redis.Client, error)
		ForEachMaster(ctx context.Context, do func(context.Context, *redis.Client) error) error
		ReloadState(ctx context.Context)
	}
	ring interface {
		GetShardClientForKey(key string) (*redis.Client, error)
		Options() *redis.RingOptions
	}
	AutoPipeliner interface {
		Config() redis.AutoPipelineOptions
		Watch(ctx context.Context, fn func(*redis.Tx) error, keys ...string) error
	}
)

// servers are what a client speaks to: a Cluster, a Ring or, when neither is set, one server.
type Servers struct {
	Client  redis.UniversalClient
	Cluster Cluster
	Ring    ring
}

func Of(client redis.UniversalClient) *Servers {
	s := &Servers{Client: client}
	below := client
	if ap, ok := client.(AutoPipeliner); ok {
		if c, _ := ClientBelow(ap); c != nil {
			below = c
		}
	}
	switch c := below.(type) {
	case Cluster:
		s.Cluster = c
	case ring:
		s.Ring = c
	}
	return s
}

// checkServers refuses clients with which an operation could run twice, or its waiters hear
// nothing.
func Unsupported(client redis.UniversalClient) (problem, allowed string) {
	switch c := client.(type) {
	case Cluster:
	case ring:
		if ejects(c) {
			return "a Ring that moves the keys of a shard that does not answer to other shards, where operations would run again",
				"a Ring with a RingOptions.HeartbeatFn that always returns true, so that such a shard's operations are ErrUnavailable until it is back"
		}
	case AutoPipeliner:
		if _, known := ClientBelow(c); !known && severalServers(c) {
			return "an AutoPipeliner over a Cluster client that cannot be reached through it",
				"the *redis.AutoPipeliner itself, of a go-redis version that this library knows, or the Cluster client"
		}
	}
	return "", ""
}

// clientBelow returns the client that an AutoPipeliner was made by, if it is a single server's or a
// Cluster's. go-redis does not let it out, so this looks where it is; known is false when it is not
// there.
func ClientBelow(client AutoPipeliner) (below redis.UniversalClient, known bool) {
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
func severalServers(client AutoPipeliner) bool {
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
		Dialer: func(context.Context, string, string) (net.Conn, error) { return nil, ErrNoServer },
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

// lookAround asks a Cluster who its masters are. A client does so by itself when one of them sends
// it to another one, but not when one is dead.
func (s *Servers) Refresh(ctx context.Context) {
	if s.Cluster != nil {
		_ = s.Cluster.ForEachMaster(ctx, func(context.Context, *redis.Client) error { return nil })
	}
}

// heed begins to look around when a command had no answer. It returns err.
func (s *Servers) RefreshOnError(err error) error {
	if _, answered := errors.AsType[redis.Error](err); s.Cluster != nil && err != nil && !answered {
		s.Cluster.ReloadState(context.Background()) // in a goroutine of the client
	}
	return err
}

// spread is a client that can say which servers it spreads keys over; every cluster can.
type spread interface {
	ForEachShard(ctx context.Context, do func(context.Context, *redis.Client) error) error
}

// canListen reports whether what is published about every key can be heard through a client.
func CanSubscribe(client redis.UniversalClient) bool {
	_, spreads := client.(ring)
	_, says := client.(spread)
	return says || !spreads
}

// nodes lists, by address, the servers that can have records, for clients that speak to several;
// nil for the others.
func (s *Servers) Nodes(ctx context.Context) (map[string]*redis.Client, error) {
	var each func(context.Context, func(context.Context, *redis.Client) error) error
	if s.Cluster != nil {
		each = s.Cluster.ForEachMaster
	} else if c, ok := s.Client.(spread); ok {
		each = c.ForEachShard
	} else {
		return nil, nil
	}
	var mu sync.Mutex // each calls many at once
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

// What ends a subscription.
var (
	ErrSilent   = errors.New("no answer to a ping")
	ErrMoved    = errors.New("the server ended the subscription")
	ErrNoServer = errors.New("no server is known for the channel")
)

package load

import (
	"context"
	"net"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// timeout is that of connecting, of sending and of each reply.
	timeout  = 300 * time.Millisecond
	attempts = 2
	// redirects is how often a Cluster client tries, at another server perhaps, and how often the
	// library does where it waits for replicas.
	redirects = 6
	pause     = 50 * time.Millisecond
)

const (
	plenty = 300 // connections: nobody waits for one
	few    = 2   // what more is under way shares pipelines
)

// ClientName is the beginning of the names of all connections.
const ClientName = "soak-worker"

// Command bounds one command: each attempt may have to wait for the pool, connect, introduce itself
// twice, send, and wait for the reply. A client for Sentinel may have to ask three sentinels first.
func Command(kind string) time.Duration {
	const attempt = 6*timeout + pause
	switch kind {
	case "cluster":
		return redirects * attempt
	case "sentinel":
		return attempts * (attempt + 3*2*timeout)
	}
	return attempts * attempt
}

// dialer connects to the proxy before a server.
func (o *Order) dialer() func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		if proxy, ok := o.Proxies[address]; ok {
			address = proxy
		}
		return (&net.Dialer{Timeout: timeout}).DialContext(ctx, network, address)
	}
}

// client makes the client of the order's topology, impatient so that faults are felt.
func (o *Order) client() redis.UniversalClient {
	pool, heedsDeadlines := plenty, true
	if o.Shares { // a client that heeds deadlines sends every command alone
		pool, heedsDeadlines = few, false
	}
	switch o.Kind {
	case "cluster":
		return redis.NewClusterClient(&redis.ClusterOptions{
			Addrs: o.Addrs, Dialer: o.dialer(), ClientName: ClientName, MaxRedirects: redirects - 1,
			DialTimeout: timeout, DialerRetries: 1, ReadTimeout: timeout, WriteTimeout: timeout, ContextTimeoutEnabled: heedsDeadlines,
			MaxRetryBackoff: pause, PoolSize: pool, PoolTimeout: timeout,
		})
	case "sentinel":
		return redis.NewFailoverClient(&redis.FailoverOptions{
			MasterName: o.Master, SentinelAddrs: o.Addrs, Dialer: o.dialer(), ClientName: ClientName, MaxRetries: attempts - 1,
			DialTimeout: timeout, DialerRetries: 1, ReadTimeout: timeout, WriteTimeout: timeout, ContextTimeoutEnabled: heedsDeadlines,
			MaxRetryBackoff: pause, PoolSize: pool, PoolTimeout: timeout,
		})
	}
	return redis.NewClient(&redis.Options{
		Addr: o.Addrs[0], Dialer: o.dialer(), ClientName: ClientName, MaxRetries: attempts - 1,
		DialTimeout: timeout, DialerRetries: 1, ReadTimeout: timeout, WriteTimeout: timeout, ContextTimeoutEnabled: heedsDeadlines,
		MaxRetryBackoff: pause, PoolSize: pool, PoolTimeout: timeout,
	})
}

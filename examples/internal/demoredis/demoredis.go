// Package demoredis connects an example to a Redis, so that it runs where there is none as well.
package demoredis

import (
	"context"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
)

// localAddress is where a Redis of the developer's own listens.
const localAddress = "localhost:6379"

// Connect returns a client for the Redis that REDIS_URL names, for the one at localhost:6379, or for
// a Redis in memory, in this order. A Redis that REDIS_URL names and that does not answer is an error.
// stop closes the client and the Redis in memory.
//
// A program of your own calls redis.NewClient instead.
func Connect(ctx context.Context) (rdb *redis.Client, stop func(), err error) {
	return connect(ctx, os.Getenv("REDIS_URL"), localAddress)
}

func connect(ctx context.Context, url, local string) (*redis.Client, func(), error) {
	if url != "" {
		opts, err := redis.ParseURL(url)
		if err != nil {
			return nil, nil, fmt.Errorf("REDIS_URL: %w", err)
		}
		rdb := redis.NewClient(opts)
		if err := rdb.Ping(ctx).Err(); err != nil {
			_ = rdb.Close()
			return nil, nil, fmt.Errorf("the Redis at REDIS_URL, %s: %w", opts.Addr, err)
		}
		return rdb, func() { _ = rdb.Close() }, nil
	}
	if answers(ctx, local) {
		rdb := redis.NewClient(&redis.Options{Addr: local})
		return rdb, func() { _ = rdb.Close() }, nil
	}
	return inMemory()
}

// answers reports whether a server listens at addr and speaks Redis's protocol without a password.
func answers(ctx context.Context, addr string) bool {
	ctx, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr) // go-redis would log that it cannot connect
	if err != nil {
		return false
	}
	_ = conn.Close()
	rdb := redis.NewClient(&redis.Options{Addr: addr})
	defer rdb.Close()
	return rdb.Ping(ctx).Err() == nil
}

func inMemory() (*redis.Client, func(), error) {
	server := miniredis.NewMiniRedis()
	server.ClockTTL(true) // keys expire as time passes
	if err := server.Start(); err != nil {
		return nil, nil, err
	}
	rdb := redis.NewClient(&redis.Options{Addr: server.Addr()})
	return rdb, func() { _ = rdb.Close(); server.Close() }, nil
}

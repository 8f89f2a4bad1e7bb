// Package idemtest has what one needs to test code that uses package idempotent: a Redis inside
// the test, an observer to wait on, and a check of codecs.
package idemtest

import (
	"context"
	"net"
	"strings"
	"testing"

	"github.com/alicebob/miniredis/v2"
	"github.com/alicebob/miniredis/v2/server"
	"github.com/redis/go-redis/v9"
)

// A Redis is an in-memory server for one test, and a client for it.
type Redis struct {
	*redis.Client
	server *miniredis.Miniredis
}

// NewRedis starts a Redis that ends with the test. It needs no network and no program, and works
// inside a testing/synctest bubble, where its expiry times follow the bubble's clock; call it
// inside the bubble then. Outside a bubble they follow the real clock.
//
// It is miniredis (https://github.com/alicebob/miniredis): good for testing code that uses an
// Executor, no proof of how a real server behaves. It has no sharded pub/sub.
func NewRedis(t testing.TB) *Redis {
	t.Helper()
	server := miniredis.NewMiniRedis()
	server.ClockTTL(true)
	r := &Redis{server: server, Client: redis.NewClient(&redis.Options{
		Addr: "127.0.0.1:0", // not a name, which would be looked up
		Dialer: func(context.Context, string, string) (net.Conn, error) {
			conn, err := server.Dial()
			if err != nil {
				return nil, err
			}
			return newBufferedConn(conn), nil
		},
		// A call that had to wait for a connection would use a timer that go-redis shares between
		// bubbles, which synctest does not allow.
		PoolSize:        1 << 16,
		ReadBufferSize:  4 << 10,
		WriteBufferSize: 4 << 10,
	})}
	t.Cleanup(func() {
		_ = r.Client.Close()
		server.Close()
	})
	return r
}

// Fail makes the server answer every command with this error, for instance
// "LOADING Redis is loading the dataset in memory". An empty message ends that. Subscriptions
// that stand go on.
func (r *Redis) Fail(message string) { r.server.SetError(message) }

// FailOn makes the server answer with this error the commands for which match returns true: command is
// its name in capitals, args are its arguments as they were sent, the name of the key among them. It
// replaces what Fail or FailOn set before; a nil match ends it. match is called by many goroutines at
// once.
func (r *Redis) FailOn(match func(command string, args []string) bool, message string) {
	if match == nil {
		r.server.SetError("")
		return
	}
	if conn, err := r.server.Dial(); err == nil { // the first connection starts the server
		_ = conn.Close()
	}
	r.server.Server().SetPreHook(func(c *server.Peer, command string, args ...string) bool {
		if !match(strings.ToUpper(command), args) {
			return false
		}
		c.WriteError(message)
		return true
	})
}

// Package redisproc gives a demonstration the Redis it runs on: the one that REDIS_URL names, else a
// redis-server started for this run, else miniredis inside the process, which needs nothing but Go.
package redisproc

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
)

// patience is how long a Redis may take to answer for the first time, and to end.
const patience = 5 * time.Second

// A Server is the Redis of a run.
type Server struct {
	URL         string
	Description string // where it is and where it comes from, for the audience; without a password
	stop        func()
}

// Stop ends the server, if Start has started it.
func (s *Server) Stop() { s.stop() }

// Start finds or starts a Redis and returns once it answers. A program that calls it must call
// Main first.
func Start(ctx context.Context) (*Server, error) {
	if url := os.Getenv("REDIS_URL"); url != "" {
		return given(ctx, url)
	}
	if path, err := exec.LookPath("redis-server"); err == nil {
		return start(ctx, path)
	}
	return simulate()
}

func given(ctx context.Context, url string) (*Server, error) {
	opts, err := redis.ParseURL(url)
	if err != nil {
		return nil, fmt.Errorf("REDIS_URL cannot be read: %w", err)
	}
	version, err := greet(ctx, opts)
	if err != nil {
		return nil, fmt.Errorf("the Redis that REDIS_URL names, at %s, does not answer: %w", opts.Addr, err)
	}
	return &Server{
		URL:         url,
		Description: fmt.Sprintf("Redis%s at %s, named by REDIS_URL; the demo's keys expire by themselves", version, opts.Addr),
		stop:        func() {},
	}, nil
}

func simulate() (*Server, error) {
	server := miniredis.NewMiniRedis()
	server.ClockTTL(true) // else nothing ever expires, a dead owner's lease included
	if err := server.Start(); err != nil {
		return nil, fmt.Errorf("starting miniredis: %w", err)
	}
	return &Server{
		URL:         "redis://" + server.Addr(),
		Description: fmt.Sprintf("miniredis at %s, inside the parent: no redis-server on PATH", server.Addr()),
		stop:        server.Close,
	}, nil
}

func start(ctx context.Context, path string) (server *Server, err error) {
	for range 3 { // somebody may take the port between looking and using
		if server, err = startOnce(ctx, path); err == nil {
			return server, nil
		}
	}
	return nil, fmt.Errorf("starting %s (set REDIS_URL to use another Redis): %w", path, err)
}

func startOnce(ctx context.Context, path string) (*Server, error) {
	addr, err := freeAddress()
	if err != nil {
		return nil, err
	}
	m, err := startMinder(path, addr)
	if err != nil {
		return nil, err
	}
	version, err := m.await(ctx, addr)
	if err != nil {
		m.stop()
		return nil, err
	}
	return &Server{
		URL:         "redis://" + addr,
		Description: fmt.Sprintf("redis-server%s at %s, started for this demo", version, addr),
		stop:        m.stop,
	}, nil
}

func freeAddress() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer listener.Close()
	return listener.Addr().String(), nil
}

// greet makes sure that a Redis answers, and returns its version after a space, if it tells.
func greet(ctx context.Context, opts *redis.Options) (version string, err error) {
	rdb := redis.NewClient(opts)
	defer rdb.Close()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := rdb.Ping(ctx).Err(); err != nil {
		return "", err
	}
	info, _ := rdb.Info(ctx, "server").Result()
	for line := range strings.Lines(info) {
		if number, ok := strings.CutPrefix(line, "redis_version:"); ok {
			return " " + strings.TrimSpace(number), nil
		}
	}
	return "", nil
}

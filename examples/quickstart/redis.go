package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
)

// redisPatience is how long a Redis may take to answer for the first time.
const redisPatience = 5 * time.Second

// A redisServer is the Redis of this run.
type redisServer struct {
	url         string
	description string
	stop        func()
}

// findRedis uses the Redis that REDIS_URL names, else starts a redis-server if there is one, else
// a Redis inside this process, which needs nothing but Go.
func findRedis(ctx context.Context) (*redisServer, error) {
	if url := os.Getenv("REDIS_URL"); url != "" {
		return givenRedis(ctx, url)
	}
	if path, err := exec.LookPath("redis-server"); err == nil {
		return startRedis(ctx, path)
	}
	return simulateRedis()
}

func givenRedis(ctx context.Context, url string) (*redisServer, error) {
	opts, err := redis.ParseURL(url)
	if err != nil {
		return nil, fmt.Errorf("REDIS_URL cannot be read: %w", err)
	}
	version, err := greet(ctx, url)
	if err != nil {
		return nil, fmt.Errorf("the Redis that REDIS_URL names, at %s, does not answer: %w", opts.Addr, err)
	}
	return &redisServer{
		url:         url,
		description: fmt.Sprintf("Redis%s at %s, named by REDIS_URL; the demo's keys expire by themselves", version, opts.Addr),
		stop:        func() {},
	}, nil
}

func simulateRedis() (*redisServer, error) {
	server := miniredis.NewMiniRedis()
	server.ClockTTL(true) // else nothing ever expires, a dead owner's lease included
	if err := server.Start(); err != nil {
		return nil, fmt.Errorf("starting miniredis: %w", err)
	}
	return &redisServer{
		url:         "redis://" + server.Addr(),
		description: fmt.Sprintf("miniredis at %s, inside the parent: no redis-server on PATH", server.Addr()),
		stop:        server.Close,
	}, nil
}

func startRedis(ctx context.Context, path string) (server *redisServer, err error) {
	for range 3 { // somebody may take the port between looking and using
		if server, err = startRedisOnce(ctx, path); err == nil {
			return server, nil
		}
	}
	return nil, fmt.Errorf("starting %s (set REDIS_URL to use another Redis): %w", path, err)
}

func startRedisOnce(ctx context.Context, path string) (*redisServer, error) {
	addr, err := freeAddress()
	if err != nil {
		return nil, err
	}
	m, err := startMinder(path, addr)
	if err != nil {
		return nil, err
	}
	if err := m.await(ctx, addr); err != nil {
		m.stop()
		return nil, err
	}
	url := "redis://" + addr
	version, err := greet(ctx, url)
	if err != nil {
		m.stop()
		return nil, err
	}
	return &redisServer{
		url:         url,
		description: fmt.Sprintf("redis-server%s at %s, started for this demo", version, addr),
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
func greet(ctx context.Context, url string) (version string, err error) {
	rdb, err := connect(url, newCommandCounter())
	if err != nil {
		return "", err
	}
	defer rdb.Close()
	ctx, cancel := context.WithTimeout(ctx, redisPatience)
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

// A minder is the parent's hold on a redis-server: a process in between, which ends the server
// when its own standard input ends. That happens even when the parent is killed.
type minder struct {
	cmd    *exec.Cmd
	output bytes.Buffer // to be read once gone is closed
	hold   func()       // ends its standard input
	gone   chan struct{}
}

func startMinder(path, addr string) (*minder, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	m := &minder{cmd: exec.Command(self, roleMinder, path, port), gone: make(chan struct{})}
	m.cmd.Stdout, m.cmd.Stderr = &m.output, &m.output
	stdin, err := m.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := m.cmd.Start(); err != nil {
		return nil, err
	}
	m.hold = func() { _ = stdin.Close() }
	go func() {
		_ = m.cmd.Wait()
		close(m.gone)
	}()
	return m, nil
}

// await returns once somebody listens at addr.
func (m *minder) await(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, redisPatience)
	defer cancel()
	for {
		var dialer net.Dialer
		conn, err := dialer.DialContext(ctx, "tcp", addr)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-m.gone:
			said := strings.TrimSpace(m.output.String())
			return errors.New(cmp.Or(said, "it ended at once"))
		case <-ctx.Done():
			return fmt.Errorf("it does not listen at %s: %w", addr, ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func (m *minder) stop() {
	m.hold()
	select {
	case <-m.gone:
	case <-time.After(redisPatience):
		_ = m.cmd.Process.Kill()
		<-m.gone
	}
}

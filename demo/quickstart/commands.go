package main

import (
	"bytes"
	"context"
	"maps"
	"net"
	"strconv"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"
)

// commands says how many of each Redis command were sent.
type commands map[string]int

// A commandCounter counts the commands that a client writes to its connections. It is a go-redis
// hook on dialling alone: hooks on commands do not see what a subscription sends, and what a
// server counts includes the commands of others. A script counts as the one command that calls it.
type commandCounter struct {
	mu     sync.Mutex
	counts commands
}

func newCommandCounter() *commandCounter { return &commandCounter{counts: make(commands)} }

// uncounted is what go-redis sends to set up a connection and to see whether it is alive.
var uncounted = map[string]bool{"HELLO": true, "AUTH": true, "SELECT": true, "CLIENT": true, "PING": true}

func (c *commandCounter) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := next(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return &countedConn{Conn: conn, counter: c}, nil
	}
}

func (c *commandCounter) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

func (c *commandCounter) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (c *commandCounter) count(command string) {
	command = strings.ToUpper(command)
	if uncounted[command] {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counts[command]++
}

func (c *commandCounter) snapshot() commands {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.counts)
}

// A countedConn reads along what is written to it.
type countedConn struct {
	net.Conn
	counter *commandCounter
	pending []byte // the beginning of a command whose end is still to come
}

// Write is called by one goroutine at a time: go-redis sees to that.
func (c *countedConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.pending = append(c.pending, b[:n]...)
	for {
		command, rest, ok := nextCommand(c.pending)
		if !ok {
			return n, err
		}
		c.counter.count(command)
		c.pending = rest
	}
}

// nextCommand takes one command off the stream: *2 $3 GET $5 order, each with a line end. ok is
// false when the rest of it is still to come.
func nextCommand(stream []byte) (name string, rest []byte, ok bool) {
	words, rest, ok := length(stream, '*')
	if !ok {
		return "", nil, false
	}
	for i := range words {
		var size int
		size, rest, ok = length(rest, '$')
		if !ok || len(rest) < size+2 {
			return "", nil, false
		}
		if i == 0 {
			name = string(rest[:size])
		}
		rest = rest[size+2:]
	}
	return name, rest, true
}

// length reads a line such as *2 or $5.
func length(stream []byte, kind byte) (n int, rest []byte, ok bool) {
	line, rest, ok := bytes.Cut(stream, []byte("\r\n"))
	if !ok || len(line) == 0 || line[0] != kind {
		return 0, nil, false
	}
	n, err := strconv.Atoi(string(line[1:]))
	return n, rest, err == nil && n >= 0
}

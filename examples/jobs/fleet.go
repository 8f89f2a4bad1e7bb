package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"time"
)

const (
	// startLimit is how long a child may take to be ready, stopLimit to end.
	startLimit = 10 * time.Second
	stopLimit  = 5 * time.Second
)

// A fleet is the child processes: workers, and the front.
type fleet struct {
	setup setup
	hear  func(number int, m message)

	workers []*child // all that were ever started, by their numbers
	front   *child
}

func startFleet(ctx context.Context, s setup, hear func(number int, m message)) (*fleet, error) {
	f := &fleet{setup: s, hear: hear}
	var err error
	if f.front, err = f.start(ctx, roleFront, 0); err != nil {
		return nil, err
	}
	for range workers {
		if _, err := f.startWorker(ctx); err != nil {
			f.stop()
			return nil, err
		}
	}
	return f, nil
}

// startWorker starts one more worker.
func (f *fleet) startWorker(ctx context.Context) (*child, error) {
	c, err := f.start(ctx, roleWorker, len(f.workers)+1)
	if err == nil {
		f.workers = append(f.workers, c)
	}
	return c, err
}

// start returns once the child is ready.
func (f *fleet) start(ctx context.Context, role string, number int) (*child, error) {
	s := f.setup
	s.Number = number
	c, err := startChild(role, s, func(m message) { f.hear(number, m) })
	if err != nil {
		return nil, fmt.Errorf("starting a %s: %w", role, err)
	}
	if err := c.awaitReady(ctx); err != nil {
		c.kill()
		return nil, fmt.Errorf("starting a %s: %w", role, err)
	}
	return c, nil
}

func (f *fleet) stop() {
	var stopping sync.WaitGroup
	for _, c := range append(f.workers, f.front) {
		stopping.Go(c.stop)
	}
	stopping.Wait()
}

// A child is one child process, as the parent sees it.
type child struct {
	number int
	url    string // of the front
	cmd    *exec.Cmd
	stdin  io.Closer
	ready  chan ready
	gone   chan struct{} // closed once the process has ended and all it said is heard
}

func startChild(role string, s setup, hear func(m message)) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := &child{
		number: s.Number,
		cmd:    exec.Command(self, role),
		ready:  make(chan ready, 1),
		gone:   make(chan struct{}),
	}
	c.cmd.Stderr = os.Stderr
	stdin, err := c.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	c.stdin = stdin
	stdout, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	go c.listen(stdout, hear)
	if err := json.NewEncoder(stdin).Encode(s); err != nil {
		c.kill()
		return nil, err
	}
	return c, nil
}

// listen passes on what the child says, until it says no more.
func (c *child) listen(stdout io.Reader, hear func(m message)) {
	defer close(c.gone)
	messages := json.NewDecoder(stdout)
	for {
		var m message
		if messages.Decode(&m) != nil {
			_, _ = io.Copy(io.Discard, stdout)
			_ = c.cmd.Wait()
			return
		}
		if m.Ready != nil {
			c.ready <- *m.Ready
			continue
		}
		hear(m)
	}
}

func (c *child) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	select {
	case r := <-c.ready:
		c.url = r.URL
		return nil
	case <-c.gone:
		return errors.New("it ended at once")
	case <-ctx.Done():
		return fmt.Errorf("it does not get ready: %w", ctx.Err())
	}
}

func (c *child) pid() int { return c.cmd.Process.Pid }

// kill is SIGKILL: the process gets no chance to say or to tidy up anything. What it said before
// is heard when kill returns.
func (c *child) kill() {
	_ = c.cmd.Process.Kill()
	<-c.gone
}

// stop lets the child finish, for a moment.
func (c *child) stop() {
	_ = c.stdin.Close()
	select {
	case <-c.gone:
	case <-time.After(stopLimit):
		c.kill()
	}
}

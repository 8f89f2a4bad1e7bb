package main

import (
	"context"
	"fmt"
	"time"

	"github.com/idempotent-go/idempotent/demo/internal/stage"
)

const (
	// startLimit is how long a child may take to be ready, stopLimit to end.
	startLimit = 10 * time.Second
	stopLimit  = 5 * time.Second
)

// A child is a child process, as the parent sees it.
type child = stage.Worker[message, ready]

// A fleet is the child processes: workers, and the front.
type fleet struct {
	setup setup
	hear  func(number int, m message)

	workers  stage.Fleet[message, ready] // all that were ever started, by their numbers
	front    *child
	frontURL string
}

func startFleet(ctx context.Context, s setup, hear func(number int, m message)) (*fleet, error) {
	f := &fleet{setup: s, hear: hear}
	var r ready
	var err error
	if f.front, r, err = f.start(ctx, roleFront, 0); err != nil {
		return nil, err
	}
	f.frontURL = r.URL
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
	c, _, err := f.start(ctx, roleWorker, len(f.workers)+1)
	if err == nil {
		f.workers = append(f.workers, c)
	}
	return c, err
}

// start returns once the child is ready.
func (f *fleet) start(ctx context.Context, role string, number int) (c *child, r ready, err error) {
	s := f.setup
	s.Number = number
	if c, err = stage.Start[message, ready](role, number, s, f.hear); err != nil {
		return nil, r, fmt.Errorf("starting a %s: %w", role, err)
	}
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	if r, err = c.Ask(ctx, nil); err != nil {
		c.Kill()
		return nil, r, fmt.Errorf("starting a %s: %w", role, err)
	}
	return c, r, nil
}

func (f *fleet) stop() { append(f.workers, f.front).Stop(stopLimit) }

package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/idempotent-go/idempotent/demo/internal/stage"
)

// stopLimit is how long a worker may take to end.
const stopLimit = 2 * time.Second

// A fleet is the worker processes.
type fleet struct{ stage.Fleet[event, *answer] }

// startFleet starts the workers and returns once all of them have reached Redis.
func startFleet(ctx context.Context, s setup, observe func(worker int, e event)) (*fleet, error) {
	f := &fleet{}
	for number := 1; number <= workers; number++ {
		s.Worker = number
		w, err := stage.Start[event, *answer](roleWorker, number, s, observe)
		if err != nil {
			f.Stop(stopLimit)
			return nil, fmt.Errorf("starting worker %d: %w", number, err)
		}
		f.Fleet = append(f.Fleet, w)
	}
	ctx, cancel := context.WithTimeout(ctx, runLimit)
	defer cancel()
	if _, err := f.Ask(ctx, task{}, nil); err != nil {
		f.Stop(stopLimit)
		return nil, err
	}
	return f, nil
}

// commands returns how many commands each worker has sent to Redis since it started, nil for one
// that was killed. It waits for a moment of silence: the last UNSUBSCRIBE follows the return of Run.
func (f *fleet) commands(ctx context.Context) ([]commands, error) {
	var before []commands
	for {
		answers, err := f.Ask(ctx, task{}, nil)
		if err != nil {
			return nil, err
		}
		now := make([]commands, len(answers))
		for i, a := range answers {
			if a != nil {
				now[i] = a.Commands
			}
		}
		if slices.EqualFunc(before, now, maps.Equal) {
			return now, nil
		}
		before = now
		sleep(ctx, 50*time.Millisecond)
	}
}

package main

import (
	"fmt"
	"time"

	"github.com/idempotent-go/idempotent/demo/internal/stage"
)

// stopLimit is how long a process may take to end.
const stopLimit = 2 * time.Second

// A fleet is the worker processes.
type fleet struct {
	setup   setup
	observe func(worker int, e event)
	stage.Fleet[event, []outcome]
}

func startFleet(s setup, observe func(worker int, e event)) (*fleet, error) {
	f := &fleet{setup: s, observe: observe}
	for number := 1; number <= workers; number++ {
		w, err := f.start(number)
		if err != nil {
			f.Stop(stopLimit)
			return nil, err
		}
		f.Fleet = append(f.Fleet, w)
	}
	return f, nil
}

// complete starts the workers that are missing, as whatever runs a service does.
func (f *fleet) complete() (err error) {
	for i, w := range f.Fleet {
		if w.Killed() {
			if f.Fleet[i], err = f.start(w.Number); err != nil {
				f.Fleet[i] = w
				return err
			}
		}
	}
	return nil
}

func (f *fleet) start(number int) (*stage.Worker[event, []outcome], error) {
	s := f.setup
	s.Worker = number
	w, err := stage.Start[event, []outcome](roleWorker, number, s, f.observe)
	if err != nil {
		return nil, fmt.Errorf("starting worker %d: %w", number, err)
	}
	return w, nil
}

package main

import (
	"context"
	"fmt"

	"github.com/idempotent-go/idempotent"
)

// many shows what RunMany saves: first runs and replays of more and more keys at once, for each key,
// beside the bare commands of one key after the other.
func (e *env) many() (table, error) {
	out := table{head: []string{"keys in a RunMany", "first run, for each", "commands a key", "× the bare pair", "replay, for each", "commands a key", "× a bare GET"}}
	get, _, err := e.replays(e.plain, 1_000)
	if err != nil {
		return out, err
	}
	pair, _, err := e.firsts(e.plain)
	if err != nil {
		return out, err
	}
	x, err := e.executor(e.plain)
	if err != nil {
		return out, err
	}
	for _, size := range []int{1, 10, 100, 1_000} {
		known, err := e.finished(size)
		if err != nil {
			return out, err
		}
		first, replay := batches(x, size, func(int) string { return e.fresh() }, charge), batches(x, size, func(i int) string { return known[i] }, mustNotRun)
		times, err := alternate(max(3, e.rounds/3), e.slice, serial(pair), serial(first), serial(get), serial(replay))
		if err != nil {
			return out, err
		}
		cells := []string{grouped(size)}
		for i, op := range []func() error{first, replay} {
			floor, this := times[2*i], times[2*i+1]
			for j := range this {
				this[j] /= float64(size)
			}
			counted, err := e.count(op)
			if err != nil {
				return out, err
			}
			cells = append(cells, span(median(this)), counted.text(size), significant(median(quotients(this, floor))))
		}
		out.add(cells...)
	}
	return out, nil
}

// batches makes an operation of a RunMany of so many keys.
func batches(x *idempotent.Executor[string], size int, key func(i int) string, fn func(context.Context) (string, error)) func() error {
	return func() error {
		calls := make([]idempotent.BatchCall[string], size)
		for i := range calls {
			calls[i] = idempotent.BatchCall[string]{Key: key(i), Fn: fn}
		}
		for i, outcome := range x.RunMany(context.Background(), calls) {
			if outcome.Err != nil || outcome.Value != value {
				return fmt.Errorf("call %d of RunMany came to %q: %w", i, outcome.Value, outcome.Err)
			}
		}
		return nil
	}
}

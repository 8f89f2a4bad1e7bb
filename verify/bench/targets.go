package main

import (
	"context"
	"fmt"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/idempotent-go/idempotent"
)

// A comparison is two contenders that do the same thing, and what the second may cost.
type comparison struct {
	measure     string
	floor, this contender
	// one call of each, to be measured in turns where a single caller waits for each reply
	floorCall, thisCall func() error
	ops                 int // to count commands over
	// limit is on the ratio of times, or for a throughput on that of the rates.
	limit      float64
	throughput bool
}

// compare measures both sides in turns, and counts their commands afterwards.
func (e *env) compare(c comparison) (row, error) {
	times, err := e.measure(&c)
	if err != nil {
		return row{}, err
	}
	r := row{measure: c.measure, floor: span(median(times[0])), this: span(median(times[1]))}
	ratios := quotients(times[1], times[0])
	ok := median(ratios) <= c.limit
	r.target = fmt.Sprintf("at most %.2f ×", c.limit)
	if c.throughput {
		ratios = quotients(times[0], times[1])
		ok = median(ratios) >= c.limit
		r.floor, r.this = rate(median(times[0])), rate(median(times[1]))
		r.target = "at least " + trimmed(c.limit) + " ×"
	}
	r.ratio, r.spread, r.met = significant(median(ratios))+" ×", quartiles(ratios), judge(ok)
	r.floorCmds, r.thisCmds, err = e.countBoth(c)
	return r, err
}

func (e *env) measure(c *comparison) ([][]float64, error) {
	if c.floorCall == nil { // where many goroutines share few cores, a round says little
		return alternate(4*e.rounds, e.slice, c.floor, c.this)
	}
	c.floor, c.this = serial(c.floorCall), serial(c.thisCall)
	return interleave(e.rounds, e.slice, c.floorCall, c.thisCall)
}

func (e *env) countBoth(c comparison) (floor, this string, err error) {
	for _, side := range []struct {
		do   contender
		text *string
	}{{c.floor, &floor}, {c.this, &this}} {
		counted, err := e.count(func() error { return side.do(c.ops) })
		if err != nil {
			return "", "", err
		}
		*side.text = counted.text(c.ops)
	}
	return floor, this, nil
}

const (
	callers      = 128
	distinctKeys = 10_000
	countedOps   = 1_280
)

// replaySerial: one goroutine, the plain client.
func (e *env) replaySerial() ([]row, error) {
	get, replay, err := e.replays(e.plain, 1_000)
	if err != nil {
		return nil, err
	}
	r, err := e.compare(comparison{measure: "replay, serial", floorCall: get, thisCall: replay, ops: countedOps, limit: 1.10})
	return []row{r}, err
}

// replays are a bare GET and a replay of the same records.
func (e *env) replays(client redis.UniversalClient, n int) (get, replay func() error, err error) {
	x, err := e.executor(client)
	if err != nil {
		return nil, nil, err
	}
	keys, err := e.finished(n)
	if err != nil {
		return nil, nil, err
	}
	ctx := context.Background()
	getKey, replayKey := turns(keys), turns(keys)
	get = func() error { return bareGet(ctx, client, getKey()) }
	replay = func() error {
		_, err := x.Run(ctx, replayKey(), mustNotRun)
		return err
	}
	return get, replay, nil
}

// firsts are a bare pair and a first run, each of a key of its own.
func (e *env) firsts(client redis.UniversalClient) (pair, first func() error, err error) {
	x, err := e.executor(client)
	if err != nil {
		return nil, nil, err
	}
	ctx := context.Background()
	pair = func() error { return barePair(ctx, client, e.fresh()) }
	first = func() error {
		_, err := x.Run(ctx, e.fresh(), charge)
		return err
	}
	return pair, first, nil
}

func (e *env) firstSerial() ([]row, error) {
	pair, first, err := e.firsts(e.plain)
	if err != nil {
		return nil, err
	}
	r, err := e.compare(comparison{measure: "first run, serial", floorCall: pair, thisCall: first, ops: countedOps, limit: 1.15})
	return []row{r}, err
}

// together turns a function into a contender of many goroutines.
func together(op func() error) contender { return spread(callers, func(int) error { return op() }) }

func (e *env) replayTogether() ([]row, error) {
	get, replay, err := e.replays(e.auto, min(distinctKeys, 10*e.crowd))
	if err != nil {
		return nil, err
	}
	r, err := e.compare(comparison{
		measure: fmt.Sprintf("replay, %d goroutines, distinct keys, AutoPipeliner", callers),
		floor:   together(get), this: together(replay), ops: countedOps, limit: 0.9, throughput: true,
	})
	return []row{r}, err
}

func (e *env) firstTogether() ([]row, error) {
	pair, first, err := e.firsts(e.auto)
	if err != nil {
		return nil, err
	}
	r, err := e.compare(comparison{
		measure: fmt.Sprintf("first run, %d goroutines, AutoPipeliner", callers),
		floor:   together(pair), this: together(first), ops: countedOps, limit: 0.9, throughput: true,
	})
	return []row{r}, err
}

// hotKey replays one key from many goroutines, which ask Redis together, against as many GETs.
func (e *env) hotKey() ([]row, error) {
	get, replay, err := e.replays(e.plain, 1)
	if err != nil {
		return nil, err
	}
	r, err := e.compare(comparison{
		measure: fmt.Sprintf("one finished key, %d goroutines of one process, plain client", callers),
		floor:   together(get), this: together(replay), ops: 10 * countedOps, limit: 10, throughput: true,
	})
	return []row{r}, err
}

// allocations counts them for one goroutine and the plain client.
func (e *env) allocations() ([]row, error) {
	get, replay, err := e.replays(e.plain, 1_000)
	if err != nil {
		return nil, err
	}
	pair, first, err := e.firsts(e.plain)
	if err != nil {
		return nil, err
	}
	decoding, err := decodingAllocations()
	rows := []row{
		allocationRow("allocations, replay", get, replay, 6, &err),
		allocationRow("allocations, first run", pair, first, 12, &err),
	}
	rows[0].this += ", " + trimmed(decoding) + " to decode"
	return rows, err
}

func allocationRow(measure string, floor, this func() error, limit float64, failed *error) row {
	count := func(op func() error) float64 {
		return testing.AllocsPerRun(1_000, func() {
			if err := op(); err != nil {
				*failed = err
			}
		})
	}
	bare, own := count(floor), count(this)
	return row{
		measure: measure,
		floor:   trimmed(bare), this: trimmed(own),
		ratio:  fmt.Sprintf("%+.0f", own-bare),
		target: fmt.Sprintf("at most %+.0f", limit),
		met:    judge(own-bare <= limit),
	}
}

// decodingAllocations is what it takes to decode one value.
func decodingAllocations() (float64, error) {
	codec := idempotent.Msgpack[string]()
	data, err := codec.Encode(value)
	if err != nil {
		return 0, err
	}
	return testing.AllocsPerRun(1_000, func() { _, err = codec.Decode(data) }), err
}

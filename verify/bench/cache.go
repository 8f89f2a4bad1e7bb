package main

import (
	"context"
	"time"

	"github.com/idempotent-go/idempotent"
)

// cacheHit replays from the cache of the process, beside decoding alone, which every caller has to do.
func (e *env) cacheHit() (rows []row, err error) {
	for _, c := range []struct {
		name  string
		codec idempotent.Codec[string]
	}{{"Raw", idempotent.Raw[string]()}, {"msgpack", idempotent.Msgpack[string]()}} {
		more, err := e.cacheHitWith(c.name, c.codec)
		if err != nil {
			return nil, err
		}
		rows = append(rows, more...)
	}
	return rows, nil
}

func (e *env) cacheHitWith(name string, codec idempotent.Codec[string]) ([]row, error) {
	ctx := context.Background()
	x, err := e.executor(e.plain, idempotent.WithReplayCache(1_000), idempotent.WithCodec(codec))
	if err != nil {
		return nil, err
	}
	defer x.Close() // its subscription asks Redis once a second, which later measures would count
	key := e.fresh()
	if _, err := x.Run(ctx, key, charge); err != nil {
		return nil, err
	}
	data, err := codec.Encode(value)
	if err != nil {
		return nil, err
	}
	decode := func() error { _, err := codec.Decode(data); return err }
	hit := func() error { _, err := x.Run(ctx, key, mustNotRun); return err }
	counted, err := e.untilCached(hit)
	if err != nil {
		return nil, err
	}
	times, err := alternate(e.rounds, e.slice/4+1, serial(decode), serial(hit))
	if err != nil {
		return nil, err
	}
	this := median(times[1])
	what := "replay-cache hit, " + name + " (floor: decoding alone)"
	allocations := allocationRow(what+": allocations", decode, hit, 2, &err)
	return []row{{
		measure: what, floor: span(median(times[0])), floorCmds: "0", this: span(this), thisCmds: counted.text(countedOps),
		ratio: more(this - median(times[0])), spread: timeQuartiles(times[1]),
		target: "under 300 ns; 0 commands", met: judge(this < 300 && counted.sent == 0),
	}, allocations}, err
}

// more is a difference of times, with its sign.
func more(ns float64) string {
	if ns < 0 {
		return "−" + span(-ns)
	}
	return "+" + span(ns)
}

// untilCached waits until hits ask Redis nothing, which they do from when the cache's subscription
// stands, and returns what a round of them sent in the end.
func (e *env) untilCached(hit func() error) (counted tally, err error) {
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		counted, err = e.count(func() error { return serial(hit)(countedOps) })
		if err != nil || counted.sent == 0 {
			break
		}
	}
	return counted, err
}

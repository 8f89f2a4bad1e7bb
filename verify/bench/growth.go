package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/redis/go-redis/v9"
)

// A curve is throughput over concurrency, for a chart.
type curve struct {
	name       string
	goroutines []int
	perSecond  []float64
}

var concurrency = []int{1, 4, 16, 64, 128, 256}

// throughput measures first runs and replays at growing concurrency, beside their floors, through
// the plain client and the AutoPipeliner.
func (e *env) throughput() (table, [2][]curve, error) {
	var curves [2][]curve
	out := table{head: []string{"goroutines", "replay", "bare GET", "replay, AutoPipeliner", "bare GET, AutoPipeliner", "first run", "bare pair", "first run, AutoPipeliner", "bare pair, AutoPipeliner"}}
	ops, err := e.throughputOps()
	if err != nil {
		return out, curves, err
	}
	for i, op := range ops {
		curves[i/4] = append(curves[i/4], curve{name: op.name})
	}
	for _, goroutines := range concurrency {
		contenders := make([]contender, len(ops))
		for i, op := range ops {
			contenders[i] = spread(goroutines, func(int) error { return op.do() })
		}
		times, err := alternate(max(3, e.rounds/10), e.slice, contenders...)
		if err != nil {
			return out, curves, err
		}
		cells := []string{grouped(goroutines)}
		for i := range ops {
			ns := median(times[i])
			c := &curves[i/4][i%4]
			c.goroutines, c.perSecond = append(c.goroutines, goroutines), append(c.perSecond, 1e9/ns)
			cells = append(cells, rate(ns))
		}
		out.add(cells...)
	}
	return out, curves, nil
}

type namedOp struct {
	name string
	do   func() error
}

// throughputOps are four kinds of replay and four kinds of first run.
func (e *env) throughputOps() ([]namedOp, error) {
	var replays, firsts []namedOp
	for _, c := range []struct {
		client redis.UniversalClient
		suffix string
	}{{e.plain, ""}, {e.auto, ", AutoPipeliner"}} {
		get, replay, err := e.replays(c.client, min(distinctKeys, 10*e.crowd))
		if err != nil {
			return nil, err
		}
		pair, first, err := e.firsts(c.client)
		if err != nil {
			return nil, err
		}
		replays = append(replays, namedOp{"replay" + c.suffix, replay}, namedOp{"bare GET" + c.suffix, get})
		firsts = append(firsts, namedOp{"first run" + c.suffix, first}, namedOp{"bare pair" + c.suffix, pair})
	}
	return append(replays, firsts...), nil
}

// pipelining shows what an AutoPipeliner gains, and what it costs a single caller.
func (e *env) pipelining() (table, error) {
	out := table{head: []string{"client", "replay, 1 goroutine", fmt.Sprintf("%d goroutines", callers), "first run, 1 goroutine", fmt.Sprintf("%d goroutines", callers)}}
	half, err := e.autoPipeliner(false)
	if err != nil {
		return out, err
	}
	var contenders []contender
	clients := []redis.UniversalClient{e.plain, half, e.auto}
	for _, client := range clients {
		_, replay, err := e.replays(client, min(distinctKeys, 10*e.crowd))
		if err != nil {
			return out, err
		}
		_, first, err := e.firsts(client)
		if err != nil {
			return out, err
		}
		contenders = append(contenders, serial(replay), together(replay), serial(first), together(first))
	}
	times, err := alternate(max(3, e.rounds/3), e.slice, contenders...)
	if err != nil {
		return out, err
	}
	for i, name := range []string{"`redis.Client`", "`AutoPipeliner`", "`AutoPipeliner` with `FullDuplex`"} {
		of := times[4*i:]
		out.add(name, span(median(of[0])), rate(median(of[1])), span(median(of[2])), rate(median(of[3])))
	}
	return out, nil
}

// payloadsGrow shows what larger values cost, beside the same bytes by bare commands.
func (e *env) payloadsGrow() (table, error) {
	out := table{head: []string{"value", "first run", "bare pair", "ratio", "replay", "bare GET", "ratio"}}
	ctx := context.Background()
	x, err := e.executor(e.plain)
	if err != nil {
		return out, err
	}
	for _, size := range []int{10, 100, 1_000, 10_000, 100_000, 1_000_000} {
		payload := strings.Repeat("x", size)
		bare := bareToken + payload + strings.Repeat("d", 18)
		known := e.fresh()
		first := func() error {
			_, err := x.Run(ctx, e.fresh(), func(context.Context) (string, error) { return payload, nil })
			return err
		}
		if _, err := x.Run(ctx, known, func(context.Context) (string, error) { return payload, nil }); err != nil {
			return out, err
		}
		slice := e.slice
		if size >= 100_000 { // what is stored is to fit into memory
			slice /= 4
		}
		times, err := alternate(max(3, e.rounds/4), slice,
			serial(first), serial(func() error { return barePairOf(ctx, e.plain, e.fresh(), bare) }),
			serial(func() error { _, err := x.Run(ctx, known, mustNotRun); return err }),
			serial(func() error { return bareGet(ctx, e.plain, known) }))
		if err != nil {
			return out, err
		}
		out.add(bytesText(float64(size)),
			span(median(times[0])), span(median(times[1])), significant(median(quotients(times[0], times[1]))),
			span(median(times[2])), span(median(times[3])), significant(median(quotients(times[2], times[3]))))
		if err := e.flush(); err != nil {
			return out, err
		}
	}
	return out, nil
}

// storedGrow shows that a replay costs the same however many records there are.
func (e *env) storedGrow() (table, error) {
	out := table{head: []string{"records in Redis", "replay", "bare GET"}}
	if err := e.flush(); err != nil {
		return out, err
	}
	for _, n := range []int{e.records / 100, e.records / 10, e.records} {
		get, replay, err := e.replays(e.plain, n)
		if err != nil {
			return out, err
		}
		times, err := alternate(max(3, e.rounds/4), e.slice, serial(get), serial(replay))
		if err != nil {
			return out, err
		}
		out.add(grouped(n), span(median(times[1])), span(median(times[0])))
		if err := e.flush(); err != nil {
			return out, err
		}
	}
	return out, nil
}

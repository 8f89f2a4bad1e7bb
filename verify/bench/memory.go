package main

import (
	"bytes"
	"context"
	"fmt"

	"github.com/idempotent-go/idempotent"
)

// recordOverhead compares a record with an ordinary string that has the payload alone, under the
// same name and with the same TTL, by MEMORY USAGE. Redis allocates in steps, so it takes the mean
// over many sizes.
func (e *env) recordOverhead() ([]row, error) {
	ctx := context.Background()
	x, err := idempotent.New[[]byte](e.plain, "default", idempotent.WithCodec(idempotent.Raw[[]byte]()))
	if err != nil {
		return nil, err
	}
	defer x.Close()
	var ordinary, record, more, longer []float64
	for size := 16; size <= 4096; size += 24 {
		key, payload := "record-of-some-size-"+e.fresh(), bytes.Repeat([]byte{'x'}, size)
		name := keyPrefix + key
		if err := e.plain.Set(ctx, name, payload, day).Err(); err != nil {
			return nil, err
		}
		bare, err := e.plain.MemoryUsage(ctx, name).Result()
		if err != nil {
			return nil, err
		}
		if err := e.plain.Del(ctx, name).Err(); err != nil {
			return nil, err
		}
		if _, err := x.Run(ctx, key, func(context.Context) ([]byte, error) { return payload, nil }); err != nil {
			return nil, err
		}
		own, err := e.plain.MemoryUsage(ctx, name).Result()
		if err != nil {
			return nil, err
		}
		length, err := e.plain.StrLen(ctx, name).Result()
		if err != nil {
			return nil, err
		}
		ordinary, record = append(ordinary, float64(bare)), append(record, float64(own))
		more, longer = append(more, float64(own-bare)), append(longer, float64(length)-float64(size))
	}
	average := mean(more)
	return []row{{
		measure: "record in Redis over an ordinary string, payloads of 16 to 4,096 bytes, mean",
		floor:   bytesText(mean(ordinary)), this: bytesText(mean(record)),
		ratio:  fmt.Sprintf("%+.0f B (%.0f B longer)", average, mean(longer)),
		spread: fmt.Sprintf("%.0f–%.0f B", quantile(more, 0), quantile(more, 1)),
		target: "at most +64 B", met: judge(average <= 64),
	}}, nil
}

// sizing is what a server needs for a million operations, from what some thousands took.
func (e *env) sizing() (table, error) {
	out := table{head: []string{"value", "memory for a million records", "commands for a first run", "CPU of Redis for a million", "commands for a replay", "CPU of Redis for a million"}}
	for _, size := range []int{0, 100, 1_000, 10_000} {
		cells, err := e.sizingOf(size)
		if err != nil {
			return out, err
		}
		out.add(cells...)
	}
	return out, e.flush()
}

func (e *env) sizingOf(size int) ([]string, error) {
	if err := e.flush(); err != nil {
		return nil, err
	}
	x, err := idempotent.New[[]byte](e.plain, "default", idempotent.WithCodec(idempotent.Raw[[]byte]()))
	if err != nil {
		return nil, err
	}
	defer x.Close()
	payload := bytes.Repeat([]byte{'x'}, size)
	run := func(keys []string) error {
		next := turns(keys)
		return spread(16, func(int) error {
			_, err := x.Run(context.Background(), next(), func(context.Context) ([]byte, error) { return payload, nil })
			return err
		})(len(keys))
	}
	keys := e.hashedKeys(e.records / 2)
	before, err := e.info("memory", "used_memory")
	if err != nil {
		return nil, err
	}
	firstCPU, err := e.serverTime(func() error { return run(keys) })
	if err != nil {
		return nil, err
	}
	after, err := e.info("memory", "used_memory")
	if err != nil {
		return nil, err
	}
	replayCPU, err := e.serverTime(func() error { return run(keys) })
	if err != nil {
		return nil, err
	}
	few := e.hashedKeys(100) // counting costs the server time
	first, err := e.count(func() error { return run(few) })
	if err != nil {
		return nil, err
	}
	replay, err := e.count(func() error { return run(few) })
	if err != nil {
		return nil, err
	}
	million := 1e6 / float64(len(keys))
	return []string{
		bytesText(float64(size)), bytesText(max(0, after-before) * million),
		first.text(len(few)), span(firstCPU * million),
		replay.text(len(few)), span(replayCPU * million),
	}, nil
}

// hashedKeys have 64 characters, as HashKey makes them.
func (e *env) hashedKeys(n int) []string {
	keys := make([]string, n)
	for i := range keys {
		keys[i] = idempotent.HashKey(e.fresh())
	}
	return keys
}

// serverTime is the CPU that the server uses while do runs, in nanoseconds.
func (e *env) serverTime(do func() error) (float64, error) {
	before, err := e.serverCPU()
	if err != nil {
		return 0, err
	}
	if err := do(); err != nil {
		return 0, err
	}
	after, err := e.serverCPU()
	return after - before, err
}

// serverCPU is what the server has used so far, in nanoseconds.
func (e *env) serverCPU() (float64, error) {
	user, err := e.info("cpu", "used_cpu_user")
	if err != nil {
		return 0, err
	}
	system, err := e.info("cpu", "used_cpu_sys")
	return (user + system) * 1e9, err
}

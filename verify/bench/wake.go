package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/idempotent-go/idempotent"
)

// settle is the pause between "the other process waits" and the end of fn, so that what it did to
// come to rest is over. The floor has the same pause.
const settle = 3 * time.Millisecond

// A waker runs fn in this process while another one waits for its outcome. It returns the
// nanoseconds from the end of fn to the other's return.
type waker func(ctx context.Context, key string) (float64, error)

// wakes are the times of each waker, by name.
type wakes struct {
	names []string
	times map[string][]float64
}

// waking measures a waiter in another process: from the end of fn to its return.
func (e *env) waking() ([]row, wakes, error) {
	seen := wakes{names: []string{"bare", "idempotent", "redislock", "redsync"}, times: make(map[string][]float64)}
	other, err := e.child()
	if err != nil {
		return nil, seen, err
	}
	defer other.close()
	wakers, err := e.wakers(other)
	if err != nil {
		return nil, seen, err
	}
	for i := range e.wakes {
		names := seen.names[:2]
		if i%20 == 0 { // the others take a hundred times as long
			names = seen.names
		}
		for _, name := range names {
			took, err := wakers[name](context.Background(), e.fresh())
			if err != nil {
				return nil, seen, fmt.Errorf("waking through %s: %w", name, err)
			}
			if i > 0 { // the first one makes connections
				seen.times[name] = append(seen.times[name], took)
			}
		}
	}
	rows, err := e.wakeRows(wakers, seen)
	return rows, seen, err
}

func (e *env) wakers(other *child) (map[string]waker, error) {
	x, err := e.executor(e.plain)
	if err != nil {
		return nil, err
	}
	return map[string]waker{
		"bare":       func(ctx context.Context, key string) (float64, error) { return e.wakeBare(ctx, other, key) },
		"idempotent": func(ctx context.Context, key string) (float64, error) { return e.wakeExecutor(ctx, other, x, key) },
		"redislock": func(ctx context.Context, key string) (float64, error) {
			return wakePolling(ctx, other, "redislock", withRedislock(e.plain), key)
		},
		"redsync": func(ctx context.Context, key string) (float64, error) {
			return wakePolling(ctx, other, "redsync", withRedsync(e.plain), key)
		},
	}, nil
}

func (e *env) wakeRows(wakers map[string]waker, seen wakes) (rows []row, err error) {
	commands := make(map[string]string)
	for _, name := range []string{"bare", "idempotent"} {
		counted, err := e.count(func() error { _, err := wakers[name](context.Background(), e.fresh()); return err })
		if err != nil {
			return nil, err
		}
		commands[name] = counted.text(1)
	}
	bare, own := seen.times["bare"], seen.times["idempotent"]
	for _, q := range []struct {
		name  string
		share float64
	}{{"median", 0.5}, {"p99", 0.99}} {
		floor, this := quantile(bare, q.share), quantile(own, q.share)
		rows = append(rows, row{
			measure: "end of fn to the return of a waiter in another process, " + q.name,
			floor:   span(floor), floorCmds: commands["bare"],
			this: span(this), thisCmds: commands["idempotent"],
			ratio:  significant(this/floor) + " ×",
			spread: "of times " + timeQuartiles(own),
			target: "at most 1.50 ×", met: judge(this/floor <= 1.5),
		})
	}
	return rows, nil
}

func timeQuartiles(ns []float64) string {
	return span(quantile(ns, 0.25)) + "–" + span(quantile(ns, 0.75))
}

// wakeBare commits and publishes to the other process, which listens.
func (e *env) wakeBare(ctx context.Context, other *child, key string) (float64, error) {
	name := keyPrefix + key
	if err := e.plain.Set(ctx, name, bareRunning, day).Err(); err != nil {
		return 0, err
	}
	if err := other.tell("hear %s", name); err != nil {
		return 0, err
	}
	if err := other.expect("ready"); err != nil {
		return 0, err
	}
	time.Sleep(settle)
	began := now()
	if err := bareCommit.Run(ctx, e.plain, []string{name}, bareToken, bareDone, dayMillis).Err(); err != nil {
		return 0, err
	}
	at, err := other.number()
	return float64(at - began), err
}

// wakeExecutor runs an fn that ends once the other process waits for it.
func (e *env) wakeExecutor(ctx context.Context, other *child, x *idempotent.Executor[string], key string) (float64, error) {
	var ended int64
	_, err := x.Run(ctx, key, func(ctx context.Context) (string, error) {
		if err := other.tell("run %s", key); err != nil {
			return "", err
		}
		if err := e.subscribed(ctx, keyPrefix+key, 1); err != nil {
			return "", err
		}
		time.Sleep(settle)
		ended = now()
		return value, nil
	})
	if err != nil {
		return 0, err
	}
	at, err := other.number()
	return float64(at - ended), err
}

// subscribed returns when so many connections listen to a channel.
func (e *env) subscribed(ctx context.Context, channel string, n int64) error {
	for deadline := time.Now().Add(time.Minute); ; {
		there, err := e.admin.PubSubNumSub(ctx, channel).Result()
		if err != nil || there[channel] >= n {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d of %d processes wait for %s after a minute", there[channel], n, channel)
		}
		time.Sleep(200 * time.Microsecond)
	}
}

// wakePolling is the same with a lock library, whose waiters poll. fn takes a while that has
// nothing to do with their rhythm.
func wakePolling(ctx context.Context, other *child, name string, h handRolled, key string) (float64, error) {
	var ended int64
	_, err := h.run(ctx, key, func(context.Context) (string, error) {
		if err := other.tell("%s %s", name, key); err != nil {
			return "", err
		}
		time.Sleep(50*time.Millisecond + rand.N(250*time.Millisecond))
		ended = now()
		return value, nil
	})
	if err != nil {
		return 0, err
	}
	at, err := other.number()
	return float64(at - ended), err
}

// nodes measures how long it takes until the last of several processes has the outcome.
func (e *env) nodes() (table, error) {
	out := table{head: []string{"processes that wait", "end of fn to the last return, median", "commands in all"}}
	x, err := e.executor(e.plain)
	if err != nil {
		return out, err
	}
	var others []*child
	defer func() {
		for _, c := range others {
			c.close()
		}
	}()
	for _, n := range []int{1, 2, 4, 8} {
		for len(others) < n {
			c, err := e.child()
			if err != nil {
				return out, err
			}
			others = append(others, c)
		}
		var times []float64
		once := func() error {
			took, err := e.wakeAll(others, x)
			times = append(times, took)
			return err
		}
		for range max(2, e.wakes/20) {
			if err := once(); err != nil {
				return out, err
			}
		}
		counted, err := e.count(once)
		if err != nil {
			return out, err
		}
		out.add(grouped(n), span(median(times)), counted.text(1))
	}
	return out, nil
}

func (e *env) wakeAll(others []*child, x *idempotent.Executor[string]) (float64, error) {
	key := e.fresh()
	var ended int64
	_, err := x.Run(context.Background(), key, func(ctx context.Context) (string, error) {
		for _, c := range others {
			if err := c.tell("run %s", key); err != nil {
				return "", err
			}
		}
		if err := e.subscribed(ctx, keyPrefix+key, int64(len(others))); err != nil {
			return "", err
		}
		time.Sleep(settle)
		ended = now()
		return value, nil
	})
	if err != nil {
		return 0, err
	}
	last := int64(0)
	for _, c := range others {
		at, err := c.number()
		if err != nil {
			return 0, err
		}
		last = max(last, at)
	}
	return float64(last - ended), nil
}

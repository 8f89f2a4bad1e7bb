package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/metrics"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/singleflight"

	"github.com/idempotent-go/idempotent"
)

// longEnough is what fn takes while a crowd gathers.
const longEnough = 50 * time.Millisecond

// crowdOf lets n callers run at once, and returns what that took beyond fn: from the first call to
// the last return, less what fn took.
func crowdOf(n int, run func(fn func() string) string) (float64, error) {
	var fnTook atomic.Int64
	fn := func() string {
		began := time.Now()
		time.Sleep(longEnough)
		fnTook.Add(int64(time.Since(began)))
		return value
	}
	var wrong atomic.Bool
	var all sync.WaitGroup
	began := time.Now()
	for range n {
		all.Go(func() {
			if run(fn) != value {
				wrong.Store(true)
			}
		})
	}
	all.Wait()
	took := float64(int64(time.Since(began)) - fnTook.Load())
	if wrong.Load() {
		return took, errCrowd
	}
	return took, nil
}

func (e *env) crowdThroughExecutor(x *idempotent.Executor[string], n int) (float64, error) {
	key := e.fresh()
	return crowdOf(n, func(fn func() string) string {
		got, err := x.Run(context.Background(), key, func(context.Context) (string, error) { return fn(), nil })
		if err != nil {
			return err.Error()
		}
		return got
	})
}

// crowdThroughSingleflight is the least that does the same for the callers of one process: one of
// them claims and commits with bare commands, and all of them share its value.
func (e *env) crowdThroughSingleflight(n int) (float64, error) {
	key := e.fresh()
	var group singleflight.Group
	return crowdOf(n, func(fn func() string) string {
		got, err, _ := group.Do(key, func() (any, error) {
			var out string
			err := barePairAround(context.Background(), e.plain, key, bareDone, func() { out = fn() })
			return out, err
		})
		if err != nil {
			return err.Error()
		}
		return got.(string)
	})
}

// A crowding is what crowds of one size took, round by round.
type crowding struct{ these, floors []float64 }

func (e *env) crowds(x *idempotent.Executor[string], n, rounds int) (c crowding, err error) {
	for range rounds {
		runtime.GC()
		floor, err := e.crowdThroughSingleflight(n)
		if err != nil {
			return c, err
		}
		runtime.GC()
		this, err := e.crowdThroughExecutor(x, n)
		if err != nil {
			return c, err
		}
		c.floors, c.these = append(c.floors, floor), append(c.these, this)
	}
	return c, nil
}

// oneKey has many callers of one key in one process.
func (e *env) oneKey() ([]row, error) {
	x, err := e.executor(e.plain)
	if err != nil {
		return nil, err
	}
	c, err := e.crowds(x, e.crowd, e.rounds/2+1)
	if err != nil {
		return nil, err
	}
	counted, err := e.count(func() error { _, err := e.crowdThroughExecutor(x, e.crowd); return err }) // counting takes time
	if err != nil {
		return nil, err
	}
	bare, err := e.count(func() error { _, err := e.crowdThroughSingleflight(e.crowd); return err })
	if err != nil {
		return nil, err
	}
	this := median(c.these)
	return []row{{
		measure: fmt.Sprintf("%s callers of one key in one process, fn %v: time beyond fn (floor: singleflight around the pair)", grouped(e.crowd), longEnough),
		floor:   span(median(c.floors)), floorCmds: bare.text(1),
		this: span(this), thisCmds: counted.text(1),
		ratio:  significant(median(quotients(c.these, c.floors))) + " ×",
		spread: fmt.Sprintf("of times %s; worst %s, floor's %s", timeQuartiles(c.these), span(quantile(c.these, 1)), span(quantile(c.floors, 1))),
		target: "at most 10 ms; 2 commands", met: judge(this <= 10e6 && counted.sent == 2),
	}}, nil
}

// callersGrow shows what more callers of one key cost.
func (e *env) callersGrow() (table, error) {
	out := table{head: []string{"callers of one key in one process", "time beyond fn, median", "for each", "commands in all", "singleflight around the pair"}}
	x, err := e.executor(e.plain)
	if err != nil {
		return out, err
	}
	for n := 1; n <= e.crowd; n *= 10 {
		c, err := e.crowds(x, n, 5)
		if err != nil {
			return out, err
		}
		counted, err := e.count(func() error { _, err := e.crowdThroughExecutor(x, n); return err })
		if err != nil {
			return out, err
		}
		this := median(c.these)
		out.add(grouped(n), span(this), span(this/float64(n)), counted.text(1), span(median(c.floors)))
	}
	return out, nil
}

// A gathering is what it takes to wait for many keys of another process at once.
type gathering struct {
	commands    float64 // of the waiters, for each key
	connections int     // that subscribe
	memory      float64 // bytes for a waiter
	bare        float64 // bytes for a goroutine that merely claims, and waits for a channel
	woken       float64 // ns from the release to the last return
}

// gather waits for n keys that another process holds, twice: counting takes time.
func (e *env) gather(n int) (gathering, error) {
	var g gathering
	if err := e.waitForMany(n, &g); err != nil {
		return g, err
	}
	counted, err := e.count(func() error { return e.waitForMany(n, new(gathering)) })
	g.commands = float64(counted.sent)/float64(n) - 3 // the other one's claim and commit, and the bare claim
	return g, err
}

func (e *env) waitForMany(n int, g *gathering) (err error) {
	other, err := e.child()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, other.close()) }()
	if err := other.tell("hold %d", n); err != nil {
		return err
	}
	if err := other.expect("ready"); err != nil {
		return err
	}
	client := redis.NewClient(&redis.Options{Addr: e.server.Addr()})
	defer client.Close()
	x, err := idempotent.New[string](client, "default")
	if err != nil {
		return err
	}
	defer x.Close()
	keys := make([]string, n)
	for i := range keys {
		keys[i] = heldKey(i)
	}
	// Connections and their buffers are there before, and no matter how many wait.
	if err := spread(callers, func(int) error { return client.Ping(context.Background()).Err() })(100 * callers); err != nil {
		return err
	}
	if g.bare, err = bareWaiters(client, keys); err != nil {
		return err
	}
	before := liveMemory()
	w := startWaiting(x, keys)
	if err := e.atRest(n); err != nil {
		return err
	}
	g.memory = (liveMemory() - before) / float64(n)
	if g.connections, err = e.subscriptions(); err != nil {
		return err
	}
	if err := other.tell("release"); err != nil {
		return err
	}
	w.all.Wait()
	last := now()
	released, err := other.number()
	if err != nil {
		return err
	}
	g.woken = float64(last - released)
	if w.wrong.Load() {
		return errCrowd
	}
	if err := e.atRest(0); err != nil {
		return err
	}
	return e.admin.Unlink(context.Background(), heldNames(n)...).Err()
}

type waiting struct {
	all   sync.WaitGroup
	wrong atomic.Bool
}

func startWaiting(x *idempotent.Executor[string], keys []string) *waiting {
	w := new(waiting)
	for _, key := range keys {
		w.all.Go(func() {
			if got, err := x.Run(context.Background(), key, mustNotRun); err != nil || got != value {
				w.wrong.Store(true)
			}
		})
	}
	return w
}

// atRest returns when n channels are subscribed to and nothing has been asked of Redis for a while.
func (e *env) atRest(n int) error {
	ctx := context.Background()
	last, since := -1.0, time.Now()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		channels, err := e.info("stats", "pubsub_channels")
		if err != nil {
			return err
		}
		info, err := e.admin.Info(ctx, "commandstats").Result()
		if err != nil {
			return err
		}
		calls, err := parseCommandStats(info)
		if err != nil {
			return err
		}
		if done := float64(total(calls)); done != last || int(channels) != n {
			last, since = done, time.Now()
		}
		if time.Since(since) > 200*time.Millisecond {
			return nil
		}
	}
	return fmt.Errorf("not at rest with %d channels after a minute", n)
}

// subscriptions are the connections that listen to channels.
func (e *env) subscriptions() (int, error) {
	list, err := e.admin.Do(context.Background(), "client", "list", "type", "pubsub").Text()
	return len(strings.Split(strings.TrimSpace(list), "\n")), err
}

// liveMemory is what is in use on the heap and by stacks, after the garbage is gone.
func liveMemory() float64 {
	for range 3 { // stacks shrink by half at a time
		runtime.GC()
	}
	read := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/stacks:bytes"}}
	metrics.Read(read)
	return float64(read[0].Value.Uint64() + read[1].Value.Uint64())
}

// bareWaiters is what a goroutine takes that sends a bare claim, finds somebody else's, and waits for
// nothing but a channel, or its context.
func bareWaiters(client *redis.Client, keys []string) (float64, error) {
	ctx, cancel := context.WithCancel(context.Background())
	goOn := make(chan struct{})
	var begun, all sync.WaitGroup
	var failed atomic.Pointer[error]
	before := liveMemory()
	begun.Add(len(keys))
	for _, key := range keys {
		all.Go(func() {
			err := client.Process(ctx, bareClaim(ctx, keyPrefix+key))
			if err != nil {
				failed.Store(&err)
			}
			begun.Done()
			select {
			case <-goOn:
			case <-ctx.Done():
			}
		})
	}
	begun.Wait()
	each := (liveMemory() - before) / float64(len(keys))
	cancel()
	all.Wait()
	if err := failed.Load(); err != nil {
		return 0, *err
	}
	return each, nil
}

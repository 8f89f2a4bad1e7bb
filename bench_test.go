package idempotent_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/internal/redistest"
)

// Figures mean something beside those of the bare commands in the same run: compare First with
// BarePair, and Replay with BareGet. redis-cmds/op are the commands that Redis executes, also those
// that a script calls: a commit is one that is sent and three that are called. The module bench
// measures the same in turns, with more beside it.

type bench struct {
	*testing.B
	server *redistest.Server
	client *redis.Client
}

func newBench(b *testing.B) bench {
	b.Helper()
	b.ReportAllocs()
	server := redistest.Start(b)
	return bench{b, server, server.Client(b)}
}

func (b bench) executor(client redis.UniversalClient, opts ...idempotent.Option) *idempotent.Executor[string] {
	b.Helper()
	x, err := idempotent.New[string](client, "default", opts...)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = x.Close() })
	return x
}

// measure runs op until the benchmark has enough, and reports the commands that took.
func (b bench) measure(op func(i int) error) {
	b.Helper()
	b.loop(func() {
		for i := 0; b.Loop(); i++ {
			if err := op(i); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// measureTogether does the same from many goroutines.
func (b bench) measureTogether(op func() error) {
	b.Helper()
	b.SetParallelism(64)
	b.loop(func() {
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if err := op(); err != nil {
					b.Error(err)
					return
				}
			}
		})
	})
}

func (b bench) loop(loop func()) {
	b.Helper()
	commands := 0
	for _, calls := range b.server.Commands(b, loop) {
		commands += calls
	}
	b.ReportMetric(float64(commands)/float64(b.N), "redis-cmds/op")
}

var chargeOf100 = strings.Repeat("0123456789", 10)

func charged(context.Context) (string, error) { return chargeOf100, nil }

func BenchmarkFirst(b *testing.B) {
	bench := newBench(b)
	x := bench.executor(bench.client)
	bench.measure(func(i int) error {
		_, err := x.Run(b.Context(), strconv.Itoa(i), charged)
		return err
	})
}

// BenchmarkBarePair is the floor of First: a claim and a commit.
func BenchmarkBarePair(b *testing.B) {
	bench := newBench(b)
	commit := redis.NewScript(`
if redis.call('GETRANGE', KEYS[1], 0, 6) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
redis.call('PUBLISH', KEYS[1], ARGV[2])
return 1`)
	bench.measure(func(i int) error {
		key := "idempotent:default:" + strconv.Itoa(i)
		claim := redis.NewStringCmd(b.Context(), "set", key, "running", "nx", "get", "px", 86400000)
		if err := bench.client.Process(b.Context(), claim); err != redis.Nil {
			return fmt.Errorf("the claim found something: %w", err)
		}
		return commit.Run(b.Context(), bench.client, []string{key}, "running", chargeOf100, 86400000).Err()
	})
}

func BenchmarkReplay(b *testing.B) {
	bench := newBench(b)
	x := bench.executor(bench.client)
	bench.measure(func(int) error {
		_, err := x.Run(b.Context(), "order-1", charged)
		return err
	})
}

// BenchmarkBareGet is the floor of Replay.
func BenchmarkBareGet(b *testing.B) {
	bench := newBench(b)
	if err := bench.client.Set(b.Context(), "order-1", chargeOf100, 0).Err(); err != nil {
		b.Fatal(err)
	}
	bench.measure(func(int) error { return bench.client.Get(b.Context(), "order-1").Err() })
}

// BenchmarkReplayTogether replays one key from many goroutines, which share what they ask.
func BenchmarkReplayTogether(b *testing.B) {
	bench := newBench(b)
	x := bench.executor(bench.client)
	bench.measureTogether(func() error {
		_, err := x.Run(b.Context(), "order-1", charged)
		return err
	})
}

// BenchmarkJoined has 100 callers of one key at once; an op is all of them.
func BenchmarkJoined(b *testing.B) {
	bench := newBench(b)
	x := bench.executor(bench.client)
	bench.measure(func(i int) error {
		key := strconv.Itoa(i)
		errs := make(chan error, 100)
		var callers sync.WaitGroup
		for range cap(errs) {
			callers.Go(func() {
				_, err := x.Run(b.Context(), key, charged)
				errs <- err
			})
		}
		callers.Wait()
		close(errs)
		for err := range errs {
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// BenchmarkWaited has a second executor, with connections of its own as another process has, wait
// for an execution; an op is both, from the owner's claim to the return of the last.
func BenchmarkWaited(b *testing.B) {
	bench := newBench(b)
	owner := bench.executor(bench.client)
	waits := make(chan struct{}, 1)
	waiter := bench.executor(bench.server.Client(b), idempotent.WithObserver(idempotent.ObserverFunc(func(_ context.Context, e idempotent.Event) {
		if e.Kind == idempotent.EventWaitStarted {
			waits <- struct{}{}
		}
	})))
	bench.measure(func(i int) error {
		key := strconv.Itoa(i)
		waited := make(chan error, 1)
		_, err := owner.Run(b.Context(), key, func(ctx context.Context) (string, error) {
			go func() {
				_, err := waiter.Run(context.WithoutCancel(ctx), key, charged)
				waited <- err
			}()
			<-waits
			return chargeOf100, nil
		})
		if err != nil {
			return err
		}
		return <-waited
	})
}

// BenchmarkRunMany runs 100 new keys at once; an op is all of them.
func BenchmarkRunMany(b *testing.B) {
	bench := newBench(b)
	x := bench.executor(bench.client)
	bench.measure(func(i int) error {
		calls := make([]idempotent.BatchCall[string], 100)
		for j := range calls {
			calls[j] = idempotent.BatchCall[string]{Key: strconv.Itoa(100*i + j), Fn: charged}
		}
		for _, outcome := range x.RunMany(b.Context(), calls) {
			if outcome.Err != nil {
				return outcome.Err
			}
		}
		return nil
	})
}

type codecCharge struct {
	ID       string
	Amount   int64
	Currency string
	Captured bool
	Tags     map[string]string
}

// BenchmarkCodec has each codec encode and decode the same charge, or its bytes.
func BenchmarkCodec(b *testing.B) {
	charge := codecCharge{ID: "ch_3MmlLrLkdIwHu7ix0snN0B15", Amount: 1099, Currency: "eur", Captured: true, Tags: map[string]string{"order": "42"}}
	b.Run("msgpack", func(b *testing.B) { benchCodec(b, idempotent.Msgpack[codecCharge](), charge) })
	b.Run("JSON", func(b *testing.B) { benchCodec(b, idempotent.JSON[codecCharge](), charge) })
	b.Run("raw", func(b *testing.B) { benchCodec(b, idempotent.Raw[string](), chargeOf100) })
}

func benchCodec[T any](b *testing.B, codec idempotent.Codec[T], value T) {
	data, err := codec.Encode(value)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("encode", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(data)))
		for b.Loop() {
			if _, err := codec.Encode(value); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(data)))
		for b.Loop() {
			if _, err := codec.Decode(data); err != nil {
				b.Fatal(err)
			}
		}
	})
}

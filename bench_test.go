package idempotent_test

import (
	"context"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/internal/redistest"
)

// Figures mean something beside those of the bare commands in the same run: compare First with
// BareClaimAndCommit, and Replay with BareGet.

func benchExecutor(b *testing.B) (*idempotent.Executor[string], *redis.Client) {
	b.Helper()
	client := redistest.Start(b).Client(b)
	x, err := idempotent.New[string](client)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = x.Close() })
	return x, client
}

func charged(context.Context) (string, error) { return "charged", nil }

func BenchmarkFirst(b *testing.B) {
	x, _ := benchExecutor(b)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, err := x.Run(b.Context(), strconv.Itoa(i), charged); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkBareClaimAndCommit(b *testing.B) {
	_, client := benchExecutor(b)
	script := redis.NewScript(`redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) redis.call('PUBLISH', KEYS[1], ARGV[1]) return 1`)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		key := strconv.Itoa(i)
		if err := client.Do(b.Context(), "set", key, "running", "nx", "get", "px", 86400000).Err(); err != redis.Nil {
			b.Fatal(err)
		}
		if err := script.Run(b.Context(), client, []string{key}, "charged", 86400000).Err(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkReplay(b *testing.B) {
	x, _ := benchExecutor(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := x.Run(b.Context(), "order-1", charged); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkBareGet(b *testing.B) {
	_, client := benchExecutor(b)
	client.Set(b.Context(), "order-1", "charged", 0)
	b.ReportAllocs()
	for b.Loop() {
		if err := client.Get(b.Context(), "order-1").Err(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkReplayTogether replays one key from many goroutines, which share what they ask.
func BenchmarkReplayTogether(b *testing.B) {
	x, _ := benchExecutor(b)
	b.ReportAllocs()
	b.SetParallelism(64)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := x.Run(b.Context(), "order-1", charged); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

// BenchmarkJoined has 100 callers of one key at once.
func BenchmarkJoined(b *testing.B) {
	x, _ := benchExecutor(b)
	var n atomic.Int64
	b.ReportAllocs()
	for b.Loop() {
		key := strconv.FormatInt(n.Add(1), 10)
		var callers sync.WaitGroup
		for range 100 {
			callers.Go(func() {
				if _, err := x.Run(b.Context(), key, charged); err != nil {
					b.Error(err)
				}
			})
		}
		callers.Wait()
	}
}

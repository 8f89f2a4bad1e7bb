package acceptance

import (
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/internal/redistest"
)

// cachedReplay is an executor of raw values with one key in its cache, and how to replay it.
func cachedReplay(tb testing.TB) (replay func()) {
	tb.Helper()
	log := newLogWatch()
	x, err := idempotent.New[string](redistest.Start(tb).Client(tb), "default",
		idempotent.WithReplayCache(1000), idempotent.WithLogger(slog.New(log)), idempotent.WithCodec(idempotent.Raw[string]()))
	require.NoError(tb, err)
	tb.Cleanup(func() { _ = x.Close() })
	run := func() {
		if _, err := x.Run(tb.Context(), "order-1", charged); err != nil {
			tb.Error(err)
		}
	}
	run()
	log.await(tb, cacheInUse)
	run()
	return run
}

// Beside BenchmarkReplayCacheDecoding, this is what a hit costs.
func BenchmarkReplayCache(b *testing.B) {
	replay := cachedReplay(b)
	b.ReportAllocs()
	for b.Loop() {
		replay()
	}
}

func BenchmarkReplayCacheTogether(b *testing.B) {
	replay := cachedReplay(b)
	b.ReportAllocs()
	b.SetParallelism(64)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			replay()
		}
	})
}

func BenchmarkReplayCacheDecoding(b *testing.B) {
	codec := idempotent.Raw[string]()
	payload, err := codec.Encode("charged")
	require.NoError(b, err)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := codec.Decode(payload); err != nil {
			b.Fatal(err)
		}
	}
}

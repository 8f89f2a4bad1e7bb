package idemotel_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/idemotel"
	"github.com/idempotent-go/idempotent/internal/redistest"

	"github.com/redis/go-redis/v9"
)

// unsampled has an SDK that counts, and samples no span.
func unsampled(t testing.TB) idempotent.Option {
	t.Helper()
	telemetry, err := idemotel.New(
		idemotel.WithMeterProvider(sdkmetric.NewMeterProvider(sdkmetric.WithReader(sdkmetric.NewManualReader()))),
		idemotel.WithTracerProvider(sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.NeverSample()))),
	)
	require.NoError(t, err)
	return idempotent.WithTracer(telemetry)
}

// replaying returns what replays a key of an executor, from Redis or, with a cache, from memory.
func replaying(t testing.TB, opts ...idempotent.Option) func() {
	t.Helper()
	options, err := redis.ParseURL(redistest.URL(t))
	require.NoError(t, err)
	client := redis.NewClient(options)
	x, err := idempotent.New[string](client, "cost", opts...)
	require.NoError(t, err)
	t.Cleanup(func() { _ = x.Close(); _ = client.Close() })
	replay := func() {
		if _, err := x.Run(t.Context(), key("a"), charged); err != nil {
			t.Fatal(err)
		}
	}
	replay()
	return replay
}

func TestUnsampledReplayCostsAtMostEightAllocations(t *testing.T) {
	without := testing.AllocsPerRun(500, replaying(t))
	with := testing.AllocsPerRun(500, replaying(t, unsampled(t)))
	assert.LessOrEqual(t, with-without, 8.0)
	assert.Greater(t, with, without, "the telemetry is at work")
}

// BenchmarkReplay measures replays from memory, where the cost of telemetry is not lost in that of a round trip.
func BenchmarkReplay(b *testing.B) {
	for name, opts := range map[string][]idempotent.Option{"without": nil, "unsampled": {unsampled(b)}} {
		b.Run(name, func(b *testing.B) {
			var last idempotent.Report
			x := replayCached(b, opts, &last)
			b.ReportAllocs()
			for b.Loop() {
				x()
			}
		})
	}
}

func replayCached(b *testing.B, opts []idempotent.Option, report *idempotent.Report) func() {
	options, err := redis.ParseURL(redistest.URL(b))
	require.NoError(b, err)
	client := redis.NewClient(options)
	x, err := idempotent.New[string](client, "cost-cached", append(opts, idempotent.WithReplayCache(10))...)
	require.NoError(b, err)
	b.Cleanup(func() { _ = x.Close(); _ = client.Close() })
	require.Eventually(b, func() bool {
		_, err := x.Run(b.Context(), key("a"), charged, idempotent.WithReport(report))
		return err == nil && report.Source == idempotent.Cached
	}, time.Minute, 10*time.Millisecond)
	return func() { _, _ = x.Run(b.Context(), key("a"), charged) }
}

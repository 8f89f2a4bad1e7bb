package webhook_test

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent/internal/redistest"
	"github.com/idempotent-go/idempotent/webhook"
	"github.com/idempotent-go/idempotent/webhook/webhooktest"
)

// BenchmarkAccept receives new events of 1 KB through ServeHTTP, from 32 senders. It reports the CPU time of this process
// and of Redis for each, which does not depend on what else the machine does, and the 99th percentile of the duration.
func BenchmarkAccept(b *testing.B) {
	server := redistest.Start(b, "--appendonly", "yes")
	client := server.Client(b)
	in, err := webhook.New(b.Context(), open(b, client, namespace()), []webhook.Source{stripeSource(b)}, webhook.NewRouter(), webhook.WithBacklog(1<<30))
	require.NoError(b, err)
	requests := make([]*http.Request, b.N)
	padding := strings.Repeat("x", 900)
	for i := range requests {
		requests[i] = webhooktest.Stripe(secret).Request(b, "/webhooks/stripe", stripeBody("evt_bench_"+strconv.Itoa(i), "charge.captured", "ch_"+strconv.Itoa(i), padding), time.Now())
	}
	took := make([]time.Duration, b.N)
	goBefore, redisBefore := cpu(b), redisCPU(b, server)
	b.ResetTimer()
	var wg sync.WaitGroup
	for s := range 32 {
		wg.Go(func() {
			for i := s; i < len(requests); i += 32 {
				w := httptest.NewRecorder()
				start := time.Now()
				in.ServeHTTP(w, requests[i])
				took[i] = time.Since(start)
				if w.Code != http.StatusOK {
					b.Errorf("status %d", w.Code)
					return
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	n := float64(b.N)
	b.ReportMetric(float64((cpu(b)-goBefore).Microseconds())/n, "go-cpu-us/op")
	b.ReportMetric(float64((redisCPU(b, server)-redisBefore).Microseconds())/n, "redis-cpu-us/op")
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-us")
	b.ReportMetric(n/b.Elapsed().Seconds(), "events/s")
}

// cpu is the CPU time of this process.
func cpu(b *testing.B) time.Duration {
	var usage syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func redisCPU(b *testing.B, server *redistest.Server) (sum time.Duration) {
	info, err := server.Client(b).Info(b.Context(), "cpu").Result()
	require.NoError(b, err)
	for line := range strings.Lines(info) {
		for _, name := range []string{"used_cpu_sys:", "used_cpu_user:"} {
			if value, ok := strings.CutPrefix(line, name); ok {
				seconds, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
				require.NoError(b, err)
				sum += time.Duration(seconds * float64(time.Second))
			}
		}
	}
	return sum
}

// BenchmarkFind asks a store of many events for one by id, for those of an object, and for a page by time and state.
// WEBHOOK_BENCH_EVENTS sets how many, 20,000 by default.
func BenchmarkFind(b *testing.B) {
	events := 20_000
	if text := os.Getenv("WEBHOOK_BENCH_EVENTS"); text != "" {
		var err error
		events, err = strconv.Atoi(text)
		require.NoError(b, err)
	}
	server := redistest.Start(b)
	store := open(b, server.Client(b), namespace())
	start := time.Now().Add(-24 * time.Hour)
	var wg sync.WaitGroup
	for s := range 64 {
		wg.Go(func() {
			for i := s; i < events; i += 64 {
				_, err := store.Accept(b.Context(), webhook.Arrival{
					Key: "key-" + strconv.Itoa(i), Source: "shop",
					Event:     webhook.Event{ID: fmt.Sprintf("evt_%d", i), Type: "order.paid", Object: fmt.Sprintf("order_%d", i/10)},
					Payload:   webhook.Payload{Body: bytes.Repeat([]byte("x"), 300)},
					Receipt:   webhook.Receipt{At: start.Add(time.Duration(i) * time.Millisecond)},
					Retention: webhook.DefaultRetention(), Step: webhook.Step{At: start},
				})
				if err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	measure := func(name string, ask func(i int) (int, error), want int) {
		b.Run(name, func(b *testing.B) {
			var took []time.Duration
			for i := 0; b.Loop(); i++ {
				begin := time.Now()
				n, err := ask(i * 7919 % events)
				took = append(took, time.Since(begin))
				if err != nil || n != want {
					b.Fatalf("%d events, error %v; want %d", n, err, want)
				}
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-us")
		})
	}
	measure("by id", func(i int) (int, error) {
		_, err := store.Get(b.Context(), webhook.Lookup{Source: "shop", ID: fmt.Sprintf("evt_%d", i)})
		return 1, err
	}, 1)
	measure("by object", func(i int) (int, error) {
		page, _, err := store.Find(b.Context(), webhook.Filter{Source: "shop", Object: fmt.Sprintf("order_%d", i/10)}, "", 50)
		return len(page), err
	}, 10)
	measure("by time and state", func(i int) (int, error) {
		to := start.Add(time.Duration(max(i, 1000)) * time.Millisecond)
		page, _, err := store.Find(b.Context(), webhook.Filter{States: []webhook.State{webhook.Queued}, To: to}, "", 50)
		return len(page), err
	}, 50)
}

package inbox_test

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent/pg/inbox"
	"github.com/idempotent-go/idempotent/webhook"
)

// BenchmarkAccept stores events of 1 KB, from several goroutines, and reports the CPU time of this process and of its
// Postgres sessions for each event, and events per second.
func BenchmarkAccept(b *testing.B) {
	const callers = 8
	pool := newPool(b, fmt.Sprintf("&pool_max_conns=%d&pool_min_conns=%d", callers, callers))
	s := newStore(b, pool)
	body := []byte(strings.Repeat("0123456789abcdef", 64))
	accept := func(i int64) {
		a := arrival("key-" + strconv.FormatInt(i, 10))
		a.Payload.Body, a.Backlog = body, 1_000_000
		if _, err := s.Accept(context.Background(), a); err != nil {
			b.Error(err)
		}
	}
	for i := range int64(2000) { // statements are prepared, pages are there
		accept(-1 - i)
	}
	before := cpu(b, pool)
	began := time.Now()
	var serial atomic.Int64
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for i := serial.Add(1); i <= int64(b.N); i = serial.Add(1) {
				accept(i)
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/time.Since(began).Seconds(), "events/s")
	b.ReportMetric(float64((cpu(b, pool)-before).Microseconds())/float64(b.N), "cpu-µs/event")
}

// cpu returns the CPU time so far of this process and of the sessions of its database.
func cpu(t testing.TB, pool *pgxpool.Pool) time.Duration {
	t.Helper()
	var own syscall.Rusage
	require.NoError(t, syscall.Getrusage(syscall.RUSAGE_SELF, &own))
	total := time.Duration(own.Utime.Nano() + own.Stime.Nano())
	var pids []int
	require.NoError(t, pool.QueryRow(context.Background(),
		`SELECT array_agg(pid) FROM pg_stat_activity WHERE datname = current_database()`).Scan(&pids))
	for _, pid := range pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/schedstat", pid)) // ns on the CPU, wait, slices
		require.NoError(t, err)
		ns, err := strconv.ParseInt(strings.Fields(string(text))[0], 10, 64)
		require.NoError(t, err)
		total += time.Duration(ns)
	}
	return total
}

// BenchmarkHandle takes, runs and settles events whose handler writes a row, in one process with 8 workers.
func BenchmarkHandle(b *testing.B) {
	const workers = 8
	pool := newPool(b, fmt.Sprintf("&pool_max_conns=%d&pool_min_conns=%d", workers+2, workers+2))
	_, err := pool.Exec(b.Context(), `CREATE TABLE ledger (key text NOT NULL)`)
	require.NoError(b, err)
	s := newStore(b, pool)
	x, err := s.Executor(webhook.ExecutorConfig{TTL: time.Hour})
	require.NoError(b, err)
	for i := range b.N {
		_, err := s.Accept(b.Context(), arrival(strconv.Itoa(i)))
		require.NoError(b, err)
	}
	before := cpu(b, pool)
	began := time.Now()
	var handled atomic.Int64
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for handled.Load() < int64(b.N) {
				taken, err := s.Take(b.Context(), 4, time.Minute, webhook.Step{At: time.Now(), State: webhook.Running})
				if err != nil {
					b.Error(err)
					return
				}
				for _, t := range taken {
					_, _, err := x.Execute(b.Context(), webhook.Execution{Key: t.Key, Ticket: t.Ticket, Run: write})
					if err == nil {
						err = s.Settle(b.Context(), t.Ticket, done())
					}
					if err != nil {
						b.Error(err)
					}
					handled.Add(1)
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/time.Since(began).Seconds(), "events/s")
	b.ReportMetric(float64((cpu(b, pool)-before).Microseconds())/float64(b.N), "cpu-µs/event")
}

func write(ctx context.Context, _ int) (webhook.Outcome, error) {
	_, err := inbox.Tx(ctx).Exec(ctx, `INSERT INTO ledger VALUES ('k')`)
	return webhook.Outcome{}, err
}

package pg_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/redis/go-redis/v9"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/internal/pgtest"
	"github.com/idempotent-go/idempotent/internal/redistest"
	"github.com/idempotent-go/idempotent/pg"
)

// BenchmarkCPU reports the CPU time, of this process and of the Postgres session, of a first run and a plain transaction
// with the same insert, and of a replay and a plain SELECT by primary key.
func BenchmarkCPU(b *testing.B) {
	h := newHarness(b, pgtest.Database(b))
	pool := h.connect(h.pool.Config().ConnString() + "&pool_max_conns=1")
	e, err := pg.New[int](pool, "cost")
	if err != nil {
		b.Fatal(err)
	}
	ctx := b.Context() // it can be canceled, as that of a request
	fn := func(ctx context.Context, tx pgx.Tx) (int, error) { return 1, effect(ctx, tx, "k") }
	must := func(err error) {
		if err != nil {
			b.Fatal(err)
		}
	}
	const rounds, calls = 40, 100
	spent := map[string][]time.Duration{} // of each round
	serial := 0
	kinds := map[string]func(){
		"first run": func() {
			serial++
			_, err := e.Run(ctx, strconv.Itoa(serial), fn)
			must(err)
		},
		"transaction": func() {
			must(pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error { return effect(ctx, tx, "k") }))
		},
		"replay": func() {
			_, err := e.Run(ctx, "replayed", fn)
			must(err)
		},
		"select": func() {
			var outcome []byte
			must(pool.QueryRow(ctx, `SELECT outcome FROM idempotent_records WHERE namespace = $1 AND key_hash = sha256('replayed')`, "cost").Scan(&outcome))
		},
	}
	kinds["replay"]() // its first run
	for b.Loop() {
		for round := range rounds + 1 { // the first is a warm-up
			for name, call := range kinds {
				before := cpu(b, pool)
				for range calls {
					call()
				}
				if round > 0 {
					spent[name] = append(spent[name], (cpu(b, pool)-before)/calls)
				}
			}
		}
	}
	for name, of := range spent {
		b.ReportMetric(float64(median(of).Nanoseconds())/1000, strings.ReplaceAll(name, " ", "-")+"-µs")
	}
	b.ReportMetric(float64(median(spent["first run"]))/float64(median(spent["transaction"])), "first-run/transaction")
	b.ReportMetric(float64(median(spent["replay"]))/float64(median(spent["select"])), "replay/select")
}

func median(of []time.Duration) time.Duration {
	of = slices.Sorted(slices.Values(of))
	return of[len(of)/2]
}

// cpu returns the CPU time so far of this process and of the pool's only session.
func cpu(t testing.TB, pool *pgxpool.Pool) time.Duration {
	var pid int
	if err := pool.QueryRow(t.Context(), `SELECT pg_backend_pid()`).Scan(&pid); err != nil {
		t.Fatal(err)
	}
	var own syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &own); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/schedstat", pid)) // ns on the CPU, wait, slices
	if err != nil {
		t.Fatal(err)
	}
	session, err := strconv.ParseInt(strings.Fields(string(text))[0], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return time.Duration(own.Utime.Nano()+own.Stime.Nano()) + time.Duration(session)
}

// BenchmarkWaiters reports when 50 waiters of one key, in five processes' worth of executors with Redis in front, have
// their answer, counted from the first one's.
func BenchmarkWaiters(b *testing.B) {
	const waiters, executors = 50, 5
	h := newHarness(b, pgtest.Database(b))
	addr := redistest.Start(b).Addr()
	var es []*pg.Executor[int]
	for range executors {
		client := redis.NewClient(&redis.Options{Addr: addr})
		front, err := idempotent.New[int](client, "waiters")
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = front.Close(); _ = client.Close() })
		e, err := pg.New[int](h.connect(h.pool.Config().ConnString()), "waiters", pg.Through(front))
		if err != nil {
			b.Fatal(err)
		}
		es = append(es, e)
	}
	var after []time.Duration
	serial := 0
	for b.Loop() {
		serial++
		key := strconv.Itoa(serial)
		answers := make([]time.Time, waiters)
		var wg sync.WaitGroup
		for i := range waiters {
			wg.Go(func() {
				_, err := es[i%executors].Run(h.ctx, key, func(context.Context, pgx.Tx) (int, error) {
					time.Sleep(30 * time.Millisecond) // the others are waiting by then
					return 1, nil
				})
				answers[i] = time.Now()
				if err != nil {
					b.Error(err)
				}
			})
		}
		wg.Wait()
		slices.SortFunc(answers, time.Time.Compare)
		for _, at := range answers[1:] {
			after = append(after, at.Sub(answers[0]))
		}
	}
	slices.Sort(after)
	b.ReportMetric(float64(after[len(after)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(after[len(after)*99/100].Microseconds()), "p99-µs")
}

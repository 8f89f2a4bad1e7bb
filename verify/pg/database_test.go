package pg_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/internal/pgtest"
	"github.com/idempotent-go/idempotent/internal/redistest"
	"github.com/idempotent-go/idempotent/pg"
)

// Every commit is cut off: before the server has it, after its answer, or at once.
func TestCommitsCutOff(t *testing.T) {
	url := pgtest.Database(t)
	h := newHarness(t, url)
	c := h.pool.Config().ConnConfig
	proxy, err := pgtest.StartProxy(fmt.Sprintf("%s:%d", c.Host, c.Port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(proxy.Close)
	e, err := pg.New[int](h.connect(pgtest.URL(proxy.Addr(), c.Database)+"&default_query_exec_mode=exec"), "cuts", pg.WithMaxExecutions(100))
	if err != nil {
		t.Fatal(err)
	}
	var cut atomic.Int64
	limit := times(20, 100)
	kinds := map[pgtest.Cut]int{}
	proxy.SetCut(func() pgtest.Cut {
		if rand.IntN(2) == 0 || cut.Load() >= int64(limit) {
			return pgtest.CutNothing
		}
		cut.Add(1)
		kind := pgtest.CutRequest + pgtest.Cut(rand.IntN(3))
		kinds[kind]++
		return kind
	})
	var keys []string
	for i := 0; cut.Load() < int64(limit); i++ {
		key := fmt.Sprint(i)
		keys = append(keys, key)
		calls := 0
		value, err := e.Run(h.ctx, key, func(ctx context.Context, tx pgx.Tx) (int, error) {
			calls++
			return calls, effect(ctx, tx, key)
		})
		if err != nil || value != calls {
			t.Fatalf("key %s: %d, %v; want the value of the last call, %d", key, value, err, calls)
		}
		never := func(context.Context, pgx.Tx) (int, error) { return -1, nil }
		again, err := e.Run(h.ctx, key, never)
		for errors.Is(err, idempotent.ErrUnavailable) { // on a connection of the pool that was cut, too
			again, err = e.Run(h.ctx, key, never)
		}
		if err != nil || again != value {
			t.Fatalf("key %s: replayed %d, %v; want %d", key, again, err, value)
		}
	}
	twice, missing := h.count(keys)
	t.Logf("%d cut off (before the server %d, after its answer %d, at once %d) in %d keys: effects twice %d, missing %d",
		cut.Load(), kinds[pgtest.CutRequest], kinds[pgtest.CutAnswer], kinds[pgtest.CutBoth], len(keys), twice, missing)
	if twice+missing > 0 {
		t.Error("want each effect once")
	}
}

// Postgres is killed and started again, then its synchronous standby takes over, and Redis is killed and started again,
// all while callers run keys and repeat those that failed.
func TestRestartAndFailoverUnderLoad(t *testing.T) {
	primary := pgtest.Start(t)
	h := newHarness(t, primary.URL())
	standby, err := primary.Standby("standby")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(standby.Close)
	admin(t, h, `ALTER SYSTEM SET synchronous_standby_names = 'standby'`, `SELECT pg_reload_conf()`)
	awaitSync(t, h)

	proxy, err := pgtest.StartProxy(primary.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(proxy.Close)
	server := redistest.Start(t)
	client := redis.NewClient(&redis.Options{Addr: server.Addr(), DialTimeout: 100 * time.Millisecond, ReadTimeout: 100 * time.Millisecond, MaxRetries: -1})
	t.Cleanup(func() { _ = client.Close() })
	front, err := idempotent.New[int](client, "failover", idempotent.WithLease(lease))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = front.Close() })
	e, err := pg.New[int](h.connect(pgtest.URL(proxy.Addr(), "postgres")+"&pool_max_conns=20"), "failover", pg.Through(front), pg.WithIdleTimeout(lease), pg.WithCommitTimeout(lease), pg.WithWaitTimeout(lease))
	if err != nil {
		t.Fatal(err)
	}

	ctx, stop := context.WithCancel(h.ctx)
	var load sync.WaitGroup
	var mu sync.Mutex
	answered := map[string]bool{}
	var errs atomic.Int64
	for caller := range 8 {
		load.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				key := fmt.Sprint(caller/2, "-", i) // two callers for each key
				for {
					value, err := e.Run(h.ctx, key, func(ctx context.Context, tx pgx.Tx) (int, error) {
						return len(key), effect(ctx, tx, key)
					})
					if err == nil {
						if value != len(key) {
							t.Errorf("key %s: value %d", key, value)
						}
						mu.Lock()
						answered[key] = true
						mu.Unlock()
						break
					}
					errs.Add(1)
					if ctx.Err() != nil {
						return
					}
				}
			}
		})
	}
	progress := func() { // until calls are answered again
		t.Helper()
		mu.Lock()
		from := len(answered)
		mu.Unlock()
		deadline := time.Now().Add(time.Minute)
		for n := from; n < from+times(30, 200); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("no progress for a minute")
			}
			mu.Lock()
			n = len(answered)
			mu.Unlock()
		}
	}
	progress()
	server.Kill()
	progress()
	if err := server.Run(); err != nil {
		t.Fatal(err)
	}
	progress()
	primary.Stop("immediate")
	if err := primary.Run(); err != nil {
		t.Fatal(err)
	}
	awaitSync(t, h)
	progress()
	// The standby stops to confirm, so commits wait until they are given up. What they wrote is lost with the primary.
	resume := pauseStandby(t, h, standby)
	for failed := errs.Load(); errs.Load() < failed+10; time.Sleep(5 * time.Millisecond) {
		if h.ctx.Err() != nil {
			t.Fatal("no commit was given up while the standby was paused")
		}
	}
	server.Kill()
	primary.Stop("immediate")
	resume()
	if err := standby.Promote(); err != nil {
		t.Fatal(err)
	}
	proxy.SetTarget(standby.Addr())
	progress()
	stop()
	load.Wait()

	h.pool = h.connect(standby.URL())
	keys := make([]string, 0, len(answered))
	for key := range answered {
		keys = append(keys, key)
	}
	_, missing := h.count(keys)
	var twice int
	if err := h.pool.QueryRow(h.ctx, `SELECT count(*) FROM (SELECT FROM ledger GROUP BY key HAVING count(*) > 1) t`).Scan(&twice); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d keys answered, %d calls failed and were repeated: effects twice %d, answered and missing %d", len(keys), errs.Load(), twice, missing)
	if twice+missing > 0 || errs.Load() == 0 {
		t.Error("want nothing twice and nothing lost, and failures on the way")
	}
}

func admin(t testing.TB, h *harness, statements ...string) {
	t.Helper()
	for _, s := range statements {
		if _, err := h.pool.Exec(h.ctx, s); err != nil {
			t.Fatal(err)
		}
	}
}

// pauseStandby stops the process that receives the primary's log, and returns what continues it.
func pauseStandby(t testing.TB, h *harness, standby *pgtest.Server) (resume func()) {
	t.Helper()
	var pid int
	if err := h.connect(standby.URL()).QueryRow(h.ctx, `SELECT pid FROM pg_stat_wal_receiver`).Scan(&pid); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	resume = func() { _ = syscall.Kill(pid, syscall.SIGCONT) }
	t.Cleanup(resume)
	return resume
}

// awaitSync waits until the standby follows synchronously and has all there is.
func awaitSync(t testing.TB, h *harness) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for time.Now().Before(deadline) {
		var synced bool
		err := h.pool.QueryRow(h.ctx, `SELECT coalesce(bool_or(sync_state = 'sync' AND state = 'streaming'), false) FROM pg_stat_replication`).Scan(&synced)
		if err == nil && synced {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("no synchronous standby within a minute")
}

// 10,000 expired records are pruned by four callers while others run, some of them keys whose record is pruned.
func TestPruneWhileRunsGoOn(t *testing.T) {
	h := newHarness(t, pgtest.Database(t))
	e, err := pg.New[int](h.pool, "prune")
	if err != nil {
		t.Fatal(err)
	}
	expired := times(2_000, 10_000)
	const step = 25 // a key of each so many runs meanwhile
	run := func(key string, opts ...pg.RunOption) error {
		_, err := e.Run(h.ctx, key, func(ctx context.Context, tx pgx.Tx) (int, error) { return 1, effect(ctx, tx, key) }, opts...)
		return err
	}
	admin(t, h, `INSERT INTO idempotent_records (namespace, key_hash, kind, outcome, expires_at)
		SELECT 'prune', sha256(('key' || n)::bytea), 'value', '', clock_timestamp() - interval '1 s' FROM generate_series(1, `+fmt.Sprint(expired)+`) n`)
	var wg sync.WaitGroup
	var pruned atomic.Int64
	var again atomic.Int64
	for range 4 {
		wg.Go(func() {
			for {
				n, err := e.Prune(h.ctx, 500)
				if err != nil {
					t.Error(err)
				}
				pruned.Add(int64(n))
				if n == 0 {
					return
				}
			}
		})
	}
	var keys []string
	for i := range expired / step {
		keys = append(keys, fmt.Sprint("key", 1+i*step))
	}
	for caller := range 4 {
		wg.Go(func() {
			for _, key := range keys[caller*len(keys)/4 : (caller+1)*len(keys)/4] {
				if err := run(key); err != nil {
					t.Error(err)
				}
				again.Add(1)
			}
		})
	}
	wg.Wait()
	var left int
	if err := h.pool.QueryRow(h.ctx, `SELECT count(*) FROM idempotent_records`).Scan(&left); err != nil {
		t.Fatal(err)
	}
	twice, missing := h.count(keys)
	t.Logf("%d pruned while %d keys ran: effects twice %d, missing %d; %d records left", pruned.Load(), again.Load(), twice, missing, left)
	if twice+missing > 0 || left != len(keys) || pruned.Load() < int64(expired-len(keys)) {
		t.Errorf("want each effect once, and %d records left", len(keys))
	}
	for _, key := range keys {
		if _, err := e.Get(h.ctx, key); errors.Is(err, idempotent.ErrNotFound) {
			t.Errorf("the record of %s was pruned", key)
		}
	}
}

package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/idempotent-go/idempotent/internal/pgtest"
	"github.com/idempotent-go/idempotent/internal/redistest"
)

func TestMain(m *testing.M) {
	if os.Getenv("OUTBOX") != "" {
		main()
		return
	}
	code := m.Run()
	pgtest.Cleanup()
	os.Exit(code)
}

// A receiver that does not deduplicate kills the program after it took some of the orders, before it answers.
type receiver struct {
	mu     sync.Mutex
	orders []string
	kill   map[string]bool
	killed chan struct{}
	cmd    *exec.Cmd
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	order := req.URL.Query().Get("order")
	if req.Method == http.MethodHead {
		if !slices.Contains(r.orders, order) {
			w.WriteHeader(http.StatusNotFound)
		}
		return
	}
	r.orders = append(r.orders, order)
	if r.kill[order] {
		delete(r.kill, order)
		_ = r.cmd.Process.Signal(syscall.SIGKILL)
		r.killed <- struct{}{}
	}
}

func TestRowsAndAnnouncementsAreEqualAfterKills(t *testing.T) {
	url := pgtest.Database(t)
	r := &receiver{kill: map[string]bool{"order-3": true, "order-11": true}, killed: make(chan struct{}, 10)}
	server := httptest.NewServer(r)
	t.Cleanup(server.Close)
	var orders []string
	for i := range 15 {
		orders = append(orders, fmt.Sprintf("order-%d", i))
	}
	environment := append(os.Environ(), "OUTBOX=1", "DATABASE_URL="+url, "REDIS_URL="+redistest.Start(t).URL(), "RECEIVER_URL="+server.URL)
	start := func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.cmd = exec.Command(os.Args[0], orders...) // again with every order: the client does not know which are stored
		r.cmd.Env = environment
		r.cmd.Stderr = os.Stderr
		r.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := r.cmd.Start(); err != nil {
			t.Fatal(err)
		}
	}
	pool, err := pgxpool.New(context.Background(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	finished := finishedJobs(t, pool)
	start()
	for range 2 {
		select {
		case <-r.killed:
		case <-time.After(time.Minute):
			t.Fatal("the receiver got no order to kill the program at within a minute")
		}
		_ = r.cmd.Wait()
		start()
	}
	finished(len(orders))
	_ = r.cmd.Process.Signal(os.Interrupt)
	_ = r.cmd.Wait()
	var rows []string
	if err := pool.QueryRow(context.Background(), `SELECT array_agg(id) FROM orders`).Scan(&rows); err != nil {
		t.Fatal(err)
	}
	for _, list := range [][]string{rows, r.orders, orders} {
		slices.Sort(list)
	}
	if !slices.Equal(rows, orders) || !slices.Equal(r.orders, orders) {
		t.Errorf("rows %q, announced %q; want each order once", rows, r.orders)
	}
}

// finishedJobs creates the tables, and lets Postgres notify of each job that is finished. The function that it returns waits
// until n different ones are.
func finishedJobs(t *testing.T, pool *pgxpool.Pool) (wait func(n int)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute) // river looks for jobs of dead workers each 30 s
	t.Cleanup(cancel)
	if err := prepare(ctx, pool); err != nil {
		t.Fatal(err)
	}
	conn, err := pool.Acquire(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Release)
	_, err = conn.Exec(ctx, `
		CREATE FUNCTION finished() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_notify('finished', NEW.id::text); RETURN NEW; END $$;
		CREATE TRIGGER finished AFTER UPDATE ON river_job FOR EACH ROW WHEN (NEW.finalized_at IS NOT NULL) EXECUTE FUNCTION finished();
		LISTEN finished`)
	if err != nil {
		t.Fatal(err)
	}
	return func(n int) {
		t.Helper()
		jobs := make(map[string]bool)
		for len(jobs) < n {
			finished, err := conn.Conn().WaitForNotification(ctx)
			if err != nil {
				t.Fatalf("%d of %d jobs are finished: %v", len(jobs), n, err)
			}
			jobs[finished.Payload] = true
		}
	}
}

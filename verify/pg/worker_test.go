package pg_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/redis/go-redis/v9"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/internal/pgtest"
	"github.com/idempotent-go/idempotent/internal/redistest"
	"github.com/idempotent-go/idempotent/pg"
)

// lease is how long a worker that is dead or paused can block a key, in both kinds of worker.
const lease = 300 * time.Millisecond

func TestMain(m *testing.M) {
	if len(os.Args) == 5 && os.Args[1] == "worker" {
		work(os.Args[2], os.Args[3], os.Args[4])
		return
	}
	redis.SetLogger(silent{}) // a killed server is no news
	code := m.Run()
	pgtest.Cleanup()
	redistest.Cleanup()
	os.Exit(code)
}

type silent struct{}

func (silent) Printf(context.Context, string, ...any) {}

// work is the body of a worker process: for each key on its standard input it runs fn once, and prints "in KEY" inside fn,
// after or before its effect, and "done KEY". With kind "pg", effect and record are one transaction. With "redis", the
// control, the record is in Redis, and fn ignores RunInfo.Attempt.
func work(kind, database, addr string) {
	ctx := context.Background()
	pool, err := pgxpool.New(ctx, database)
	check(err)
	client := redis.NewClient(&redis.Options{Addr: addr})
	inRedis, err := idempotent.New[int](client, "control", idempotent.WithLease(lease))
	check(err)
	inPostgres, err := pg.New[int](pool, "harness", pg.WithIdleTimeout(lease))
	check(err)
	for keys := bufio.NewScanner(os.Stdin); keys.Scan(); {
		key := keys.Text()
		for {
			if kind == "pg" {
				_, err = inPostgres.Run(ctx, key, func(ctx context.Context, tx pgx.Tx) (int, error) {
					if err := effect(ctx, tx, key); err != nil {
						return 0, err
					}
					inside(key)
					_, err := tx.Exec(ctx, `SELECT 1`)
					return 1, err
				})
			} else {
				_, err = inRedis.Run(ctx, key, func(context.Context) (int, error) {
					before := strings.HasSuffix(key, "0") || rand.IntN(2) == 0 // some for sure
					if before {
						check(effect(ctx, pool, key))
					}
					inside(key)
					if !before {
						check(effect(ctx, pool, key))
					}
					return 1, nil
				})
			}
			if err == nil {
				break
			}
		}
		fmt.Println("done", key)
	}
}

// inside says that fn is between two statements, and stays there for as long as a kill takes.
func inside(key string) {
	fmt.Println("in", key)
	time.Sleep(time.Duration(rand.IntN(10)) * time.Millisecond)
}

func effect(ctx context.Context, db interface {
	Exec(context.Context, string, ...any) (pgconn.CommandTag, error)
}, key string) error {
	_, err := db.Exec(ctx, `INSERT INTO ledger VALUES ($1)`, key)
	return err
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// A worker is a process of work.
type worker struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	lines chan string // closed when it has ended
}

func startWorker(t testing.TB, kind, database, addr string) *worker {
	w := &worker{cmd: exec.Command(os.Args[0], "worker", kind, database, addr), lines: make(chan string, 1000)}
	w.cmd.Stderr = os.Stderr
	w.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var err error
	if w.stdin, err = w.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := w.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := w.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(w.lines)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			w.lines <- lines.Text()
		}
	}()
	return w
}

func (w *worker) signal(s syscall.Signal) { _ = w.cmd.Process.Signal(s) }

// end lets the worker finish, or kills it, and waits for it.
func (w *worker) end(kill bool) {
	if kill {
		w.signal(syscall.SIGKILL)
	}
	_ = w.stdin.Close()
	for range w.lines {
	}
	_ = w.cmd.Wait()
}

// do gives the worker a key and returns when it is inside fn (true), or done without (false).
func (w *worker) do(t testing.TB, key string) bool {
	t.Helper()
	if _, err := fmt.Fprintln(w.stdin, key); err != nil {
		t.Fatal(err)
	}
	return strings.HasPrefix(w.next(t), "in ")
}

func (w *worker) next(t testing.TB) string {
	t.Helper()
	select {
	case line, ok := <-w.lines:
		if !ok {
			t.Fatal("the worker ended")
		}
		return line
	case <-time.After(time.Minute):
		t.Fatal("the worker printed nothing for a minute")
	}
	return ""
}

// awaitDone returns when the worker is done with the key it is inside of.
func (w *worker) awaitDone(t testing.TB) {
	t.Helper()
	for {
		if strings.HasPrefix(w.next(t), "done ") { // not "in", if it runs again
			return
		}
	}
}

// A harness is a database with a ledger, whose rows are effects.
type harness struct {
	testing.TB
	ctx  context.Context // ends after some minutes
	pool *pgxpool.Pool
}

// patience limits a test; harness.ctx ends with it, so that what hangs fails with what it waited for.
const patience = 4 * time.Minute

func newHarness(t testing.TB, url string) *harness {
	t.Helper()
	h := openHarness(t, url)
	if err := pg.Migrate(h.ctx, h.pool); err != nil {
		t.Fatal(err)
	}
	if _, err := h.pool.Exec(h.ctx, `CREATE TABLE ledger (key text NOT NULL)`); err != nil {
		t.Fatal(err)
	}
	return h
}

// openHarness opens a database without tables.
func openHarness(t testing.TB, url string) *harness {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(context.Background(), patience, fmt.Errorf("the test takes more than %v", patience))
	t.Cleanup(cancel)
	h := &harness{TB: t, ctx: ctx}
	h.pool = h.connect(url)
	return h
}

func (h *harness) connect(url string) *pgxpool.Pool {
	h.Helper()
	pool, err := pgxpool.New(context.Background(), url)
	if err != nil {
		h.Fatal(err)
	}
	h.Cleanup(func() {
		closed := make(chan struct{})
		go func() {
			defer close(closed)
			pool.Close()
		}()
		select {
		case <-closed:
		case <-time.After(time.Minute):
			h.Errorf("%d connections of a pool are still in use a minute after the test", pool.Stat().AcquiredConns())
		}
	})
	return pool
}

// count returns how many of the keys have their effect twice, and how many do not have it.
func (h *harness) count(keys []string) (twice, missing int) {
	h.Helper()
	err := h.pool.QueryRow(h.ctx, `SELECT count(*) FILTER (WHERE n > 1), count(*) FILTER (WHERE n = 0)
		FROM (SELECT k, count(ledger.key) AS n FROM unnest($1::text[]) k LEFT JOIN ledger ON ledger.key = k GROUP BY k) counts`, keys).Scan(&twice, &missing)
	if err != nil {
		h.Fatal(err)
	}
	return twice, missing
}

package acceptance

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
)

// The test binary runs itself as the worker of these tests: a process that calls Run, says what
// happens on its standard output, and lets fn return when told on its standard input.

const workerEnv = "IDEMPOTENT_TEST_WORKER"

type workerOrder struct {
	Servers   servers
	Namespace string
	Lease     time.Duration
	Callers   int
}

// servers are what a client is for: a single server, or else a Cluster or, with a master's name,
// Sentinels.
type servers struct {
	URL        string
	Addrs      []string
	MasterName string
}

func (s servers) client() (redis.UniversalClient, error) {
	if len(s.Addrs) > 0 {
		return redis.NewUniversalClient(&redis.UniversalOptions{Addrs: s.Addrs, MasterName: s.MasterName, IsClusterMode: s.MasterName == ""}), nil
	}
	options, err := redis.ParseURL(s.URL)
	if err != nil {
		return nil, err
	}
	return redis.NewClient(options), nil
}

type workerReport struct {
	What    string // "running", "waiting", "cancelled" or "returned"
	Attempt int
	Value   string
	Err     string
	Lost    bool // matches ErrLeaseLost
	Source  string
}

func workerMain() {
	if err := work(os.Getenv(workerEnv)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func work(orderText string) error {
	var order workerOrder
	if err := json.Unmarshal([]byte(orderText), &order); err != nil {
		return err
	}
	rdb, err := order.Servers.client()
	if err != nil {
		return err
	}
	defer rdb.Close()
	reports := make(chan workerReport, 1000)
	x, err := idempotent.New[string](rdb, order.Namespace, idempotent.WithLease(order.Lease),
		idempotent.WithObserver(idempotent.ObserverFunc(func(_ context.Context, e idempotent.Event) {
			if e.Kind == idempotent.EventWaitStarted {
				reports <- workerReport{What: "waiting"}
			}
		})))
	if err != nil {
		return err
	}
	defer x.Close()
	in := bufio.NewReader(os.Stdin)
	fn := func(ctx context.Context) (string, error) {
		info, _ := idempotent.RunInfoFromContext(ctx)
		reports <- workerReport{What: "running", Attempt: info.Attempt}
		stop := context.AfterFunc(ctx, func() {
			reports <- workerReport{What: "cancelled", Lost: errors.Is(context.Cause(ctx), idempotent.ErrLeaseLost)}
		})
		defer stop()
		_, err := in.ReadString('\n') // the provider takes its time, whatever ctx says
		return fmt.Sprintf("charged by attempt %d", info.Attempt), err
	}
	for range order.Callers {
		go func() {
			var report idempotent.Report
			value, err := x.Run(context.Background(), "order-1", fn, idempotent.WithReport(&report))
			r := workerReport{What: "returned", Attempt: report.Attempt, Value: value, Source: report.Source.String()}
			if err != nil {
				r.Err, r.Lost = err.Error(), errors.Is(err, idempotent.ErrLeaseLost)
			}
			reports <- r
		}()
	}
	out := json.NewEncoder(os.Stdout)
	for returned := 0; returned < order.Callers; {
		r := <-reports
		if r.What == "returned" {
			returned++
		}
		if err := out.Encode(r); err != nil {
			return err
		}
	}
	return nil
}

type worker struct {
	t       *testing.T
	cmd     *exec.Cmd
	in      io.WriteCloser
	reports chan workerReport
}

func (w *world) worker(callers int) *worker {
	w.Helper()
	order, err := json.Marshal(workerOrder{Servers: w.servers, Namespace: w.namespace, Lease: w.lease, Callers: callers})
	require.NoError(w, err)
	p := &worker{t: w.T, reports: make(chan workerReport, 1000)}
	p.cmd = exec.Command(os.Args[0])
	p.cmd.Env = append(os.Environ(), workerEnv+"="+string(order))
	p.cmd.Stderr = os.Stderr
	p.in, err = p.cmd.StdinPipe()
	require.NoError(w, err)
	out, err := p.cmd.StdoutPipe()
	require.NoError(w, err)
	require.NoError(w, p.cmd.Start())
	read := make(chan struct{})
	go func() {
		defer close(read)
		defer close(p.reports)
		for dec := json.NewDecoder(out); ; {
			var r workerReport
			if dec.Decode(&r) != nil {
				return
			}
			p.reports <- r
		}
	}()
	w.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-read
		_ = p.cmd.Wait()
	})
	return p
}

// says waits for a report of that kind and skips others.
func (p *worker) says(what string) workerReport {
	p.t.Helper()
	deadline := time.After(time.Minute)
	for {
		select {
		case r, ok := <-p.reports:
			if !ok {
				p.t.Fatalf("the worker ended before it was %q", what)
			}
			if r.What == what {
				return r
			}
		case <-deadline:
			p.t.Fatalf("the worker was not %q in a minute", what)
		}
	}
}

func (p *worker) answer() {
	p.t.Helper()
	_, err := io.WriteString(p.in, "go on\n")
	require.NoError(p.t, err)
}

func TestOneExecutionInFiveProcesses(t *testing.T) {
	onRealRedis(t, func(w *world) {
		owner := w.worker(20)
		require.Equal(w, 1, owner.says("running").Attempt)
		workers := []*worker{owner}
		for range 4 {
			other := w.worker(20)
			other.says("waiting")
			workers = append(workers, other)
		}
		owner.answer()
		executed := 0
		for _, p := range workers {
			for range 20 {
				r := p.says("returned")
				require.Empty(w, r.Err)
				require.Equal(w, "charged by attempt 1", r.Value)
				if r.Source == "executed" {
					executed++
				}
			}
		}
		assert.Equal(w, 1, executed)
	})
}

func TestOwnerKilled(t *testing.T) {
	onRealRedis(t, func(w *world) {
		owner := w.worker(1)
		owner.says("running")
		other := w.worker(10)
		other.says("waiting")
		require.NoError(w, owner.cmd.Process.Signal(syscall.SIGKILL))
		require.Equal(w, 2, other.says("running").Attempt)
		other.answer()
		for range 10 {
			r := other.says("returned")
			require.Empty(w, r.Err)
			require.Equal(w, "charged by attempt 2", r.Value)
			require.Equal(w, 2, r.Attempt)
		}
	})
}

// An owner is stopped for longer than its lease, and goes on when another one is done: its fn's
// context is cancelled, its result is refused, and the newer one stays.
func TestOwnerPaused(t *testing.T) {
	onRealRedis(t, func(w *world) {
		owner := w.worker(1)
		owner.says("running")
		require.NoError(w, owner.cmd.Process.Signal(syscall.SIGSTOP))
		other := w.worker(1)
		require.Equal(w, 2, other.says("running").Attempt)
		other.answer()
		require.Equal(w, "charged by attempt 2", other.says("returned").Value)

		require.NoError(w, owner.cmd.Process.Signal(syscall.SIGCONT))
		require.True(w, owner.says("cancelled").Lost)
		owner.answer()
		r := owner.says("returned")
		require.True(w, r.Lost, r.Err)
		require.Equal(w, "charged by attempt 1", r.Value, "so that it can be refunded")

		late := w.worker(1)
		r = late.says("returned")
		require.Equal(w, "charged by attempt 2", r.Value)
		require.Equal(w, "replayed", r.Source)
	})
}

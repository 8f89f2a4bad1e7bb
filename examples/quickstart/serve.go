package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"sync"
	"time"

	"github.com/idempotent-go/idempotent"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
)

// runLimit bounds each Run. It is shorter than sceneLimit, so that a stuck call shows in the table.
const runLimit = 10 * time.Second

// workerProcess is a whole worker: it does what its standard input says, and ends when that ends,
// as it does when the parent dies.
func workerProcess() int {
	signal.Ignore(os.Interrupt) // Ctrl-C reaches the whole group: the parent decides what happens
	log.SetFlags(0)
	logging.Disable() // of go-redis: what goes wrong is in the table, for each caller
	if err := serve(os.Stdin, os.Stdout); err != nil {
		log.Print("worker: ", err)
		return 1
	}
	return 0
}

// A desk is where a worker takes its tasks.
type desk struct {
	number   int
	payments *payments
	commands *commandCounter

	mu  sync.Mutex
	out *json.Encoder
}

func serve(in io.Reader, out io.Writer) error {
	tasks := json.NewDecoder(in)
	var s setup
	if err := tasks.Decode(&s); err != nil {
		return fmt.Errorf("reading the setup: %w", err)
	}
	d := &desk{number: s.Worker, commands: newCommandCounter(), out: json.NewEncoder(out)}
	rdb, err := connect(s.RedisURL, d.commands)
	if err != nil {
		return err
	}
	defer rdb.Close()
	provider := &providerClient{url: s.ProviderURL, worker: s.Worker}
	d.payments, err = newPayments(rdb, s.Namespace, provider, idempotent.ObserverFunc(d.observe))
	if err != nil {
		return err
	}
	defer d.payments.executor.Close()
	return d.work(rdb, tasks)
}

func connect(url string, counter *commandCounter) (*redis.Client, error) {
	opts, err := redis.ParseURL(url)
	if err != nil {
		return nil, err
	}
	rdb := redis.NewClient(opts)
	rdb.AddHook(counter)
	return rdb, nil
}

// work does the tasks, each in a goroutine of its own, until there are no more to come.
func (d *desk) work(rdb *redis.Client, tasks *json.Decoder) error {
	ctx, cancel := context.WithCancel(context.Background())
	var busy sync.WaitGroup
	defer busy.Wait()
	defer cancel()
	if err := rdb.Ping(ctx).Err(); err != nil {
		return err
	}
	for {
		var t task
		err := tasks.Decode(&t)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading a task: %w", err)
		}
		busy.Go(func() {
			d.send(message{ID: t.ID, Answer: &answer{Outcomes: d.pay(ctx, t), Commands: d.commands.snapshot()}})
		})
	}
}

// pay has a number of callers ask for the same order at the same moment.
func (d *desk) pay(ctx context.Context, t task) []outcome {
	ctx, cancel := context.WithTimeout(ctx, runLimit)
	defer cancel()
	outcomes := make([]outcome, t.Callers)
	start := make(chan struct{})
	var callers sync.WaitGroup
	for i := range outcomes {
		callers.Go(func() {
			<-start
			outcomes[i] = d.call(ctx, t.Order)
		})
	}
	close(start)
	callers.Wait()
	return outcomes
}

func (d *desk) call(ctx context.Context, o Order) outcome {
	var report idempotent.Report
	charge, err := d.payments.pay(ctx, o, &report)
	got := outcome{
		Worker:   d.number,
		Charge:   charge,
		Source:   report.Source,
		Attempt:  report.Attempt,
		Returned: time.Now(),
	}
	if err != nil {
		got.Error = err.Error()
		got.Card, _ = errors.AsType[*CardError](err)
		got.Replayed = errors.Is(err, idempotent.ErrReplayed)
		got.KeyReused = errors.Is(err, idempotent.ErrKeyReused)
		got.Retryable = idempotent.IsRetryable(err)
	}
	return got
}

// observe passes on what the executor does: to the parent, which prints it as it happens.
func (d *desk) observe(_ context.Context, e idempotent.Event) {
	switch e.Kind {
	case idempotent.EventClaimed, idempotent.EventExecuted, idempotent.EventReleased,
		idempotent.EventWaitStarted, idempotent.EventInterrupted, idempotent.EventLeaseLost:
		told := &event{Kind: e.Kind, Key: e.Key, Attempt: e.Attempt, At: time.Now()}
		if e.Err != nil {
			told.Error = e.Err.Error()
		}
		d.send(message{Event: told})
	}
}

// send fails only when the parent is gone, and then standard input ends as well.
func (d *desk) send(m message) {
	d.mu.Lock()
	defer d.mu.Unlock()
	_ = d.out.Encode(m)
}

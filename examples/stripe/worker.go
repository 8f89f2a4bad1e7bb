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
	"github.com/stripe/stripe-go/v85"
)

const (
	// demoLease is short so that nobody has to wait in front of a demo.
	demoLease = 2 * time.Second

	// demoTTL is long enough for a run, and short enough not to litter a Redis that somebody lends.
	demoTTL = 10 * time.Minute

	// runLimit bounds each call. It is shorter than sceneLimit, so that a stuck one is shown.
	runLimit = 20 * time.Second
)

// workerProcess is a whole worker: it does what its standard input says, and ends when that ends,
// as it does when the parent dies.
func workerProcess() int {
	signal.Ignore(os.Interrupt) // Ctrl-C reaches the whole group: the parent decides what happens
	log.SetFlags(0)
	logging.Disable() // of go-redis: what goes wrong is in the table
	if err := work(os.Stdin, os.Stdout); err != nil {
		log.Print("worker: ", err)
		return 1
	}
	return 0
}

// A worker is a service with payments to make.
type worker struct {
	number   int
	payments *payments

	mu  sync.Mutex
	out *json.Encoder
}

func work(in io.Reader, out io.Writer) error {
	tasks := json.NewDecoder(in)
	var s setup
	if err := tasks.Decode(&s); err != nil {
		return fmt.Errorf("reading the setup: %w", err)
	}
	opts, err := redis.ParseURL(s.RedisURL)
	if err != nil {
		return err
	}
	rdb := redis.NewClient(opts)
	defer rdb.Close()
	w := &worker{number: s.Worker, out: json.NewEncoder(out)}
	w.payments, err = newPayments(rdb, newStripe(s.StripeKey, s.StripeURL),
		idempotent.WithNamespace(s.Namespace),
		idempotent.WithTTL(demoTTL),
		idempotent.WithLease(demoLease),
		idempotent.WithObserver(idempotent.ObserverFunc(w.observe)))
	if err != nil {
		return err
	}
	defer w.payments.executor.Close()
	return w.serve(tasks)
}

// serve does the tasks, each in a goroutine of its own, until there are no more to come.
func (w *worker) serve(tasks *json.Decoder) error {
	ctx, cancel := context.WithCancel(context.Background())
	var busy sync.WaitGroup
	defer busy.Wait()
	defer cancel()
	for {
		var t task
		err := tasks.Decode(&t)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading a task: %w", err)
		}
		busy.Go(func() { w.send(message{ID: t.ID, Outcomes: w.perform(ctx, t)}) })
	}
}

// perform calls several times at the same moment.
func (w *worker) perform(ctx context.Context, t task) []outcome {
	ctx, cancel := context.WithTimeout(ctx, runLimit)
	defer cancel()
	outcomes := make([]outcome, t.Callers)
	var callers sync.WaitGroup
	for i := range outcomes {
		callers.Go(func() {
			if t.Bare {
				outcomes[i] = w.bare(ctx, t.Payment)
			} else {
				outcomes[i] = w.call(ctx, t.Payment)
			}
		})
	}
	callers.Wait()
	return outcomes
}

func (w *worker) call(ctx context.Context, p Payment) outcome {
	var report idempotent.Report
	charge, err := w.payments.charge(ctx, p, idempotent.WithReport(&report))
	return w.outcome(charge, err, report)
}

// bare is the same without Run, and with the key that stripe-go makes up if it is given none: good
// for its own retries, and unknown to anybody else.
func (w *worker) bare(ctx context.Context, p Payment) outcome {
	charge, err := w.payments.create(ctx, p, stripe.NewIdempotencyKey())
	return w.outcome(charge, err, idempotent.Report{Source: idempotent.Executed})
}

func (w *worker) outcome(charge Charge, err error, report idempotent.Report) outcome {
	got := outcome{Worker: w.number, Charge: charge, Source: report.Source, Attempt: report.Attempt}
	if err == nil {
		return got
	}
	got.Error = err.Error()
	got.Replayed = errors.Is(err, idempotent.ErrReplayed)
	got.Retryable = idempotent.IsRetryable(err)
	if e, ok := errors.AsType[*stripe.Error](err); ok {
		got.Stripe = &refusal{
			Status:      e.HTTPStatusCode,
			Type:        string(e.Type),
			Code:        string(e.Code),
			DeclineCode: string(e.DeclineCode),
			Request:     e.RequestID,
		}
		if e.PaymentIntent != nil {
			got.Stripe.Intent = e.PaymentIntent.ID
		}
	}
	return got
}

// observe tells the parent what the executor does.
func (w *worker) observe(_ context.Context, e idempotent.Event) {
	switch e.Kind {
	case idempotent.EventClaimed, idempotent.EventJoined, idempotent.EventWaitStarted,
		idempotent.EventInterrupted, idempotent.EventReleased, idempotent.EventRecorded:
		w.send(message{Event: &event{Kind: e.Kind, Key: e.Key, Attempt: e.Attempt, Failed: e.Err != nil}})
	}
}

// send fails only when the parent is gone, and then standard input ends as well.
func (w *worker) send(m message) {
	w.mu.Lock()
	defer w.mu.Unlock()
	_ = w.out.Encode(m)
}

package main

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/demo/internal/stage"
	"github.com/redis/go-redis/v9"
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

// A worker is a service with payments to make.
type worker struct {
	*stage.Desk
	number   int
	payments *payments
}

// work is what a worker process does.
func work(s setup, desk *stage.Desk) error {
	opts, err := redis.ParseURL(s.RedisURL)
	if err != nil {
		return err
	}
	rdb := redis.NewClient(opts)
	defer rdb.Close()
	w := &worker{Desk: desk, number: s.Worker}
	w.payments, err = newPayments(rdb, s.Namespace, newStripe(s.StripeKey, s.StripeURL),
		idempotent.WithTTL(demoTTL),
		idempotent.WithLease(demoLease),
		idempotent.WithObserver(idempotent.ObserverFunc(w.observe)))
	if err != nil {
		return err
	}
	defer w.payments.executor.Close()
	return stage.Serve(desk, w.perform)
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
		w.Tell(event{Kind: e.Kind, Key: e.Key, Attempt: e.Attempt, Failed: e.Err != nil})
	}
}

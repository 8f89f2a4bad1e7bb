package main

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/demo/internal/stage"
	"github.com/redis/go-redis/v9"
)

// runLimit bounds each Run. It is shorter than sceneLimit, so that a stuck call shows in the table.
const runLimit = 10 * time.Second

// A desk is where a worker takes its tasks.
type desk struct {
	*stage.Desk
	number   int
	payments *payments
	commands *commandCounter
}

// serve is what a worker process does.
func serve(s setup, line *stage.Desk) error {
	d := &desk{Desk: line, number: s.Worker, commands: newCommandCounter()}
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
	if err := rdb.Ping(context.Background()).Err(); err != nil {
		return err
	}
	return stage.Serve(line, func(ctx context.Context, t task) answer {
		return answer{Outcomes: d.pay(ctx, t), Commands: d.commands.snapshot()}
	})
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
		told := event{Kind: e.Kind, Key: e.Key, Attempt: e.Attempt, At: time.Now()}
		if e.Err != nil {
			told.Error = e.Err.Error()
		}
		d.Tell(told)
	}
}

package main

import (
	"context"
	"time"

	"github.com/hibiken/asynq"
	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/demo/internal/stage"
)

// work is what a worker process does: it takes jobs from the queue until it is over. The order of
// the ends matters: first no more jobs, then no executor, then no Redis.
func work(s setup, desk *stage.Desk) error {
	up := line{desk}
	rdb, err := connect(context.Background(), s.RedisURL)
	if err != nil {
		return err
	}
	defer rdb.Close()
	receipts, err := newReceipts(rdb, s.Namespace, idempotent.WithObserver(idempotent.ObserverFunc(up.observe)))
	if err != nil {
		return err
	}
	defer receipts.Close()

	bank := &bankClient{url: s.BankURL, worker: s.Number}
	mux := asynq.NewServeMux()
	mux.Handle(refundType, &refunds{receipts: receipts, bank: bank, log: up.deliveries(s.Number)})
	mux.Handle(bareType, &bareRefunds{bank: bank})
	server := newServer(rdb, s.Namespace)
	if err := server.Start(mux); err != nil {
		return err
	}
	defer server.Shutdown()
	return up.ready("")
}

// deliveries tells the parent of each delivery.
func (l line) deliveries(worker int) func(context.Context, Refund, Receipt, idempotent.Report, error) {
	return func(ctx context.Context, r Refund, receipt Receipt, report idempotent.Report, err error) {
		task, _ := asynq.GetTaskID(ctx)
		d := &delivery{
			Worker:  worker,
			Task:    task,
			Key:     refundKey(r.ID),
			Receipt: receipt,
			Source:  report.Source,
			Attempt: report.Attempt,
			At:      time.Now(),
		}
		d.setError(err)
		l.Tell(message{Delivery: d})
	}
}

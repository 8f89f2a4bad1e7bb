// Jobs issues a refund once, although the queue delivers its job twice.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/hibiken/asynq"
	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/examples/internal/demoredis"
)

const refundType = "refund:issue"

type Refund struct {
	ID    string // the business's own, not the id of a task
	Cents int64
}

type Receipt struct{ Number string }

type Worker struct {
	receipts *idempotent.Executor[Receipt]
	bank     Bank
}

// ProcessTask is called for each delivery. A queue delivers at least once.
func (w *Worker) ProcessTask(ctx context.Context, task *asynq.Task) error {
	var r Refund
	if err := json.Unmarshal(task.Payload(), &r); err != nil {
		return fmt.Errorf("%w: %w", err, asynq.SkipRetry)
	}
	var report idempotent.Report
	receipt, err := w.receipts.Run(ctx, idempotent.HashKey(refundType, r.ID), func(ctx context.Context) (Receipt, error) {
		info, _ := idempotent.RunInfoFromContext(ctx)
		if info.Attempt > 1 { // an earlier worker died, or did not get the bank's answer
			if receipt, found, err := w.bank.Find(ctx, info.DownstreamKey()); found || err != nil {
				return receipt, idempotent.OutcomeUnknown(err) // nil stays nil
			}
		}
		return w.bank.Refund(ctx, info.DownstreamKey(), r.Cents)
	}, idempotent.WithFingerprint(fmt.Append(nil, r.Cents)), idempotent.WithReport(&report))
	fmt.Println("delivered:", receipt.Number, report.Source, err)
	if err != nil && !report.RecordedAt.IsZero() { // recorded: each delivery would get the same error
		return fmt.Errorf("%w: %w", err, asynq.SkipRetry)
	}
	return err // asynq delivers again
}

// A delivery that finds another one in flight uses up no retry.
var config = asynq.Config{
	LogLevel:  asynq.ErrorLevel,
	IsFailure: func(err error) bool { return !errors.Is(err, idempotent.ErrInProgress) },
	RetryDelayFunc: func(n int, err error, task *asynq.Task) time.Duration {
		if busy, ok := errors.AsType[*idempotent.InProgressError](err); ok {
			return max(busy.RetryAfter, time.Second)
		}
		return asynq.DefaultRetryDelayFunc(n, err, task)
	},
}

func main() {
	ctx := context.Background()
	rdb, stop, err := demoredis.Connect(ctx)
	if err != nil {
		log.Fatal(err)
	}
	defer stop()
	receipts, err := idempotent.New[Receipt](rdb, "refunds",
		idempotent.WithTTL(30*24*time.Hour), // longer than asynq's last retry, after 20 days
		idempotent.WithShouldIgnoreError(idempotent.IsRetryable))
	if err != nil {
		log.Fatal(err)
	}
	defer receipts.Close()
	queue, payload := asynq.NewClientFromRedisClient(rdb), []byte(`{"ID": "rf-42", "Cents": 4999}`)
	for range 2 { // the customer clicked twice: two tasks, one refund
		if _, err := queue.Enqueue(asynq.NewTask(refundType, payload)); err != nil {
			log.Fatal(err)
		}
	}
	if err := asynq.NewServerFromRedisClient(rdb, config).Run(&Worker{receipts, Bank{}}); err != nil { // until interrupted
		log.Fatal(err)
	}
}

// A Bank stands for the client of the bank's API. It wraps an error after which the money may be gone in
// idempotent.OutcomeUnknown, and one that promises that nothing happened in idempotent.Retryable.
type Bank struct{}

func (Bank) Refund(_ context.Context, _ string, cents int64) (Receipt, error) {
	fmt.Println("refunding", cents, "cents")
	return Receipt{"receipt-1"}, nil
}

func (Bank) Find(context.Context, string) (Receipt, bool, error) { return Receipt{}, false, nil }

package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/hibiken/asynq"
	"github.com/idempotent-go/idempotent"
	"github.com/redis/go-redis/v9"
)

// refundType is the type of the job.
const refundType = "refund:issue"

const (
	// lease is how long a dead worker blocks a refund. asynq gives the job of a dead worker to
	// another one after 60 s or more, so with the default of 10 s nobody waits for it either. It
	// is shorter here because the demo does not wait for asynq.
	lease = 3 * time.Second

	// patience is how long a delivery waits for another one of the same job. It keeps one of
	// asynq's workers busy, so it is well below the job's timeout.
	patience = 5 * time.Second

	// keep is how long a receipt is kept, and the number of an execution that died. It must
	// outlast the last delivery of the job: see job_test.go. A service needs days.
	keep = 15 * time.Minute
)

// A Refund is what the job is to do.
type Refund struct {
	// ID is given by whoever decides on the refund, once. It is no id of the queue's: a job that
	// is enqueued twice has two of those, and is one refund.
	ID    string `json:"id"`
	Cents int64  `json:"cents"`
}

// A Receipt is the job's result.
type Receipt struct {
	Number string `json:"number"`
	Cents  int64  `json:"cents"`
}

// A RefusedError is the bank's last word: it is the job's result as much as a receipt is.
type RefusedError struct {
	Reason  string `json:"reason"`
	Request string `json:"request"` // the bank's name for the request that it refused
}

func (e *RefusedError) Error() string { return "refund refused: " + e.Reason }

// refundKey names the effect: what is done, and to what.
func refundKey(id string) string { return idempotent.HashKey(refundType, id) }

// fingerprint tells this refund from another one that was given the same ID by mistake.
func (r Refund) fingerprint() []byte {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %d EUR", r.ID, r.Cents))
	return sum[:]
}

// newReceipts makes the executor. Those who do refunds and those who ask for receipts share this
// function, so that namespace, type, errors and TTL are the same for all of them; opts come on top.
func newReceipts(rdb redis.UniversalClient, namespace string, opts ...idempotent.Option) (*idempotent.Executor[Receipt], error) {
	return idempotent.New[Receipt](rdb, namespace, append(opts,
		idempotent.WithErrors(idempotent.NewErrorRegistry(
			idempotent.ErrorType[*RefusedError]("refused"))),
		idempotent.WithShouldIgnoreError(idempotent.IsRetryable),
		idempotent.WithTTL(keep),
		idempotent.WithLease(lease),
		idempotent.WithWaitTimeout(patience))...)
}

// refunds is the handler of the job.
type refunds struct {
	receipts *idempotent.Executor[Receipt]
	bank     *bankClient
	log      func(ctx context.Context, r Refund, receipt Receipt, report idempotent.Report, err error)
}

// ProcessTask is called by asynq for each delivery: at least once for each job.
func (h *refunds) ProcessTask(ctx context.Context, task *asynq.Task) error {
	var r Refund
	if err := json.Unmarshal(task.Payload(), &r); err != nil {
		return fmt.Errorf("reading the payload: %w: %w", err, asynq.SkipRetry)
	}
	var report idempotent.Report
	receipt, err := h.once(ctx, r, &report)
	h.log(ctx, r, receipt, report, err)
	if err != nil {
		return verdict(err, report)
	}
	return writeResult(task, receipt)
}

// once returns the refund's receipt, whichever delivery made it.
func (h *refunds) once(ctx context.Context, r Refund, report *idempotent.Report) (Receipt, error) {
	return h.receipts.Run(ctx, refundKey(r.ID), func(ctx context.Context) (Receipt, error) {
		receipt, err := h.issue(ctx, r)
		if err != nil && !certain(err) {
			// Neither to be recorded nor to free the key: asynq's next delivery is attempt 2, and
			// asks the bank.
			return Receipt{}, idempotent.OutcomeUnknown(err)
		}
		return receipt, err
	}, idempotent.WithFingerprint(r.fingerprint()), idempotent.WithReport(report))
}

// certain reports whether err says what happened to the money: nothing, for now or for good.
func certain(err error) bool {
	_, refused := errors.AsType[*RefusedError](err)
	return refused || idempotent.IsRetryable(err)
}

// issue runs in one process at a time for a refund. When it runs again because nobody knows what
// came of the last time, it asks the one who does: the bank.
func (h *refunds) issue(ctx context.Context, r Refund) (Receipt, error) {
	info, _ := idempotent.RunInfoFromContext(ctx)
	reference := info.DownstreamKey() // the same in every process and for every attempt
	if info.Attempt > 1 {
		receipt, found, err := h.bank.find(ctx, reference)
		if found || err != nil {
			return receipt, err
		}
	}
	return h.bank.refund(ctx, reference, r)
}

// verdict is the error that asynq gets: one to try again after, or one to archive the task with.
func verdict(err error, report idempotent.Report) error {
	recorded := !report.RecordedAt.IsZero() // another delivery would get the same from the record
	if recorded || beyondRepair(err) {
		return fmt.Errorf("%w: %w", err, asynq.SkipRetry)
	}
	return err
}

// beyondRepair reports whether err is the same at every delivery, until somebody does something
// about it.
func beyondRepair(err error) bool {
	return errors.Is(err, idempotent.ErrKeyReused) ||
		errors.Is(err, idempotent.ErrInterrupted) || // with WithInterrupted(Refuse)
		errors.Is(err, idempotent.ErrCorruptRecord) ||
		errors.Is(err, idempotent.ErrInvalidKey)
}

// writeResult shows the receipt to those who look at the queue. Each delivery writes it into its
// own task. Should that fail, asynq tries again, and the receipt comes from its record.
func writeResult(task *asynq.Task, receipt Receipt) error {
	text, err := json.Marshal(receipt)
	if err != nil {
		return err
	}
	_, err = task.ResultWriter().Write(text)
	return err
}

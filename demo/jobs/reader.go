package main

import (
	"context"
	"errors"
	"time"

	"github.com/idempotent-go/idempotent"
)

// errNotYet: the job has no result yet, and nobody is at work on it. It may be in the queue, for
// its first turn or a retry.
var errNotYet = errors.New("no result yet, and nobody is at work on it")

// A reader gives a job's result to whoever asks. It needs neither the queue nor the bank.
type reader struct {
	receipts *idempotent.Executor[Receipt]
}

// receipt returns what came of a refund: its receipt or its *RefusedError. While a worker is at it,
// it waits for the result as long as that, and then returns ErrInProgress; with 0 it does not wait.
func (r *reader) receipt(ctx context.Context, id string, wait time.Duration) (Receipt, error) {
	waiting := idempotent.WithNoWait()
	if wait > 0 {
		waiting = idempotent.WithWaitTimeout(wait)
	}
	receipt, err := r.receipts.Get(ctx, refundKey(id), waiting)
	if errors.Is(err, idempotent.ErrNotFound) || errors.Is(err, idempotent.ErrInterrupted) {
		return Receipt{}, errNotYet // an interrupted one is the next delivery's to settle
	}
	return receipt, err
}

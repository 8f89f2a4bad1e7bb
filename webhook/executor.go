package webhook

import (
	"context"
	"log/slog"
	"time"
)

// An Executor runs handlers, each key's in one process at a time, and remembers their outcomes. Its errors are those of
// package idempotent: ErrInProgress, ErrInterrupted, ErrReplayed and so on.
type Executor interface {
	// Execute returns the outcome of x.Key. It runs x.Run unless an outcome is recorded; it does not wait for another
	// process that runs the key (idempotent.ErrInProgress). An error that x.Run returns is recorded, unless
	// idempotent.IsRetryable reports true or it is marked with idempotent.OutcomeUnknown. attempt is the number of the
	// execution that the outcome or error comes from, 0 if unknown.
	Execute(ctx context.Context, x Execution) (out Outcome, attempt int, err error)
	Close() error
}

// An Execution is one call of a handler.
type Execution struct {
	Key string // 1 to 128 bytes
	// Refuse refuses to run again if an execution of the key ended without an outcome (idempotent.Refuse).
	Refuse bool
	// Run runs the handler. attempt above 1 means that an earlier execution of the key ended without an outcome.
	Run func(ctx context.Context, attempt int) (Outcome, error)
	// Ticket is the event's, if the caller passes it to Store.Settle as soon as Execute has returned. A store on a
	// transactional database may then commit the handler's writes, the outcome and the event's state together in Settle.
	Ticket Ticket
}

// An Outcome is what an Executor records of a handler that returned without an error.
type Outcome struct {
	Changed []byte // JSON, or nil
	Skipped bool
	Reason  string // why it was skipped
}

// An ExecutorConfig configures an Executor. All durations are positive.
type ExecutorConfig struct {
	// TTL is how long an outcome is remembered.
	TTL time.Duration
	// Lease is how long a dead process can block a key.
	Lease  time.Duration
	Logger *slog.Logger
}

// Package lifecycle owns who is inside an executor: the calls, the goroutines they start, and the
// retries that outlive a call. It never knows what any of them does, and never touches Redis.
package lifecycle

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/idempotent-go/idempotent/internal/backoff"
)

// A Group is all that runs in one executor.
type Group struct {
	*gate
	Closing context.Context // ends when Close begins
	end     context.CancelFunc
	limit   time.Duration

	retrying atomic.Int32 // how many RetryInBackground are in flight
}

// NewGroup returns a group whose background retries end after limit.
func NewGroup(limit time.Duration) *Group {
	g := &Group{gate: newGate(), limit: limit}
	g.Closing, g.end = context.WithCancel(context.Background())
	return g
}

// Close ends admission and the background retries, and reports whether this was the first call. It
// does not wait: Drained says when the last one has left.
func (g *Group) Close() (first bool) {
	if first = g.shut(); first {
		g.end()
	}
	return first
}

// RetryInBackground retries try for up to the group's limit, one lease; after that the key is free
// anyway. At most 64 run at once: in an outage the remaining keys are freed by their leases expiring.
func (g *Group) RetryInBackground(ctx context.Context, try func(context.Context) error) {
	if g.retrying.Add(1) > maxRetrying {
		g.retrying.Add(-1)
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), g.limit)
	stop := context.AfterFunc(g.Closing, cancel)
	g.Go(func() {
		defer g.retrying.Add(-1)
		defer cancel()
		defer stop()
		// A command in flight is not cancelled: whether it was executed would be unknown again.
		_ = backoff.Retry(ctx, func() error { return try(context.WithoutCancel(ctx)) }, nil)
	})
}

const maxRetrying = 64

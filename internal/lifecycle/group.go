package lifecycle

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/idempotent-go/idempotent/internal/backoff"
)

// A Group is what runs in an executor: the calls, and the work in the background.
type Group struct {
	*gate
	Closing context.Context // ends when close begins
	end     context.CancelFunc
	limit   time.Duration

	retrying atomic.Int32 // see Repeat
}

// NewGroup makes a group whose work in the background is given up after limit.
func NewGroup(limit time.Duration) *Group {
	g := &Group{gate: newGate(), limit: limit}
	g.Closing, g.end = context.WithCancel(context.Background())
	return g
}

// Shut lets nobody in any more, and reports whether it was the first to do so.
func (g *Group) Close() (first bool) {
	if first = g.shut(); first {
		g.end()
	}
	return first
}

// Repeat repeats try in the background until it succeeds, for the limit at most: by then its use is
// over. Shut ends the repetition. When Redis is away for many at once, most are left alone.
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
		_ = backoff.Retry(ctx, func() error { return try(context.WithoutCancel(ctx)) }, nil)
	})
}

const maxRetrying = 64

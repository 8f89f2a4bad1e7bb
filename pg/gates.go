package pg

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/idempotent-go/idempotent"
)

// gates let one caller of each key in this process go to Postgres. Without them, every waiter would hold a connection of
// the pool, and one slow key would stop all others.
type gates struct {
	mu     sync.Mutex
	closed map[string]chan struct{}
}

// enter returns a function that opens the gate again or, if another caller is inside, what is closed when it leaves.
func (g *gates) enter(key string) (leave func(), busy <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if left, ok := g.closed[key]; ok {
		return nil, left
	}
	if g.closed == nil {
		g.closed = make(map[string]chan struct{})
	}
	left := make(chan struct{})
	g.closed[key] = left
	return func() {
		g.mu.Lock()
		delete(g.closed, key)
		g.mu.Unlock()
		close(left)
	}, nil
}

// waitFor waits until the caller inside has left.
func (c *core) waitFor(ctx context.Context, op *operation, busy <-chan struct{}) error {
	if op.cfg.noWait {
		return &idempotent.InProgressError{}
	}
	c.waitStarted(ctx, op)
	timeout := time.NewTimer(time.Until(op.deadline()))
	defer timeout.Stop()
	var err error
	select {
	case <-busy:
	case <-ctx.Done():
		err = contextError(ctx)
	case <-timeout.C:
		err = &idempotent.InProgressError{}
	}
	c.waitEnded(ctx, op, err)
	return err
}

// pause is how long to wait before execution n+1: from 1 ms, doubled up to 128 ms, half of it random, so that
// transactions that conflicted do not meet again.
func pause(n int) time.Duration {
	d := time.Millisecond << min(n-1, 7)
	return d/2 + rand.N(d) //nolint:gosec // it spreads retries, it is no secret
}

// A guess says whether the next call is probably the first one of its key. Then it claims the key without reading the record
// before, which saves a first run a round trip and costs a replay one.
type guess struct{ misses atomic.Int32 }

// guessAfter is how many calls in a row found no record before the next one is taken for a first run.
const guessAfter = 8

func (g *guess) first() bool { return g.misses.Load() >= guessAfter }

func (g *guess) learn(found bool) {
	switch {
	case found:
		g.misses.Store(0)
	case !g.first():
		g.misses.Add(1)
	}
}

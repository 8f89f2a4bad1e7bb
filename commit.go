package idempotent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/idempotent-go/idempotent/internal/backoff"
	"github.com/idempotent-go/idempotent/internal/record"
	"github.com/idempotent-go/idempotent/internal/rediserr"
)

// commitRetryWindow is how long a failed commit is retried: three leases, 5 s at least. Longer would
// hold up callers for an outcome that another process may take over by then.
func (c *runner) commitRetryWindow() time.Duration { return max(3*c.lease, 5*time.Second) }

// commitWait is how long this call waits for Redis once fn has ended.
func (p *execution) commitWait() time.Duration {
	window := p.commitRetryWindow()
	if wait := p.op.cfg.commitWait; wait > 0 {
		return min(wait, window)
	}
	return window
}

// A commit stores one outcome. It runs in a goroutine of its own: neither a server that hangs, for
// longer than any timeout of the client, nor a hook of the client that ends its goroutine may hold up
// or end the caller, whose fn has had its effect.
type commit struct {
	*execution
	rec   *record.Record
	raw   []byte
	ttl   time.Duration
	done  chan struct{} // receives once, when stored and err are set
	timer *time.Timer

	stored bool // false without an error: another process has taken over
	err    error
}

// newCommit returns one that was used before, if there is one. They belong to the executor, because
// channels and timers made in a bubble of testing/synctest do not work in another one.
func (c *runner) newCommit() *commit {
	if used, ok := c.commits.Get().(*commit); ok {
		return used
	}
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	return &commit{done: make(chan struct{}, 1), timer: timer}
}

var (
	errTakenOver = errors.New("another process has taken over")
	errNoAnswer  = errors.New("no answer from Redis")
)

// commit stores the outcome, and settles the flight. The caller's context does not end it: fn has had
// its effect. It returns once the outcome is stored, refused, or has been tried for commitWait.
func (p *execution) commit(rec *record.Record, raw []byte) {
	c := p.newCommit()
	c.execution, c.rec, c.raw, c.ttl = p, rec, raw, p.op.cfg.recordTTL(rec.Outcome)
	wait := p.commitWait()
	c.timer.Reset(wait)
	go c.run()
	select {
	case <-c.done:
		c.timer.Stop()
		p.renewer.Drop(p.lease)
		p.committed(rec, len(raw), c.stored, c.err)
		*c = commit{done: c.done, timer: c.timer}
		p.commits.Put(c)
	case <-c.timer.C:
		p.committed(rec, len(raw), false, fmt.Errorf("%w within %v", errNoAnswer, wait))
		p.leaveBehind(c, p.commitRetryWindow()-wait)
	}
}

// leaveBehind lets a commit go on without its caller. The lease is renewed until it ends, so that no
// other process runs fn meanwhile; Close waits for it.
func (p *execution) leaveBehind(c *commit, window time.Duration) {
	if window <= 0 {
		p.renewer.Drop(p.lease)
		return
	}
	p.group.Go(func() {
		defer p.renewer.Drop(p.lease)
		select {
		case <-c.done:
		case <-time.After(window):
			return
		}
		if c.err == nil && c.stored {
			p.observe(context.WithoutCancel(p.ctx), Event{Kind: EventRecorded, Key: p.op.key, Attempt: int(c.rec.Attempt), Size: len(c.raw), Duration: time.Since(p.ended), Err: p.outcome.encodeErr})
		}
	})
}

// committed settles the flight with the result of a commit, and reports it.
func (p *execution) committed(rec *record.Record, size int, stored bool, err error) {
	event := Event{Kind: EventRecorded, Key: p.op.key, Attempt: int(rec.Attempt), Size: size, Duration: time.Since(p.ended)}
	switch {
	case err == nil && !stored:
		event.Kind, event.Err = EventCommitFailed, errTakenOver
		p.out.err = &causeError{text: ErrLeaseLost.Error() + ": " + errTakenOver.Error(), sentinel: ErrLeaseLost, cause: errTakenOver}
	case err != nil:
		event.Kind, event.Err = EventCommitFailed, err
		p.out.err = redisError(ErrNotRecorded, err)
		p.lead.settle(sharedResult{rec: rec, source: Executed, err: p.out.err})
	default:
		if event.Err = p.outcome.encodeErr; event.Err == nil {
			p.out.at = rec.At
		}
		p.lead.settle(sharedResult{rec: rec, stored: true, source: Executed})
	}
	if event.Kind == EventCommitFailed {
		p.logger.Error("idempotent: outcome not recorded", "key", p.op.key, "namespace", p.namespace, "error", rediserr.Text(event.Err))
	}
	p.observe(p.ctx, event)
}

// run sends the commit, and retries it if that fails.
func (c *commit) run() {
	returned := false
	defer func() {
		if !returned { // a hook of the client ended the goroutine
			go c.retry(errGoroutineEnded)
		}
	}()
	err := c.try(context.WithoutCancel(c.ctx))
	returned = true
	if err != nil {
		c.retry(err)
		return
	}
	c.done <- struct{}{}
}

// try sends the commit once. With via, it shares a pipeline with the other calls of RunMany.
func (c *commit) try(ctx context.Context) (err error) {
	stamp := c.cache.Stamp()
	c.stored, c.err = c.store.Commit(ctx, c.op.via, c.op.name, c.raw, c.ttl)
	if c.stored && c.err == nil {
		stamp.Store(c.op.key, c.rec, len(c.raw), c.ttl)
	}
	return c.err
}

// retry repeats a commit that failed with err until the retry window ends.
func (c *commit) retry(err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.ctx), c.commitRetryWindow())
	defer cancel()
	c.op.via = nil // the other calls of RunMany may be over
	failed := func(err error) {
		c.logger.Warn("idempotent: commit failed, retrying", "key", c.op.key, "namespace", c.namespace, "error", rediserr.Text(err))
		apart(func() error {
			c.observe(context.WithoutCancel(c.ctx), Event{Kind: EventCommitRetried, Key: c.op.key, Attempt: int(c.rec.Attempt), Size: len(c.raw), Err: err})
			return nil
		})
	}
	c.err = backoff.Resume(ctx, err, func() error { return apart(func() error { return c.try(ctx) }) }, failed)
	c.done <- struct{}{}
}

// within runs f in a goroutine of its own and returns its result, or false if that takes longer than d
// or f ends its goroutine. f then goes on by itself.
func (p *execution) within(d time.Duration, f func() bool) bool {
	done := make(chan bool, 1)
	go func() {
		ok := false
		defer func() { done <- ok }()
		ok = f()
	}()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case ok := <-done:
		return ok
	case <-timer.C:
		return false
	}
}

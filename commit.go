package idempotent

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/idempotent-go/idempotent/internal/backoff"
	"github.com/idempotent-go/idempotent/internal/errtree"
	"github.com/idempotent-go/idempotent/internal/guard"
	"github.com/idempotent-go/idempotent/internal/lease"
	"github.com/idempotent-go/idempotent/internal/record"
	"github.com/idempotent-go/idempotent/internal/rediserr"
	"github.com/idempotent-go/idempotent/internal/store"
)

// An untypedFn is fn, whatever its T.
type untypedFn interface {
	run(ctx context.Context) (value any, err error)
}

// A fnResult is how fn ended.
type fnResult struct {
	value     any
	payload   []byte // the encoded value
	err       error
	encodeErr error // fn succeeded, its value cannot be encoded
	panicked  *PanicError
	exited    bool // runtime.Goexit
}

func (r *fnResult) cause() error {
	if r.panicked != nil {
		return r.panicked
	}
	return r.err
}

// A runner runs fn under leases.
type runner struct {
	*locker
	renewer *lease.Renewer
	codec   record.CodecID
	encode  func(value any) ([]byte, error)
	errors  *ErrorRegistry
	commits sync.Pool // of *commit
}

// An execution is one run of fn under a lease, from the claim to commit, release or abandonment.
type execution struct {
	*runner
	op    *operation
	lead  *leadership
	lease *lease.Lease
	fn    untypedFn

	ctx     context.Context // the caller's
	fnCtx   context.Context // fn's
	cancel  context.CancelCauseFunc
	inner   *runContext
	began   time.Time // fn
	ended   time.Time // fn
	phase   fnPhase
	out     ownResult
	outcome fnResult
}

// A fnPhase says how far fn has come, for the deferred functions that meet its end.
type fnPhase uint8

const (
	fnRuns   fnPhase = iota
	fnEnded          // it returned; its value may still be being encoded
	fnSilent         // it did not return, and there is no panic: Goexit, or panic(nil) by GODEBUG=panicnil=1
	fnDone           // the execution is concluded
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
	start time.Time
	done  chan struct{} // receives once, when stored and err are set
	timer *time.Timer
	last  atomic.Pointer[error] // why the last try failed

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

// commitGrace lets retries that end with the time that a caller waits report their own error.
const commitGrace = 50 * time.Millisecond

var (
	errTakenOver = errors.New("another process has taken over")
	errNoAnswer  = errors.New("no answer from Redis")
)

// commit stores the outcome, and settles the flight. The caller's context does not end it: fn has had
// its effect. It returns once the outcome is stored, refused, or has been tried for commitWait.
func (p *execution) commit(rec *record.Record, raw []byte, notKept error) {
	c := p.newCommit()
	c.execution, c.rec, c.raw, c.ttl, c.start = p, rec, raw, p.op.cfg.recordTTL(rec.Outcome), time.Now()
	wait := p.commitWait()
	c.timer.Reset(wait + commitGrace)
	go c.run()
	select {
	case <-c.done:
		c.timer.Stop()
		p.renewer.Drop(p.lease)
		p.committed(rec, len(raw), c.stored, c.err, notKept)
		c.reset()
		p.commits.Put(c)
	case <-c.timer.C:
		p.committed(rec, len(raw), false, c.unanswered(wait), notKept)
		p.leaveBehind(c, p.commitRetryWindow()-wait)
	}
}

// reset forgets the execution, so that the commit can be used for another one.
func (c *commit) reset() {
	c.execution, c.rec, c.raw, c.stored, c.err = nil, nil, nil, false, nil
	c.last.Store(nil)
}

// unanswered is the error of a commit that its caller does not wait for any longer: that of the last
// try, if one has failed.
func (c *commit) unanswered(wait time.Duration) error {
	if last := c.last.Load(); last != nil {
		return *last
	}
	return fmt.Errorf("%w within %v", errNoAnswer, wait)
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
			p.observe(context.WithoutCancel(p.ctx), Event{Kind: EventRecorded, Key: p.op.key, Attempt: int(c.rec.Attempt), Size: len(c.raw), Duration: time.Since(p.ended)})
		}
	})
}

// committed settles the flight with the result of a commit, and reports it.
func (p *execution) committed(rec *record.Record, size int, stored bool, err, notKept error) {
	event := Event{Kind: EventRecorded, Err: notKept, Key: p.op.key, Attempt: int(rec.Attempt), Size: size, Duration: time.Since(p.ended)}
	switch {
	case err == nil && !stored:
		event.Kind, event.Err = EventCommitFailed, errTakenOver
		p.out.err = &causeError{text: ErrLeaseLost.Error() + ": " + errTakenOver.Error(), sentinel: ErrLeaseLost, cause: errTakenOver}
	case err != nil:
		event.Kind, event.Err = EventCommitFailed, err
		p.out.err = redisError(ErrNotRecorded, err)
		p.lead.settle(sharedResult{rec: rec, source: Executed, err: p.out.err})
	default:
		if notKept == nil {
			p.out.at = rec.At
		}
		p.lead.settle(sharedResult{rec: rec, stored: true, source: Executed})
	}
	if event.Kind == EventCommitFailed {
		p.logger.ErrorContext(p.fnCtx, "idempotent: outcome not recorded", "key", p.op.key, "namespace", p.namespace, "error", rediserr.Text(event.Err))
	}
	p.observe(p.ctx, event)
}

// run sends the commit, and retries it if that fails.
func (c *commit) run() {
	returned := false
	defer func() {
		if !returned { // a hook of the client ended the goroutine
			go c.retry(guard.ErrExited)
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
	c.stored, c.err = c.store.Commit(ctx, c.op.via, &store.Commit{Name: c.op.name, Running: c.claimed(), Done: c.raw, TTL: c.ttl})
	if c.stored && c.err == nil {
		stamp.Store(c.op.key, c.rec, len(c.raw), c.ttl)
	}
	if err := c.err; err != nil {
		c.last.Store(&err)
	}
	return c.err
}

// soon is how long fn may run for its commit to be a comparison. A comparison saves CPU, and wakes waiters
// one round trip later than the script does; the longer fn runs, the more likely there are waiters.
const soon = time.Millisecond

// claimed returns the record that the claim stored, nil if the commit must be the script.
func (c *commit) claimed() []byte {
	if c.lease.Attempt > 1 || c.ended.Sub(c.began) > soon {
		return nil
	}
	return c.op.running
}

// retry repeats a commit that failed with err until the retry window ends.
func (c *commit) retry(err error) {
	ctx, cancel := context.WithDeadline(context.WithoutCancel(c.ctx), c.start.Add(c.commitRetryWindow()))
	defer cancel()
	c.op.via = nil // the other calls of RunMany may be over
	failed := func(err error) {
		c.logger.WarnContext(c.fnCtx, "idempotent: commit failed, retrying", "key", c.op.key, "namespace", c.namespace, "error", rediserr.Text(err))
		_ = guard.Call(func() error {
			c.observe(context.WithoutCancel(c.ctx), Event{Kind: EventCommitRetried, Key: c.op.key, Attempt: int(c.rec.Attempt), Size: len(c.raw), Err: err})
			return nil
		})
	}
	c.err = backoff.Resume(ctx, err, func() error { return guard.Call(func() error { return c.try(ctx) }) }, failed)
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

// isUnknown reports whether fn's error leaves its effect unknown, so that it must not be replayed as
// final. hookErr says that the caller's predicate panicked; the error counts as unknown then, because
// the mistake costs a question at the provider instead of a second effect.
func (p *execution) isUnknown(r *fnResult) (unknown bool, hookErr *HookError) {
	err := r.cause()
	if err == nil {
		return false, nil
	}
	marked := false
	errtree.Walk(err, func(node error) bool {
		_, marked = node.(*unknownError) //nolint:errorlint // one node of the tree that Walk visits
		return !marked
	})
	if marked || errtree.Contains(err, notOutcomes...) {
		return true, nil
	}
	if unknown, hookErr = ask("UnknownErrors", p.op.cfg.unknown, err); unknown || hookErr != nil {
		return true, hookErr
	}
	if !p.contextEnded(err) {
		return false, nil
	}
	return isCutShort(err, context.Cause(p.fnCtx)) || !p.errors.known.Covers(err), nil
}

// contextEnded reports whether fn's context had ended when fn returned err, or was about to.
func (p *execution) contextEnded(err error) bool {
	if p.fnCtx.Err() != nil {
		return true
	}
	deadline, ok := p.fnCtx.Deadline()
	if !ok {
		return false
	}
	early := earlyTimer
	if isTimeout(err) {
		early = earlyTimeout
	}
	return deadline.Sub(p.ended) <= min(early, deadline.Sub(p.began)/4)
}

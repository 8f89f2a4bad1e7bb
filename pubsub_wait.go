package idempotent

import (
	"context"
	"errors"
	"time"

	"github.com/idempotent-go/idempotent/internal/flight"

	"github.com/idempotent-go/idempotent/internal/backoff"
	"github.com/idempotent-go/idempotent/internal/pipeline"
	"github.com/idempotent-go/idempotent/internal/pubsub"
	"github.com/idempotent-go/idempotent/internal/record"
	"github.com/idempotent-go/idempotent/internal/rediserr"
	"github.com/idempotent-go/idempotent/internal/store"
)

// unconfirmedPoll is how often a waiter reads while its subscription does not stand.
const unconfirmedPoll = time.Second

// waiting is for the outcomes of other processes.
type waiting struct {
	*locker
	hub *pubsub.Hub
}

// acquire owns the operation or finds its outcome, waiting for somebody else's execution if need
// be.
func (c *waiting) acquire(ctx context.Context, op *operation, lead *leadership) (claimResult, error) {
	f, err := c.firstClaim(ctx, op)
	w, f, err := c.afterClaim(ctx, op, lead, f, err)
	if w == nil {
		return f, err
	}
	return w.run(ctx)
}

// firstClaim does not keep a caller that has waited already beyond its context or its patience.
func (c *waiting) firstClaim(ctx context.Context, op *operation) (claimResult, error) {
	if !op.followed {
		return c.claim(ctx, op)
	}
	w := &wait{core: c, op: op, deadline: op.waitDeadline(), timer: time.NewTimer(0)}
	defer w.timer.Stop()
	return w.try(ctx, (*locker).claim)
}

// waitAfter returns the wait that a claim leads to or, if that is nil, what the claim came to.
func (c *waiting) afterClaim(ctx context.Context, op *operation, lead *leadership, f claimResult, err error) (*wait, claimResult, error) {
	if op.followed && !op.cfg.noWait && errors.Is(err, ErrUnavailable) {
		// It waits already, and an outage does not end that. Others need not wait with it.
		lead.call.Publish(flightState{phase: phaseRunning})
		return c.newWait(op, lead, record.Token{}), claimResult{}, nil
	}
	if err != nil || f.final() {
		return nil, f, err
	}
	if err := checkFingerprint(op.cfg.fingerprint, f.rec.Fingerprint); err != nil {
		return nil, claimResult{}, err
	}
	if !op.cfg.noWait {
		return c.newWait(op, lead, f.rec.Token), claimResult{}, nil
	}
	f, err = c.look(ctx, op)
	if err != nil || f.final() {
		return nil, f, err
	}
	return nil, claimResult{}, &InProgressError{RetryAfter: max(0, f.left)}
}

// A wait is one wait for another process.
type wait struct {
	core     *waiting
	op       *operation
	read     step                      // what to do when something may have changed
	claim    step                      // what to do when the key is free
	call     *flight.Call[flightState] // who is told where it stands; nil if nobody
	waiter   *pubsub.Waiter
	timer    *time.Timer // for when to read even if nobody calls, or to give up
	began    time.Time
	deadline time.Time
	pause    backoff.Backoff // between reads that fail

	owner     record.Token // whose execution this waits for
	confirmed bool
	leaseEnd  time.Time // of the owner, as far as known
	trouble   error     // why the last read failed
}

// A step of the protocol.
type step func(*locker, context.Context, *operation) (claimResult, error)

// newWait is the wait of a leader, for the execution of owner.
func (c *waiting) newWait(op *operation, lead *leadership, owner record.Token) *wait {
	return &wait{core: c, op: op, owner: owner, read: (*locker).look, claim: (*locker).claim, call: lead.call}
}

// run waits for somebody else's execution: until its outcome, until it is ours, or until the caller
// has enough.
func (w *wait) run(ctx context.Context) (f claimResult, err error) {
	w.begin(ctx)
	defer func() { w.end(ctx, err) }()
	for {
		next, f, err := w.next(ctx)
		if next == nil {
			return f, err
		}
		f, err = w.try(ctx, next)
		if over, err := w.evaluate(f, err); over {
			f.waited = true
			return f, err
		}
	}
}

func (w *wait) begin(ctx context.Context) {
	w.began = time.Now()
	w.deadline = w.op.waitDeadline()
	w.core.observe(ctx, Event{Kind: EventWaitStarted, Key: w.op.key})
	w.waiter = w.core.hub.Watch(ctx, w.op.name)
	w.timer = time.NewTimer(0)
	w.readIn(unconfirmedPoll)
	w.pause = backoff.Backoff{First: 20 * time.Millisecond, Limit: unconfirmedPoll}
}

func (w *wait) end(ctx context.Context, err error) {
	w.timer.Stop()
	w.core.hub.Unwatch(w.waiter)
	w.core.observe(ctx, Event{Kind: EventWaitEnded, Key: w.op.key, Duration: time.Since(w.began), Err: err})
}

// readIn sets the timer for the next read, or for the end of the wait if that comes first.
func (w *wait) readIn(d time.Duration) { w.timer.Reset(min(d, time.Until(w.deadline))) }

// hear returns the step to take when there is something to hear or to read. When it is nil, the wait
// is over.
func (w *wait) next(ctx context.Context) (next step, f claimResult, err error) {
	select {
	case <-ctx.Done():
		return nil, claimResult{}, both(contextError(ctx), w.trouble)
	case <-w.op.closing:
		return nil, claimResult{}, ErrClosed
	case <-w.timer.C:
		if !time.Now().Before(w.deadline) {
			return nil, claimResult{}, w.timeoutErr()
		}
		return w.read, claimResult{}, nil
	case <-w.waiter.Wake:
	}
	var message []byte
	message, w.confirmed = w.core.hub.Take(w.waiter)
	if f, ok := w.outcomeIn(message); ok {
		return nil, f, nil
	}
	if len(message) > 0 && message[0] == store.MessageFree {
		return w.claim, claimResult{}, nil
	}
	return w.read, claimResult{}, nil
}

// errImpatient marks an error that says more about the caller's patience than about Redis.
var errWaitTimeout = errors.New("the wait is over")

// enough is the error of a wait that took too long.
func (w *wait) timeoutErr() error {
	if w.trouble != nil {
		return &causeError{text: w.trouble.Error(), sentinel: errWaitTimeout, cause: w.trouble}
	}
	return &InProgressError{RetryAfter: max(0, time.Until(w.leaseEnd))}
}

// outcomeIn returns the outcome that a message carries, if it is that of the execution waited
// for. Others can be heard too, since Redis has one set of channels for all its databases.
func (w *wait) outcomeIn(message []byte) (claimResult, bool) {
	if len(message) == 0 || message[0] != store.MessageRecord && message[0] != store.MessageShared {
		return claimResult{}, false
	}
	rec, err := record.Decode(message[1:])
	if err != nil || rec.Kind != record.KindDone || rec.Token != w.owner {
		return claimResult{}, false
	}
	return claimResult{rec: rec, stored: message[0] == store.MessageRecord, waited: true}, true
}

// judge says whether the wait is over with what was found. If not, it sets the time of the next
// look. Redis being away for a while does not end a wait.
func (w *wait) evaluate(f claimResult, err error) (over bool, _ error) {
	switch {
	case err == nil && f.final():
		return true, nil
	case errors.Is(err, errWaitTimeout):
		return true, err
	case errors.Is(err, ErrUnavailable):
		w.trouble = err
		w.readIn(w.pause.Next())
		return false, nil
	case err != nil:
		return true, err
	}
	w.trouble = nil
	w.owner = f.rec.Token
	if err := checkFingerprint(w.op.cfg.fingerprint, f.rec.Fingerprint); err != nil {
		return true, err
	}
	if f.left <= 0 { // just claimed by somebody else: how long for is still to be read
		w.readIn(w.pause.Next())
		return false, nil
	}
	w.pause.Reset()
	w.leaseEnd = time.Now().Add(f.left)
	if w.call != nil {
		w.call.Publish(flightState{phase: phaseRunning, fingerprint: f.rec.Fingerprint, lease: until(w.leaseEnd)})
	}
	sleep := f.left + time.Millisecond // PTTL rounds
	if !w.confirmed {
		sleep = min(sleep, unconfirmedPoll)
	}
	w.readIn(sleep)
	return false, nil
}

// ask takes the next step, and returns before Redis answers when ctx or the caller's patience ends.
// What the step may have made ours is then given back.
func (w *wait) try(ctx context.Context, next step) (claimResult, error) {
	w.timer.Reset(time.Until(w.deadline))
	answers := make(chan answer)
	left := make(chan struct{})
	w.core.group.Go(func() {
		asking := context.WithoutCancel(ctx)
		a := answer{err: redisError(ErrUnavailable, pipeline.ErrHookExited)} // unless the step returns
		defer func() {
			if v := recover(); v != nil { // in a hook of the client
				a.err = redisError(ErrUnavailable, rediserr.PanicError(v))
			}
			select {
			case answers <- a:
			case <-left:
				if a.lease != nil {
					w.core.releaseInBackground(asking, w.op, a.lease.Attempt)
				}
			}
		}()
		a.claimResult, a.err = next(w.core.locker, asking, w.op)
	})
	select {
	case a := <-answers:
		return a.claimResult, a.err
	case <-ctx.Done():
		close(left)
		return claimResult{}, contextError(ctx)
	case <-w.timer.C:
		close(left)
		return claimResult{}, w.timeoutErr()
	}
}

// An answer is what a step came to.
type answer struct {
	claimResult
	err error
}

package idempotent

import (
	"context"
	"errors"
	"time"

	"github.com/idempotent-go/idempotent/internal/backoff"
	"github.com/idempotent-go/idempotent/internal/flight"
	"github.com/idempotent-go/idempotent/internal/pipeline"
	"github.com/idempotent-go/idempotent/internal/pubsub"
	"github.com/idempotent-go/idempotent/internal/record"
	"github.com/idempotent-go/idempotent/internal/rediserr"
	"github.com/idempotent-go/idempotent/internal/store"
)

// unconfirmedPoll is how often a waiter reads while its subscription is not confirmed, when a message
// could pass it by.
const unconfirmedPoll = time.Second

// waiting waits for the outcomes of other processes. It reads, subscribes and takes keys over; it never
// runs fn.
type waiting struct {
	*locker
	hub *pubsub.Hub
}

// acquire acquires the key, or finds its outcome. While another process owns the key, it waits.
func (c *waiting) acquire(ctx context.Context, op *operation, lead *leadership) (claimResult, error) {
	f, err := c.firstClaim(ctx, op)
	w, f, err := c.afterFirstClaim(ctx, op, lead, f, err)
	if w == nil {
		return f, err
	}
	return w.run(ctx)
}

// firstClaim claims the key. A caller that has waited for another one in this process already is not
// kept beyond its context or its wait timeout by a claim that hangs.
func (c *waiting) firstClaim(ctx context.Context, op *operation) (claimResult, error) {
	if !op.followed {
		return c.claim(ctx, op)
	}
	w := &wait{core: c, op: op, deadline: op.waitDeadline(), timer: time.NewTimer(0)}
	defer w.timer.Stop()
	return w.try(ctx, (*locker).claim)
}

// afterFirstClaim decides what follows the first claim. It returns a wait if another process holds the
// key, otherwise the claim's own result.
func (c *waiting) afterFirstClaim(ctx context.Context, op *operation, lead *leadership, f claimResult, err error) (*wait, claimResult, error) {
	if op.followed && !op.cfg.noWait && errors.Is(err, ErrUnavailable) {
		// The caller waits already, and an outage does not end a wait. Others need not wait with it.
		lead.call.Publish(flightState{phase: phaseRunning})
		return c.newWait(op, lead, nil), claimResult{}, nil
	}
	if err != nil || f.final() {
		return nil, f, err
	}
	// Another request under this key is an error whether its execution ends or not.
	if err := checkFingerprint(op.cfg.fingerprint, f.rec.Fingerprint); err != nil {
		return nil, claimResult{}, err
	}
	if !op.cfg.noWait {
		return c.newWait(op, lead, f.rec), claimResult{}, nil
	}
	f, err = c.look(ctx, op) // what is left of the owner's lease; a dead owner's key is taken over
	if err != nil || f.final() {
		return nil, f, err
	}
	return nil, claimResult{}, &InProgressError{RetryAfter: max(0, f.left)}
}

// A wait is one wait for another process.
type wait struct {
	core     *waiting
	op       *operation
	read     step                      // taken when something may have changed
	claim    step                      // taken when the key is free
	call     *flight.Call[flightState] // whose followers learn what this wait learns; nil without any
	waiter   *pubsub.Waiter
	timer    *time.Timer // for the next read without a message, or for the end of the wait
	began    time.Time
	deadline time.Time
	pause    backoff.Backoff // between reads that fail

	found     *record.Record // of the execution that this waits for; nil if none is known
	confirmed bool           // the subscription is
	leaseEnd  time.Time      // of the owner, as far as known
	trouble   error          // why the last read failed
}

// A step is one step of the protocol.
type step func(*locker, context.Context, *operation) (claimResult, error)

// newWait returns the wait of a leader, for the execution that found describes, nil if none is known.
func (c *waiting) newWait(op *operation, lead *leadership, found *record.Record) *wait {
	return &wait{core: c, op: op, found: found, read: (*locker).look, claim: (*locker).claim, call: lead.call}
}

// run waits for the current owner. It returns when the outcome is recorded, when this process takes
// over, or when the caller's context or wait timeout ends.
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

// begin subscribes before it reads for the first time, so that no outcome falls in between.
func (w *wait) begin(ctx context.Context) {
	w.began = time.Now()
	w.deadline = w.op.waitDeadline()
	w.core.observe(ctx, Event{Kind: EventWaitStarted, Key: w.op.key}.about(w.found))
	w.waiter = w.core.hub.Watch(ctx, w.op.name)
	w.timer = time.NewTimer(0)
	w.readIn(unconfirmedPoll) // unless the confirmation wakes it earlier, as it usually does
	w.pause = backoff.Backoff{First: 20 * time.Millisecond, Limit: unconfirmedPoll}
}

func (w *wait) end(ctx context.Context, err error) {
	w.timer.Stop()
	w.core.hub.Unwatch(w.waiter)
	w.core.observe(ctx, Event{Kind: EventWaitEnded, Key: w.op.key, Duration: time.Since(w.began), Err: err})
}

// readIn sets the timer for the next read, or for the end of the wait if that comes first.
func (w *wait) readIn(d time.Duration) { w.timer.Reset(min(d, time.Until(w.deadline))) }

// next blocks until a message, a timer or the context fires, and returns the step to take, or nil if the
// wait has ended.
func (w *wait) next(ctx context.Context) (next step, f claimResult, err error) {
	select {
	case <-ctx.Done():
		return nil, claimResult{}, contextError(ctx)
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
	// A confirmation, a lost connection, a message without the record: the record says what is so.
	return w.read, claimResult{}, nil
}

// errWaitTimeout marks an error caused by this caller's wait timeout. It must not be shared with other
// callers.
var errWaitTimeout = errors.New("the wait timed out")

// timeoutErr returns the error of a wait that timed out: the last Redis error if reads were failing,
// otherwise an InProgressError.
func (w *wait) timeoutErr() error {
	if w.trouble != nil {
		return &causeError{text: w.trouble.Error(), sentinel: errWaitTimeout, cause: w.trouble}
	}
	return &InProgressError{RetryAfter: max(0, time.Until(w.leaseEnd))}
}

// outcomeIn returns the outcome in a message, if it is that of the execution waited for. Messages of other
// executions can arrive, because Redis has one set of channels for all its databases.
func (w *wait) outcomeIn(message []byte) (claimResult, bool) {
	var raw []byte
	stored := false
	switch {
	case len(message) == 0:
		return claimResult{}, false
	case message[0] == store.MessageRecord:
		raw, stored = message, true
	case message[0] == store.MessageShared:
		raw = message[1:]
	}
	rec, err := record.Decode(raw)
	if err != nil || rec.Kind != record.KindDone || w.found == nil || rec.Token != w.found.Token {
		return claimResult{}, false
	}
	return claimResult{rec: rec, stored: stored, waited: true}, true
}

// evaluate reports whether the result of a step ends the wait. If not, it schedules the next read. An
// outage of Redis does not end a wait.
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
	w.found = f.rec
	if err := checkFingerprint(w.op.cfg.fingerprint, f.rec.Fingerprint); err != nil {
		return true, err
	}
	if f.left <= 0 { // another process has just claimed the key: the length of its lease must be read
		w.readIn(w.pause.Next())
		return false, nil
	}
	w.pause.Reset()
	w.leaseEnd = time.Now().Add(f.left)
	if w.call != nil {
		w.call.Publish(flightState{phase: phaseRunning, fingerprint: f.rec.Fingerprint, lease: until(w.leaseEnd)})
	}
	sleep := f.left + time.Millisecond // PTTL rounds down: a read at the end itself would find the lease alive
	if !w.confirmed {
		sleep = min(sleep, unconfirmedPoll)
	}
	w.readIn(sleep)
	return false, nil
}

// try takes a step, and returns before Redis answers if the context or the wait timeout ends. What the
// step acquires after that is released.
func (w *wait) try(ctx context.Context, next step) (claimResult, error) {
	w.timer.Reset(time.Until(w.deadline))
	answers := make(chan answer)
	left := make(chan struct{})
	w.core.group.Go(func() {
		detached := context.WithoutCancel(ctx)
		a := answer{err: redisError(ErrUnavailable, pipeline.ErrHookExited)} // unless the step returns
		defer func() {
			if v := recover(); v != nil { // in a hook of the client
				a.err = redisError(ErrUnavailable, rediserr.PanicError(v))
			}
			select {
			case answers <- a:
			case <-left:
				if a.lease != nil {
					w.core.releaseInBackground(w.op, a.lease.Attempt)
				}
			}
		}()
		a.claimResult, a.err = next(w.core.locker, detached, w.op)
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

// An answer is the result of a step.
type answer struct {
	claimResult
	err error
}

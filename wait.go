package idempotent

import (
	"context"
	"errors"
	"time"
)

// unconfirmedPoll is how often a waiter reads while its subscription does not stand.
const unconfirmedPoll = time.Second

// acquire owns the operation or finds its outcome, waiting for somebody else's execution if need
// be.
func (c *core) acquire(ctx context.Context, op *operation, lead *leading) (finding, Source, error) {
	f, err := c.claim(ctx, op)
	if op.followed && !op.cfg.noWait && errors.Is(err, ErrUnavailable) {
		// It waits already, and an outage does not end that. Others need not wait with it.
		lead.call.Publish(standing{phase: phaseRunning})
		return c.wait(ctx, c.newWait(op, lead, token{}))
	}
	if err != nil || f.final() {
		return f, Replayed, err
	}
	if err := checkFingerprint(op.cfg.fingerprint, f.rec.fingerprint); err != nil {
		return finding{}, 0, err
	}
	if !op.cfg.noWait {
		return c.wait(ctx, c.newWait(op, lead, f.rec.token))
	}
	f, err = c.look(ctx, op)
	if err != nil || f.final() {
		return f, Replayed, err
	}
	return finding{}, 0, &InProgressError{RetryAfter: max(0, f.left)}
}

// A wait is one wait for another process.
type wait struct {
	core    *core
	op      *operation
	read    step // what to do when something may have changed
	claim   step // what to do when the key is free
	publish func(standing)
	waiter  *waiter
	recheck *time.Timer // when to read even if nobody calls
	pause   backoff     // between reads that fail

	owner     token // whose execution this waits for
	confirmed bool
	leaseEnd  time.Time // of the owner, as far as known
	trouble   error     // why the last read failed
}

// A step of the protocol.
type step func(context.Context, *operation) (finding, error)

// newWait is the wait of a leader, for the execution of owner.
func (c *core) newWait(op *operation, lead *leading, owner token) *wait {
	return &wait{core: c, op: op, owner: owner, read: c.look, claim: c.claim, publish: lead.call.Publish}
}

// wait waits for somebody else's execution: until its outcome, until it is ours, or until the
// caller has enough.
func (c *core) wait(ctx context.Context, w *wait) (f finding, source Source, err error) {
	began := time.Now()
	c.observe(ctx, Event{Kind: EventWaitStarted, Key: w.op.key})
	w.waiter = c.hub.watch(ctx, w.op.name)
	w.recheck = time.NewTimer(unconfirmedPoll)
	w.pause = backoff{first: 20 * time.Millisecond, limit: unconfirmedPoll}
	defer func() {
		w.recheck.Stop()
		c.hub.unwatch(w.waiter)
		c.observe(ctx, Event{Kind: EventWaitEnded, Key: w.op.key, Duration: time.Since(began), Err: err})
	}()
	f, err = w.run(ctx)
	return f, Waited, err
}

func (w *wait) run(ctx context.Context) (finding, error) {
	giveUp := time.NewTimer(time.Until(w.op.began.Add(w.op.cfg.waitTimeout)))
	defer giveUp.Stop()
	for {
		next := w.read
		select {
		case <-ctx.Done():
			return finding{}, both(contextError(ctx), w.trouble)
		case <-w.op.closing:
			return finding{}, ErrClosed
		case <-giveUp.C:
			return finding{}, w.enough()
		case <-w.recheck.C:
		case <-w.waiter.wake:
			var message []byte
			message, w.confirmed = w.core.hub.take(w.waiter)
			if f, ok := w.outcomeIn(message); ok {
				return f, nil
			}
			if len(message) > 0 && message[0] == messageFree {
				next = w.claim
			}
		}
		f, err := w.ask(ctx, next, giveUp.C)
		if over, err := w.judge(f, err); over {
			return f, err
		}
	}
}

// errImpatient marks an error that says more about the caller's patience than about Redis.
var errImpatient = errors.New("the wait is over")

// enough is the error of a wait that took too long.
func (w *wait) enough() error {
	if w.trouble != nil {
		return &causeError{text: w.trouble.Error(), sentinel: errImpatient, cause: w.trouble}
	}
	return &InProgressError{RetryAfter: max(0, time.Until(w.leaseEnd))}
}

// outcomeIn returns the outcome that a message carries, if it is that of the execution waited
// for. Others can be heard too, since Redis has one set of channels for all its databases.
func (w *wait) outcomeIn(message []byte) (finding, bool) {
	if len(message) == 0 || message[0] != messageRecord && message[0] != messageShared {
		return finding{}, false
	}
	rec, err := decodeRecord(message[1:])
	if err != nil || rec.kind != kindDone || rec.token != w.owner {
		return finding{}, false
	}
	return finding{rec: rec, stored: message[0] == messageRecord}, true
}

// judge says whether the wait is over with what was found. If not, it sets the time of the next
// look. Redis being away for a while does not end a wait.
func (w *wait) judge(f finding, err error) (over bool, _ error) {
	switch {
	case err == nil && f.final():
		return true, nil
	case errors.Is(err, errImpatient):
		return true, err
	case errors.Is(err, ErrUnavailable):
		w.trouble = err
		w.recheck.Reset(w.pause.next())
		return false, nil
	case err != nil:
		return true, err
	}
	w.trouble = nil
	w.owner = f.rec.token
	if err := checkFingerprint(w.op.cfg.fingerprint, f.rec.fingerprint); err != nil {
		return true, err
	}
	if f.left <= 0 { // just claimed by somebody else: how long for is still to be read
		w.recheck.Reset(w.pause.next())
		return false, nil
	}
	w.pause.reset()
	w.leaseEnd = time.Now().Add(f.left)
	w.publish(standing{
		phase:       phaseRunning,
		fingerprint: f.rec.fingerprint,
		lease:       until(w.leaseEnd),
	})
	sleep := f.left + time.Millisecond // PTTL rounds
	if !w.confirmed {
		sleep = min(sleep, unconfirmedPoll)
	}
	w.recheck.Reset(sleep)
	return false, nil
}

// ask takes the next step, and returns before Redis answers when ctx or the caller's patience ends.
// What the step may have made ours is then given back.
func (w *wait) ask(ctx context.Context, next step, giveUp <-chan time.Time) (finding, error) {
	type answer struct {
		finding
		err error
	}
	answers := make(chan answer)
	left := make(chan struct{})
	w.core.active.Go(func() {
		asking := context.WithoutCancel(ctx)
		f, err := next(asking, w.op)
		select {
		case answers <- answer{f, err}:
		case <-left:
			if f.lease != nil {
				w.core.disown(asking, w.op, f.lease.attempt)
			}
		}
	})
	select {
	case a := <-answers:
		return a.finding, a.err
	case <-ctx.Done():
		close(left)
		return finding{}, contextError(ctx)
	case <-giveUp:
		close(left)
		return finding{}, w.enough()
	}
}

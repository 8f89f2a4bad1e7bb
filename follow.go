package idempotent

import (
	"context"
	"errors"
	"time"

	"github.com/idempotent-go/idempotent/internal/flight"
)

// stateAfter is what the next leader knows of one that left with err: callers that do not wait need
// not ask again, one after the other, what one of them has just been told.
func stateAfter(op *operation, err error) flightState {
	busy, ok := errors.AsType[*InProgressError](err)
	if !ok || !op.cfg.noWait {
		return flightState{}
	}
	return flightState{phase: phaseRunning, lease: until(time.Now().Add(busy.RetryAfter))}
}

// mayLeaveEarly reports whether a follower may have enough before there is an outcome.
func (c *runConfig) mayLeaveEarly() bool { return c.noWait || len(c.fingerprint) > 0 }

// wakeOn reports whether a follower is to look at what is published: it may be refused for it.
func (c *runConfig) wakeOn(s flightState) bool {
	return s.phase == phaseRunning && (c.noWait || checkFingerprint(c.fingerprint, s.fingerprint) != nil)
}

// A joiner is a call's part in a flight that another call leads.
type joiner struct {
	flight.Follower[flightState]
	began  time.Time
	nested bool
}

// A crowd is the callers of this process, by key.
type crowd struct {
	*events
	flights flight.Group[flightState]
	closing context.Context
}

// closingOf is closed when close ends the run, nil if it does not.
func (c *crowd) closingOf(nested bool) <-chan struct{} {
	if nested {
		return nil
	}
	return c.closing.Done()
}

func (c *crowd) joinOptions(cfg *runConfig, began time.Time) (m flight.JoinOptions[flightState]) {
	m.Deadline = began.Add(cfg.waitTimeout)
	if cfg.mayLeaveEarly() {
		m.WakeOn = cfg.wakeOn
	}
	return m
}

// follow waits for the leader and stores in s what comes of that, or returns false if the caller is
// to lead itself. Thousands may be in here at once, each with its stack.
func (c *crowd) follow(ctx context.Context, key string, cfg *runConfig, f *joiner, s *sharedResult) (over bool) {
	if len(c.observers) > 0 {
		c.observeJoined(ctx, key, &f.Follower)
		defer func() {
			c.observe(ctx, Event{Kind: EventJoinEnded, Key: key, Duration: time.Since(f.began), Err: s.err})
		}()
	}
	closing := c.closingOf(f.nested)
	for look := len(c.observers) > 0 || cfg.mayLeaveEarly(); ; look = true {
		stage, err := flight.Following, error(nil)
		if look {
			stage, err = f.poll(cfg, s)
		}
		switch {
		case stage == flight.Settled:
			*s = c.replay(ctx, key, cfg, *s)
			return true
		case err != nil:
		case stage == flight.Elected:
			f.Lead()
			return false
		case isClosed(closing): // not left to Wait: close may have woken the others just before
			err = ErrClosed
		case f.Wait(ctx.Done()):
			err = contextError(ctx)
		}
		if err != nil {
			f.Leave()
			*s = failure(err)
			return true
		}
	}
}

// poll stores the outcome in s when there is one, and says why the follower is not to wait for that
// any longer, if so.
func (f *joiner) poll(cfg *runConfig, s *sharedResult) (stage flight.Stage, err error) {
	var now flightState
	if stage = f.Poll(&now); stage == flight.Settled {
		*s = now.outcome.joined()
		return stage, nil
	}
	err = now.refuses(cfg)
	if err == nil && time.Since(f.began) >= cfg.waitTimeout { // it may have passed before Poll
		err = now.inProgress()
	}
	return stage, err
}

// observeJoined takes the follower out of the call if the observer exits the goroutine: it would be
// elected otherwise, and never lead.
func (c *crowd) observeJoined(ctx context.Context, key string, f *flight.Follower[flightState]) {
	returned := false
	defer func() {
		if !returned {
			f.Leave()
		}
	}()
	c.observe(ctx, Event{Kind: EventJoined, Key: key})
	returned = true
}

// refuses says why a follower is not to wait any longer, if so.
func (s *flightState) refuses(cfg *runConfig) error {
	if s.phase != phaseRunning {
		return nil
	}
	if err := checkFingerprint(cfg.fingerprint, s.fingerprint); err != nil {
		return err
	}
	if cfg.noWait {
		return s.inProgress()
	}
	return nil
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func (s *flightState) inProgress() error {
	if s.lease == nil { // no owner is known: the leader still asks
		return &InProgressError{}
	}
	return &InProgressError{RetryAfter: s.lease.Left()}
}

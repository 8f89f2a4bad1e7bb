package idempotent

import (
	"bytes"
	"context"
	"sync/atomic"
	"time"

	"github.com/idempotent-go/idempotent/internal/flight"
	"github.com/idempotent-go/idempotent/internal/lease"
	"github.com/idempotent-go/idempotent/internal/record"
)

// A settlement is what callers get who did not run fn: rec, err beside it, or err alone.
type sharedResult struct {
	rec    *record.Record
	stored bool
	shared bool // rec may be: with other callers
	source Source
	err    error
}

// A result is what one call came to: a settlement or, if it ran fn, what there is to say of that.
type result struct {
	sharedResult
	own *ownResult
}

func failure(err error) sharedResult { return sharedResult{err: err} }

// joined is what the settlement of a leader is to its followers.
func (s sharedResult) joined() sharedResult {
	s.shared = true
	if s.source == Executed {
		s.source = Joined
	}
	return s
}

// What a call has of a fn that it ran.
type ownResult struct {
	value   any
	fnErr   error
	err     error      // of this package, beside it
	hookErr *HookError // ShouldIgnoreError panicked
	attempt uint32
	at      time.Time // recorded at, zero if not

	panicked *PanicError // detached only: for the caller to panic with
	exited   bool        // detached only: for the caller to exit as well
}

// A finding is what an attempt to own an operation came to; exactly one of lease and rec is set.
type claimResult struct {
	lease *lease.Lease   // the operation is ours
	rec   *record.Record // running by somebody else, or done
	left  time.Duration
	// stored is false for an ignored error that its owner shares.
	stored bool
	waited bool // for it
}

// final reports whether there is nothing to wait for.
func (f *claimResult) final() bool { return f.lease != nil || f.rec.Kind == record.KindDone }

// settlement is what a finding that is final and not ours is to callers.
func (f *claimResult) shared() sharedResult {
	s := sharedResult{rec: f.rec, stored: f.stored, source: Replayed}
	if f.waited {
		s.source = Waited
	}
	return s
}

// A standing is where the callers of one key in this process stand.
type flightState struct {
	phase       phase
	fingerprint []byte       // running: what for
	lease       clock        // running: what is left of the owner's lease
	outcome     sharedResult // when settled
}

// A clock says how much time is left.
type clock interface{ Left() time.Duration }

// until is the clock of a fixed moment.
type until time.Time

func (u until) Left() time.Duration { return max(0, time.Until(time.Time(u))) }

type phase uint8

const (
	phaseClaiming phase = iota
	phaseRunning
)

// leading is the leader's end of a flight. It is ended once, by the leader or by the loss of its
// lease.
type leadership struct {
	call *flight.Call[flightState]
	over atomic.Bool
}

func (l *leadership) settle(s sharedResult) {
	if l.over.CompareAndSwap(false, true) {
		l.call.Settle(flightState{outcome: s})
	}
}

// vacate leaves the lead to the next in line, unless the flight is settled.
func (l *leadership) vacate(last flightState) {
	if l.over.CompareAndSwap(false, true) {
		l.call.HandOver(last)
	}
}

// replay is what a caller gets that did not run fn.
func (c *events) replay(ctx context.Context, key string, cfg *runConfig, s sharedResult) sharedResult {
	if s.rec == nil {
		return s
	}
	if err := checkFingerprint(cfg.fingerprint, s.rec.Fingerprint); err != nil {
		return failure(err)
	}
	if s.rec.Outcome == record.OutcomeInterrupted {
		return failure(ErrInterrupted)
	}
	if s.rec.Outcome == record.OutcomeValueNotKept && s.err == nil {
		return failure(&ValueNotKeptError{Attempt: int(s.rec.Attempt), At: s.rec.At})
	}
	c.observe(ctx, Event{Kind: EventReplayed, Key: key, Attempt: int(s.rec.Attempt)})
	return s
}

func checkFingerprint(own, other []byte) error {
	if len(own) > 0 && len(other) > 0 && !bytes.Equal(own, other) {
		return ErrKeyReused
	}
	return nil
}

// firstFingerprint is the first fingerprint that says something.
func firstNonEmpty(a, b []byte) []byte {
	if len(a) > 0 {
		return a
	}
	return b
}

// report is what there is to report of a settlement whose value decoded with err.
func (s *sharedResult) report(err error) (r Report) {
	if s.rec == nil || err != nil {
		return Report{}
	}
	r = Report{Source: s.source, Attempt: int(s.rec.Attempt)}
	if s.stored {
		r.RecordedAt = s.rec.At
	}
	return r
}

package idempotent

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/idempotent-go/idempotent/internal/errtree"
	"github.com/idempotent-go/idempotent/internal/flight"
	"github.com/idempotent-go/idempotent/internal/lease"
	"github.com/idempotent-go/idempotent/internal/record"
)

// A sharedResult is what callers that did not run fn receive: a record, a record and an error, or only
// an error.
type sharedResult struct {
	rec    *record.Record
	stored bool
	shared bool // other callers may hold rec too
	source Source
	err    error
}

// A result is what one call returns: a shared result, or its own execution's.
type result struct {
	sharedResult
	own *ownResult
}

func failure(err error) sharedResult { return sharedResult{err: err} }

// joined turns the leader's result into its followers'.
func (s sharedResult) joined() sharedResult {
	s.shared = true
	if s.source == Executed {
		s.source = Joined
	}
	return s
}

// report describes a shared result whose value decoded with err.
func (s *sharedResult) report(err error) (r Report) {
	if s.rec == nil || err != nil {
		return Report{Final: isFinal(err) || isFinal(s.err)}
	}
	r = Report{Source: s.source, Attempt: int(s.rec.Attempt), Final: s.stored}
	if s.stored {
		r.RecordedAt = s.rec.At
	}
	return r
}

// An ownResult is the result of an fn that this call ran.
type ownResult struct {
	value   any
	fnErr   error
	err     error      // of this package, beside the value
	hookErr *HookError // ShouldIgnoreError or UnknownErrors panicked
	attempt uint32
	at      time.Time // when it was recorded, zero if it was not

	panicked *PanicError // detached only: the caller panics with its value
	exited   bool        // detached only: the caller's goroutine exits as well
}

// A claimResult is the result of trying to acquire a key: a lease if we own it now, otherwise the
// record found there. Exactly one is set.
type claimResult struct {
	lease   *lease.Lease
	rec     *record.Record // of another owner, or finished
	left    time.Duration  // of another owner's lease, where it was read
	endless bool           // the record has no expiry, so that its lease cannot be read from it
	// stored is false for an ignored error that its owner shares.
	stored bool
	waited bool // for it
}

// final reports whether there is nothing to wait for.
func (f *claimResult) final() bool { return f.lease != nil || f.rec.Kind == record.KindDone }

// shared turns a finished record into the result of its callers.
func (f *claimResult) shared() sharedResult {
	s := sharedResult{rec: f.rec, stored: f.stored, source: Replayed}
	if f.waited {
		s.source = Waited
	}
	return s
}

// A flightState is what the leader of a key knows, for its followers in this process.
type flightState struct {
	phase       phase
	fingerprint []byte       // of the running execution
	lease       clock        // what is left of the owner's lease; nil if there is no known owner
	outcome     sharedResult // once settled
}

// A clock says how much time is left.
type clock interface{ Left() time.Duration }

// until is the clock of a fixed time.
type until time.Time

func (u until) Left() time.Duration { return max(0, time.Until(time.Time(u))) }

type phase uint8

const (
	phaseClaiming phase = iota
	phaseRunning
)

// A leadership is the leader's end of a flight. It ends once: by the leader, or by the loss of its
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

// handOver lets the next in line lead, unless the flight is settled.
func (l *leadership) handOver(last flightState) {
	if l.over.CompareAndSwap(false, true) {
		l.call.HandOver(last)
	}
}

// replay checks a shared result against the caller's options, and reports it.
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
	if s.rec.Outcome == record.OutcomeValueNotKept {
		return failure(cmp.Or[error](s.err, &ValueNotKeptError{Attempt: int(s.rec.Attempt), At: s.rec.At}))
	}
	if len(c.observers) > 0 {
		e := Event{Kind: EventReplayed, Key: key, Source: s.source, Age: max(0, time.Since(s.rec.At)), TTL: cfg.ttl}
		c.observe(ctx, e.about(s.rec))
	}
	return s
}

func checkFingerprint(own, other []byte) error {
	if len(own) > 0 && len(other) > 0 && !bytes.Equal(own, other) {
		return ErrKeyReused
	}
	return nil
}

// firstNonEmpty returns the first fingerprint that is not empty.
func firstNonEmpty(a, b []byte) []byte {
	if len(a) > 0 {
		return a
	}
	return b
}

// notOutcomes are this package's errors that say nothing final about an fn that returns them: a nested
// Run did not run its fn, or does not know what that did. The outer fn may have had other effects before.
var notOutcomes = []error{
	ErrUnavailable, ErrInProgress, ErrClosed, ErrKeyReused, ErrInterrupted, ErrCorruptRecord,
	ErrInvalidKey, ErrInvalidOption, ErrNotFound, ErrLeaseLost, ErrNotRecorded, ErrValueNotKept,
}

// isCutShort reports whether err says itself that the end of the context caused it.
func isCutShort(err, cause error) bool {
	return errtree.Contains(err, context.Canceled, context.DeadlineExceeded) ||
		cause != nil && errtree.Contains(err, cause) || isTimeout(err)
}

// ask calls a predicate of the caller's. A nil predicate answers no.
func ask(name string, predicate func(error) bool, err error) (yes bool, panicked *HookError) {
	if predicate == nil {
		return false, nil
	}
	defer func() {
		if p := recover(); p != nil {
			yes, panicked = false, &HookError{Hook: name, Value: p}
		}
	}()
	return predicate(err), nil
}

// isFinal reports whether an error of this package stays the same for every later call with the key,
// until the record expires or an operator acts.
func isFinal(err error) bool {
	for _, final := range []error{ErrKeyReused, ErrInterrupted, ErrCorruptRecord, ErrInvalidKey, ErrInvalidOption, ErrValueNotKept} {
		if errors.Is(err, final) {
			return true
		}
	}
	return false
}

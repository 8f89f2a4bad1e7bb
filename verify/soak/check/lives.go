package check

import (
	"slices"
	"time"

	"github.com/idempotent-go/idempotent/verify/soak/history"
)

// A key has another life when its record has gone: its TTL was over, or it was forgotten. What is allowed
// only once in a life is then allowed again.

// after is d after t, if t is ever.
func after(t, d time.Duration) time.Duration {
	if t == never {
		return never
	}
	return t + d
}

// ttl is how long the outcome of e is kept, never if that is longer than a campaign.
func (e *execution) ttl() time.Duration {
	ask := e.call.ask
	if ask.ErrorTTL > 0 && (e.outcome == history.Failed || e.outcome == history.Panic) {
		return ask.ErrorTTL
	}
	if ask.TTL > 0 {
		return ask.TTL
	}
	return never
}

// expires is the earliest time at which the TTL of what e left can have been over: of its outcome, which
// was written after fn ended, or of the record of an execution without one, which outlives its lease.
func (c *checker) expires(e *execution) time.Duration {
	recorded, unknown := never, never
	if ttl := e.ttl(); ttl != never && c.mayBeRecorded(e) {
		recorded = after(e.end, ttl-rounding)
	}
	if e.call.ask.TTL > 0 && e.fate != history.Recorded {
		unknown = min(c.leaseUntil(e), e.end) + e.call.ask.TTL - rounding
	}
	return min(recorded, unknown)
}

// effective is the latest time at which an operator's call can have had an effect. One that had no answer, or was
// sent twice, may arrive late.
func (c *checker) effective(call *request) time.Duration {
	if call.result.Result == history.Done && !c.unclear(call.proc, call.span()) {
		return call.returned
	}
	return after(min(call.returned, call.proc.exited), late)
}

// unclear reports whether a command that took s may have been sent twice, and the first one have been held back.
func (c *checker) unclear(p *process, s span) bool {
	return p.paused(s) > 0 || s.to-s.from >= silence && c.faulty(p, s)
}

// forgotten is until when, at the latest, the key was forgotten between the claims of a and b, whichever
// was first; ok is false if it was not. Which one began first does not say it: it may have been late to
// say so.
func (c *checker) forgotten(a, b *execution) (until time.Duration, ok bool) {
	for _, f := range a.call.key.forgets {
		if c.between(f, a, b) || c.between(f, b, a) {
			until, ok = max(until, c.effective(f)), true
		}
	}
	return until, ok
}

// between reports whether a may have claimed the key, or recorded its outcome, before it was forgotten, and b
// claimed it afterwards.
func (c *checker) between(forget *request, a, b *execution) bool {
	since := a.call.invoked
	if a.fate == history.Recorded && a.fated <= b.begin {
		since = a.end
	}
	return forget.invoked <= b.begin && since <= c.effective(forget)
}

// mayBeRecorded reports whether the outcome is stored, or was for a time, for all that is known.
func (c *checker) mayBeRecorded(e *execution) bool {
	refused := e.call.result.Result == history.LeaseLost && !c.storedBefore(e)
	return e.outcome.Recordable() && e.fate != history.Released && e.fate != history.Abandoned && !refused
}

// storedBefore reports whether a commit of e that was refused in the end may have been stored, without a word
// of it, and have gone before it was repeated.
func (c *checker) storedBefore(e *execution) bool {
	if ttl := e.ttl(); ttl != never && after(e.end, ttl-rounding) <= e.over() {
		return true
	}
	return slices.ContainsFunc(e.call.key.forgets, func(f *request) bool {
		return f.invoked <= e.over() && e.end <= c.effective(f)
	})
}

// storedAgain reports whether the outcome of e may have been stored, have gone, and have been stored once more: by
// the owner, who repeats a commit without an answer, or by a commit that was held back.
func (c *checker) storedAgain(e *execution) bool {
	if e.end == never || !c.mayBeRecorded(e) {
		return false
	}
	heldBack := e.fate == history.Recorded && len(e.call.key.forgets) > 0 && c.unclear(e.call.proc, span{e.end, e.fated})
	return heldBack || c.storedBefore(e)
}

// outlasts reports whether e may have been recorded although next had taken over: next's record may have gone
// before, so that nobody was there any more.
func (c *checker) outlasts(e, next *execution) bool {
	if e.fated < next.begin {
		return false
	}
	return c.expires(next) <= e.fated || slices.ContainsFunc(e.call.key.forgets, func(f *request) bool {
		return f.invoked <= e.fated && next.call.invoked <= c.effective(f)
	})
}

// ends is the earliest time at which the outcome of e can have gone.
func (c *checker) ends(e *execution) time.Duration {
	ends := c.expires(e)
	for _, f := range e.call.key.forgets {
		if c.effective(f) >= e.end {
			ends = min(ends, f.invoked)
		}
	}
	return ends
}

// apart reports whether one of two outcomes may have gone before the other was written.
func (c *checker) apart(a, b *execution) bool {
	return c.ends(a) <= b.over() || c.ends(b) <= a.over()
}

// asOf is since when a call may have seen the state of its key: since it was made or, when it waited for
// another call of its process, since that was; and a replay cache may not have heard yet of what another
// process forgot.
func (c *checker) asOf(call *request) time.Duration {
	at := call.invoked
	if !call.key.changes {
		return at
	}
	if call.result.Joined {
		for _, o := range call.key.calls {
			if o.proc == call.proc && o.span().meets(span{call.invoked, call.invoked}) {
				at = min(at, o.invoked)
			}
		}
	}
	for _, f := range call.key.forgets {
		switch {
		case f.invoked >= call.invoked:
		case f.proc == call.proc && f.returned <= call.invoked: // nobody joins those before it any more
			if c.unclear(f.proc, f.span()) {
				at = max(at, f.invoked)
			} else {
				at = max(at, f.returned+1)
			}
		case call.proc.caches && f.proc != call.proc && after(c.effective(f), stale) >= call.invoked:
			at = min(at, f.invoked)
		}
	}
	return at
}

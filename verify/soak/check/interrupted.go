package check

import (
	"slices"

	"github.com/idempotent-go/idempotent/verify/soak/history"
)

// lostLease reports whether e may say that it lost its lease. When its context ended otherwise at the
// same time, there is no event for that.
func (c *checker) lostLease(e *execution) bool {
	k := e.call.key
	operated := slices.ContainsFunc(slices.Concat(k.forgets, k.resolves), func(f *request) bool {
		return f.invoked <= e.call.returned && e.call.invoked <= c.effective(f)
	})
	return e.lost != never || e.fate == history.Unrecorded || e.call.returned >= c.leaseUntil(e) || operated
}

// interrupted reports whether call may have found an execution of the key that ended without an outcome.
// A claim whose fate its caller never learned counts: it may have been there until its lease was
// over.
func (c *checker) interrupted(call *request) bool {
	if call.op == history.Run && !call.ask.Refuse || call.ran != nil {
		return false
	}
	return slices.ContainsFunc(call.key.calls, func(o *request) bool {
		if o.invoked > call.returned {
			return false
		}
		if o.ran != nil && o.ran.begin <= call.returned {
			return c.looksDead(o.ran, call) || c.claimedAgain(o)
		}
		return c.mayHaveClaimed(o, call)
	})
}

// mayHaveClaimed reports whether o, whose fn has not begun, may have left a claim whose lease is over:
// because it was killed or stopped, or had no answer.
func (c *checker) mayHaveClaimed(o, call *request) bool {
	trouble := o.returned == never || c.faulty(o.proc, o.span()) || o.proc.paused(o.span()) > 0
	return o.op == history.Run && trouble && o.invoked+c.plan.Lease <= call.returned
}

// claimedAgain reports whether the claim of o may have been sent twice, and have arrived once more when
// the key was forgotten.
func (c *checker) claimedAgain(o *request) bool {
	return len(o.key.forgets) > 0 && c.unclear(o.proc, span{o.invoked, o.ran.begin})
}

// looksDead reports whether e may look as if it had ended without an outcome, to a call that asks
// while its outcome is not there and its lease is over.
func (c *checker) looksDead(e *execution, call *request) bool {
	k := call.key
	over := c.leaseUntil(e) <= call.returned || c.leaseLost(e)
	switch {
	case e.begin > call.returned:
		return false
	case e.given(call.returned) && e.outcome != history.Ignored:
		return true
	case e.outcome == history.Ignored && e.fated <= call.invoked:
		return c.faulty(e.call.proc, span{e.end, e.end + c.plan.Lease}) // Redis could not be told
	case e.fate == history.Recorded && e.fated <= call.invoked:
		return c.leaseLost(e) || c.unsteady(k, call.span())
	}
	return over
}

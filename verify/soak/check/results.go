package check

import (
	"slices"
	"time"

	"github.com/idempotent-go/idempotent/verify/soak/history"
)

// returned checks one call by itself: that it came back, in time, with an error that has a reason.
func (c *checker) returned(call *request) {
	if call.returned == never {
		if call.proc.killed == never {
			c.violated(ruleWait, call.key, "call %s, made at %v, never returned", call.id, call.invoked)
		}
		return
	}
	if why := c.unreasonable(call); why != "" {
		c.violated(ruleError, call.key, "call %s returned %q at %v: %s %s", call.id, call.result.Result, call.returned, why, call.result.Text)
	}
	c.inTime(call)
	if call.ran == nil && !call.operates() {
		c.forNothing(call)
	}
}

// unreasonable says why a call may not return what it did, "" if it may.
func (c *checker) unreasonable(call *request) string {
	took := call.returned - call.invoked
	ran := call.ran != nil
	switch call.result.Result {
	case history.GotValue, history.GotError, history.GotPanic:
		return "" // judged with the others of the key
	case history.GotIgnored:
		return c.sharedWrongly(call)
	case history.GotUnknown:
		return unless(ran, "it did not run fn")
	case history.LeaseLost:
		return unless(ran && c.lostLease(call.ran), "it did not lose a lease")
	case history.NotRecorded:
		return c.unrecorded(call)
	case history.InProgress:
		return unless(!ran && (call.ask.NoWait || took >= call.ask.Wait), "it had not waited for as long as it was to")
	case history.KeyReused:
		return unless(c.reused(call), "nobody used the key with another fingerprint")
	case history.Interrupted:
		return unless(c.interrupted(call), "nothing was interrupted")
	case history.Unavailable:
		return unless(!ran && c.wrong(call), "nothing was wrong with Redis")
	case history.ContextOver:
		// A timeout of the client that was set from the deadline may fire up to 50 ms before it, and counts as
		// the end of the context.
		return unless(call.ask.Deadline > 0 && took >= call.ask.Deadline-50*time.Millisecond, "its context had not ended")
	case history.Done:
		return unless(call.operates(), "it was to return an outcome")
	case history.AlreadyRecorded:
		return unless(call.op == history.Resolve, "it was not to record anything")
	case history.NotFound:
		return unless(call.op == history.Get, "only Get looks for something")
	}
	return "no such error is documented:"
}

// wrong reports whether Redis, or what is between, may have failed a call. Servers cannot say that they were
// starved, but when a process of the same machine was, they may have been.
func (c *checker) wrong(call *request) bool {
	starved := slices.ContainsFunc(c.starve, call.span().meets)
	return starved || c.faulty(call.proc, call.span()) || call.proc.paused(call.span()) > 0
}

func unless(reasonable bool, why string) string {
	if reasonable {
		return ""
	}
	return why
}

// sharedWrongly: an ignored error goes to the call that ran fn and, under ShareWithWaiters, to
// those that waited for it.
func (c *checker) sharedWrongly(call *request) string {
	from := c.calls[call.result.Of]
	switch {
	case from == call && call.ran != nil:
		return ""
	case from == nil || from.ran == nil || from.key != call.key || from.ran.outcome != history.Ignored:
		return "no execution of this key had it"
	case !from.ask.Share:
		return "it was not to be shared"
	case from.ran.fated < call.invoked && !c.releasedLate(from.ran, call.invoked):
		return "its execution was over before"
	}
	return ""
}

// releasedLate reports whether Redis may not have been told by t that e gave the key up: the library
// goes on trying in the background then, for a lease at most.
func (c *checker) releasedLate(e *execution, t time.Duration) bool {
	return t <= e.fated+c.plan.Lease && c.faulty(e.call.proc, span{e.end, e.fated})
}

func (c *checker) unrecorded(call *request) string {
	if call.op == history.Resolve {
		return unless(c.wrong(call), "nothing was wrong with Redis")
	}
	from := call
	if call.ran == nil {
		from = c.calls[call.result.Of]
	}
	return unless(from != nil && from.key == call.key && from.ran != nil && from.ran.fate == history.Unrecorded, "its outcome was recorded, or there was none")
}

func (c *checker) reused(call *request) bool {
	return slices.ContainsFunc(call.key.calls, func(o *request) bool {
		return o.invoked < call.returned && o.ask.Print != call.ask.Print
	})
}

// inTime checks how long a call waited, without the time in which its process did not run.
func (c *checker) inTime(call *request) {
	command := c.plan.Command[call.key.topology]
	// Before it waits, a call looks, claims and, when Redis is full, looks again.
	until, took, bound := call.returned, call.result.Took, call.ask.Wait+3*command
	switch {
	case call.ran != nil:
		// A slow claim is followed by three renewals at most before fn begins.
		until, took, bound = call.ran.begin, call.ran.waited, call.ask.Wait+6*command
		c.settledInTime(call, command)
	case call.ask.Many > 0: // with the last of its RunMany
		bound = c.lastInTime(call, command)
	case call.ask.Deadline > 0 && call.proc.shares: // its commands go on, and it looks up after each
		bound = min(bound, call.ask.Deadline+3*command)
	case call.ask.Deadline > 0:
		bound = min(bound, call.ask.Deadline)
	case call.ask.NoWait:
		bound = 4 * command // and one more look, for how long the owner has
	}
	took -= call.proc.paused(span{call.invoked, until})
	if took > bound+slack {
		c.violated(ruleWait, call.key, "call %s, made at %v, waited %v; its bound is %v", call.id, call.invoked, took, bound)
	}
}

// forNothing checks that a call did not go on waiting when there was nothing to wait for any more: when it
// was not notified, it had to find out by itself when the lease was over that it had last read of.
func (c *checker) forNothing(call *request) {
	if call.ask.Many > 0 { // it may have waited for others of its RunMany
		return
	}
	since := max(call.invoked, c.calmSince(call.proc, call.returned))
	for _, e := range call.key.runs {
		if e.begin <= call.returned {
			since = max(since, c.freeAt(e))
		}
	}
	if since >= call.returned {
		return
	}
	took := call.returned - since - call.proc.paused(span{since, call.returned})
	if bound := c.plan.Lease + slack; took > bound {
		c.violated(ruleNothing, call.key, "call %s, made at %v, returned at %v; there was nothing to wait for since %v", call.id, call.invoked, call.returned, since)
	}
}

// freeAt is when e can have kept others from the key at the latest.
func (c *checker) freeAt(e *execution) time.Duration {
	switch e.fate {
	case history.Recorded, history.Released, history.Abandoned:
		return e.fated
	case history.Unrecorded:
		return e.fated + c.plan.Lease
	}
	if e.call.proc.exited == never {
		return never
	}
	return e.call.proc.exited + c.plan.Lease
}

// settledInTime checks how long a call took from the end of fn to its return.
func (c *checker) settledInTime(call *request, command time.Duration) {
	if call.ran.end > call.returned { // detached, and its caller left
		return
	}
	took := call.result.Took - call.proc.paused(span{call.ran.end, call.returned})
	if bound := c.lastInTime(call, command); took > bound+slack {
		c.violated(ruleWait, call.key, "call %s took %v to settle what fn came to; its bound is %v", call.id, took, bound)
	}
}

// lastInTime is how long a call may take from the end of fn and, in a RunMany, from the last such end
// in it: others may still wait then.
func (c *checker) lastInTime(call *request, command time.Duration) time.Duration {
	settling := max(3*c.plan.Lease, 5*time.Second) + command
	if call.ask.Many == 0 {
		return settling
	}
	return max(settling, call.ask.Many+6*command)
}

package check

import (
	"time"

	"github.com/idempotent-go/idempotent/verify/soak/history"
)

// executions checks each execution of a key against the one before it, and those that overlap.
func (c *checker) executions(k *key) {
	for i, e := range k.runs {
		for _, later := range k.runs[i+1:] {
			c.overlap(k, e, later)
		}
		if i+1 < len(k.runs) {
			next := k.runs[i+1]
			if _, ok := c.forgotten(e, next); ok {
				continue
			}
			c.early(k, e, next)
			if c.expires(e) <= next.begin {
				if e.fate == history.Recorded {
					c.lives[k.topology]++
				}
				continue
			}
			c.again(k, e, next)
			c.attempts(k, e, next)
		}
	}
}

// overlap: later began, and e still held its lease.
func (c *checker) overlap(k *key, e, later *execution) {
	held := later.begin+jitter < e.alive && !e.call.proc.pausedAt(e.alive)
	if until, ok := c.forgotten(e, later); ok && e.alive <= after(until, c.plan.Lease+jitter) {
		return // it learns of that by its next renewal, or the end of its lease
	}
	if held && !c.leaseLost(e) {
		c.violated(ruleOverlap, k, "%s began at %v, and %s held its lease at %v", later, later.begin, e, e.alive)
	}
}

// early: next began before the lease of e can have been over.
func (c *checker) early(k *key, e, next *execution) {
	if e.given(next.begin) || c.leaseLost(e) {
		return
	}
	if until := c.leaseUntil(e); next.begin < until-rounding {
		c.violated(ruleEarly, k, "%s began at %v, and the lease of %s lasted until %v at least", next, next.begin, e, until)
	}
}

// leaseUntil is the earliest time at which the lease of e can have been over. A renewal heard of
// before it can have been due is another execution's.
func (c *checker) leaseUntil(e *execution) time.Duration {
	third := c.plan.Lease / 3
	renewed := e.call.invoked
	for _, at := range e.renewals {
		if at >= renewed+third {
			renewed += third
		}
	}
	return renewed + c.plan.Lease
}

// again: next began, and nothing had ended the right of e to be the only one.
func (c *checker) again(k *key, e, next *execution) {
	if c.claimLost(e) || e.fate == history.Recorded && c.commitLost(e) {
		return
	}
	var unknown bool // whether what e did is not known
	switch {
	case e.fate == history.Recorded && !c.outlasts(e, next):
		c.violated(ruleAgain, k, "%s began at %v, and %s was recorded at %v", next, next.begin, e, e.fated)
		return
	case e.given(next.begin):
		unknown = e.outcome != history.Ignored
	case e.diedBefore(next.begin), e.lost != never, e.fate == history.Unrecorded, e.lapsed(next.begin):
		unknown = true
	default:
		c.violated(ruleAgain, k, "%s began at %v, and %s, which began at %v, had neither died, lost its lease nor given up", next, next.begin, e, e.begin)
		return
	}
	if unknown && (e.call.ask.Refuse || next.call.ask.Refuse) {
		c.violated(ruleRefused, k, "%s began at %v after %s, which left its effect unknown", next, next.begin, e)
	}
}

// attempts: what e did is unknown, and next was not told that there was an e.
func (c *checker) attempts(k *key, e, next *execution) {
	if c.claimLost(e) {
		return
	}
	least := e.attempt + 1
	if e.outcome == history.Ignored && e.attempt == 1 || e.fate == history.Recorded && c.commitLost(e) {
		least = 1
	}
	if next.attempt < least {
		c.violated(ruleAttempt, k, "%s follows %s, whose effect may be there", next, e)
	}
}

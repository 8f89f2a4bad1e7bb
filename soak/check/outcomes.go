package check

import (
	"github.com/idempotent-go/idempotent/soak/history"
)

// replayed reports whether the result is an outcome of fn that others get too.
func replayed(r history.Result) bool {
	return r == history.GotValue || r == history.GotError || r == history.GotPanic
}

// outcomes: one recorded outcome for a key, and every call got it.
func (c *checker) outcomes(k *key) {
	var recorded *execution
	for _, e := range k.runs {
		if e.fate != history.Recorded || c.commitLost(e) {
			continue
		}
		if recorded != nil {
			c.violated(ruleOutcome, k, "%s and %s are both recorded", recorded, e)
		}
		recorded = e
	}
	var got *request
	for _, call := range k.calls {
		if call.returned == never || !replayed(call.result.Result) {
			continue
		}
		of := c.origin(call)
		if of == nil || c.commitLost(of) || of.call == call && of.fate != history.Recorded {
			continue // the last of these: a panic reaches its caller whether it is recorded or not
		}
		if got != nil && got.result.Of != call.result.Of {
			c.violated(ruleOutcome, k, "call %s got the outcome of %s, and call %s that of %s", got.id, got.result.Of, call.id, call.result.Of)
		}
		got = call
		if recorded != nil && of != recorded {
			c.violated(ruleOutcome, k, "call %s got the outcome of %s, and %s is recorded", call.id, of, recorded)
		}
	}
	if recorded != nil {
		c.afterwards(k, recorded)
	}
}

// afterwards: once an outcome is recorded, it is what calls get.
func (c *checker) afterwards(k *key, recorded *execution) {
	for _, call := range k.calls {
		if call.invoked <= recorded.fated || call.returned == never || replayed(call.result.Result) || c.unsteady(k, call.span()) {
			continue // the last of these: it may have asked a master that is none any more
		}
		switch r := call.result.Result; {
		case r == history.Unavailable, r == history.ContextOver, r == history.KeyReused: // judged by the rule on errors
		case r == history.NotRecorded, r == history.GotIgnored: // likewise: it joined an owner that did not know of the other one
		case r == history.InProgress && c.faulty(call.proc, call.span()): // it had enough of waiting for Redis
		default:
			c.violated(ruleOutcome, k, "call %s, made at %v, got %q, and %s was recorded at %v", call.id, call.invoked, call.result.Result, recorded, recorded.fated)
		}
	}
}

// origin finds the execution that a result comes from, and reports results that cannot be.
func (c *checker) origin(call *request) *execution {
	k, r := call.key, call.result
	from := c.calls[r.Of]
	if from == nil || from.ran == nil || from.key != k || from.ran.begin > call.returned {
		c.violated(ruleOutcome, k, "call %s got an outcome of %q, which is no execution of this key", call.id, r.Of)
		return nil
	}
	e := from.ran
	switch {
	case !r.Intact:
		c.violated(ruleOutcome, k, "call %s got an outcome of %s that is not what it returned", call.id, e)
	case from.ask.Print != "" && call.ask.Print != "" && from.ask.Print != call.ask.Print:
		c.violated(ruleOutcome, k, "call %s, with fingerprint %q, got the outcome of %s, with %q", call.id, call.ask.Print, e, from.ask.Print)
	case from == call:
	case call.ran != nil:
		c.violated(ruleOutcome, k, "call %s ran fn and got the outcome of %s", call.id, e)
	case !e.mayBeRecorded() && e.end != never && !c.unsteady(k, span{e.end, e.over()}):
		c.violated(ruleOutcome, k, "call %s got the outcome of %s, which was not to be recorded", call.id, e)
	}
	return e
}

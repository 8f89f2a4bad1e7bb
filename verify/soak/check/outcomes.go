package check

import (
	"github.com/idempotent-go/idempotent/verify/soak/history"
)

// replayed reports whether the result is an outcome of fn that others get too.
func replayed(r history.Result) bool {
	return r == history.GotValue || r == history.GotError || r == history.GotPanic
}

// outcomes: one outcome in each life of a key, and every call got it.
func (c *checker) outcomes(k *key) {
	var known []*execution
	how := make(map[*execution]string)
	is := func(e *execution, text string) {
		if how[e] == "" {
			known = append(known, e)
			how[e] = text
		}
	}
	for _, e := range k.runs {
		if e.fate == history.Recorded && !c.commitLost(e) {
			is(e, "is recorded")
			c.afterwards(k, e.String(), span{e.fated, c.ends(e)})
		}
	}
	for _, call := range k.calls {
		if call.returned == never || !replayed(call.result.Result) {
			continue
		}
		of := c.origin(call)
		if of == nil || c.commitLost(of) || of.call == call && of.fate != history.Recorded {
			continue // the last of these: a panic reaches its caller whether it is recorded or not
		}
		is(of, "was got by call "+call.id)
	}
	for i, a := range known {
		for _, b := range known[i+1:] {
			if !c.apart(a, b) {
				c.violated(ruleOutcome, k, "the outcome of %s %s, and that of %s %s", a, how[a], b, how[b])
			}
		}
	}
}

// afterwards: once an outcome is recorded, it is what calls get for as long as it is there.
func (c *checker) afterwards(k *key, what string, there span) {
	for _, call := range k.calls {
		if c.asOf(call) <= there.from || call.returned >= there.to || call.returned == never || replayed(call.result.Result) || c.pastSeen(call) {
			continue // the last of these: it may have asked a master that is none any more
		}
		switch r := call.result.Result; {
		case r == history.Unavailable, r == history.ContextOver, r == history.KeyReused: // judged by the rule on errors
		case r == history.NotRecorded, r == history.GotIgnored: // likewise: it joined an owner that did not know of the other one
		case r == history.InProgress && c.wrong(call): // it had enough of waiting for Redis
		case r == history.InProgress && call.result.Joined && k.changes: // it joined one that was forgotten, or resolved
		default:
			c.violated(ruleOutcome, k, "call %s, made at %v, got %q, and %s was recorded at %v", call.id, call.invoked, call.result.Result, what, there.from)
		}
	}
}

// origin finds the execution that a result comes from, and reports results that cannot be.
func (c *checker) origin(call *request) *execution {
	k, r := call.key, call.result
	from := c.calls[r.Of]
	if from != nil && from.op == history.Resolve {
		c.fromOperator(call, from)
		return nil
	}
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
	case !c.mayBeRecorded(e) && e.end != never && !c.unsteady(k, span{e.end, e.over()}):
		c.violated(ruleOutcome, k, "call %s got the outcome of %s, which was not to be recorded", call.id, e)
	}
	return e
}

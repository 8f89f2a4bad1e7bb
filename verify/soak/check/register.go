package check

import (
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/idempotent-go/idempotent/verify/soak/history"
)

// The record of a key is a register that is written once: it has no outcome until it has one, and
// from then on that one, until its TTL is over or it is forgotten. The other rules look at sets (which
// outcomes were there, which were got); this one looks at the order. No call sees an outcome before it can
// have been recorded, and none finds nothing after another one found something, whatever became of the
// commits whose fate nobody knows: of owners that were killed, or had no answer. While a failover is under
// way there can be two masters, each with a register, so what is seen then says nothing about the order.

// A regOp is what a call did to the register, or saw in it: what there can be afterwards, nothing if
// that cannot have been. What is there is an execution, an operator's call, refused, or "" for no outcome.
type regOp func(now string) []any

// refused is the outcome of a key that is refused.
const refused = "(refused)"

func writes(value string) regOp {
	return func(now string) []any { return only(now == "", value) }
}

// puts is what an operator does, who may do it where the key was refused as well.
func puts(value string) regOp {
	return func(now string) []any { return only(now == "" || now == refused, value) }
}

// sees may be the one that has the key refused.
func sees(value string) regOp {
	return func(now string) []any { return only(now == value || now == "" && value == refused, value) }
}

func seesSome(now string) []any { return only(now != "" && now != refused, now) }

func clears(string) []any { return []any{""} }

// ends is the end of the TTL of value, if it is there.
func ends(value string) regOp {
	return func(now string) []any {
		if now == value {
			return []any{""}
		}
		return []any{now}
	}
}

// loses may lose what is there, unless it is one of kept.
func loses(kept map[string]bool) regOp {
	return func(now string) []any {
		if kept[now] {
			return []any{now}
		}
		return []any{now, ""}
	}
}

// maybe is an operation that may have happened, at any time after it began.
func maybe(op regOp) regOp {
	return func(now string) []any { return append(op(now), now) }
}

func only(possible bool, next string) []any {
	if !possible {
		return nil
	}
	return []any{next}
}

var registerModel = (&porcupine.NondeterministicModel{
	Init: func() []any { return []any{""} },
	Step: func(state, op, _ any) []any { return op.(regOp)(state.(string)) },
}).ToModel()

// searchLimit bounds the search for an order. When it is reached, the key counts as not linearizable,
// so that nobody takes it for checked.
const searchLimit = 20 * time.Second

func (c *checker) register(k *key) {
	var ops []porcupine.Operation
	add := func(op regOp, s span) {
		ops = append(ops, porcupine.Operation{ClientId: len(ops), Input: op, Call: int64(s.from), Return: int64(s.to)})
	}
	acked := make(map[string]bool)
	c.recorded(k, add, acked)
	c.cleared(k, add)
	c.settled(k, add, acked)
	for _, call := range k.calls {
		if op, ok := c.seen(call); ok && !c.pastSeen(call) {
			add(op, span{c.asOf(call), call.returned})
		}
	}
	for _, l := range c.losses[k.topology] {
		if l.has(c.plan.Prefix + k.name) {
			add(loses(acked), l.span)
		}
	}
	if res := porcupine.CheckOperationsTimeout(registerModel, ops, searchLimit); res != porcupine.Ok {
		c.violated(ruleRegister, k, "no order of what its %d calls did and saw explains it (%s)", len(k.calls), res)
	}
}

// recorded adds what executions recorded, and how that went away.
func (c *checker) recorded(k *key, add func(regOp, span), acked map[string]bool) {
	for _, e := range k.runs {
		if c.storedAgain(e) {
			// After the first time, which the search is to try first: the other order fits no better, and
			// it would look for one through all sets of calls that saw the outcome.
			add(maybe(writes(e.call.id)), span{e.end + 1, after(e.over(), late)})
			if e.ttl() != never {
				add(maybe(ends(e.call.id)), span{c.expires(e), never})
			}
		}
		written := span{e.end, e.fated}
		switch {
		case e.fate == history.Recorded && !c.mayLose(k, written):
			acked[e.call.id] = true
			add(writes(e.call.id), written)
			if ttl := e.ttl(); ttl != never {
				add(ends(e.call.id), span{c.expires(e), e.fated + late + ttl})
			}
		case c.mayBeRecorded(e) && e.end != never:
			add(maybe(writes(e.call.id)), span{e.end, never})
			if e.ttl() != never {
				add(maybe(ends(e.call.id)), span{c.expires(e), never})
			}
		}
	}
}

// cleared adds what was forgotten. A Forget is acknowledged by no replica, so a failover may undo it.
func (c *checker) cleared(k *key, add func(regOp, span)) {
	for _, f := range k.forgets {
		until := c.effective(f)
		if f.result.Result == history.Done && !c.unsteady(k, f.span()) {
			add(clears, f.span())
			if until == f.returned {
				continue
			}
		}
		add(maybe(clears), span{f.invoked, until})
	}
}

// settled adds what operators resolved, and what they found resolved.
func (c *checker) settled(k *key, add func(regOp, span), acked map[string]bool) {
	for _, r := range k.resolves {
		switch {
		case r.result.Result == history.Done && !c.mayLose(k, r.span()):
			acked[r.id] = true
			add(puts(r.id), r.span())
		case r.result.Result != history.AlreadyRecorded:
			add(maybe(puts(r.id)), span{r.invoked, never})
		case !c.unsteady(k, r.span()):
			add(seesSome, r.span())
		}
	}
}

// seen is what a call saw in the register, if it says. Calls that ran fn did not see, they wrote.
func (c *checker) seen(call *request) (op regOp, ok bool) {
	if call.returned == never || call.ran != nil {
		return nil, false
	}
	switch r := call.result; {
	case replayed(r.Result):
		return sees(r.Of), true
	case r.Result == history.NotFound:
		return sees(""), true
	case r.Result == history.Interrupted && call.op == history.Run:
		return sees(refused), true
	}
	return nil, false
}

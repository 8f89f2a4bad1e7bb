package check

import (
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/idempotent-go/idempotent/soak/history"
)

// The record of a key is a register that is written once: it has no outcome until it has one, and
// from then on that one. The other rules look at sets (which outcomes were there, which were
// got); this one looks at the order. No call sees an outcome before it can have been recorded, and
// none finds nothing after another one found something, whatever became of the commits whose fate
// nobody knows: of owners that were killed, or had no answer. While a failover is under way there can
// be two masters, each with a register, so what is seen then says nothing about the order.

// A regOp is what a call did to the register, or saw in it.
type regOp struct {
	write bool
	maybe bool   // it may have happened, at any time after it began
	lose  bool   // what is there may be lost, unless it is value
	value string // an execution, refused, or "" for no outcome
}

// refused is the outcome of a key that is refused.
const refused = "(refused)"

func stepRegister(state, input, _ any) []any {
	now, op := state.(string), input.(regOp)
	switch {
	case op.lose && now != op.value:
		return []any{now, ""}
	case op.lose:
		return []any{now}
	case op.write && op.maybe && now == "":
		return []any{now, op.value}
	case op.write && op.maybe:
		return []any{now}
	case op.write && now == "", op.value == refused && now == "":
		return []any{op.value}
	case now == op.value:
		return []any{now}
	}
	return nil
}

var registerModel = (&porcupine.NondeterministicModel{
	Init: func() []any { return []any{""} },
	Step: stepRegister,
}).ToModel()

// searchLimit bounds the search for an order. It was never reached in a campaign; if it is, the key
// counts as not linearizable, so that nobody takes it for checked.
const searchLimit = 20 * time.Second

func (c *checker) register(k *key) {
	var ops []porcupine.Operation
	add := func(op regOp, s span) {
		ops = append(ops, porcupine.Operation{ClientId: len(ops), Input: op, Call: int64(s.from), Return: int64(s.to)})
	}
	acked := ""
	for _, e := range k.runs {
		written := span{e.end, e.fated}
		switch {
		case e.fate == history.Recorded && !c.mayLose(k, written):
			acked = e.call.id
			add(regOp{write: true, value: e.call.id}, written)
		case e.mayBeRecorded() && e.end != never:
			add(regOp{write: true, maybe: true, value: e.call.id}, span{e.end, never})
		}
	}
	for _, call := range k.calls {
		if op, ok := c.seen(call); ok && !c.unsteady(k, call.span()) {
			add(op, call.span())
		}
	}
	for _, l := range c.losses[k.topology] {
		if l.has(c.plan.Prefix + k.name) {
			add(regOp{lose: true, value: acked}, l.span)
		}
	}
	if res := porcupine.CheckOperationsTimeout(registerModel, ops, searchLimit); res != porcupine.Ok {
		c.violated(ruleRegister, k, "no order of what its %d calls did and saw explains it (%s)", len(k.calls), res)
	}
}

// seen is what a call saw in the register, if it says. Calls that ran fn did not see, they wrote.
func (c *checker) seen(call *request) (op regOp, ok bool) {
	if call.returned == never || call.ran != nil {
		return regOp{}, false
	}
	switch r := call.result; {
	case replayed(r.Result):
		return regOp{value: r.Of}, true
	case r.Result == history.NotFound:
		return regOp{}, true
	case r.Result == history.Interrupted && call.op == history.Run:
		return regOp{value: refused}, true
	}
	return regOp{}, false
}

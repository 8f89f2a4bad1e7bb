package check

import "github.com/idempotent-go/idempotent/verify/soak/history"

// resolved: once an operator has settled a key, fn is not run any more, and calls get the operator's
// value. That they get no other one, and that ErrAlreadyRecorded is right, is a matter of order, see
// register.
func (c *checker) resolved(k *key) {
	for _, r := range k.resolves {
		if r.result.Result != history.Done || c.mayLose(k, r.span()) {
			continue
		}
		for _, e := range k.runs {
			if e.call.invoked > r.returned {
				c.violated(ruleAgain, k, "%s began at %v, and call %s had resolved the key at %v", e, e.begin, r.id, r.returned)
			}
		}
		c.afterwards(k, "the outcome of call "+r.id, span{r.returned, never})
	}
}

// fromOperator: the outcome that call got is that of a Resolve for this key.
func (c *checker) fromOperator(call, from *request) {
	if from.key != call.key || from.invoked > call.returned || !call.result.Intact {
		c.violated(ruleOutcome, call.key, "call %s got an outcome that call %s did not resolve the key with", call.id, from.id)
	}
}

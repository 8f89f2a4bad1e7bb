package load

import (
	"math/rand/v2"
	"time"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/verify/soak/history"
)

// many makes one call for each of the keys, all in one RunMany. To the provider, each is a call of its
// own. They have one context, and so one deadline.
func (w *worker) many(numbers []int, r *rand.Rand) {
	requests := make([]*request, len(numbers))
	longest := time.Duration(0)
	for i, number := range numbers {
		requests[i] = w.prepare(number, r)
		longest = max(longest, requests[i].ask.Wait)
	}
	calls := make([]idempotent.BatchCall[charge], len(requests))
	for i, c := range requests {
		c.ask.Deadline, c.ask.Many = requests[0].ask.Deadline, longest
		calls[i] = idempotent.BatchCall[charge]{Key: c.key, Fn: c.function.run, Options: options(&c.ask, &c.report)}
		w.invoke(c.id, c.key, history.Run, &c.ask)
	}
	by := &caller{}
	ctx, cancel := during(&requests[0].ask, by)
	defer cancel()
	called := time.Now()
	for _, c := range requests {
		c.called = called
	}
	outcomes := w.exec.RunMany(ctx, calls)
	took := time.Since(called)
	for _, c := range requests {
		took = min(took, c.since())
	}
	for i, c := range requests {
		c.finish(by, outcomes[i].Value, outcomes[i].Err, over(ctx), took)
	}
}

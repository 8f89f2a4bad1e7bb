package main

import (
	"context"
	"fmt"

	"github.com/idempotent-go/idempotent/demo/internal/stage"
	"github.com/idempotent-go/idempotent/webhook"
)

func killed() play {
	return play{
		title: "killed after the 2xx",
		story: fmt.Sprintf(`Three events are accepted, so the provider will not send them again. The endpoint gets SIGKILL
when the ledger was asked for the first and has not credited it; has credited the second and
not said so; and the third waits in the queue. A new process must bring all three to one
credit. It has to wait for the dead one's lease, %v here.`, demoLease),
		limit: sceneLimit,
		act:   killAndRestart,
	}
}

// The events of the scene, by what has happened to them when the process is killed.
var fates = []struct{ id, order, what string }{
	{"evt_asked", "order-asked", "asked for, not credited"},
	{"evt_made", "order-made", "credited, not answered"},
	{"evt_waiting", "order-waiting", "waiting in the queue"},
}

type restarted struct {
	accepted int
	atDeath  books
	books    books
	answers  []webhook.Record
}

func killAndRestart(ctx context.Context, st *set) (evidence, error) {
	e := &restarted{}
	if err := st.start(ctx, 2); err != nil { // one worker for each event that hangs
		return nil, err
	}
	if err := st.untilDeath(ctx, e); err != nil {
		return nil, err
	}
	st.process.Kill()
	e.atDeath = st.ledger.read()
	st.out.Say("SIGKILL for the endpoint, pid %d; the ledger has %d credit", st.process.PID(), e.atDeath.total())
	if err := st.start(ctx, 2); err != nil {
		return nil, err
	}
	if _, err := st.process.drained(ctx); err != nil {
		return nil, err
	}
	e.books = st.ledger.read()
	for _, f := range fates {
		a, err := st.process.ask(ctx, stripe, f.id)
		if err != nil {
			return nil, err
		}
		st.out.Say("%s, %s: processed: %s, attempts: %d", f.id, f.what, a.State, a.Attempts)
		e.answers = append(e.answers, a)
	}
	return e, nil
}

// untilDeath brings each event to where it is to be when the process dies.
func (st *set) untilDeath(ctx context.Context, e *restarted) error {
	from := st.sender(stripe)
	for i, f := range fates {
		hangs, hanging := i < 2, make(chan struct{})
		st.ledger.behave(f.order, &manner{hang: hangs, hangMade: i == 1, hanging: hanging})
		if err := from.deliver(ctx, paid(f.id, f.order)); err != nil {
			return err
		}
		if hangs {
			select {
			case <-hanging:
			case <-ctx.Done():
				return fmt.Errorf("nobody asked the ledger about %s: %w", f.order, context.Cause(ctx))
			}
		}
		st.out.Say("%s accepted with 2xx: %s", f.id, f.what)
	}
	e.accepted = from.tally.accepted
	return nil
}

func (e *restarted) checks() []stage.Check {
	list := []stage.Check{
		stage.Exactly("events accepted before the kill", len(fates), e.accepted),
		stage.Exactly("credits in the ledger then", 1, e.atDeath.total()),
	}
	attempts := []int{2, 2, 1}
	for i, f := range fates {
		var a webhook.Record
		if i < len(e.answers) {
			a = e.answers[i]
		}
		list = append(list,
			stage.Exactly("credits of the one "+f.what, 1, e.books.credits[f.order]),
			stage.Exactly("   it was processed, in attempt",
				fmt.Sprintf("done, %d", attempts[i]), fmt.Sprintf("%s, %d", a.State, a.Attempts)))
	}
	return append(list,
		stage.Exactly("requests for the credit that was made", 1, len(e.books.asked[fates[1].order])),
		stage.Exactly("events for which attempt 2 asked what had happened", 2, len(e.books.lookups)))
}

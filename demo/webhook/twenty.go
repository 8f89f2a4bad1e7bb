package main

import (
	"context"
	"fmt"
	"math/rand/v2"

	"github.com/idempotent-go/idempotent/demo/internal/stage"
	"github.com/idempotent-go/idempotent/webhook"
)

const (
	deliveries = 20 // of each event
	several    = 5  // events
)

func twentyTimes() play {
	return play{
		title: "the same event twenty times",
		story: fmt.Sprintf(`%d events, each delivered %d times in shuffled order: half of that at once, the other half when
all was done. Each must have one effect, and can be asked about.`, several, deliveries),
		limit: sceneLimit,
		act:   repeat,
	}
}

// A repetition is what came of deliveries of the same events.
type repetition struct {
	expected  int // deliveries
	effects   int // expected
	tally     tally
	repeated  int // deliveries that the audit knows as duplicates
	books     books
	answers   []webhook.Record // one for each id
	perEvent  int              // deliveries of each event
	different int              // effects that the answers name
}

func repeat(ctx context.Context, st *set) (evidence, error) {
	var ids []string
	var half [][]byte
	for i := range several {
		id := fmt.Sprintf("evt_%d", i+1)
		ids = append(ids, id)
		for range deliveries / 2 {
			half = append(half, paid(id, fmt.Sprintf("order-%d", i+1)))
		}
	}
	e := &repetition{expected: several * deliveries, effects: several, perEvent: deliveries}
	return e, st.repeat(ctx, e, stripe, ids, half)
}

// repeat delivers everything twice, shuffled, and collects the evidence.
func (st *set) repeat(ctx context.Context, e *repetition, provider string, ids []string, half [][]byte) error {
	if err := st.start(ctx, 8); err != nil {
		return err
	}
	from := st.sender(provider)
	for _, when := range []string{"at once", "later"} {
		rand.Shuffle(len(half), func(i, k int) { half[i], half[k] = half[k], half[i] })
		if err := from.deliverAll(ctx, half); err != nil {
			return err
		}
		if _, err := st.process.drained(ctx); err != nil {
			return err
		}
		e.books = st.ledger.read()
		st.out.Say("%d deliveries %s: the ledger has %d credits", len(half), when, e.books.total())
	}
	e.tally = from.tally
	var err error
	if e.repeated, err = st.process.duplicates(ctx); err != nil {
		return err
	}
	for _, id := range ids {
		a, err := st.process.ask(ctx, provider, id)
		if err != nil {
			return err
		}
		e.answers = append(e.answers, a)
	}
	e.different = effectsNamed(e.answers)
	a := e.answers[0]
	st.out.Say("%s: received? %d times; processed? %s; what changed?", ids[0], a.Deliveries, a.State)
	st.out.Say("%s", a.Changed)
	return nil
}

// effectsNamed is how many different effects the answers name.
func effectsNamed(answers []webhook.Record) int {
	named := make(map[string]bool)
	for _, a := range answers {
		if len(a.Changed) > 0 {
			named[string(a.Changed)] = true
		}
	}
	return len(named)
}

func (e *repetition) checks() []stage.Check {
	processed, received := 0, 0
	for _, a := range e.answers {
		if a.State == webhook.Done && len(a.Changed) > 0 {
			processed++
		}
		if a.Deliveries >= e.perEvent && a.Deliveries <= e.perEvent+e.tally.resent {
			received++
		}
	}
	return []stage.Check{
		stage.Exactly("deliveries answered with 2xx", e.expected, e.tally.accepted),
		stage.Between("of these, recognised as duplicates", e.expected-e.effects, e.expected-e.effects+e.tally.resent, e.repeated),
		stage.Exactly("credits in the ledger", e.effects, e.books.total()),
		stage.Exactly("orders credited twice", 0, e.books.twice()),
		stage.Exactly("ids that tell: processed, and what changed", len(e.answers), processed),
		stage.Exactly("ids that tell how often it was delivered", len(e.answers), received),
		stage.Exactly("different changes among them", e.effects, e.different),
	}
}

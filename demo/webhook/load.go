package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/idempotent-go/idempotent/demo/internal/stage"
	"github.com/idempotent-go/idempotent/webhook"
)

// A load is many events from one provider.
type load struct {
	sent  int
	limit time.Duration // of the 99th percentile of the answers; 0 for none
}

const (
	duplicateShare = 30 // percent of what is sent
	unknownShare   = 1  // percent of the events: the ledger does not know the order
	flakyShare     = 2  // percent of the events: the ledger answers 503 once
	sampled        = 50 // events that are asked about
)

func (d *demo) loaded() play {
	return play{
		title: fmt.Sprintf("%d events, %d %% of them duplicates", d.load.sent, duplicateShare),
		story: fmt.Sprintf(`Shuffled, from %d connections at once. The ledger answers 503 once for %d %% of the events, and
does not know the orders of %d %%: these must become dead letters.`, senders, flakyShare, unknownShare),
		limit: loadLimit,
		act:   d.load.run,
	}
}

type account struct {
	load
	distinct int // events
	doomed   int // of these, those that must become dead letters
	tally    tally
	repeated int // deliveries that the audit knows as duplicates
	books    books
	backlog  webhook.Backlog
	asked    int // events that were asked about
	right    int // of these, those with the right answer
	sending  time.Duration
	working  time.Duration
}

func (l load) run(ctx context.Context, st *set) (evidence, error) {
	e := &account{load: l, distinct: l.sent * (100 - duplicateShare) / 100}
	e.doomed = e.distinct * unknownShare / 100
	for i := range e.distinct {
		switch {
		case i < e.doomed:
			st.ledger.behave(orderOf(i), &manner{unknown: true})
		case i < e.doomed+e.distinct*flakyShare/100:
			st.ledger.behave(orderOf(i), &manner{fails: 1})
		}
	}
	if err := st.start(ctx, 8); err != nil {
		return nil, err
	}
	from := st.sender(stripe)
	began := time.Now()
	if err := from.deliverAll(ctx, l.bodies(e.distinct)); err != nil {
		return nil, err
	}
	e.sending = time.Since(began)
	var err error
	if e.backlog, err = st.process.drained(ctx); err != nil {
		return nil, err
	}
	e.working, e.tally, e.books = time.Since(began), from.tally, st.ledger.read()
	if e.repeated, err = st.process.duplicates(ctx); err != nil {
		return nil, err
	}
	if err := e.ask(ctx, st.process); err != nil {
		return nil, err
	}
	e.print(st.out)
	return e, nil
}

func orderOf(i int) string { return fmt.Sprintf("order-%d", i) }
func idOf(i int) string    { return fmt.Sprintf("evt_%d", i) }

// bodies are all events and the duplicates, shuffled.
func (l load) bodies(distinct int) [][]byte {
	bodies := make([][]byte, l.sent)
	for i := range bodies {
		event := i
		if i >= distinct {
			event = rand.IntN(distinct)
		}
		bodies[i] = paid(idOf(event), orderOf(event))
	}
	rand.Shuffle(len(bodies), func(i, k int) { bodies[i], bodies[k] = bodies[k], bodies[i] })
	return bodies
}

// ask asks about some of the events: some dead ones, and some others.
func (e *account) ask(ctx context.Context, p *process) error {
	e.asked = min(sampled, e.distinct)
	for i := range e.asked {
		event, want := i, webhook.Dead
		if i >= e.doomed || i >= e.asked/2 {
			event, want = e.doomed+rand.IntN(e.distinct-e.doomed), webhook.Done
		}
		a, err := p.ask(ctx, stripe, idOf(event))
		if err != nil {
			return err
		}
		if a.State == want && (len(a.Changed) > 0) == (want == webhook.Done) {
			e.right++
		}
	}
	return nil
}

func (e *account) print(out *stage.Narrator) {
	t := e.tally
	out.Print(`   sent            %6d   %d events and %d duplicates, in %.1f s
   accepted (2xx)  %6d   %d of them recognised as duplicates
   sent again      %6d   because the endpoint had no room or no time
   effects         %6d   in the ledger, %.1f s after the first event was sent
   dead letters    %6d
   answered in     p50 %s, p99 %s, max %s
`, e.sent, e.distinct, e.sent-e.distinct, e.sending.Seconds(), t.accepted, e.repeated, t.resent,
		e.books.total(), e.working.Seconds(), e.backlog.Dead,
		ms(percentile(t.answers, 50)), ms(percentile(t.answers, 99)), ms(percentile(t.answers, 100)))
}

// percentile returns the smallest value that p percent of all do not exceed; -1 of nothing.
func percentile(all []time.Duration, p int) time.Duration {
	if len(all) == 0 {
		return -1
	}
	sorted := slices.Sorted(slices.Values(all))
	return sorted[max((len(sorted)*p+99)/100-1, 0)]
}

func ms(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000) }

func (e *account) checks() []stage.Check {
	duplicates := e.sent - e.distinct
	list := []stage.Check{
		stage.Exactly("events accepted", e.sent, e.tally.accepted),
		stage.Between("of these, recognised as duplicates", duplicates, duplicates+e.tally.resent, e.repeated),
		stage.Exactly("credits in the ledger", e.distinct-e.doomed, e.books.total()),
		stage.Exactly("orders credited", e.distinct-e.doomed, len(e.books.credits)),
		stage.Exactly("orders credited twice", 0, e.books.twice()),
		stage.Exactly("dead letters", e.doomed, int(e.backlog.Dead)),
		stage.Exactly("events left in the queue or to be retried", 0, int(e.backlog.Unsettled())),
		stage.Exactly(fmt.Sprintf("right answers about %d of the events", e.asked), e.asked, e.right),
	}
	p99 := percentile(e.tally.answers, 99)
	c := stage.Check{What: "answered within, but for the slowest 1 %", Want: "(not judged)", Seen: ms(p99), OK: p99 >= 0}
	if e.limit > 0 {
		c.Want, c.OK = ms(e.limit), p99 >= 0 && p99 <= e.limit
	}
	return append(list, c)
}

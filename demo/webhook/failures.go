package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/idempotent-go/idempotent/demo/internal/stage"
	"github.com/idempotent-go/idempotent/webhook"
)

func failing() play {
	return play{
		title: "a handler that fails",
		story: fmt.Sprintf(`The ledger answers 503 twice for one order, always for another, and does not know the third. The
first must be credited, with growing pauses; the others must become dead letters, after %d
attempts and after 1. A dead letter delivered again stays dead. Once the causes are mended,
each is redriven by %d people at once, and must be credited once.`, demoAttempts, people),
		limit: sceneLimit,
		act:   fail,
	}
}

// people is how many redrive the same dead letter at once.
const people = 5

// The orders of the scene, and the events about them.
const (
	flaky, down, unknown          = "order-flaky", "order-down", "order-unknown"
	evtFlaky, evtDown, evtUnknown = "evt_flaky", "evt_down", "evt_unknown"
)

type failed struct {
	before   books // the redrives
	letters  map[string]webhook.Record
	resent   books // after the dead were delivered once more
	redriven []int // how often, by event
	after    books
	left     int             // dead letters at the end
	states   []webhook.State // of all events, then
}

func fail(ctx context.Context, st *set) (evidence, error) {
	st.ledger.behave(flaky, &manner{fails: 2})
	st.ledger.behave(down, &manner{fails: 1 << 30})
	st.ledger.behave(unknown, &manner{unknown: true})
	if err := st.start(ctx, 4); err != nil {
		return nil, err
	}
	e := &failed{letters: make(map[string]webhook.Record)}
	bodies := [][]byte{paid(evtFlaky, flaky), paid(evtDown, down), paid(evtUnknown, unknown)}
	if err := st.send(ctx, bodies); err != nil {
		return nil, err
	}
	letters, err := st.process.dead(ctx)
	if err != nil {
		return nil, err
	}
	for _, l := range letters {
		e.letters[l.ID] = l
		st.out.Say("dead: %s: %s after %d attempts: %s", l.ID, l.Cause, l.Attempts, l.Reason)
	}
	e.before = st.ledger.read()
	if err := st.send(ctx, bodies[1:]); err != nil {
		return nil, err
	}
	e.resent = st.ledger.read()
	return e, st.mend(ctx, e)
}

// send delivers events and returns when all that can be done is done.
func (st *set) send(ctx context.Context, bodies [][]byte) error {
	if err := st.sender(stripe).deliverAll(ctx, bodies); err != nil {
		return err
	}
	_, err := st.process.drained(ctx)
	return err
}

// mend removes the causes and redrives the dead letters.
func (st *set) mend(ctx context.Context, e *failed) error {
	st.ledger.behave(down, nil)
	st.ledger.behave(unknown, nil)
	for _, id := range []string{evtDown, evtUnknown} {
		n, err := st.redriveTogether(ctx, e.letters[id].Key)
		if err != nil {
			return err
		}
		st.out.Say("%s: mended; %d people redrive it, which queues it %d times", id, people, n)
		e.redriven = append(e.redriven, n)
	}
	if _, err := st.process.drained(ctx); err != nil {
		return err
	}
	letters, err := st.process.dead(ctx)
	if err != nil {
		return err
	}
	e.left, e.after = len(letters), st.ledger.read()
	for _, id := range []string{evtFlaky, evtDown, evtUnknown} {
		a, err := st.process.ask(ctx, stripe, id)
		if err != nil {
			return err
		}
		e.states = append(e.states, a.State)
	}
	return nil
}

// redriveTogether has several people redrive the same dead letter, under one name. It returns how often it was queued.
func (st *set) redriveTogether(ctx context.Context, key string) (queued int, err error) {
	counts, errs := make([]int, people), make([]error, people)
	var all sync.WaitGroup
	for i := range people {
		all.Go(func() { counts[i], errs[i] = st.process.redrive(ctx, key, "mended") })
	}
	all.Wait()
	for _, n := range counts {
		queued += n
	}
	return queued, errors.Join(errs...)
}

func (e *failed) checks() []stage.Check {
	onceEach := 0
	for _, order := range []string{flaky, down, unknown} {
		if e.after.credits[order] == 1 {
			onceEach++
		}
	}
	return []stage.Check{
		stage.Exactly("attempts for the order that fails twice", 3, len(e.before.asked[flaky])),
		stage.Exactly("attempts for the order that always fails", demoAttempts, len(e.before.asked[down])),
		stage.Exactly("attempts for the order that is unknown", 1, len(e.before.asked[unknown])),
		backedOff(e.before.asked[down]),
		stage.Exactly("credits by then: the one that failed twice", 1, e.before.total()),
		stage.Exactly("dead letters", 2, len(e.letters)),
		explained("one says how often it was tried", e.letters[evtDown], webhook.CauseAttempts, demoAttempts),
		explained("the other, that the order is unknown", e.letters[evtUnknown], webhook.CausePermanent, 1),
		stage.Exactly("attempts for the dead, delivered once more", 0,
			len(e.resent.asked[down])+len(e.resent.asked[unknown])-len(e.before.asked[down])-len(e.before.asked[unknown])),
		stage.Exactly("times that each was redriven", "[1 1]", fmt.Sprint(e.redriven)),
		stage.Exactly("orders credited once in the end", 3, onceEach),
		stage.Exactly("dead letters in the end", 0, e.left),
		stage.Exactly("the events, asked whether they were processed", "[done done done]", fmt.Sprint(e.states)),
	}
}

// backedOff wants each pause to be at least the half of its backoff that is not left to chance. How
// long it is at most depends on the machine.
func backedOff(asked []time.Time) stage.Check {
	var want, seen []string
	ok := len(asked) > 1
	for i := 1; i < len(asked); i++ {
		least := demoBackoff << (i - 1) / 2
		pause := asked[i].Sub(asked[i-1])
		ok = ok && pause >= least
		want = append(want, fmt.Sprint(least.Milliseconds()))
		seen = append(seen, fmt.Sprint(pause.Milliseconds()))
	}
	return stage.Check{
		What: "pauses between them, in ms, at least",
		Want: strings.Join(want, " "), Seen: strings.Join(seen, " "), OK: ok,
	}
}

// explained wants a dead letter to have a cause, a reason, the number of attempts and the times of failures.
func explained(what string, r webhook.Record, cause webhook.Cause, attempts int) stage.Check {
	c := stage.Exactly(what, attempts, r.Attempts)
	first, last := failures(r)
	c.OK = c.OK && r.Cause == cause && r.Reason != "" && !first.IsZero() && !last.Before(first)
	return c
}

// failures returns when an event failed first and last.
func failures(r webhook.Record) (first, last time.Time) {
	for _, s := range r.Trail {
		if s.State == webhook.Retrying || s.State == webhook.Dead {
			if last = s.At; first.IsZero() {
				first = s.At
			}
		}
	}
	return first, last
}

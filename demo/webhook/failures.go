package main

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/idempotent-go/idempotent/demo/internal/stage"
	"github.com/idempotent-go/idempotent/demo/webhook/endpoint"
)

func failures() play {
	return play{
		title: "a handler that fails",
		story: fmt.Sprintf(`The ledger answers 503 twice for one order, always for another, and does not know the third. The
first must be credited, with growing pauses; the others must become dead letters, after %d
attempts and after 1. A dead letter delivered again stays dead. Once the causes are mended,
each is replayed by %d people at once, and must be credited once.`, demoAttempts, people),
		limit: sceneLimit,
		act:   fail,
	}
}

// people is how many ask for the same replay at once.
const people = 5

// The orders of the scene, and the events about them.
const (
	flaky, down, unknown          = "order-flaky", "order-down", "order-unknown"
	evtFlaky, evtDown, evtUnknown = "evt_flaky", "evt_down", "evt_unknown"
)

type failed struct {
	before   books // the replays
	letters  map[string]endpoint.DeadLetter
	resent   books // after the dead were delivered once more
	accepted []int // replays, by event
	after    books
	left     int      // dead letters at the end
	states   []string // of all events, then
}

func fail(ctx context.Context, st *set) (evidence, error) {
	st.ledger.behave(flaky, &manner{fails: 2})
	st.ledger.behave(down, &manner{fails: 1 << 30})
	st.ledger.behave(unknown, &manner{unknown: true})
	if err := st.start(ctx, 4); err != nil {
		return nil, err
	}
	e := &failed{letters: make(map[string]endpoint.DeadLetter)}
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
		st.out.Say("dead: %s after %d attempts in %v: %s", l.ID, l.Attempts, l.LastFailed.Sub(l.FirstFailed), l.Reason)
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

// mend removes the causes and replays the dead letters.
func (st *set) mend(ctx context.Context, e *failed) error {
	st.ledger.behave(down, nil)
	st.ledger.behave(unknown, nil)
	for _, id := range []string{evtDown, evtUnknown} {
		n, err := st.replayTogether(ctx, e.letters[id].Key)
		if err != nil {
			return err
		}
		st.out.Say("%s: mended; %d people replay it, %d of them are told that they did", id, people, n)
		e.accepted = append(e.accepted, n)
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
		e.states = append(e.states, a.Processed.State)
	}
	return nil
}

// replayTogether has several people replay the same dead letter. It returns how many were told that
// they did.
func (st *set) replayTogether(ctx context.Context, key string) (accepted int, err error) {
	statuses, errs := make([]int, people), make([]error, people)
	var all sync.WaitGroup
	for i := range people {
		all.Go(func() { statuses[i], errs[i] = st.process.replay(ctx, key) })
	}
	all.Wait()
	for i := range people {
		if errs[i] != nil {
			return 0, errs[i]
		}
		if statuses[i] == http.StatusAccepted {
			accepted++
		}
	}
	return accepted, nil
}

func (e *failed) checks() []stage.Check {
	onceEach := 0
	for _, order := range []string{flaky, down, unknown} {
		if e.after.credits[order] == 1 {
			onceEach++
		}
	}
	gaveUp := fmt.Sprintf("given up after %d attempts", demoAttempts)
	return []stage.Check{
		stage.Exactly("attempts for the order that fails twice", 3, len(e.before.asked[flaky])),
		stage.Exactly("attempts for the order that always fails", demoAttempts, len(e.before.asked[down])),
		stage.Exactly("attempts for the order that is unknown", 1, len(e.before.asked[unknown])),
		backedOff(e.before.asked[down]),
		stage.Exactly("credits by then: the one that failed twice", 1, e.before.total()),
		stage.Exactly("dead letters", 2, len(e.letters)),
		explained("one says how often it was tried", e.letters[evtDown], gaveUp, demoAttempts),
		explained("the other, that the order is unknown", e.letters[evtUnknown], "does not know order", 1),
		stage.Exactly("attempts for the dead, delivered once more", 0,
			len(e.resent.asked[down])+len(e.resent.asked[unknown])-len(e.before.asked[down])-len(e.before.asked[unknown])),
		stage.Exactly("people told that they replayed, for each", "[1 1]", fmt.Sprint(e.accepted)),
		stage.Exactly("orders credited once in the end", 3, onceEach),
		stage.Exactly("dead letters in the end", 0, e.left),
		stage.Exactly("the events, asked whether they were processed", "yes yes yes", strings.Join(e.states, " ")),
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

// explained wants a dead letter to say why, how often and when.
func explained(what string, l endpoint.DeadLetter, reason string, attempts int) stage.Check {
	c := stage.Exactly(what, attempts, l.Attempts)
	c.OK = c.OK && strings.Contains(l.Reason, reason) &&
		!l.FirstFailed.IsZero() && !l.LastFailed.Before(l.FirstFailed)
	return c
}

package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/demo/internal/stage"
)

// promptly is how soon after the end of fn the last caller must have its outcome: by a message,
// that is, and not because somebody looked again after a while.
const promptly = time.Second

func within(what string, limit, seen time.Duration) stage.Check {
	return stage.Check{
		What: what,
		Want: "under " + span(limit),
		Seen: span(seen),
		OK:   seen >= 0 && seen < limit,
	}
}

func judgeCharge(e *evidence) []stage.Check {
	n, charge := agreed(e.callers, e.order.Cents)
	again, _ := stage.Count(e.later, replayOf(charge))
	return append([]stage.Check{
		stage.Exactly("callers that ran fn", 1, executed(e.callers), e.workers()),
		stage.Exactly("callers that got the same charge", everybody, n, charge.ID),
		stage.Exactly("times the provider was called", 1, e.books.Requests),
		stage.Exactly("charges the customer pays for", 1, len(e.books.Charges)),
		stage.Exactly("later callers that got it as well, replayed", workers, again),
	}, e.costs()...)
}

func judgeDeclined(e *evidence) []stage.Check {
	n, card := agreedCard(e.callers)
	replays, _ := stage.Count(e.callers, func(o outcome) bool { return o.Replayed })
	again, _ := stage.Count(e.later, func(o outcome) bool { return o.Replayed && sameCard(o, card) })
	return append([]stage.Check{
		stage.Exactly("callers that ran fn", 1, executed(e.callers), e.workers()),
		stage.Exactly("callers in which errors.As finds one *CardError", everybody, n, card.Request),
		stage.Exactly("of these, marked as replayed (ErrReplayed)", everybody-1, replays),
		stage.Exactly("times the provider was called", 1, e.books.Requests),
		stage.Exactly("charges the customer pays for", 0, len(e.books.Charges)),
		stage.Exactly("later callers that got it as well, replayed", workers, again),
	}, e.costs()...)
}

func judgeOutage(e *evidence) []stage.Check {
	n, charge := agreed(e.callers, e.order.Cents)
	failed, _ := stage.Count(e.callers, func(o outcome) bool { return o.Retryable && o.Source == idempotent.Executed })
	replayed, _ := stage.Count(e.callers, func(o outcome) bool { return o.Replayed })
	again, _ := stage.Count(e.later, replayOf(charge))
	return append([]stage.Check{
		stage.Exactly("callers that ran fn, one after the other", 2, executed(e.callers), e.workers()),
		stage.Exactly("callers that got the 503: the first of them", 1, failed),
		stage.Exactly("callers that got it from a record: there is none", 0, replayed),
		stage.Exactly("callers that got the same charge", everybody-1, n, charge.ID),
		stage.Exactly("times the provider was called", 2, e.books.Requests),
		stage.Exactly("charges the customer pays for", 1, len(e.books.Charges)),
		stage.Exactly("later callers that got it as well, replayed", workers, again),
	}, e.costs()...)
}

func judgeAnotherAmount(e *evidence) []stage.Check {
	right := workers * (perWorker - confused)
	n, charge := agreed(e.callers, e.order.Cents)
	early, _ := stage.Count(e.otherNow, func(o outcome) bool { return o.KeyReused && o.Returned.Before(e.fnEnded) })
	late, _ := stage.Count(e.otherLater, func(o outcome) bool { return o.KeyReused })
	return append([]stage.Check{
		stage.Exactly("callers that ran fn", 1, executed(e.callers)+executed(e.otherNow)+executed(e.otherLater), e.workers()),
		stage.Exactly("callers that got the same charge", right, n, charge.ID),
		stage.Exactly("callers refused (ErrKeyReused) while fn ran", workers*confused, early),
		stage.Exactly("callers refused (ErrKeyReused) afterwards", workers*confused, late),
		stage.Exactly("times the provider was called", 1, e.books.Requests),
		stage.Exactly("money the customer pays", stage.Euros(e.order.Cents), stage.Euros(paid(e.books))),
	}, e.costs()...)
}

func judgeKilledOwner(e *evidence) []stage.Check {
	alive := everybody - perWorker
	n, charge := agreed(e.callers, e.order.Cents)
	second, _ := stage.Count(e.callers, func(o outcome) bool { return o.Attempt == 2 })
	booked := len(e.books.Charges) > 0 && e.books.Charges[0] == charge
	return append([]stage.Check{
		stage.Exactly("executions of fn that were begun", 2, len(e.runs), e.workers()),
		{What: "worker that ran fn to its end", Want: fmt.Sprintf("not %d, attempt 2", e.killed), Seen: e.successor(), OK: e.succeeded()},
		stage.Exactly("surviving callers that got the same charge", alive, n, charge.ID),
		stage.Exactly("surviving callers told of attempt 2 (Report)", alive, second),
		stage.Exactly("times the provider was called to charge", 1, e.books.Requests),
		stage.Exactly("times it was asked what had happened", 1, e.books.LookUps),
		stage.Exactly("their charge is the one the dead owner made", "yes", yesNo(booked)),
		stage.Exactly("charges the customer pays for", 1, len(e.books.Charges)),
		within("time from the kill to the last caller's return", lease+2*time.Second, last(e.callers).Sub(e.killedAt)),
	}, e.costs()...)
}

// costs are the checks that every scene has.
func (e *evidence) costs() []stage.Check {
	sent := total(e.commands)
	return []stage.Check{
		{
			What: "Redis commands sent by all processes together",
			Want: fmt.Sprintf("1 to %d", everybody),
			Seen: fmt.Sprint(sent),
			OK:   sent > 0 && sent <= everybody,
		},
		within("time from the end of fn to the last return", promptly, e.lag()),
	}
}

// lag is the time from the end of fn, or of its last execution, to the last caller's return.
func (e *evidence) lag() time.Duration {
	if e.fnEnded.IsZero() {
		return -1
	}
	return last(e.callers).Sub(e.fnEnded)
}

func last(outcomes []outcome) (t time.Time) {
	for _, o := range outcomes {
		if o.Returned.After(t) {
			t = o.Returned
		}
	}
	return t
}

// owners lists the numbers of the workers that ran fn, the first ones of too many.
func (e *evidence) owners() string {
	var numbers []string
	for i, r := range e.runs {
		if i == 2 && len(e.runs) > 2 {
			numbers = append(numbers, "...")
			break
		}
		numbers = append(numbers, strconv.Itoa(r.worker))
	}
	return strings.Join(numbers, ", ")
}

// workers is the same for a sentence.
func (e *evidence) workers() string {
	switch len(e.runs) {
	case 0:
		return ""
	case 1:
		return "worker " + e.owners()
	}
	return "workers " + e.owners()
}

func (e *evidence) succeeded() bool {
	n := len(e.runs)
	return n > 0 && executed(e.callers) == 1 && e.runs[n-1].attempt == 2 && e.runs[n-1].worker != e.killed
}

func (e *evidence) successor() string {
	if len(e.runs) == 0 {
		return "nobody"
	}
	r := e.runs[len(e.runs)-1]
	return fmt.Sprintf("%d, attempt %d", r.worker, r.attempt)
}

func executed(outcomes []outcome) int {
	n, _ := stage.Count(outcomes, func(o outcome) bool { return o.Source == idempotent.Executed })
	return n
}

// agreed returns how many got the same charge of that amount: the one that the first of them got.
func agreed(outcomes []outcome, cents int64) (int, Charge) {
	_, first := stage.Count(outcomes, func(o outcome) bool { return o.Error == "" && o.Charge.Cents == cents && o.Charge.ID != "" })
	if first.Charge.ID == "" {
		return 0, Charge{}
	}
	n, _ := stage.Count(outcomes, func(o outcome) bool { return o.Error == "" && o.Charge == first.Charge })
	return n, first.Charge
}

func agreedCard(outcomes []outcome) (int, CardError) {
	_, first := stage.Count(outcomes, func(o outcome) bool { return o.Card != nil && o.Card.Request != "" })
	if first.Card == nil {
		return 0, CardError{}
	}
	n, _ := stage.Count(outcomes, func(o outcome) bool { return sameCard(o, *first.Card) })
	return n, *first.Card
}

func sameCard(o outcome, card CardError) bool { return o.Card != nil && *o.Card == card }

func replayOf(c Charge) func(outcome) bool {
	return func(o outcome) bool {
		return o.Error == "" && o.Source == idempotent.Replayed && o.Charge == c && c.ID != ""
	}
}

func paid(b books) (cents int64) {
	for _, c := range b.Charges {
		cents += c.Cents
	}
	return cents
}

func total(counts map[string]int) (sum int) {
	for _, n := range counts {
		sum += n
	}
	return sum
}

func yesNo(yes bool) string {
	if yes {
		return "yes"
	}
	return "no"
}

package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/demo/internal/stage"
)

func judgeWithoutRun(e *evidence) []stage.Check {
	n, _ := stage.Count(e.first, paid)
	return []stage.Check{
		stage.Exactly("calls that charged the customer", everybody, n),
		stage.Exactly("Idempotency-Keys that Stripe saw", everybody, len(e.books.Keys)),
		stage.Exactly("charges the customer pays for, all but one too many", everybody, len(e.books.Charges)),
	}
}

func judgeCharge(e *evidence) []stage.Check {
	n, charge := agreed(e.first)
	again, _ := stage.Count(e.second, func(o outcome) bool { return o.Source == idempotent.Replayed && o.Error == "" && o.Charge == charge })
	return append([]stage.Check{
		stage.Exactly("calls that ran fn", 1, executed(e.first)+executed(e.second)),
		stage.Exactly("calls that got the same charge", everybody, n, charge.Intent),
		stage.Exactly("later calls that got it replayed", workers, again),
		e.paidOnce(charge),
	}, e.requests(1)...)
}

func judgeDeclined(e *evidence) []stage.Check {
	n, no := agreedRefusal(e.first)
	replayed, _ := stage.Count(e.first, func(o outcome) bool { return o.Replayed })
	again, _ := stage.Count(e.second, func(o outcome) bool { return o.Replayed && o.Stripe != nil && *o.Stripe == no })
	all := slices.Concat(e.first, e.second)
	retry, _ := stage.Count(all, func(o outcome) bool { return o.Retryable })
	leaks, _ := stage.Count(all, func(o outcome) bool { return strings.Contains(o.Error, "_secret_") })
	return append([]stage.Check{
		stage.Exactly("calls that ran fn", 1, executed(all)),
		stage.Exactly("calls where errors.As finds one *stripe.Error", everybody, n, no.Request),
		stage.Exactly("its code", "card_declined", no.Code),
		stage.Exactly("its decline code", "generic_decline", no.DeclineCode),
		stage.Exactly("of these, marked as replayed (ErrReplayed)", everybody-1, replayed),
		stage.Exactly("later calls that got it replayed", workers, again),
		stage.Exactly("calls told to try again", 0, retry),
		stage.Exactly("calls whose error shows the client secret", 0, leaks),
		stage.Exactly("cards declined by Stripe", 1, e.books.Declines),
		stage.Exactly("charges the customer pays for", 0, len(e.books.Charges)),
	}, e.requests(1)...)
}

// judgeRateLimit allows for a caller whose subscription stood too late for the message: it asks
// Stripe at once, and gets the charge already.
func judgeRateLimit(e *evidence) []stage.Check {
	limited, _ := stage.Count(e.first, func(o outcome) bool { return o.Retryable && o.Stripe != nil && o.Stripe.Status == 429 })
	n, charge := agreed(e.second)
	early, _ := stage.Count(e.first, func(o outcome) bool { return o.Error == "" && o.Charge == charge })
	return append([]stage.Check{
		stage.AtLeast("calls that got the 429, to be tried again", 1, limited),
		stage.Exactly("calls that got that, or the charge already", everybody, limited+early),
		stage.Exactly("calls that got the same charge when they came back", everybody, n, charge.Intent),
		stage.Exactly("executions of fn: the first, and one that settled it", 2, len(e.executions)),
		e.paidOnce(charge),
	}, e.requests(2)...)
}

// judgeLostConnection wants three requests or more: net/http may add one of its own to those of
// stripe-go. All are attempt 1's, since attempt 2 could not have had an answer to its own.
func judgeLostConnection(e *evidence) []stage.Check {
	lost, _ := stage.Count(e.first, func(o outcome) bool { return o.Retryable && o.Stripe == nil && o.Attempt == 1 })
	n, charge := agreed(e.first)
	told, _ := stage.Count(e.first, func(o outcome) bool { return o.Error == "" && o.Attempt == 2 })
	again, _ := stage.Count(e.second, func(o outcome) bool { return o.Source == idempotent.Replayed && o.Error == "" && o.Charge == charge })
	return []stage.Check{
		stage.Exactly("calls told that nothing is known, to be tried again", 1, lost),
		stage.Exactly("calls that got the same charge", everybody-1, n, charge.Intent),
		stage.Exactly("calls told of attempt 2 (Report)", everybody-1, told),
		stage.Exactly("later calls that got it replayed", workers, again),
		stage.Exactly("executions of fn: attempt 1, and 2 that looked first", 2, len(e.executions)),
		e.paidOnce(charge),
		stage.AtLeast("times Stripe was asked to charge", 3, e.books.Requests),
		stage.AtLeast("of these, answered from its memory of the key", 2, e.books.Replayed),
		stage.Exactly("Idempotency-Keys that Stripe saw", 1, len(e.books.Keys)),
		stage.Exactly("times Stripe was asked what had happened", 1, e.books.LookUps),
	}
}

func judgeKilledOwner(e *evidence) []stage.Check {
	return append(e.survived(), append(e.requests(1),
		stage.Exactly("times Stripe was asked what had happened", 1, e.books.LookUps))...)
}

func judgeBlindSuccessor(e *evidence) []stage.Check {
	return append(e.survived(), append(e.requests(2),
		stage.Exactly("times Stripe was asked what had happened", 1, e.books.LookUps),
		stage.Exactly("answers from Stripe's memory of the key", 1, e.books.Replayed))...)
}

// survived are the checks of a scene in which the owner was killed.
func (e *evidence) survived() []stage.Check {
	alive := everybody - perWorker
	n, charge := agreed(e.first)
	told, _ := stage.Count(e.first, func(o outcome) bool { return o.Attempt == 2 })
	return []stage.Check{
		stage.Exactly("executions of fn that were begun", 2, len(e.executions)),
		{What: "worker that ran fn to its end", Want: fmt.Sprintf("not %d, attempt 2", e.killed), Seen: e.successor(), OK: e.succeeded()},
		stage.Exactly("surviving calls that got the same charge", alive, n, charge.Intent),
		stage.Exactly("surviving calls told of attempt 2 (Report)", alive, told),
		e.paidOnce(charge),
	}
}

func (e *evidence) successor() string {
	if len(e.executions) == 0 {
		return "nobody"
	}
	last := e.executions[len(e.executions)-1]
	return fmt.Sprintf("%d, attempt %d", last.worker, last.attempt)
}

func (e *evidence) succeeded() bool {
	n := len(e.executions)
	return n > 0 && e.killed != 0 && e.executions[n-1].attempt == 2 && e.executions[n-1].worker != e.killed
}

// paidOnce says whether the customer pays for the charge that the callers know, and no other.
func (e *evidence) paidOnce(charge Charge) stage.Check {
	named := e.books.Charges
	if len(named) > 3 { // too many of them
		named = append(slices.Clone(named[:3]), "...")
	}
	c := stage.Exactly("charges the customer pays for", 1, len(e.books.Charges), named...)
	c.OK = c.OK && charge.Intent != "" && e.books.Charges[0] == charge.Intent
	return c
}

// requests are the checks that need the single requests.
func (e *evidence) requests(want int) []stage.Check {
	if !e.seen {
		return nil
	}
	return []stage.Check{
		stage.Exactly("times Stripe was asked to charge", want, e.books.Requests),
		stage.Exactly("Idempotency-Keys that Stripe saw", 1, len(e.books.Keys)),
	}
}

// paid fits an outcome with a charge.
func paid(o outcome) bool { return o.Error == "" && o.Charge.Intent != "" && o.Charge.Cents > 0 }

func executed(outcomes []outcome) int {
	n, _ := stage.Count(outcomes, func(o outcome) bool { return o.Source == idempotent.Executed })
	return n
}

// agreed returns how many got the same charge: the one that the first of them got.
func agreed(outcomes []outcome) (int, Charge) {
	_, first := stage.Count(outcomes, paid)
	if first.Charge.Intent == "" {
		return 0, Charge{}
	}
	n, _ := stage.Count(outcomes, func(o outcome) bool { return o.Error == "" && o.Charge == first.Charge })
	return n, first.Charge
}

func agreedRefusal(outcomes []outcome) (int, refusal) {
	_, first := stage.Count(outcomes, func(o outcome) bool { return o.Stripe != nil && o.Stripe.Request != "" })
	if first.Stripe == nil {
		return 0, refusal{}
	}
	n, _ := stage.Count(outcomes, func(o outcome) bool { return o.Stripe != nil && *o.Stripe == *first.Stripe })
	return n, *first.Stripe
}

package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/idempotent-go/idempotent"
)

// A check is one thing that must hold.
type check struct {
	what, want, seen string
	ok               bool
}

func exactly(what string, want, seen int, notes ...string) check {
	c := check{what: what, want: fmt.Sprint(want), seen: fmt.Sprint(seen), ok: want == seen}
	if note := strings.Join(notes, ", "); note != "" {
		c.seen += " (" + note + ")"
	}
	return c
}

func atLeast(what string, want, seen int, notes ...string) check {
	c := exactly(what, want, seen, notes...)
	c.want, c.ok = fmt.Sprintf("%d or more", want), seen >= want
	return c
}

func judgeWithoutRun(e *evidence) []check {
	n, _ := count(e.first, paid)
	return []check{
		exactly("calls that charged the customer", everybody, n),
		exactly("Idempotency-Keys that Stripe saw", everybody, len(e.books.Keys)),
		exactly("charges the customer pays for, all but one too many", everybody, len(e.books.Charges)),
	}
}

func judgeCharge(e *evidence) []check {
	n, charge := agreed(e.first)
	again, _ := count(e.second, func(o outcome) bool { return o.Source == idempotent.Replayed && o.Error == "" && o.Charge == charge })
	return append([]check{
		exactly("calls that ran fn", 1, executed(e.first)+executed(e.second)),
		exactly("calls that got the same charge", everybody, n, charge.Intent),
		exactly("later calls that got it replayed", workers, again),
		e.paidOnce(charge),
	}, e.requests(1)...)
}

func judgeDeclined(e *evidence) []check {
	n, no := agreedRefusal(e.first)
	replayed, _ := count(e.first, func(o outcome) bool { return o.Replayed })
	again, _ := count(e.second, func(o outcome) bool { return o.Replayed && o.Stripe != nil && *o.Stripe == no })
	all := slices.Concat(e.first, e.second)
	retry, _ := count(all, func(o outcome) bool { return o.Retryable })
	leaks, _ := count(all, func(o outcome) bool { return strings.Contains(o.Error, "_secret_") })
	return append([]check{
		exactly("calls that ran fn", 1, executed(all)),
		exactly("calls where errors.As finds one *stripe.Error", everybody, n, no.Request),
		{what: "its code", want: "card_declined", seen: no.Code, ok: no.Code == "card_declined"},
		{what: "its decline code", want: "generic_decline", seen: no.DeclineCode, ok: no.DeclineCode == "generic_decline"},
		exactly("of these, marked as replayed (ErrReplayed)", everybody-1, replayed),
		exactly("later calls that got it replayed", workers, again),
		exactly("calls told to try again", 0, retry),
		exactly("calls whose error shows the client secret", 0, leaks),
		exactly("cards declined by Stripe", 1, e.books.Declines),
		exactly("charges the customer pays for", 0, len(e.books.Charges)),
	}, e.requests(1)...)
}

// judgeRateLimit allows for a caller whose subscription stood too late for the message: it asks
// Stripe at once, and gets the charge already.
func judgeRateLimit(e *evidence) []check {
	limited, _ := count(e.first, func(o outcome) bool { return o.Retryable && o.Stripe != nil && o.Stripe.Status == 429 })
	n, charge := agreed(e.second)
	early, _ := count(e.first, func(o outcome) bool { return o.Error == "" && o.Charge == charge })
	return append([]check{
		atLeast("calls that got the 429, to be tried again", 1, limited),
		exactly("calls that got that, or the charge already", everybody, limited+early),
		exactly("calls that got the same charge when they came back", everybody, n, charge.Intent),
		exactly("executions of fn: the first, and one that settled it", 2, len(e.executions)),
		e.paidOnce(charge),
	}, e.requests(2)...)
}

// judgeLostConnection wants three requests or more: net/http may add one of its own to those of
// stripe-go. All are attempt 1's, since attempt 2 could not have had an answer to its own.
func judgeLostConnection(e *evidence) []check {
	lost, _ := count(e.first, func(o outcome) bool { return o.Retryable && o.Stripe == nil && o.Attempt == 1 })
	n, charge := agreed(e.first)
	told, _ := count(e.first, func(o outcome) bool { return o.Error == "" && o.Attempt == 2 })
	again, _ := count(e.second, func(o outcome) bool { return o.Source == idempotent.Replayed && o.Error == "" && o.Charge == charge })
	return []check{
		exactly("calls told that nothing is known, to be tried again", 1, lost),
		exactly("calls that got the same charge", everybody-1, n, charge.Intent),
		exactly("calls told of attempt 2 (Report)", everybody-1, told),
		exactly("later calls that got it replayed", workers, again),
		exactly("executions of fn: attempt 1, and 2 that looked first", 2, len(e.executions)),
		e.paidOnce(charge),
		atLeast("times Stripe was asked to charge", 3, e.books.Requests),
		atLeast("of these, answered from its memory of the key", 2, e.books.Replayed),
		exactly("Idempotency-Keys that Stripe saw", 1, len(e.books.Keys)),
		exactly("times Stripe was asked what had happened", 1, e.books.LookUps),
	}
}

func judgeKilledOwner(e *evidence) []check {
	return append(e.survived(), append(e.requests(1),
		exactly("times Stripe was asked what had happened", 1, e.books.LookUps))...)
}

func judgeBlindSuccessor(e *evidence) []check {
	return append(e.survived(), append(e.requests(2),
		exactly("times Stripe was asked what had happened", 1, e.books.LookUps),
		exactly("answers from Stripe's memory of the key", 1, e.books.Replayed))...)
}

// survived are the checks of a scene in which the owner was killed.
func (e *evidence) survived() []check {
	alive := everybody - perWorker
	n, charge := agreed(e.first)
	told, _ := count(e.first, func(o outcome) bool { return o.Attempt == 2 })
	return []check{
		exactly("executions of fn that were begun", 2, len(e.executions)),
		{what: "worker that ran fn to its end", want: fmt.Sprintf("not %d, attempt 2", e.killed), seen: e.successor(), ok: e.succeeded()},
		exactly("surviving calls that got the same charge", alive, n, charge.Intent),
		exactly("surviving calls told of attempt 2 (Report)", alive, told),
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
func (e *evidence) paidOnce(charge Charge) check {
	c := exactly("charges the customer pays for", 1, len(e.books.Charges), e.books.Charges...)
	c.ok = c.ok && charge.Intent != "" && e.books.Charges[0] == charge.Intent
	return c
}

// requests are the checks that need the single requests.
func (e *evidence) requests(want int) []check {
	if !e.seen {
		return nil
	}
	return []check{
		exactly("times Stripe was asked to charge", want, e.books.Requests),
		exactly("Idempotency-Keys that Stripe saw", 1, len(e.books.Keys)),
	}
}

// count returns how many outcomes fit, and the first one that does.
func count(outcomes []outcome, fits func(outcome) bool) (n int, first outcome) {
	for _, o := range outcomes {
		if fits(o) {
			if n == 0 {
				first = o
			}
			n++
		}
	}
	return n, first
}

// paid fits an outcome with a charge.
func paid(o outcome) bool { return o.Error == "" && o.Charge.Intent != "" && o.Charge.Cents > 0 }

func executed(outcomes []outcome) int {
	n, _ := count(outcomes, func(o outcome) bool { return o.Source == idempotent.Executed })
	return n
}

// agreed returns how many got the same charge: the one that the first of them got.
func agreed(outcomes []outcome) (int, Charge) {
	_, first := count(outcomes, paid)
	if first.Charge.Intent == "" {
		return 0, Charge{}
	}
	n, _ := count(outcomes, func(o outcome) bool { return o.Error == "" && o.Charge == first.Charge })
	return n, first.Charge
}

func agreedRefusal(outcomes []outcome) (int, refusal) {
	_, first := count(outcomes, func(o outcome) bool { return o.Stripe != nil && o.Stripe.Request != "" })
	if first.Stripe == nil {
		return 0, refusal{}
	}
	n, _ := count(outcomes, func(o outcome) bool { return o.Stripe != nil && *o.Stripe == *first.Stripe })
	return n, *first.Stripe
}

package main

import (
	"slices"
	"testing"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/demo/internal/stage"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var (
	theCharge   = Charge{Intent: "pi_1", Status: "succeeded", Cents: 4999, Currency: "eur"}
	otherCharge = Charge{Intent: "pi_2", Status: "succeeded", Cents: 4999, Currency: "eur"}
	theRefusal  = refusal{Status: 402, Type: "card_error", Code: "card_declined", DeclineCode: "generic_decline", Request: "req_1"}
)

// callers are outcomes of n calls, the first of which ran fn.
func callers(n int, o outcome) []outcome {
	outcomes := slices.Repeat([]outcome{o}, n)
	for i := range outcomes {
		outcomes[i].Source = idempotent.Waited
		outcomes[i].Replayed = o.Error != "" && !o.Retryable
	}
	outcomes[0].Source, outcomes[0].Replayed = idempotent.Executed, false
	return outcomes
}

func replays(n int, o outcome) []outcome {
	o.Source, o.Replayed = idempotent.Replayed, o.Error != ""
	return slices.Repeat([]outcome{o}, n)
}

func goodBooks() books {
	return books{Requests: 1, Keys: map[string]int{"k": 1}, Charges: []string{"pi_1"}}
}

func goodWithoutRun() *evidence {
	e := &evidence{first: callers(everybody, outcome{Charge: theCharge}), seen: true, books: books{Keys: make(map[string]int)}}
	for i := range everybody {
		e.books.Keys[string(rune('A'+i))] = 1
		e.books.Charges = append(e.books.Charges, "pi")
	}
	return e
}

func goodCharge() *evidence {
	return &evidence{
		first:  callers(everybody, outcome{Charge: theCharge}),
		second: replays(workers, outcome{Charge: theCharge}),
		books:  goodBooks(), seen: true,
	}
}

func goodDeclined() *evidence {
	o := outcome{Error: "declined", Stripe: &theRefusal}
	e := &evidence{first: callers(everybody, o), second: replays(workers, o), books: goodBooks(), seen: true}
	e.books.Charges, e.books.Declines = nil, 1
	return e
}

func goodRateLimit() *evidence {
	return &evidence{
		first:  callers(everybody, outcome{Error: "limit", Retryable: true, Stripe: &refusal{Status: 429}}),
		second: callers(everybody, outcome{Charge: theCharge}),
		books:  books{Requests: 2, Keys: map[string]int{"k": 2}, Charges: []string{"pi_1"}}, seen: true,
		executions: []execution{{1, 1}, {2, 1}},
	}
}

func goodLostConnection() *evidence {
	e := &evidence{
		first:  callers(everybody, outcome{Charge: theCharge, Attempt: 2}),
		second: replays(workers, outcome{Charge: theCharge, Attempt: 2}),
		books:  books{Requests: 3, Keys: map[string]int{"k": 3}, Replayed: 2, LookUps: 1, Charges: []string{"pi_1"}}, seen: true,
		executions: []execution{{1, 1}, {2, 2}},
	}
	e.first[0] = outcome{Error: "EOF", Retryable: true, Source: idempotent.Executed, Attempt: 1}
	return e
}

func goodKilledOwner() *evidence {
	e := &evidence{
		first: callers(everybody-perWorker, outcome{Charge: theCharge, Attempt: 2}),
		books: goodBooks(), seen: true, killed: 1,
		executions: []execution{{1, 1}, {2, 2}},
	}
	e.books.LookUps = 1
	return e
}

func goodBlindSuccessor() *evidence {
	e := goodKilledOwner()
	e.books.Requests, e.books.Replayed = 2, 1
	return e
}

// Each check holds with good evidence, and fails with the wrong one.
func TestJudges(t *testing.T) {
	twice := func(e *evidence) { e.books.Charges = append(e.books.Charges, "pi_2") }
	for _, test := range []struct {
		name  string
		good  func() *evidence
		judge func(*evidence) []stage.Check
		wrong map[string]func(*evidence)
	}{
		{"without Run", goodWithoutRun, judgeWithoutRun, map[string]func(*evidence){
			"calls that charged the customer":                     func(e *evidence) { e.first[3].Error = "no" },
			"Idempotency-Keys that Stripe saw":                    func(e *evidence) { delete(e.books.Keys, "A") },
			"charges the customer pays for, all but one too many": func(e *evidence) { e.books.Charges = e.books.Charges[1:] },
		}},
		{"charge", goodCharge, judgeCharge, map[string]func(*evidence){
			"calls that ran fn":                func(e *evidence) { e.first[7].Source = idempotent.Executed },
			"calls that got the same charge":   func(e *evidence) { e.first[7].Charge = otherCharge },
			"later calls that got it replayed": func(e *evidence) { e.second[1].Source = idempotent.Executed },
			"charges the customer pays for":    twice,
			"times Stripe was asked to charge": func(e *evidence) { e.books.Requests = 2 },
			"Idempotency-Keys that Stripe saw": func(e *evidence) { e.books.Keys["other"] = 1 },
		}},
		{"declined", goodDeclined, judgeDeclined, map[string]func(*evidence){
			"calls that ran fn":                             func(e *evidence) { e.second[2].Source = idempotent.Executed },
			"calls where errors.As finds one *stripe.Error": func(e *evidence) { e.first[9].Stripe = nil },
			"its code":         func(e *evidence) { e.code("expired_card", "generic_decline") },
			"its decline code": func(e *evidence) { e.code("card_declined", "") },
			"of these, marked as replayed (ErrReplayed)": func(e *evidence) { e.first[9].Replayed = false },
			"later calls that got it replayed":           func(e *evidence) { e.second = e.second[1:] },
			"calls told to try again":                    func(e *evidence) { e.first[9].Retryable = true },
			"calls whose error shows the client secret":  func(e *evidence) { e.first[9].Error = "pi_1_secret_x" },
			"cards declined by Stripe":                   func(e *evidence) { e.books.Declines = 2 },
			"charges the customer pays for":              twice,
			"times Stripe was asked to charge":           func(e *evidence) { e.books.Requests = 50 },
		}},
		{"rate limit", goodRateLimit, judgeRateLimit, map[string]func(*evidence){
			"calls that got that, or the charge already":           func(e *evidence) { e.first[9].Retryable = false },
			"calls that got the same charge when they came back":   func(e *evidence) { e.second[9].Charge = otherCharge },
			"executions of fn: the first, and one that settled it": func(e *evidence) { e.executions = append(e.executions, execution{3, 1}) },
			"charges the customer pays for":                        twice,
			"times Stripe was asked to charge":                     func(e *evidence) { e.books.Requests = 50 },
		}},
		{"lost connection", goodLostConnection, judgeLostConnection, map[string]func(*evidence){
			"calls told that nothing is known, to be tried again":  func(e *evidence) { e.first[0].Stripe = &refusal{Status: 429} },
			"calls that got the same charge":                       func(e *evidence) { e.first[9].Error = "EOF" },
			"calls told of attempt 2 (Report)":                     func(e *evidence) { e.first[9].Attempt = 1 },
			"later calls that got it replayed":                     func(e *evidence) { e.second[1].Source = idempotent.Executed },
			"executions of fn: attempt 1, and 2 that looked first": func(e *evidence) { e.executions = append(e.executions, execution{3, 3}) },
			"charges the customer pays for":                        func(e *evidence) { e.books.Charges = []string{"pi_2"} },
			"times Stripe was asked to charge":                     func(e *evidence) { e.books.Requests = 2 },
			"of these, answered from its memory of the key":        func(e *evidence) { e.books.Replayed = 1 },
			"Idempotency-Keys that Stripe saw":                     func(e *evidence) { e.books.Keys["other"] = 1 },
			"times Stripe was asked what had happened":             func(e *evidence) { e.books.LookUps = 0 },
		}},
		{"killed owner", goodKilledOwner, judgeKilledOwner, map[string]func(*evidence){
			"executions of fn that were begun":           func(e *evidence) { e.executions = append(e.executions, execution{3, 2}) },
			"worker that ran fn to its end":              func(e *evidence) { e.executions[1] = execution{1, 2} },
			"surviving calls that got the same charge":   func(e *evidence) { e.first[9].Error = "late" },
			"surviving calls told of attempt 2 (Report)": func(e *evidence) { e.first[9].Attempt = 1 },
			"charges the customer pays for":              twice,
			"times Stripe was asked to charge":           func(e *evidence) { e.books.Requests = 2 },
			"times Stripe was asked what had happened":   func(e *evidence) { e.books.LookUps = 0 },
		}},
		{"blind successor", goodBlindSuccessor, judgeBlindSuccessor, map[string]func(*evidence){
			"charges the customer pays for":           twice,
			"times Stripe was asked to charge":        func(e *evidence) { e.books.Requests = 1 },
			"Idempotency-Keys that Stripe saw":        func(e *evidence) { e.books.Keys["other"] = 1 },
			"answers from Stripe's memory of the key": func(e *evidence) { e.books.Replayed = 0 },
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			require.Empty(t, stage.Failing(test.judge(test.good())))
			for what, spoil := range test.wrong {
				e := test.good()
				spoil(e)
				assert.Contains(t, stage.Failing(test.judge(e)), what)
			}
			assert.NotPanics(t, func() { assert.NotEmpty(t, stage.Failing(test.judge(&evidence{seen: true}))) })
		})
	}
}

// code gives everybody's refusal other codes.
func (e *evidence) code(code, decline string) {
	r := theRefusal
	r.Code, r.DeclineCode = code, decline
	for _, outcomes := range [][]outcome{e.first, e.second} {
		for i := range outcomes {
			outcomes[i].Stripe = &r
		}
	}
}

// Nobody refused is not what the scene is about, even if everybody has the charge.
func TestJudgeWantsTheRefusal(t *testing.T) {
	e := goodRateLimit()
	e.first = callers(everybody, outcome{Charge: theCharge})
	assert.Contains(t, stage.Failing(judgeRateLimit(e)), "calls that got the 429, to be tried again")
}

package main

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/idempotent-go/idempotent"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent/demo/internal/stage"
)

var (
	fnEnded = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	ours    = Charge{ID: "ch_1", Cents: 4999}
	decline = CardError{Reason: "insufficient funds", Request: "req_1"}
)

// got is n callers in a worker that all got the same.
func got(n int, o outcome) []outcome {
	out := make([]outcome, n)
	for i := range out {
		out[i] = o
	}
	return out
}

func replayed() []outcome {
	return got(workers, outcome{Source: idempotent.Replayed, Attempt: 1, Charge: ours})
}

// asItShouldBe is the evidence of a scene in which all went well.
func asItShouldBe() *evidence {
	e := &evidence{
		order:    Order{ID: "order-1", Cents: ours.Cents},
		callers:  got(everybody, outcome{Worker: 2, Source: idempotent.Waited, Attempt: 1, Charge: ours, Returned: fnEnded.Add(time.Millisecond)}),
		later:    replayed(),
		books:    books{Requests: 1, Charges: []Charge{ours}},
		commands: commands{"SET": 5, "EVALSHA": 1},
		runs:     []run{{worker: 1, attempt: 1}},
		fnEnded:  fnEnded,
	}
	e.callers[0].Worker, e.callers[0].Source = 1, idempotent.Executed
	return e
}

func declinedAsItShouldBe() *evidence {
	e := asItShouldBe()
	e.books.Charges = nil
	for _, some := range [][]outcome{e.callers, e.later} {
		for i := range some {
			some[i].Charge = Charge{}
			some[i].Error = decline.Error()
			some[i].Card = &CardError{Reason: decline.Reason, Request: decline.Request}
			some[i].Replayed = some[i].Source != idempotent.Executed
		}
	}
	return e
}

func outageAsItShouldBe() *evidence {
	e := asItShouldBe()
	e.books.Requests = 2
	e.runs = append(e.runs, run{worker: 2, attempt: 1})
	e.callers[0].Charge, e.callers[0].Error, e.callers[0].Retryable = Charge{}, "503", true
	e.callers[1].Source = idempotent.Executed
	return e
}

func otherAmountAsItShouldBe() *evidence {
	e := asItShouldBe()
	e.later = nil
	e.callers = e.callers[:workers*(perWorker-confused)]
	refused := outcome{KeyReused: true, Error: "reused", Returned: fnEnded.Add(-time.Millisecond)}
	e.otherNow = got(workers*confused, refused)
	e.otherLater = got(workers*confused, refused)
	return e
}

func killedAsItShouldBe() *evidence {
	e := asItShouldBe()
	e.later = nil
	e.callers = e.callers[:everybody-perWorker]
	for i := range e.callers {
		e.callers[i].Attempt = 2
	}
	e.killed, e.killedAt = 3, fnEnded.Add(-lease)
	e.runs = []run{{worker: 3, attempt: 1}, {worker: 1, attempt: 2}}
	e.books.LookUps = 1
	return e
}

var trials = []struct {
	name  string
	good  func() *evidence
	judge func(*evidence) []stage.Check
}{
	{"charge", asItShouldBe, judgeCharge},
	{"declined", declinedAsItShouldBe, judgeDeclined},
	{"outage", outageAsItShouldBe, judgeOutage},
	{"other amount", otherAmountAsItShouldBe, judgeAnotherAmount},
	{"killed", killedAsItShouldBe, judgeKilledOwner},
}

func TestJudgesAcceptWhatShouldBe(t *testing.T) {
	for _, trial := range trials {
		t.Run(trial.name, func(t *testing.T) {
			assert.Empty(t, stage.Failing(trial.judge(trial.good())))
		})
	}
}

// Whatever is wrong, exactly the checks that speak of it fail.
func TestJudgesFindWhatIsWrong(t *testing.T) {
	const (
		ranFn    = "callers that ran fn"
		same     = "callers that got the same charge"
		called   = "times the provider was called"
		pays     = "charges the customer pays for"
		later    = "later callers that got it as well, replayed"
		sent     = "Redis commands sent by all processes together"
		lag      = "time from the end of fn to the last return"
		cards    = "callers in which errors.As finds one *CardError"
		marked   = "of these, marked as replayed (ErrReplayed)"
		ranTwice = "callers that ran fn, one after the other"
		first503 = "callers that got the 503: the first of them"
		recorded = "callers that got it from a record: there is none"
		now      = "callers refused (ErrKeyReused) while fn ran"
		after    = "callers refused (ErrKeyReused) afterwards"
		money    = "money the customer pays"
		begun    = "executions of fn that were begun"
		who      = "worker that ran fn to its end"
		survive  = "surviving callers that got the same charge"
		second   = "surviving callers told of attempt 2 (Report)"
		charges  = "times the provider was called to charge"
		looked   = "times it was asked what had happened"
		dead     = "their charge is the one the dead owner made"
		sinceHit = "time from the kill to the last caller's return"
	)
	another := Charge{ID: "ch_2", Cents: ours.Cents}
	for _, tt := range []struct {
		scene string
		wrong string
		spoil func(e *evidence)
		fails []string
	}{
		{"charge", "two callers ran fn", func(e *evidence) { e.callers[9].Source = idempotent.Executed }, []string{ranFn}},
		{"charge", "nobody ran fn", func(e *evidence) { e.callers[0].Source = idempotent.Waited }, []string{ranFn}},
		{"charge", "a caller got another charge", func(e *evidence) { e.callers[50].Charge = another }, []string{same}},
		{"charge", "a caller got an error beside it", func(e *evidence) { e.callers[50].Error = "not recorded" }, []string{same}},
		{"charge", "a caller got nothing", func(e *evidence) { e.callers = e.callers[:99] }, []string{same}},
		{"charge", "all got another amount", func(e *evidence) { e.order.Cents++ }, []string{same, later}},
		{"charge", "the provider was called twice", func(e *evidence) { e.books.Requests = 2 }, []string{called}},
		{"charge", "the provider was not called", func(e *evidence) { e.books.Requests = 0 }, []string{called}},
		{"charge", "the customer pays twice", func(e *evidence) { e.books.Charges = []Charge{ours, another} }, []string{pays}},
		{"charge", "a later caller ran fn", func(e *evidence) { e.later[0].Source = idempotent.Executed }, []string{later}},
		{"charge", "a later caller got another charge", func(e *evidence) { e.later[0].Charge = another }, []string{later}},
		{"charge", "a command for each caller and more", func(e *evidence) { e.commands = commands{"GET": 101} }, []string{sent}},
		{"charge", "commands were not counted", func(e *evidence) { e.commands = nil }, []string{sent}},
		{"charge", "a caller was late", func(e *evidence) { e.callers[9].Returned = fnEnded.Add(promptly) }, []string{lag}},
		{"charge", "fn did not end", func(e *evidence) { e.fnEnded = time.Time{} }, []string{lag}},
		{"charge", "nobody came back", func(e *evidence) { e.callers, e.later = nil, nil }, []string{ranFn, same, later, lag}},

		{"declined", "two callers ran fn", func(e *evidence) { e.callers[9].Source = idempotent.Executed }, []string{ranFn}},
		{"declined", "a caller got the text only", func(e *evidence) { e.callers[9].Card = nil }, []string{cards}},
		{"declined", "a caller got another error", func(e *evidence) { e.callers[9].Card.Request = "req_2" }, []string{cards}},
		{"declined", "the error lost its fields", func(e *evidence) { e.callers[9].Card = &CardError{} }, []string{cards}},
		{"declined", "a replay does not say so", func(e *evidence) { e.callers[9].Replayed = false }, []string{marked}},
		{"declined", "the first one calls itself a replay", func(e *evidence) { e.callers[0].Replayed = true }, []string{marked}},
		{"declined", "the provider was called again", func(e *evidence) { e.books.Requests = 2 }, []string{called}},
		{"declined", "the customer pays", func(e *evidence) { e.books.Charges = []Charge{ours} }, []string{pays}},
		{"declined", "a later caller got the text only", func(e *evidence) { e.later[0].Card = nil }, []string{later}},

		{"outage", "the error was replayed", func(e *evidence) {
			e.callers[7] = outcome{Source: idempotent.Joined, Error: "503", Replayed: true, Retryable: true, Returned: fnEnded}
		}, []string{recorded, same}},
		{"outage", "nobody ran it again", func(e *evidence) { e.callers[1].Source = idempotent.Waited; e.books.Requests = 1 }, []string{ranTwice, called}},
		{"outage", "the error lost its mark", func(e *evidence) { e.callers[0].Retryable = false }, []string{first503}},
		{"outage", "a third request", func(e *evidence) { e.books.Requests = 3 }, []string{called}},
		{"outage", "the customer pays twice", func(e *evidence) { e.books.Charges = []Charge{ours, another} }, []string{pays}},
		{"outage", "a later caller got an error", func(e *evidence) { e.later[0].Error = "503" }, []string{later}},

		{"other amount", "one got the charge", func(e *evidence) { e.otherNow[3] = e.callers[3] }, []string{now}},
		{"other amount", "one had to wait for fn", func(e *evidence) { e.otherNow[3].Returned = fnEnded.Add(time.Microsecond) }, []string{now}},
		{"other amount", "one ran fn", func(e *evidence) { e.otherLater[3] = e.callers[0] }, []string{ranFn, after}},
		{"other amount", "the right ones were refused", func(e *evidence) { e.callers[3].Error = "reused"; e.callers[3].Charge = Charge{} }, []string{same}},
		{"other amount", "the wrong amount was charged", func(e *evidence) { e.books.Charges[0].Cents *= 10 }, []string{money}},
		{"other amount", "both amounts were charged", func(e *evidence) {
			e.books.Requests = 2
			e.books.Charges = append(e.books.Charges, another)
		}, []string{called, money}},

		{"killed", "nobody took over", func(e *evidence) { e.callers, e.runs, e.books.LookUps = nil, e.runs[:1], 0 }, []string{begun, who, survive, second, looked, dead, sinceHit, lag}},
		{"killed", "two took over", func(e *evidence) {
			e.runs = append(e.runs, run{worker: 2, attempt: 2})
			e.callers[9].Source = idempotent.Executed
		}, []string{begun, who}},
		{"killed", "the dead owner went on", func(e *evidence) { e.runs[1].worker = e.killed }, []string{who}},
		{"killed", "the attempt was forgotten", func(e *evidence) {
			e.runs[1].attempt = 1
			for i := range e.callers {
				e.callers[i].Attempt = 1
			}
		}, []string{who, second}},
		{"killed", "it was charged again", func(e *evidence) {
			e.books = books{Requests: 2, Charges: []Charge{another, ours}}
		}, []string{charges, looked, dead, pays}},
		{"killed", "the provider was not asked", func(e *evidence) { e.books.LookUps = 0 }, []string{looked}},
		{"killed", "a survivor got nothing", func(e *evidence) { e.callers = e.callers[1:] }, []string{who, survive, second}},
		{"killed", "it took too long", func(e *evidence) { e.killedAt = e.killedAt.Add(-time.Minute) }, []string{sinceHit}},
	} {
		t.Run(tt.scene+"/"+tt.wrong, func(t *testing.T) {
			for _, trial := range trials {
				if trial.name == tt.scene {
					e := trial.good()
					tt.spoil(e)
					assert.ElementsMatch(t, tt.fails, stage.Failing(trial.judge(e)))
				}
			}
		})
	}
}

func TestConclusion(t *testing.T) {
	good := &scene{number: 1, title: "good", checks: []stage.Check{stage.Exactly("a", 1, 1)}}
	bad := &scene{number: 2, title: "bad", checks: []stage.Check{stage.Exactly("a", 1, 1), stage.Exactly("b", 1, 2, "why")}}
	broken := &scene{number: 3, title: "not played to its end"}
	for _, tt := range []struct {
		name   string
		scenes []*scene
		err    error
		status int
		says   []string
	}{
		{"all holds", []*scene{good, good}, nil, 0, []string{"All 2 checks hold."}},
		{"a check fails", []*scene{good, bad}, nil, 1, []string{"1 of 2\n", "FAILED: 1 of 3 checks do not hold."}},
		{"a scene breaks off", []*scene{good, broken}, errors.New("hung"), 1, []string{"FAILED: hung"}},
		{"a check fails, then a scene breaks off", []*scene{bad, broken}, errors.New("hung"), 1, []string{"1 of 2\n", "FAILED: hung"}},
		{"nothing was checked", nil, nil, 1, []string{"FAILED"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out strings.Builder
			require.Equal(t, tt.status, conclude(stage.NewNarrator(&out), tt.scenes, tt.err), out.String())
			for _, text := range tt.says {
				assert.Contains(t, out.String(), text)
			}
			assert.Equal(t, tt.status == 0, !strings.Contains(out.String(), "FAILED"))
		})
	}
}

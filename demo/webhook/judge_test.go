package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent/demo/internal/stage"
	"github.com/idempotent-go/idempotent/webhook"
)

// Evidence as it should be. Each test takes its own and spoils it.

func goodForgeries() *forgeries {
	return &forgeries{
		tried:   []forgery{{what: "no signature", want: 400, got: 400}, {what: "old", want: 400, got: 400}},
		genuine: http.StatusOK, credits: 1,
		noSecret: "webhook: Stripe: a secret is empty",
	}
}

func processed(times int, change string) webhook.Record {
	return webhook.Record{State: webhook.Done, Attempts: 1, Changed: json.RawMessage(change), Deliveries: times}
}

func credited(orders ...string) books {
	b := books{credits: map[string]int{}, asked: map[string][]time.Time{}, lookups: map[string]int{}}
	for _, order := range orders {
		b.credits[order]++
		b.asked[order] = append(b.asked[order], time.Time{})
	}
	return b
}

func goodRepetition() *repetition {
	return &repetition{
		expected: 40, effects: 2, perEvent: 20, different: 2,
		tally: tally{accepted: 40}, repeated: 38,
		books:   credited("order-1", "order-2"),
		answers: []webhook.Record{processed(20, "1"), processed(20, "2")},
	}
}

func goodRenamed() *renamed {
	e := &renamed{*goodRepetition()}
	e.books = credited(transfer, transfer)
	return e
}

// triedAt is when an order was tried, in milliseconds.
func triedAt(ms ...int) (times []time.Time) {
	for _, n := range ms {
		times = append(times, time.UnixMilli(int64(n)))
	}
	return times
}

func goodFailed() *failed {
	before := credited(flaky)
	before.asked = map[string][]time.Time{flaky: triedAt(0, 150, 400), down: triedAt(0, 150, 400, 900), unknown: triedAt(0)}
	letter := func(attempts int, cause webhook.Cause) webhook.Record {
		return webhook.Record{Attempts: attempts, Cause: cause, Reason: "the ledger is unavailable", Trail: []webhook.Step{
			{At: time.UnixMilli(0), State: webhook.Queued}, {At: time.UnixMilli(1), State: webhook.Dead},
		}}
	}
	return &failed{
		before: before, resent: before, after: credited(flaky, down, unknown),
		letters: map[string]webhook.Record{
			evtDown:    letter(demoAttempts, webhook.CauseAttempts),
			evtUnknown: letter(1, webhook.CausePermanent),
		},
		redriven: []int{1, 1},
		states:   []webhook.State{webhook.Done, webhook.Done, webhook.Done},
	}
}

func goodRestarted() *restarted {
	e := &restarted{accepted: 3, atDeath: credited("order-made"), books: credited("order-asked", "order-made", "order-waiting")}
	e.books.lookups = map[string]int{"a": 1, "b": 1}
	for _, attempts := range []int{2, 2, 1} {
		a := processed(1, "1")
		a.Attempts = attempts
		e.answers = append(e.answers, a)
	}
	return e
}

func goodAccount() *account {
	e := &account{
		load: load{sent: 10, limit: 100 * time.Millisecond}, distinct: 7, doomed: 2,
		repeated: 3,
		tally:    tally{accepted: 10, answers: []time.Duration{time.Millisecond, 100 * time.Millisecond}},
		books:    credited("1", "2", "3", "4", "5"),
		backlog:  webhook.Backlog{Dead: 2},
		asked:    5, right: 5,
	}
	return e
}

func TestJudgesAcceptWhatShouldBe(t *testing.T) {
	late := goodAccount()
	late.limit, late.tally.answers[1] = 0, time.Minute
	again := goodRepetition()
	again.tally.resent, again.repeated, again.answers[0].Deliveries = 2, 39, 21
	for _, e := range []evidence{
		goodForgeries(), goodRepetition(), again, goodRenamed(), goodFailed(), goodRestarted(), goodAccount(), late,
	} {
		assert.Empty(t, stage.Failing(e.checks()), "%T", e)
	}
}

// A trial is evidence of which something is wrong, and the checks that must say so: these and no
// others.
type trial struct {
	wrong string
	found evidence
	fails []string
}

func try(t *testing.T, trials []trial) {
	t.Helper()
	for _, tt := range trials {
		t.Run(tt.wrong, func(t *testing.T) {
			assert.ElementsMatch(t, tt.fails, stage.Failing(tt.found.checks()))
		})
	}
}

func spoilt[E evidence](e E, spoil func(E)) evidence {
	spoil(e)
	return e
}

func TestJudgeFindsForgeries(t *testing.T) {
	with := func(spoil func(*forgeries)) evidence { return spoilt(goodForgeries(), spoil) }
	try(t, []trial{
		{"a forgery is accepted", with(func(e *forgeries) { e.tried[1].got = 200 }), []string{"old"}},
		{"a forgery crashes it", with(func(e *forgeries) { e.tried[0].got = 500 }), []string{"no signature"}},
		{"a forgery is remembered", with(func(e *forgeries) { e.known = 1 }), []string{"events the endpoint knows of after that"}},
		{"a forgery is queued", with(func(e *forgeries) { e.queued = 1 }), []string{"entries in its queue"}},
		{"a forgery has an effect", with(func(e *forgeries) { e.asked = 1 }), []string{"requests to the ledger"}},
		{"all is refused", with(func(e *forgeries) { e.genuine, e.credits = 400, 0 }), []string{"a genuine event", "credits by it"}},
		{"it starts without a secret", with(func(e *forgeries) { e.noSecret = "" }), []string{"an endpoint without a secret"}},
		{"it fails to start for another reason", with(func(e *forgeries) { e.noSecret = "no ledger" }), []string{"an endpoint without a secret"}},
	})
}

func TestJudgeFindsRepetitions(t *testing.T) {
	const (
		accepted   = "deliveries answered with 2xx"
		recognised = "of these, recognised as duplicates"
		credits    = "credits in the ledger"
		twice      = "orders credited twice"
		tell       = "ids that tell: processed, and what changed"
		often      = "ids that tell how often it was delivered"
		different  = "different changes among them"
		versions   = "credits of the transfer: one for each version"
	)
	with := func(spoil func(*repetition)) evidence { return spoilt(goodRepetition(), spoil) }
	try(t, []trial{
		{"a second effect", with(func(e *repetition) { e.books.credits["order-1"]++ }), []string{credits, twice}},
		{"a second effect instead of a first one", with(func(e *repetition) { e.books.credits = map[string]int{"order-1": 2} }), []string{twice}},
		{"no effect", with(func(e *repetition) { e.books = credited() }), []string{credits}},
		{"a delivery is not accepted", with(func(e *repetition) { e.tally.accepted-- }), []string{accepted}},
		{"a duplicate is not recognised", with(func(e *repetition) { e.repeated-- }), []string{recognised}},
		{"an event counts as a duplicate", with(func(e *repetition) { e.repeated++ }), []string{recognised}},
		{"an event is not processed", with(func(e *repetition) { e.answers[1].State = webhook.Queued }), []string{tell}},
		{"nobody knows what changed", with(func(e *repetition) { e.answers[1].Changed = nil }), []string{tell}},
		{"a delivery is not counted", with(func(e *repetition) { e.answers[0].Deliveries-- }), []string{often}},
		{"two events name one change", with(func(e *repetition) { e.different = 1 }), []string{different}},
	})
	try(t, []trial{
		{"the second version is lost", spoilt(goodRenamed(), func(e *renamed) { e.books = credited(transfer) }), []string{credits, versions}},
		{"an id has its own effect", spoilt(goodRenamed(), func(e *renamed) { e.books = credited(transfer, transfer, transfer) }), []string{credits, versions}},
	})
}

func TestJudgeFindsFailures(t *testing.T) {
	const (
		fails2     = "attempts for the order that fails twice"
		failsOn    = "attempts for the order that always fails"
		tried1     = "attempts for the order that is unknown"
		pauses     = "pauses between them, in ms, at least"
		by         = "credits by then: the one that failed twice"
		letters    = "dead letters"
		why        = "one says how often it was tried"
		whyUnknown = "the other, that the order is unknown"
		dead       = "attempts for the dead, delivered once more"
		told       = "times that each was redriven"
		once       = "orders credited once in the end"
		left       = "dead letters in the end"
		states     = "the events, asked whether they were processed"
	)
	with := func(spoil func(*failed)) evidence { return spoilt(goodFailed(), spoil) }
	letter := func(id string, change func(l *webhook.Record)) evidence {
		return with(func(e *failed) {
			l := e.letters[id]
			change(&l)
			e.letters[id] = l
		})
	}
	asked := func(order string, times []time.Time) evidence {
		return with(func(e *failed) { e.before.asked[order] = times })
	}
	try(t, []trial{
		{"it is not tried again", asked(flaky, triedAt(0)), []string{fails2}},
		{"it is tried for ever", asked(down, triedAt(0, 150, 400, 900, 2000)), []string{failsOn}},
		{"it is tried in vain", asked(unknown, triedAt(0, 150)), []string{tried1}},
		{"it is tried at once", asked(down, triedAt(0, 50, 400, 900)), []string{pauses}},
		{"the pauses do not grow", asked(down, triedAt(0, 150, 300, 450)), []string{pauses}},
		{"a failure has an effect", with(func(e *failed) { e.before.credits[down]++ }), []string{by}},
		{"a failure is forgotten", with(func(e *failed) { delete(e.letters, evtDown) }), []string{letters, why}},
		{"no reason", letter(evtUnknown, func(l *webhook.Record) { l.Reason = "" }), []string{whyUnknown}},
		{"another cause", letter(evtUnknown, func(l *webhook.Record) { l.Cause = webhook.CauseError }), []string{whyUnknown}},
		{"attempts are not counted", letter(evtDown, func(l *webhook.Record) { l.Attempts = 1 }), []string{why}},
		{"no time of the first failure", letter(evtDown, func(l *webhook.Record) { l.Trail = nil }), []string{why}},
		{"a duplicate wakes the dead", with(func(e *failed) {
			e.resent = credited()
			e.resent.asked = map[string][]time.Time{down: triedAt(0, 1, 2, 3, 4), unknown: triedAt(0)}
		}), []string{dead}},
		{"two people redrive", with(func(e *failed) { e.redriven = []int{2, 1} }), []string{told}},
		{"no redrive queues it", with(func(e *failed) { e.redriven = []int{1, 0} }), []string{told}},
		{"a redrive has two effects", with(func(e *failed) { e.after.credits[down]++ }), []string{once}},
		{"a redrive has none", with(func(e *failed) { delete(e.after.credits, down) }), []string{once}},
		{"a dead letter stays", with(func(e *failed) { e.left = 1 }), []string{left}},
		{"an event is not processed", with(func(e *failed) { e.states[1] = webhook.Dead }), []string{states}},
	})
}

func TestJudgeFindsWhatAKillDoes(t *testing.T) {
	with := func(spoil func(*restarted)) evidence { return spoilt(goodRestarted(), spoil) }
	const in = "   it was processed, in attempt"
	try(t, []trial{
		{"an event is not accepted", with(func(e *restarted) { e.accepted = 2 }), []string{"events accepted before the kill"}},
		{"the kill comes too late", with(func(e *restarted) { e.atDeath = credited("order-made", "order-asked") }), []string{"credits in the ledger then"}},
		{"what was accepted is lost", with(func(e *restarted) {
			delete(e.books.credits, "order-waiting")
			e.answers[2].State = webhook.Queued
		}), []string{"credits of the one waiting in the queue", in}},
		{"what was asked for is lost", with(func(e *restarted) { delete(e.books.credits, "order-asked") }), []string{"credits of the one asked for, not credited"}},
		{"what was made is made again", with(func(e *restarted) {
			e.books.credits["order-made"]++
			e.books.asked["order-made"] = triedAt(0, 1)
		}), []string{"credits of the one credited, not answered", "requests for the credit that was made"}},
		{"the attempt is forgotten", with(func(e *restarted) { e.answers[1].Attempts = 1 }), []string{in}},
		{"attempt 2 does not ask", with(func(e *restarted) { delete(e.books.lookups, "a") }), []string{"events for which attempt 2 asked what had happened"}},
		{"nobody can tell", with(func(e *restarted) { e.answers = nil }), []string{in, in, in}},
	})
}

func TestJudgeFindsWhatALoadDoes(t *testing.T) {
	const (
		accepted   = "events accepted"
		recognised = "of these, recognised as duplicates"
		credits    = "credits in the ledger"
		orders     = "orders credited"
		twice      = "orders credited twice"
		dead       = "dead letters"
		left       = "events left in the queue or to be retried"
		right      = "right answers about 5 of the events"
		slow       = "answered within, but for the slowest 1 %"
	)
	with := func(spoil func(*account)) evidence { return spoilt(goodAccount(), spoil) }
	try(t, []trial{
		{"an event is not accepted", with(func(e *account) { e.tally.accepted-- }), []string{accepted}},
		{"a duplicate is not recognised", with(func(e *account) { e.repeated-- }), []string{recognised}},
		{"an effect is lost", with(func(e *account) { delete(e.books.credits, "1") }), []string{credits, orders}},
		{"an effect comes twice", with(func(e *account) { e.books.credits["1"]++ }), []string{credits, twice}},
		{"one is lost, and one comes twice", with(func(e *account) {
			delete(e.books.credits, "1")
			e.books.credits["2"]++
		}), []string{orders, twice}},
		{"a failure is forgotten", with(func(e *account) { e.backlog.Dead-- }), []string{dead}},
		{"something is left", with(func(e *account) { e.backlog.Retrying++ }), []string{left}},
		{"an answer is wrong", with(func(e *account) { e.right-- }), []string{right}},
		{"it is slow", with(func(e *account) { e.tally.answers[1]++ }), []string{slow}},
		{"nothing was measured", with(func(e *account) { e.tally.answers = nil }), []string{slow}},
		{"nothing was measured, and nothing is asked", with(func(e *account) { e.tally.answers, e.limit = nil, 0 }), []string{slow}},
	})
}

func TestPercentile(t *testing.T) {
	var all []time.Duration
	for i := range 200 {
		all = append(all, time.Duration(200-i))
	}
	assert.EqualValues(t, 100, percentile(all, 50))
	assert.EqualValues(t, 198, percentile(all, 99))
	assert.EqualValues(t, 200, percentile(all, 100))
	assert.EqualValues(t, 7, percentile([]time.Duration{7}, 99))
	assert.EqualValues(t, -1, percentile(nil, 99))
}

// The load sends what it says it sends.
func TestLoadBodies(t *testing.T) {
	seen := make(map[string]int)
	for _, body := range (load{sent: 1000}).bodies(700) {
		var p payload
		require.NoError(t, json.Unmarshal(body, &p))
		seen[p.ID]++
	}
	assert.Len(t, seen, 700)
	total := 0
	for i := range 700 {
		total += seen[fmt.Sprintf("evt_%d", i)]
	}
	assert.Equal(t, 1000, total)
}

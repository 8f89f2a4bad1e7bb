package main

import (
	"testing"

	"github.com/hibiken/asynq"
	"github.com/stretchr/testify/assert"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/demo/internal/stage"
)

var (
	paid    = Receipt{Number: "rf_1", Cents: ours.Cents}
	another = Receipt{Number: "rf_2", Cents: ours.Cents}
)

func delivered(worker int, source idempotent.Source) delivery {
	return delivery{Worker: worker, Source: source, Attempt: 1, Receipt: paid}
}

func completed(retried int, lastErr string) task {
	return task{state: asynq.TaskStateCompleted, retried: retried, lastErr: lastErr, result: paid}
}

// A trial is a judge, and evidence of a scene in which all went well.
type trial struct {
	judge func(e *evidence) []stage.Check
	good  func() *evidence
}

var trials = map[string]trial{
	"alone": {judgeAsynqAlone, func() *evidence {
		return &evidence{refund: ours, tasks: []task{completed(1, "")}, books: books{Requests: 2, Receipts: []Receipt{paid, another}}}
	}},
	"twice": {judgeTwoDeliveries, func() *evidence {
		return &evidence{
			refund:     ours,
			runs:       []run{{1, 1}},
			deliveries: []delivery{delivered(2, idempotent.Waited), delivered(1, idempotent.Executed), delivered(1, idempotent.Replayed)},
			tasks:      []task{completed(0, ""), completed(0, ""), completed(0, "")},
			books:      books{Requests: 1, Receipts: []Receipt{paid}},
		}
	}},
	"killed": {judgeKilledWorker, func() *evidence {
		e := secondAttempt("asynq: task lease expired")
		e.killed = 1
		return e
	}},
	"unclear": {
		func(e *evidence) []stage.Check { return judgeUnclear(e, "EOF") },
		func() *evidence { return secondAttempt("bank: no answer: EOF") },
	},
	"outage": {judgeOutage, func() *evidence {
		return &evidence{
			refund:     ours,
			runs:       []run{{1, 1}, {2, 1}, {1, 1}},
			deliveries: []delivery{{Worker: 1, Error: "503"}, {Worker: 2, Error: "503"}, delivered(1, idempotent.Executed)},
			recorded:   1,
			released:   2,
			tasks:      []task{completed(2, "503")},
			books:      books{Requests: 3, Receipts: []Receipt{paid}},
		}
	}},
	"refusal": {judgeRefusal, func() *evidence {
		no := RefusedError{Reason: "account closed", Request: "req_1"}
		return &evidence{
			refund:   ours,
			runs:     []run{{1, 1}},
			recorded: 1,
			deliveries: []delivery{
				{Worker: 1, Source: idempotent.Executed, Error: no.Error(), Refused: &no},
				{Worker: 2, Source: idempotent.Replayed, Error: no.Error(), Refused: &RefusedError{no.Reason, no.Request}, Replayed: true},
			},
			tasks:   []task{{state: asynq.TaskStateArchived}, {state: asynq.TaskStateArchived}},
			answers: []visit{{status: 422, refused: no}},
			books:   books{Requests: 1},
		}
	}},
	"visitors": {judgeVisitors, func() *evidence {
		told := visit{status: 200, receipt: paid}
		return &evidence{
			refund:     ours,
			runs:       []run{{1, 1}},
			deliveries: []delivery{delivered(1, idempotent.Executed)},
			tasks:      []task{completed(0, "")},
			answers:    []visit{{status: 404}, {status: 202}, told, told, told},
			books:      books{Requests: 1, Receipts: []Receipt{paid}},
		}
	}},
}

// secondAttempt is what must be left when the first one ended without an outcome.
func secondAttempt(lastErr string) *evidence {
	return &evidence{
		refund:     ours,
		runs:       []run{{1, 1}, {2, 2}},
		deliveries: []delivery{delivered(2, idempotent.Executed)},
		recorded:   1,
		tasks:      []task{completed(1, lastErr)},
		books:      books{Requests: 1, LookUps: 1, Receipts: []Receipt{paid}},
	}
}

func TestJudgesAcceptWhatIsRight(t *testing.T) {
	for name, trial := range trials {
		assert.Empty(t, stage.Failing(trial.judge(trial.good())), name)
	}
}

func TestJudgesRejectNothing(t *testing.T) {
	for name, trial := range trials {
		assert.NotEmpty(t, stage.Failing(trial.judge(&evidence{})), name)
	}
}

func TestJudgesRejectWhatIsWrong(t *testing.T) {
	const (
		ends     = "how asynq ends"
		attempts = "executions of fn, by attempt"
		asked    = "times the bank was asked to pay"
		lookUps  = "times it was asked whether it had"
		refunds  = "refunds paid"
		recorded = "outcomes recorded"
		results  = "tasks with the bank's receipt as their result"
		got      = "deliveries that got the bank's receipt"
		sources  = "deliveries that ran fn / waited / had it replayed"
		bothHave = "deliveries in which errors.As finds the bank's no"
		told     = "what the visitors were told"
		visitors = "visitors that got the bank's receipt"
	)
	payTwice := func(e *evidence) { e.books.Requests++; e.books.Receipts = append(e.books.Receipts, another) }
	for _, tt := range []struct {
		scene string
		wrong string
		spoil func(e *evidence)
		fails []string
	}{
		{"alone", "it is paid once", func(e *evidence) { e.books.Receipts = e.books.Receipts[:1] }, []string{"refunds paid: this is what goes wrong"}},
		{"alone", "asynq does not try again", func(e *evidence) { e.tasks[0].retried = 0; e.books.Requests = 1 }, []string{ends, asked}},

		{"twice", "it is paid twice", payTwice, []string{asked, refunds}},
		{"twice", "it is not paid", func(e *evidence) { e.books = books{} }, []string{asked, refunds, got, results}},
		{"twice", "fn runs twice", func(e *evidence) { e.runs = append(e.runs, run{2, 1}) }, []string{attempts}},
		{"twice", "fn runs as attempt 2", func(e *evidence) { e.runs[0].attempt = 2 }, []string{attempts}},
		{"twice", "one worker gets both", func(e *evidence) { e.deliveries[0].Worker = 1 }, []string{"the first two deliveries are in two workers"}},
		{"twice", "the second delivery runs fn", func(e *evidence) { e.deliveries[0].Source = idempotent.Executed }, []string{sources}},
		{"twice", "a delivery gets another receipt", func(e *evidence) { e.deliveries[2].Receipt = another }, []string{got}},
		{"twice", "a delivery gets an error", func(e *evidence) { e.deliveries[2].Error = "busy" }, []string{got}},
		{"twice", "a task has no result", func(e *evidence) { e.tasks[1].result = Receipt{} }, []string{results}},
		{"twice", "a task is tried again", func(e *evidence) { e.tasks[1].retried = 1 }, []string{ends}},
		{"twice", "a task is archived", func(e *evidence) { e.tasks[1].state = asynq.TaskStateArchived }, []string{ends, results}},
		{"twice", "another amount is paid", func(e *evidence) { e.refund.Cents++ }, []string{got, results}},

		{"killed", "it is paid twice", payTwice, []string{asked, refunds}},
		{"killed", "nobody was killed", func(e *evidence) { e.killed = 0 }, []string{"worker that ran fn to its end is the killed one"}},
		{"killed", "the dead one goes on", func(e *evidence) { e.runs[1].worker = 1 }, []string{"worker that ran fn to its end is the killed one"}},
		{"killed", "the death is forgotten", func(e *evidence) { e.runs[1].attempt = 1; e.books.LookUps = 0 }, []string{attempts, lookUps}},
		{"killed", "asynq had another reason", func(e *evidence) { e.tasks[0].lastErr = "EOF" }, []string{"asynq's reason: asynq: task lease expired"}},
		{"killed", "the receipt is another one", func(e *evidence) { e.tasks[0].result = another }, []string{"the receipt is the one of the dead worker's refund"}},

		{"unclear", "it is paid twice", payTwice, []string{asked, refunds}},
		{"unclear", "the error is recorded", func(e *evidence) { e.recorded = 2 }, []string{recorded}},
		{"unclear", "the attempt is forgotten", func(e *evidence) { e.runs[1].attempt = 1; e.books.LookUps = 0 }, []string{attempts, lookUps}},
		{"unclear", "asynq gives up", func(e *evidence) { e.tasks[0] = task{state: asynq.TaskStateArchived, lastErr: "EOF"} }, []string{ends, "the receipt is the one of the first attempt"}},
		{"unclear", "there was no error", func(e *evidence) { e.tasks[0].lastErr = "" }, []string{"asynq's reason: EOF"}},

		{"outage", "it is paid twice", payTwice, []string{asked, refunds}},
		{"outage", "the error is recorded", func(e *evidence) { e.recorded, e.released = 2, 1 }, []string{recorded, "executions that left the key free"}},
		{"outage", "the error is replayed", func(e *evidence) { e.deliveries[1].Replayed = true }, []string{"errors that came from a record"}},
		{"outage", "a 503 counts as an interruption", func(e *evidence) { e.runs[1].attempt = 2 }, []string{attempts}},
		{"outage", "asynq counts no failures", func(e *evidence) { e.tasks[0].retried = 0 }, []string{ends}},

		{"refusal", "it is paid", func(e *evidence) { e.books.Receipts = []Receipt{paid} }, []string{refunds}},
		{"refusal", "the bank is asked again", func(e *evidence) { e.books.Requests = 2 }, []string{asked}},
		{"refusal", "asynq tries again", func(e *evidence) { e.tasks[0].retried = 1 }, []string{ends}},
		{"refusal", "the replay lost its type", func(e *evidence) { e.deliveries[1].Refused = nil }, []string{bothHave}},
		{"refusal", "the replay lost its fields", func(e *evidence) { e.deliveries[1].Refused = &RefusedError{} }, []string{bothHave}},
		{"refusal", "the replay does not say so", func(e *evidence) { e.deliveries[1].Replayed = false }, []string{"marked as replayed (ErrReplayed)"}},
		{"refusal", "the visitor hears of another one", func(e *evidence) { e.answers[0].refused.Request = "req_2" }, []string{"the visitor was told the same (422)"}},
		{"refusal", "the visitor hears nothing", func(e *evidence) { e.answers = nil }, []string{"the visitor was told the same (422)"}},

		{"visitors", "a visit pays", payTwice, []string{asked, refunds}},
		{"visitors", "a visit leaves a trace", func(e *evidence) { e.trace = idempotent.StateFailed }, []string{"what the first one left in Redis"}},
		{"visitors", "one hears of another receipt", func(e *evidence) { e.answers[3].receipt = another }, []string{visitors}},
		{"visitors", "one does not get the result", func(e *evidence) { e.answers[3] = visit{status: 202} }, []string{told, visitors}},
		{"visitors", "one gets it too early", func(e *evidence) { e.answers[0] = e.answers[2] }, []string{told, visitors}},
		{"visitors", "the job is done twice", func(e *evidence) { e.runs = append(e.runs, run{2, 2}) }, []string{attempts}},
	} {
		t.Run(tt.scene+"/"+tt.wrong, func(t *testing.T) {
			e := trials[tt.scene].good()
			tt.spoil(e)
			assert.ElementsMatch(t, tt.fails, stage.Failing(trials[tt.scene].judge(e)))
		})
	}
}

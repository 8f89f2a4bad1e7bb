package main

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/hibiken/asynq"
	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/demo/internal/stage"
)

func judgeAsynqAlone(e *evidence) []stage.Check {
	return []stage.Check{
		stage.Exactly("how asynq ends", "completed, 1 retry", e.ends()),
		stage.Exactly("times the bank was asked to pay", 2, e.books.Requests),
		stage.Exactly("refunds paid: this is what goes wrong", 2, len(e.books.Receipts)),
	}
}

func judgeTwoDeliveries(e *evidence) []stage.Check {
	both := len(e.deliveries) > 1 && e.deliveries[0].Worker != e.deliveries[1].Worker
	return append([]stage.Check{
		stage.Exactly("how asynq ends", "3 completed", e.ends()),
		stage.Exactly("executions of fn, by attempt", "1", e.attempts()),
		stage.Exactly("the first two deliveries are in two workers", true, both),
		stage.Exactly("deliveries that ran fn / waited / had it replayed", "1 / 1 / 1", e.sources()),
		stage.Exactly("deliveries that got the bank's receipt", 3, e.receiptsDelivered()),
		stage.Exactly("tasks with the bank's receipt as their result", 3, e.resultsStored()),
	}, e.paidOnce(1, 0)...)
}

func judgeKilledWorker(e *evidence) []stage.Check {
	return append([]stage.Check{
		stage.Exactly("how asynq ends", "completed, 1 retry", e.ends()),
		e.why("asynq: task lease expired"),
		stage.Exactly("executions of fn, by attempt", "1 2", e.attempts()),
		stage.Exactly("worker that ran fn to its end is the killed one", false, e.killed == 0 || e.lastRunner() == e.killed),
		stage.Exactly("the receipt is the one of the dead worker's refund", 1, e.resultsStored()),
	}, e.paidOnce(1, 1)...)
}

// judgeUnclear is for an execution that ended with an error that says nothing about the money.
func judgeUnclear(e *evidence, lastError string) []stage.Check {
	return append([]stage.Check{
		stage.Exactly("how asynq ends", "completed, 1 retry", e.ends()),
		e.why(lastError),
		stage.Exactly("executions of fn, by attempt", "1 2", e.attempts()),
		stage.Exactly("outcomes recorded", 1, e.recorded),
		stage.Exactly("the receipt is the one of the first attempt", 1, e.resultsStored()),
	}, e.paidOnce(1, 1)...)
}

func judgeOutage(e *evidence) []stage.Check {
	return append([]stage.Check{
		stage.Exactly("how asynq ends", "completed, 2 retries", e.ends()),
		stage.Exactly("executions of fn, by attempt", "1 1 1", e.attempts()),
		stage.Exactly("executions that left the key free", 2, e.released),
		stage.Exactly("outcomes recorded", 1, e.recorded),
		stage.Exactly("errors that came from a record", 0, e.count(func(d delivery) bool { return d.Replayed })),
		stage.Exactly("tasks with the bank's receipt as their result", 1, e.resultsStored()),
	}, e.paidOnce(3, 0)...)
}

func judgeRefusal(e *evidence) []stage.Check {
	request := "none"
	if len(e.deliveries) > 0 && e.deliveries[0].Refused != nil {
		request = e.deliveries[0].Refused.Request
	}
	refused := func(d delivery) bool { return d.Refused != nil && d.Refused.Request == request }
	told := slices.ContainsFunc(e.answers, func(v visit) bool {
		return v.status == http.StatusUnprocessableEntity && v.refused.Request == request
	})
	return []stage.Check{
		stage.Exactly("how asynq ends", "2 archived", e.ends()),
		stage.Exactly("executions of fn, by attempt", "1", e.attempts()),
		stage.Exactly("outcomes recorded", 1, e.recorded),
		stage.Exactly("deliveries in which errors.As finds the bank's no", 2, e.count(refused)),
		stage.Exactly("of these, ran fn / waited / had it replayed", "1 / 0 / 1", e.sources()),
		stage.Exactly("marked as replayed (ErrReplayed)", 1, e.count(func(d delivery) bool { return d.Replayed })),
		stage.Exactly("the visitor was told the same (422)", true, told),
		stage.Exactly("times the bank was asked to pay", 1, e.books.Requests),
		stage.Exactly("refunds paid", 0, len(e.books.Receipts)),
	}
}

func judgeVisitors(e *evidence) []stage.Check {
	var statuses []string
	got := 0
	for _, v := range e.answers {
		statuses = append(statuses, fmt.Sprint(v.status))
		if v.status == http.StatusOK && e.isPaid(v.receipt) {
			got++
		}
	}
	return append([]stage.Check{
		stage.Exactly("what the visitors were told", "404 202 200 200 200", strings.Join(statuses, " ")),
		stage.Exactly("what the first one left in Redis", idempotent.StateAbsent, e.trace),
		stage.Exactly("visitors that got the bank's receipt", 3, got),
		stage.Exactly("how asynq ends", "completed", e.ends()),
		stage.Exactly("executions of fn, by attempt", "1", e.attempts()),
	}, e.paidOnce(1, 0)...)
}

// paidOnce are the checks that every refund has that is paid in the end.
func (e *evidence) paidOnce(requests, lookUps int) []stage.Check {
	return []stage.Check{
		stage.Exactly("times the bank was asked to pay", requests, e.books.Requests),
		stage.Exactly("times it was asked whether it had", lookUps, e.books.LookUps),
		stage.Exactly("refunds paid", 1, len(e.books.Receipts)),
	}
}

// ends says how asynq ended with the tasks.
func (e *evidence) ends() string {
	var ends []string
	for _, t := range e.tasks {
		ends = append(ends, t.String())
	}
	if all := slices.Compact(slices.Clone(ends)); len(ends) > 1 && len(all) == 1 {
		return fmt.Sprintf("%d %s", len(ends), all[0])
	}
	return strings.Join(ends, "; ")
}

// why is a check of the last error that asynq had of the last task.
func (e *evidence) why(lastError string) stage.Check {
	told := len(e.tasks) > 0 && strings.Contains(e.tasks[len(e.tasks)-1].lastErr, lastError)
	return stage.Exactly("asynq's reason: "+lastError, true, told)
}

func (e *evidence) attempts() string {
	var attempts []string
	for _, r := range e.runs {
		attempts = append(attempts, fmt.Sprint(r.attempt))
	}
	return strings.Join(attempts, " ")
}

func (e *evidence) lastRunner() int {
	if len(e.runs) == 0 {
		return 0
	}
	return e.runs[len(e.runs)-1].worker
}

// sources says how many deliveries ran fn, waited for another one, and got what was recorded.
func (e *evidence) sources() string {
	from := make(map[idempotent.Source]int)
	for _, d := range e.deliveries {
		from[d.Source]++
	}
	return fmt.Sprintf("%d / %d / %d", from[idempotent.Executed], from[idempotent.Waited], from[idempotent.Replayed])
}

func (e *evidence) count(fits func(delivery) bool) int {
	n, _ := stage.Count(e.deliveries, fits)
	return n
}

// isPaid reports whether r is the receipt of the first refund that the bank has paid.
func (e *evidence) isPaid(r Receipt) bool {
	return len(e.books.Receipts) > 0 && r == e.books.Receipts[0] && r.Number != "" && r.Cents == e.refund.Cents
}

func (e *evidence) receiptsDelivered() int {
	return e.count(func(d delivery) bool { return d.Error == "" && e.isPaid(d.Receipt) })
}

// resultsStored is how many tasks have the bank's receipt as their result, for those who look at
// the queue.
func (e *evidence) resultsStored() (n int) {
	for _, t := range e.tasks {
		if t.state == asynq.TaskStateCompleted && e.isPaid(t.result) {
			n++
		}
	}
	return n
}

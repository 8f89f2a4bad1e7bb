package webhooktest

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/webhook"
)

// executors returns two executors on the same store, as two processes have them.
func (s *suite) executors() (a, b webhook.Executor) {
	s.Helper()
	var made [2]webhook.Executor
	for i := range made {
		x, err := s.Executor(webhook.ExecutorConfig{TTL: time.Hour, Lease: 5 * time.Second, Logger: slog.New(slog.DiscardHandler)})
		s.no(err)
		s.Cleanup(func() { s.no(x.Close()) })
		made[i] = x
	}
	return made[0], made[1]
}

func testExecutor(s *suite) {
	a, b := s.executors()
	calls := 0
	run := func(ctx context.Context, attempt int) (webhook.Outcome, error) {
		calls++
		s.equal("attempt", attempt, 1)
		_, _, err := b.Execute(ctx, webhook.Execution{Key: "key", Run: func(context.Context, int) (webhook.Outcome, error) {
			s.Error("the key ran in two processes at once")
			return webhook.Outcome{}, nil
		}})
		s.is(err, idempotent.ErrInProgress)
		return webhook.Outcome{Changed: []byte(`{"order":"1"}`), Skipped: true, Reason: "because"}, nil
	}
	for _, x := range []webhook.Executor{a, b, a} {
		out, attempt, err := x.Execute(s.Context(), webhook.Execution{Key: "key", Run: run})
		s.no(err)
		s.equal("changed", string(out.Changed), `{"order":"1"}`)
		s.equal("skipped", out.Skipped, true)
		s.equal("reason", out.Reason, "because")
		s.equal("attempt", attempt, 1)
	}
	s.equal("calls", calls, 1)

	failing := webhook.Execution{Key: "failing", Run: func(context.Context, int) (webhook.Outcome, error) {
		calls++
		return webhook.Outcome{}, errors.New("no such order")
	}}
	_, _, err := a.Execute(s.Context(), failing)
	s.equal("error", err.Error(), "no such order")
	_, _, err = b.Execute(s.Context(), failing)
	s.is(err, idempotent.ErrReplayed)
	s.equal("replayed error", err.Error(), "no such order")
	s.equal("calls", calls, 2)
}

func testExecutorAttempts(s *suite) {
	a, b := s.executors()
	var attempts []int
	next := error(nil)
	x := webhook.Execution{Key: "key", Run: func(_ context.Context, attempt int) (webhook.Outcome, error) {
		attempts = append(attempts, attempt)
		return webhook.Outcome{}, next
	}}
	for i, err := range []error{
		idempotent.Retryable(errors.New("unavailable")),
		idempotent.OutcomeUnknown(errors.New("connection reset")),
		idempotent.Retryable(errors.New("unavailable")),
		nil,
	} {
		next = err
		_, _, got := []webhook.Executor{a, b}[i%2].Execute(s.Context(), x)
		if next == nil {
			s.no(got)
		} else {
			s.is(got, next)
		}
	}
	if len(attempts) != 4 || attempts[0] != 1 || attempts[1] != 1 || attempts[2] != 2 || attempts[3] < 2 {
		s.Fatalf("attempts: %v; want 1, 1, 2 and then 2 or more: a retryable error does not count, an unknown outcome does", attempts)
	}
}

func testExecutorRefuse(s *suite) {
	a, b := s.executors()
	calls := 0
	x := webhook.Execution{Key: "key", Refuse: true, Run: func(context.Context, int) (webhook.Outcome, error) {
		calls++
		return webhook.Outcome{}, idempotent.OutcomeUnknown(errors.New("connection reset"))
	}}
	_, _, err := a.Execute(s.Context(), x)
	if err == nil {
		s.Fatal("Execute returned no error after an unknown outcome")
	}
	_, _, err = b.Execute(s.Context(), x)
	s.is(err, idempotent.ErrInterrupted)
	s.equal("calls", calls, 1)
}

func testCheck(s *suite) {
	d, err := s.Check(s.Context())
	s.no(err)
	if d.Survives == "" {
		s.Fatal("Check does not say what an accepted event survives")
	}
}

package idempotent_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/idemcheck"
)

// A caller that has no time to wait is told at once, with a time to come back after.
func ExampleWithNoWait() {
	jobs, stop := exampleExecutor[string](idempotent.WithLease(10 * time.Second))
	defer stop()
	ctx := context.Background()

	_, _ = jobs.Run(ctx, "job-1", func(context.Context) (string, error) {
		// Meanwhile, another caller; here with a context that is not fn's.
		_, err := jobs.Run(ctx, "job-1", func(context.Context) (string, error) { return "", nil }, idempotent.WithNoWait())
		busy, ok := errors.AsType[*idempotent.InProgressError](err)
		fmt.Println(ok, busy.RetryAfter > 0, busy.RetryAfter <= 10*time.Second)
		return "done", nil
	})
	// Output: true true true
}

// Peek says where an operation stands, and Forget frees its key.
func ExampleExecutor_Peek() {
	jobs, stop := exampleExecutor[string]()
	defer stop()
	ctx := context.Background()
	show := func() {
		status, err := jobs.Peek(ctx, "job-1")
		fmt.Println(status.State, status.Attempt, err)
	}

	show()
	_, _ = jobs.Run(ctx, "job-1", func(context.Context) (string, error) {
		show()
		return "done", nil
	})
	show()
	_ = jobs.Forget(ctx, "job-1")
	show()
	// Output:
	// absent 0 <nil>
	// running 1 <nil>
	// succeeded 1 <nil>
	// absent 0 <nil>
}

// At the start of a program: log what Check finds, and do not start where records are not safe.
func ExampleExecutor_Check() {
	charges, stop := exampleExecutor[Charge]()
	defer stop()
	logger := slog.New(slog.DiscardHandler)

	fit := func(ctx context.Context) error {
		// docs/redis.md: begin
		findings, err := charges.Check(ctx)
		if err != nil {
			return err // Redis cannot be asked: try again, or fail
		}
		for _, f := range findings {
			if f.Severity >= idemcheck.SeverityUnsafe {
				return errors.New(f.String())
			}
			logger.Warn("redis", "code", f.Code, "server", f.Server, "found", f.Detail, "advice", f.Advice)
		}
		return nil
		// docs/redis.md: end
	}
	fmt.Println(fit(context.Background()))
	// Output: <nil>
}

// An observer counts what happens, for metrics.
func ExampleWithObserver() {
	events := make(map[idempotent.EventKind]int)
	var mu sync.Mutex
	jobs, stop := exampleExecutor[string](idempotent.WithObserver(idempotent.ObserverFunc(func(_ context.Context, e idempotent.Event) {
		mu.Lock()
		defer mu.Unlock()
		events[e.Kind]++
	})))
	defer stop()

	for range 3 {
		_, _ = jobs.Run(context.Background(), "job-1", func(context.Context) (string, error) { return "done", nil })
	}
	mu.Lock()
	defer mu.Unlock()
	fmt.Println(events)
	// Output: map[claimed:1 executed:1 recorded:1 replayed:2 returned:3]
}

// Hooks see what one caller gets, and may change it; the record stays as it was.
func ExampleWithHooks() {
	jobs, stop := exampleExecutor[string](idempotent.WithHooks(idempotent.Hooks[string]{
		OnSuccessReplay: func(_ context.Context, key, value string) string { return value + ", again" },
	}))
	defer stop()

	for range 3 {
		fmt.Println(jobs.Run(context.Background(), "job-1", func(context.Context) (string, error) { return "done", nil }))
	}
	// Output:
	// done <nil>
	// done, again <nil>
	// done, again <nil>
}

// A key of parts: no two lists of parts give the same key.
func ExampleHashKey() {
	fmt.Println(idempotent.HashKey("tenant-1", "2/refund") == idempotent.HashKey("tenant-1/2", "refund"))
	fmt.Println(len(idempotent.HashKey("tenant-1", "POST /charges", "8d7a")))
	// Output:
	// false
	// 64
}

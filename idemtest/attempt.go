package idemtest

import (
	"context"
	"errors"
	"testing"

	"github.com/idempotent-go/idempotent"
)

var errInterrupted = errors.New("idemtest: interrupted")

// Interrupt leaves key as an execution without an outcome does, whose process died for instance: with
// Rerun the next call runs fn as the next attempt, with Refuse it gets ErrInterrupted. It fails the test
// if the key has an outcome. opts are those of Run.
func Interrupt[T any](ctx context.Context, t testing.TB, e *idempotent.Executor[T], key string, opts ...idempotent.RunOption) {
	t.Helper()
	_, err := e.Run(ctx, key, func(context.Context) (T, error) {
		var zero T
		return zero, idempotent.OutcomeUnknown(errInterrupted)
	}, opts...)
	if !errors.Is(err, errInterrupted) {
		t.Fatalf("idemtest: key %q cannot be interrupted: Run returned %v", key, err)
	}
}

// RunAttempt runs fn as the given attempt, 1 or more, and returns its result: what does fn do when an
// earlier attempt may have had its effect?
//
//	charge, err := idemtest.RunAttempt(t.Context(), t, 2, chargeCard)
//
// It has a Redis of its own; the key is "key".
func RunAttempt[T any](ctx context.Context, t testing.TB, attempt int, fn func(context.Context) (T, error)) (T, error) {
	t.Helper()
	e := executor[T](t, "idemtest")
	for range attempt - 1 {
		Interrupt(ctx, t, e, "key")
	}
	return e.Run(ctx, "key", fn)
}

func executor[T any](t testing.TB, namespace string) *idempotent.Executor[T] {
	t.Helper()
	e, err := idempotent.New[T](NewRedis(t), namespace, idempotent.WithUncheckedType())
	if err != nil {
		t.Fatalf("idemtest: %v", err)
	}
	t.Cleanup(func() { _ = e.Close() })
	return e
}

// WithRunInfo returns a context like the one that Run gives fn, for tests of code that fn calls:
// RunInfoFromContext finds info, and DownstreamKey works. It ends with the test. An empty Namespace or
// Key and an Attempt of 0 become "idemtest", "key" and 1.
func WithRunInfo(ctx context.Context, t testing.TB, info idempotent.RunInfo) context.Context {
	t.Helper()
	if info.Namespace == "" {
		info.Namespace = "idemtest"
	}
	if info.Key == "" {
		info.Key = "key"
	}
	e := executor[struct{}](t, info.Namespace)
	for range info.Attempt - 1 {
		Interrupt(ctx, t, e, info.Key)
	}
	inside, done, ended := make(chan context.Context), make(chan struct{}), make(chan error, 1)
	go func() {
		_, err := e.Run(ctx, info.Key, func(ctx context.Context) (struct{}, error) {
			inside <- ctx
			<-done
			return struct{}{}, nil
		})
		ended <- err
	}()
	select {
	case ctx := <-inside:
		t.Cleanup(func() {
			close(done)
			<-ended //nolint:errcheck // the run is over with the test, whatever it returned
		})
		return ctx
	case err := <-ended:
		t.Fatalf("idemtest: %v", err)
		return nil
	}
}

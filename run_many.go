package idempotent

import (
	"context"
	"runtime/debug"
	"sync"

	"github.com/idempotent-go/idempotent/internal/pipeline"
)

// A BatchCall is one of those that RunMany runs.
type BatchCall[T any] struct {
	Key     string
	Fn      func(ctx context.Context) (T, error)
	Options []RunOption // a WithReport each, if the reports are wanted
}

// A BatchResult is what Run returned for one BatchCall.
type BatchResult[T any] struct {
	Value T
	Err   error
}

// RunMany does for each call what Run does, for workers that take many jobs at once. The claims
// travel together in pipelines, and so do the commits that come due at about the same time, so that
// many keys take few round trips. Outcomes are in the order of the calls. It returns when the last
// one is over; each is recorded, and heard of by those who wait for it, when its own fn has ended.
//
// All fns run at the same time, each in a goroutine of its own: the number of calls is the number
// of fns under way. Calls with the same key are one execution. No call harms another: each has its
// own error, also for an invalid option or key. A panic of fn does not go on, as it does from Run:
// its call's error is the *PanicError; runtime.Goexit in fn ends that call alone, with an error.
//
// With WithReplicaAck, commands are not sent together, since each waits for its own replicas.
func (e *Executor[T]) RunMany(ctx context.Context, calls []BatchCall[T]) []BatchResult[T] {
	outcomes := make([]BatchResult[T], len(calls))
	values := context.Background()
	if ctx != nil { // each call says so if it is
		values = context.WithoutCancel(ctx)
	}
	b := pipeline.NewBatcher(values, e.core.store.Client, 0)
	var all sync.WaitGroup
	for i, call := range calls {
		all.Go(func() { e.runOne(ctx, call, b, &outcomes[i]) })
	}
	all.Wait()
	return outcomes
}

func (e *Executor[T]) runOne(ctx context.Context, call BatchCall[T], via pipeline.Processor, out *BatchResult[T]) {
	out.Err = errExited // unless run returns
	defer func() {
		if value := recover(); value != nil {
			out.Err = &PanicError{Value: value, Stack: debug.Stack()}
		}
	}()
	out.Value, out.Err = e.run(ctx, call.Key, call.Fn, call.Options, via)
}

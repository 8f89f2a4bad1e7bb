package idempotent

import (
	"context"
	"runtime/debug"
	"slices"
	"sync"

	"github.com/redis/go-redis/v9"
)

// A Call is one of those that RunMany runs.
type Call[T any] struct {
	Key     string
	Fn      func(ctx context.Context) (T, error)
	Options []RunOption // a WithReport each, if the reports are wanted
}

// An Outcome is what one Call came to: what Run returns.
type Outcome[T any] struct {
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
func (e *Executor[T]) RunMany(ctx context.Context, calls []Call[T]) []Outcome[T] {
	outcomes := make([]Outcome[T], len(calls))
	b := newBatch(ctx, e.core.store.client)
	defer b.close()
	var all sync.WaitGroup
	for i, call := range calls {
		all.Go(func() { e.runOne(ctx, call, b, &outcomes[i]) })
	}
	all.Wait()
	return outcomes
}

func (e *Executor[T]) runOne(ctx context.Context, call Call[T], via processor, out *Outcome[T]) {
	out.Err = errExited // unless run returns
	defer func() {
		if value := recover(); value != nil {
			out.Err = &PanicError{Value: value, Stack: debug.Stack()}
		}
	}()
	out.Value, out.Err = e.run(ctx, call.Key, call.Fn, call.Options, via)
}

// A batch sends the commands of many goroutines in pipelines: those that come while one is on its
// way share the next. Its goroutine sends and close ends it; after that, commands go alone.
type batch struct {
	ctx    context.Context // for the pipelines: no caller's end is everybody's
	client redis.UniversalClient
	ended  sync.WaitGroup
	some   chan struct{} // holds one token while the queue is not empty

	mu    sync.Mutex
	over  bool
	queue []queued
}

type queued struct {
	cmd  redis.Cmder
	done chan struct{}
}

// pipelineLimit is how many commands go into one pipeline.
const pipelineLimit = 1000

func newBatch(ctx context.Context, client redis.UniversalClient) *batch {
	if ctx == nil { // each call says so
		ctx = context.Background()
	}
	b := &batch{ctx: context.WithoutCancel(ctx), client: client, some: make(chan struct{}, 1)}
	b.ended.Go(b.send)
	return b
}

// Process sends cmd with others.
func (b *batch) Process(ctx context.Context, cmd redis.Cmder) error {
	done := make(chan struct{})
	if !b.enqueue(queued{cmd, done}) {
		return b.client.Process(ctx, cmd) // a detached fn ended late
	}
	<-done
	return cmd.Err()
}

func (b *batch) enqueue(one queued) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.over {
		return false
	}
	if b.queue = append(b.queue, one); len(b.queue) == 1 {
		b.some <- struct{}{}
	}
	return true
}

func (b *batch) send() {
	for range b.some {
		b.mu.Lock()
		next := b.queue
		b.queue = nil
		b.mu.Unlock()
		for some := range slices.Chunk(next, pipelineLimit) {
			b.exec(some)
		}
	}
}

func (b *batch) exec(some []queued) {
	pipe := b.client.Pipeline()
	for _, one := range some {
		_ = pipe.Process(b.ctx, one.cmd) // sent by Exec
	}
	_, _ = pipe.Exec(b.ctx) // each command has its own error
	for _, one := range some {
		close(one.done)
	}
}

// close sends what is queued, and returns when that is done.
func (b *batch) close() {
	b.mu.Lock()
	b.over = true
	close(b.some)
	b.mu.Unlock()
	b.ended.Wait()
}

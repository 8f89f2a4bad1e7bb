package pg

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/internal/record"
)

// redisPause is how long Redis is left out after it was unavailable, so that not every call waits for its timeouts.
const redisPause = time.Second

// A front is the Redis executor of Through.
type front[T any] struct {
	executor *idempotent.Executor[T]
	outUntil atomic.Int64 // Unix ns
}

// frontOf returns the front of Through, nil without it.
func frontOf[T any](cfg *config) (*front[T], error) {
	if cfg.through == nil {
		return nil, nil
	}
	executor, ok := cfg.through.(*idempotent.Executor[T])
	if !ok || executor == nil {
		return nil, invalid("Through", "executor", typeOf(cfg.through), typeOf(executor)+" that is not nil")
	}
	return &front[T]{executor: executor}, nil
}

// An answer is how Postgres answered a call in Redis's place.
type answer[T any] struct {
	res   result
	value T
}

// runThrough runs op under a claim in Redis. Postgres decides: Redis records only what Postgres has recorded, and every
// answer of Redis that is no outcome leads to Postgres.
func (e *Executor[T]) runThrough(ctx context.Context, op *operation, fn func(context.Context, pgx.Tx) (T, error)) (T, error) {
	ask := func() (a answer[T]) {
		a.res = e.core.run(ctx, op, e.action(fn, &a.value))
		return a
	}
	if time.Now().UnixNano() < e.front.outUntil.Load() {
		a := ask()
		return e.deliver(op, &a.res, a.value)
	}
	answers := make(chan answer[T], 1) // with WithDetached, this call may return before it is asked
	recorded := false
	inside := func(context.Context) (T, error) { // the caller's context: a lease lost in Redis is not fn's concern
		a := ask()
		recorded = a.res.rec != nil && a.res.rec.Outcome != record.OutcomePanic // Redis would keep a replayed panic as an error
		answers <- a
		op := *op
		op.cfg.report, op.watch = nil, nil
		return e.deliver(&op, &a.res, a.value)
	}
	var report idempotent.Report
	opts := append(op.redisOptions(), idempotent.WithReport(&report),
		idempotent.WithShouldIgnoreError(func(error) bool { return !recorded }))
	value, err := e.front.executor.Run(ctx, op.key, inside, opts...)
	undecided := e.front.note(err)
	select {
	case a := <-answers: // whatever Redis made of it
		return e.deliver(op, &a.res, a.value)
	default:
	}
	if undecided {
		a := ask()
		return e.deliver(op, &a.res, a.value)
	}
	op.returned(report)
	return value, err
}

// redisOptions are the options of op that the Redis executor has, too.
func (op *operation) redisOptions() []idempotent.RunOption {
	opts := []idempotent.RunOption{
		idempotent.WithFingerprint(op.cfg.fingerprint),
		idempotent.WithWaitTimeout(op.cfg.waitTimeout),
		idempotent.WithInterrupted(idempotent.Rerun), // Postgres knows whether fn had its effect
	}
	if op.cfg.noWait {
		opts = append(opts, idempotent.WithNoWait())
	}
	return opts
}

// note reports whether err says that Redis could not decide, and leaves Redis out for a while if it is unavailable. An
// error that comes from Postgres, or from a record, says nothing about Redis.
func (f *front[T]) note(err error) (undecided bool) {
	for _, postgres := range []error{ErrUnavailable, ErrCommitUnknown, idempotent.ErrReplayed} {
		if errors.Is(err, postgres) {
			return false
		}
	}
	if errors.Is(err, idempotent.ErrUnavailable) || errors.Is(err, idempotent.ErrNotRecorded) {
		f.outUntil.Store(time.Now().Add(redisPause).UnixNano())
		return true
	}
	for _, unusable := range []error{idempotent.ErrLeaseLost, idempotent.ErrCorruptRecord, idempotent.ErrInterrupted, idempotent.ErrClosed} {
		if errors.Is(err, unusable) {
			return true
		}
	}
	return false
}

// forget deletes the record in Redis.
func (f *front[T]) forget(ctx context.Context, key string) error {
	return f.executor.Forget(ctx, key)
}

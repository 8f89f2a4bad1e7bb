package idempotent

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"runtime/debug"
	"sync"

	"github.com/redis/go-redis/v9"

	"github.com/idempotent-go/idempotent/internal/pipeline"
	"github.com/idempotent-go/idempotent/internal/record"
	"github.com/idempotent-go/idempotent/internal/shape"
	"github.com/idempotent-go/idempotent/internal/store"
)

// An Executor runs functions that return a T, once for each key. It may be used by any number of
// goroutines, and one is enough for a process: its callers share one subscription connection and
// one batch of renewals. Close it when it is not needed any more.
type Executor[T any] struct {
	core      *core
	codec     Codec[T]
	hooks     Hooks[T]
	shareable bool // a T is copied by assignment
	unchecked bool // WithUncheckedType
}

// New returns an Executor on a go-redis client, which stays the caller's: Close does not close it.
// New sends nothing to Redis.
//
// namespace is the first part of every name in Redis, and keeps executors apart that share a server:
// 1 to 64 of the characters A-Z a-z 0-9 . _ / and -. Executors with the same namespace, in any
// process, share their results, so give each kind of result a namespace of its own. Options that are not allowed are ErrInvalidOption, each named with
// its value and what is allowed.
//
// The client's own timeouts bound each command. Set ContextTimeoutEnabled in its options to have
// a deadline of Run's context bound the first command as well.
//
// When more commands are in flight than the client's PoolSize, claims and commits of many callers
// share pipelines, in place of waiting for connections. They do not on a Cluster or a Ring, nor with
// ContextTimeoutEnabled.
func New[T any](client redis.UniversalClient, namespace string, opts ...Option) (*Executor[T], error) {
	cfg := defaultConfig(namespace)
	for i, o := range opts {
		if o == nil {
			return nil, invalid("New", fmt.Sprintf("option %d", i), "nil", "an Option")
		}
		o.apply(&cfg)
	}
	err := validateConfig(&cfg, client)
	codec, codecErr := typed("WithCodec", cfg.codec, boxedCodec[T]{Msgpack[T]()}, typeName[Codec[T]]())
	if codecErr == nil && codec.Codec == nil {
		codecErr = invalid("WithCodec", "codec", "nil", "a codec")
	}
	if codecErr == nil && !cfg.unchecked {
		codecErr = checkType(codec.Codec)
	}
	hooks, hooksErr := typed("WithHooks", cfg.hooks, Hooks[T]{}, typeName[Hooks[T]]())
	if err := errors.Join(err, codecErr, hooksErr); err != nil {
		return nil, err
	}
	encode := func(value any) ([]byte, error) {
		v, _ := value.(T) // not one if it is a nil interface
		return encodeValue(codec.Codec, v, cfg.unchecked)
	}
	return &Executor[T]{
		core:      newCore(&cfg, store.New(client, cfg.messageLimit, cfg.ack), codecOf(codec.Codec), encode),
		codec:     codec.Codec,
		hooks:     hooks,
		shareable: shape.IsPlain(reflect.TypeFor[T]()),
		unchecked: cfg.unchecked,
	}, nil
}

// Run returns the outcome of fn for key. Of all calls with this key, in every process, one runs
// fn; the others wait for it and get the same value, or the same error, as do later calls until
// the TTL is over. A key is 1 to MaxKeySize bytes, any bytes.
//
// When fn runs, its context carries a RunInfo, ends when fn has returned and, with ErrLeaseLost
// as its cause, when the lease is lost. fn's error is an outcome like any other and is recorded,
// unless WithShouldIgnoreError says otherwise; its text is stored as it is, so keep secrets out of
// it. An error by which fn reports that its context ended is never recorded, nor is one marked
// with OutcomeUnknown: the execution counts as interrupted (see WithInterrupted), since what it
// did is unknown. Context errors and timeouts are recognised by errors.Is and Timeout methods; mark
// others that mean the same, such as gRPC's status Canceled, with OutcomeUnknown. A panic is
// recorded as a *PanicError, and goes on to the caller that ran fn. A value that fn returns beside
// an error is dropped.
//
// Run returns fn's outcome, or zero and an error of this package, or the error of ctx. Two
// errors come with the value: ErrNotRecorded and ErrLeaseLost. So does a *HookError.
func (e *Executor[T]) Run(ctx context.Context, key string, fn func(ctx context.Context) (T, error), opts ...RunOption) (T, error) {
	return e.run(ctx, key, fn, opts, nil)
}

// run is a Run whose commands go through via, nil for the client.
func (e *Executor[T]) run(ctx context.Context, key string, fn func(ctx context.Context) (T, error), opts []RunOption, via pipeline.Processor) (T, error) {
	return watched(e.core.events, ctx, key, func(ctx context.Context, w *watch) (T, error) {
		cfg, err := e.configure(ctx, fn == nil, opts, w)
		if err != nil {
			var zero T
			return zero, err
		}
		res := e.core.run(ctx, key, cfg, typedFn[T](fn), via)
		if res.own != nil {
			return e.executed(ctx, key, cfg, res.own)
		}
		return e.replayed(ctx, key, cfg, res.sharedResult)
	})
}

// A typedFn is fn as the core runs it. The interface costs nothing until then.
type typedFn[T any] func(ctx context.Context) (T, error)

func (f typedFn[T]) run(ctx context.Context) (any, error) {
	value, err := f(ctx)
	if err != nil {
		return nil, err
	}
	return value, nil
}

// configure returns the options of one call. Those of a watched call are the watch's.
func (e *Executor[T]) configure(ctx context.Context, nilFn bool, opts []RunOption, w *watch) (*runConfig, error) {
	if nilFn {
		return nil, invalid("Run", "fn", "nil", "a function")
	}
	if ctx == nil {
		return nil, invalid("Run", "ctx", "nil", "a context")
	}
	if len(opts) == 0 && w == nil {
		return &e.core.defaults, nil
	}
	cfg := e.core.defaults
	cfg.watch = w
	for i, o := range opts {
		if o == nil {
			return nil, invalid("Run", fmt.Sprintf("option %d", i), "nil", "a RunOption")
		}
		o.applyRun(&cfg)
	}
	if w != nil {
		w.ttl = cfg.ttl
	}
	cfg.derive(e.core.lease)
	return &cfg, validateRun(&cfg)
}

// executed is what the caller gets that ran fn.
func (e *Executor[T]) executed(ctx context.Context, key string, cfg *runConfig, own *ownResult) (T, error) {
	cfg.fillReports(Report{Source: Executed, Attempt: int(own.attempt), RecordedAt: own.at, Final: !own.at.IsZero()})
	value, _ := own.value.(T) // not one if fn failed, or returned a nil interface
	err := own.fnErr
	if err == nil {
		value, err = hook("OnActionSuccess", e.hooks.OnActionSuccess, ctx, key, value)
	} else {
		err = errorHook("OnActionError", e.hooks.OnActionError, ctx, key, err)
	}
	if own.hookErr != nil {
		err = &HookError{Hook: own.hookErr.Hook, Value: own.hookErr.Value, Err: err}
	}
	return value, both(own.err, err)
}

// replayed is what a caller gets that did not run fn: its own copy of the outcome.
func (e *Executor[T]) replayed(ctx context.Context, key string, cfg *runConfig, s sharedResult) (value T, err error) {
	if s.rec != nil && s.rec.Outcome == record.OutcomeValue {
		value, err = e.decode(&s)
	}
	if cfg.report != nil || cfg.watch != nil {
		cfg.fillReports(s.report(err))
	}
	switch {
	case s.rec == nil:
		return value, s.err
	case s.rec.Outcome != record.OutcomeValue:
		err = errorHook("OnErrorReplay", e.hooks.OnErrorReplay, ctx, key, e.core.runner.errors.decode(s.rec, e.core.runner.errorLost))
	case err == nil:
		value, err = hook("OnSuccessReplay", e.hooks.OnSuccessReplay, ctx, key, value)
	}
	return value, both(s.err, err)
}

// decode returns the caller's own copy of the value. Where T holds no references, callers that share a
// record decode it once.
func (e *Executor[T]) decode(s *sharedResult) (T, error) {
	share := s.shared && e.shareable
	if share {
		if value, known := s.rec.Decoded.Load().(T); known {
			return value, nil
		}
	}
	value, err := decodeValue(e.codec, s.rec)
	if share && err == nil {
		s.rec.Decoded.Store(value)
	}
	return value, err
}

// hook calls f, one of Hooks, with in. A nil f returns in.
func hook[V any](name string, f func(context.Context, string, V) V, ctx context.Context, key string, in V) (out V, err error) {
	if f == nil {
		return in, nil
	}
	defer func() {
		if p := recover(); p != nil {
			given, _ := any(in).(error)
			out, err = in, &HookError{Hook: name, Value: p, Err: given}
		}
	}()
	return f(ctx, key, in), nil
}

func errorHook(name string, f func(context.Context, string, error) error, ctx context.Context, key string, err error) error {
	changed, hookErr := hook(name, f, ctx, key, err)
	switch {
	case hookErr != nil:
		return hookErr
	case changed == nil:
		return err
	}
	return changed
}

// Close ends the waits of all callers with ErrClosed, lets every fn that runs finish and be
// recorded, stops the executor's goroutines, and returns when that is done. The Redis client
// stays open. Later calls of any method return ErrClosed; a second Close returns nil. An fn must
// not call Close: it would wait for itself.
func (e *Executor[T]) Close() error {
	e.core.close()
	return nil
}

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
// one is over; each is recorded, and reaches its waiters, when its own fn has ended.
//
// All fns run at the same time, each in a goroutine of its own: the number of calls is the number
// of fns that run. Calls with the same key are one execution. No call harms another: each has its
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

package idempotent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/idempotent-go/idempotent/internal/record"
)

// Hooks see what a caller of Run gets, and may change it for that caller alone: what is recorded
// stays as it was. A hook that panics gives that caller a *HookError beside the unchanged value.
// Hooks run in the goroutine of Run, many at once.
type Hooks[T any] struct {
	// OnActionSuccess is called when this call ran fn, with what it returned.
	OnActionSuccess func(ctx context.Context, key string, value T) T
	// OnActionError is called when this call ran fn, with the error it returned. If it returns
	// nil, the error stays: a failure does not become a success here.
	OnActionError func(ctx context.Context, key string, err error) error
	// OnSuccessReplay is called when the value comes from a record, or from another caller's fn.
	OnSuccessReplay func(ctx context.Context, key string, value T) T
	// OnErrorReplay is the same for an error. If it returns nil, the error stays.
	OnErrorReplay func(ctx context.Context, key string, err error) error
}

// An Observer is told what an executor does. Observe is called in the executor's own goroutines,
// many at once, so it must be quick and must not call the executor. ctx is that of the call or, for events
// about the lease, of its fn. If Observe panics, that is logged and nothing else happens.
type Observer interface {
	Observe(ctx context.Context, event Event)
}

// ObserverFunc makes an Observer of a function.
type ObserverFunc func(ctx context.Context, event Event)

// Observe calls f.
func (f ObserverFunc) Observe(ctx context.Context, event Event) { f(ctx, event) }

// A Tracer makes spans. Its methods are called like Observe; a context that they return must be derived from
// theirs. A Tracer that is an Observer too gets the events, before other observers.
type Tracer interface {
	// StartRun is called when a Run, a Get or a call of RunMany begins, with Attempt 0. The context that it returns
	// is that of the call and all its events.
	StartRun(ctx context.Context, run RunInfo) context.Context
	// EndRun is called when the call returns, with the context from StartRun and the EventReturned.
	EndRun(ctx context.Context, end Event)
	// StartExecution is called before fn begins. fn's context is derived from the one that it returns.
	StartExecution(ctx context.Context, run RunInfo) context.Context
	// EndExecution is called when fn has ended, with fn's context and the EventExecuted.
	EndExecution(ctx context.Context, end Event)
	// Origin returns what records of this call's execution say about its trace, at 27 bytes each; the zero Origin
	// for a span that is not sampled. ctx is the one from StartRun.
	Origin(ctx context.Context) Origin
}

// An Origin identifies the span of the call that runs fn, as W3C Trace Context does
// (https://www.w3.org/TR/trace-context/). The zero Origin says that there is none.
type Origin struct {
	TraceID [16]byte
	SpanID  [8]byte
	Flags   byte
}

// An Event is one thing an executor did. Fields that its kind does not mention are zero.
type Event struct {
	Kind      EventKind
	Namespace string
	Key       string
	// Attempt is the number of the execution in question, 0 where none is.
	Attempt int
	// Source says who ran fn, for EventReturned and EventReplayed.
	Source Source
	// Duration is how long it took, for the kinds that say so.
	Duration time.Duration
	// Age is how long ago the outcome was recorded, by the clocks of two processes, and TTL the call's WithTTL: for
	// EventReplayed and, if another call ran fn, EventReturned.
	Age, TTL time.Duration
	// Left is what was left of a lease when the reply to its renewal arrived, and Lease its length.
	Left, Lease time.Duration
	// Size is the size of the record in bytes, for EventRecorded.
	Size int
	// Owner and Origin say which process and which call run fn, or ran it, as far as the record does: for
	// EventWaitStarted, EventReplayed, and the EventInterrupted of another process's execution.
	Owner  string
	Origin Origin
	// Actor is who asked, for EventForgotten and EventResolved: see ContextWithActor.
	Actor string
	// Err is the error, for the kinds that say so. It may hold what fn's error holds.
	Err error
}

// about adds what rec says about its execution.
func (e Event) about(rec *record.Record) Event {
	if rec != nil {
		e.Attempt, e.Owner, e.Origin = int(rec.Attempt), string(rec.Extensions.Get(record.FieldOwner)), originOf(rec)
	}
	return e
}

func originOf(rec *record.Record) (o Origin) {
	o.TraceID, o.SpanID, o.Flags = rec.Extensions.Origin()
	return o
}

// A Report says where a result came from.
type Report struct {
	// Source is 0 when Run returned no outcome of fn.
	Source Source
	// Attempt is the number of the execution the outcome comes from, 1 for the first.
	Attempt int
	// Final reports whether the next call with this key gets the same: the outcome is recorded, or the
	// error stays until the record expires or an operator acts. A worker acknowledges its job if it is
	// true, and has it delivered again if it is false.
	Final bool
	// RecordedAt is when the outcome was recorded, by the clock of the process that ran fn; zero
	// when it was not.
	RecordedAt time.Time
}

// A Source says who ran the fn whose outcome a caller got.
type Source uint8

const (
	// Executed: this call ran fn.
	Executed Source = iota + 1
	// Replayed: the outcome was in Redis already.
	Replayed
	// Joined: another call in this process ran fn while this one waited.
	Joined
	// Waited: another process ran fn while this call waited.
	Waited
	// Cached: the outcome was in the replay cache of this process.
	Cached
)

func (s Source) String() string {
	switch s {
	case 0:
		return "none"
	case Executed:
		return "executed"
	case Replayed:
		return "replayed"
	case Joined:
		return "joined"
	case Waited:
		return "waited"
	case Cached:
		return "cached"
	}
	return fmt.Sprintf("Source(%d)", uint8(s))
}

// An EventKind says what happened.
type EventKind uint8

const (
	// EventClaimed: this process owns the operation and is about to run fn.
	EventClaimed EventKind = iota + 1
	// EventExecuted: fn ended after Duration, with Err.
	EventExecuted
	// EventRecorded: the outcome, Size bytes, is stored; Duration counts from the end of fn. With an
	// Err, it is stored that fn succeeded, but not its value, because of Err.
	EventRecorded
	// EventReleased: the execution ended with an Err that is not recorded: an ignored one.
	EventReleased
	// EventReplayed: a caller got an outcome of another call's fn.
	EventReplayed
	// EventJoined: a caller waits for another one in this process.
	EventJoined
	// EventWaitStarted: this process waits for another one.
	EventWaitStarted
	// EventWaitEnded: that wait is over after Duration; Err says why, if not by an outcome or
	// by owning the operation.
	EventWaitEnded
	// EventRenewed: the lease was extended.
	EventRenewed
	// EventLeaseLost: the lease is lost while fn runs; its context is cancelled.
	EventLeaseLost
	// EventInterrupted: an execution ended without an outcome, and what it did is unknown. Its own
	// process says so with an Err, or another one that found it dead, without.
	EventInterrupted
	// EventCommitRetried: storing the outcome failed with Err and is tried again.
	EventCommitRetried
	// EventCommitFailed: storing the outcome was given up or refused, because of Err.
	EventCommitFailed
	// EventReturned: a Run, a Get or a call of RunMany returned after Duration with Err; a panic of fn is a *PanicError.
	// It is the one event of every call, and the last.
	EventReturned
	// EventJoinEnded: a wait for another caller in this process is over after Duration; Err is as for EventWaitEnded.
	EventJoinEnded
	// EventRenewalFailed: extending the lease failed with Err. It is tried again until the lease ends.
	EventRenewalFailed
	// EventForgotten: Forget returned Err after Duration.
	EventForgotten
	// EventResolved: Resolve returned Err after Duration. Attempt is that of the execution found.
	EventResolved
)

var eventNames = [...]string{
	EventClaimed:       "claimed",
	EventExecuted:      "executed",
	EventRecorded:      "recorded",
	EventReleased:      "released",
	EventReplayed:      "replayed",
	EventJoined:        "joined",
	EventWaitStarted:   "wait started",
	EventWaitEnded:     "wait ended",
	EventRenewed:       "renewed",
	EventLeaseLost:     "lease lost",
	EventInterrupted:   "interrupted",
	EventCommitRetried: "commit retried",
	EventCommitFailed:  "commit failed",
	EventReturned:      "returned",
	EventJoinEnded:     "join ended",
	EventRenewalFailed: "renewal failed",
	EventForgotten:     "forgotten",
	EventResolved:      "resolved",
}

func (k EventKind) String() string {
	if k == 0 || int(k) >= len(eventNames) {
		return fmt.Sprintf("EventKind(%d)", uint8(k))
	}
	return eventNames[k]
}

// events tells observers, the tracer and the log what an executor does.
type events struct {
	namespace string
	observers []Observer
	tracer    Tracer // may be nil
	logger    *slog.Logger
}

// observe tells the observers, and keeps their panics away from the run. An observer that ends the
// goroutine keeps the event from those after it; what the run needs is done by deferred functions.
func (c *events) observe(ctx context.Context, e Event) {
	if len(c.observers) == 0 {
		return
	}
	e.Namespace = c.namespace
	for _, o := range c.observers {
		c.tell(ctx, o, e)
	}
}

func (c *events) tell(ctx context.Context, o Observer, e Event) {
	defer c.recoverFrom(ctx, "observer", e.Kind.String(), e.Key)
	o.Observe(ctx, e)
}

// recoverFrom logs a panic without its text, which may be that of fn's error.
func (c *events) recoverFrom(ctx context.Context, who, event, key string) {
	if p := recover(); p != nil {
		c.logger.ErrorContext(ctx, "idempotent: "+who+" panicked", "event", event, "key", key, "panic", fmt.Sprintf("a %T", p))
	}
}

// start calls StartRun or StartExecution. If that panics, ctx goes on without a span.
func (c *events) start(f func(Tracer, context.Context, RunInfo) context.Context, ctx context.Context, run RunInfo) (started context.Context) {
	if c.tracer == nil {
		return ctx
	}
	started = ctx
	defer c.recoverFrom(ctx, "tracer", "start", run.Key)
	if spanned := f(c.tracer, ctx, run); spanned != nil {
		return spanned
	}
	return ctx
}

// end calls EndRun or EndExecution.
func (c *events) end(f func(Tracer, context.Context, Event), ctx context.Context, e Event) {
	if c.tracer == nil {
		return
	}
	e.Namespace = c.namespace
	defer c.recoverFrom(ctx, "tracer", e.Kind.String(), e.Key)
	f(c.tracer, ctx, e)
}

// withOrigin adds the origin of the call to the extensions of its records.
func (c *events) withOrigin(ctx context.Context, key string, e record.Extensions) (with record.Extensions) {
	with = e
	defer c.recoverFrom(ctx, "tracer", "origin", key)
	if o := c.tracer.Origin(ctx); o != (Origin{}) {
		return e.WithOrigin(o.TraceID, o.SpanID, o.Flags)
	}
	return e
}

// A watch is one call as observers and the tracer see it.
type watch struct {
	*events
	ctx      context.Context
	key      string
	began    time.Time
	ttl      time.Duration
	report   Report
	panicked atomic.Pointer[PanicError] // fn, in this call or, detached, after it
}

var errNotReturned = errors.New("idempotent: the call ended its goroutine, or panicked")

// watched runs call, and tells of its beginning and end if anything listens. call gets a nil watch otherwise.
func watched[T any](c *events, ctx context.Context, key string, call func(context.Context, *watch) (T, error)) (value T, err error) {
	if len(c.observers) == 0 && c.tracer == nil {
		return call(ctx, nil)
	}
	w := &watch{events: c, ctx: ctx, key: key, began: time.Now()}
	if ctx == nil { // an error of the call
		w.ctx = context.Background()
	}
	w.ctx = c.start(Tracer.StartRun, w.ctx, RunInfo{Namespace: c.namespace, Key: key})
	if ctx != nil {
		ctx = w.ctx
	}
	err = errNotReturned // unless it returns
	defer w.ended(&err)
	value, err = call(ctx, w)
	return value, err
}

func (w *watch) ended(err *error) {
	e := Event{
		Kind: EventReturned, Key: w.key, Source: w.report.Source, Attempt: w.report.Attempt,
		Duration: time.Since(w.began), TTL: w.ttl, Err: *err,
	}
	if p := w.panicked.Load(); p != nil && e.Err == errNotReturned { //nolint:errorlint // set by watched
		e.Err, e.Source = p, Executed
	}
	if at := w.report.RecordedAt; e.Source != Executed && !at.IsZero() {
		e.Age = max(0, time.Since(at))
	}
	defer w.end(Tracer.EndRun, w.ctx, e) // also if an observer ends the goroutine
	w.observe(w.ctx, e)
}

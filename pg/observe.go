package pg

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/internal/record"
)

// recoverFrom keeps a panic of an observer or tracer away from the call. Its text may be that of fn's error.
func (c *core) recoverFrom(ctx context.Context, who, event, key string) {
	if p := recover(); p != nil {
		c.logger.ErrorContext(ctx, "pg: "+who+" panicked", "event", event, "key", key, "panic", fmt.Sprintf("a %T", p))
	}
}

// observe calls the observer.
func (c *core) observe(ctx context.Context, event idempotent.Event) {
	if c.observer == nil {
		return
	}
	defer c.recoverFrom(ctx, "observer", event.Kind.String(), event.Key)
	event.Namespace = c.namespace
	c.observer.Observe(ctx, event)
}

func (c *core) waitStarted(ctx context.Context, op *operation) {
	if !op.waited {
		op.waited = true
		c.observe(ctx, idempotent.Event{Kind: idempotent.EventWaitStarted, Key: op.key})
	}
}

func (c *core) waitEnded(ctx context.Context, op *operation, err error) {
	if op.waited {
		op.waited = false
		c.observe(ctx, idempotent.Event{Kind: idempotent.EventWaitEnded, Key: op.key, Duration: time.Since(op.began), Err: err})
	}
}

// startSpan calls StartRun or StartExecution. If that panics, ctx goes on without a span.
func (c *core) startSpan(start func(idempotent.Tracer, context.Context, idempotent.RunInfo) context.Context, ctx context.Context, info idempotent.RunInfo) (started context.Context) {
	if c.tracer == nil {
		return ctx
	}
	started = ctx
	defer c.recoverFrom(ctx, "tracer", "start", info.Key)
	if spanned := start(c.tracer, ctx, info); spanned != nil {
		started = spanned
	}
	return started
}

// endSpan calls EndRun or EndExecution.
func (c *core) endSpan(end func(idempotent.Tracer, context.Context, idempotent.Event), ctx context.Context, event idempotent.Event) {
	if c.tracer == nil {
		return
	}
	event.Namespace = c.namespace
	defer c.recoverFrom(ctx, "tracer", event.Kind.String(), event.Key)
	end(c.tracer, ctx, event)
}

// origin returns the extensions of a record that is written by a call with ctx.
func (c *core) origin(ctx context.Context, key string) (e record.Extensions) {
	if c.tracer == nil {
		return nil
	}
	defer c.recoverFrom(ctx, "tracer", "origin", key)
	if o := c.tracer.Origin(ctx); o != (idempotent.Origin{}) {
		e = e.WithOrigin(o.TraceID, o.SpanID, o.Flags)
	}
	return e
}

// A watch is one call as the observer and the tracer see it.
type watch struct {
	core     *core
	ctx      context.Context
	key      string
	began    time.Time
	ttl      time.Duration
	report   idempotent.Report
	panicked *idempotent.PanicError // of fn
}

var errNotReturned = errors.New("pg: the call ended its goroutine, or panicked")

// watched runs call and tells of its beginning and end, if anything listens. call gets a nil watch otherwise.
func watched[T any](c *core, ctx context.Context, key string, call func(context.Context, *watch) (T, error)) (value T, err error) {
	if c.observer == nil && c.tracer == nil || ctx == nil {
		return call(ctx, nil)
	}
	w := &watch{core: c, key: key, began: time.Now()}
	w.ctx = c.startSpan(idempotent.Tracer.StartRun, ctx, idempotent.RunInfo{Namespace: c.namespace, Key: key})
	err = errNotReturned // unless it returns
	defer w.ended(&err)
	value, err = call(w.ctx, w)
	return value, err
}

func (w *watch) ended(err *error) {
	event := idempotent.Event{
		Kind: idempotent.EventReturned, Key: w.key, Source: w.report.Source, Attempt: w.report.Attempt,
		Duration: time.Since(w.began), TTL: w.ttl, Err: *err,
	}
	if w.panicked != nil && *err == errNotReturned { //nolint:errorlint // set by watched
		event.Err, event.Source, event.Attempt = w.panicked, idempotent.Executed, 1
	}
	if at := w.report.RecordedAt; event.Source != idempotent.Executed && !at.IsZero() {
		event.Age = max(0, time.Since(at))
	}
	defer w.core.endSpan(idempotent.Tracer.EndRun, w.ctx, event)
	w.core.observe(w.ctx, event)
}

// returned notes what a call returns, for its report and its events.
func (op *operation) returned(report idempotent.Report) {
	if op.cfg.report != nil {
		*op.cfg.report = report
	}
	if op.watch != nil {
		op.watch.report = report
	}
}

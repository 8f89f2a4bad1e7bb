package idemotel

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/idempotent-go/idempotent"
)

const (
	attemptKey = attribute.Key("idempotent.attempt")
	ownerKey   = attribute.Key("idempotent.owner")
	linkKey    = attribute.Key("idempotent.link") // what the linked span is to this one
)

// Names of spans.
const (
	runSpan       = "idempotent.run"
	executionSpan = "idempotent.execute"
)

// StartRun implements idempotent.Tracer.
func (t *Telemetry) StartRun(ctx context.Context, run idempotent.RunInfo) context.Context {
	ctx, _ = t.tracer.Start(ctx, runSpan, trace.WithAttributes(t.of(run.Namespace).start...))
	return ctx
}

// EndRun implements idempotent.Tracer.
func (t *Telemetry) EndRun(ctx context.Context, end idempotent.Event) {
	span := trace.SpanFromContext(ctx)
	if span.IsRecording() {
		span.SetAttributes(sourceKey.String(end.Source.String()))
		if end.Attempt > 0 {
			span.SetAttributes(attemptKey.Int(end.Attempt))
		}
		fail(span, typeOfReturned(&end))
	}
	span.End()
}

// StartExecution implements idempotent.Tracer.
func (t *Telemetry) StartExecution(ctx context.Context, run idempotent.RunInfo) context.Context {
	t.instruments.executing.Add(ctx, 1, t.of(run.Namespace).err[noError].add...)
	ctx, _ = t.tracer.Start(ctx, executionSpan, trace.WithAttributes(namespaceKey.String(run.Namespace), attemptKey.Int(run.Attempt)))
	return ctx
}

// EndExecution implements idempotent.Tracer.
func (t *Telemetry) EndExecution(ctx context.Context, end idempotent.Event) {
	t.instruments.executing.Add(ctx, -1, t.of(end.Namespace).err[noError].add...)
	span := trace.SpanFromContext(ctx)
	fail(span, typeOfFn(end.Err))
	span.End()
}

// fail marks a span as failed, without the error's text, which may hold a payload.
func fail(span trace.Span, t errorType) {
	if t != noError {
		span.SetAttributes(errorTypeKey.String(errorTypeNames[t]))
		span.SetStatus(codes.Error, "")
	}
}

// Origin implements idempotent.Tracer.
func (t *Telemetry) Origin(ctx context.Context) (o idempotent.Origin) {
	if sc := trace.SpanContextFromContext(ctx); sc.IsSampled() && sc.IsValid() {
		o = idempotent.Origin{TraceID: sc.TraceID(), SpanID: sc.SpanID(), Flags: byte(sc.TraceFlags())}
	}
	return o
}

// noteOnSpan links the span of a call to the one that it waits for, replays or takes over from, and notes what happened
// to its execution.
func noteOnSpan(ctx context.Context, e *idempotent.Event) {
	span := trace.SpanFromContext(ctx)
	if !span.IsRecording() {
		return
	}
	switch e.Kind {
	case idempotent.EventWaitStarted:
		link(span, e, "owner")
		span.AddEvent("idempotent.wait", trace.WithAttributes(ownerKey.String(e.Owner), attemptKey.Int(e.Attempt)))
	case idempotent.EventReplayed:
		link(span, e, "outcome")
	case idempotent.EventInterrupted:
		link(span, e, "interrupted")
		span.AddEvent("idempotent.interrupted", trace.WithAttributes(ownerKey.String(e.Owner), attemptKey.Int(e.Attempt)))
	case idempotent.EventLeaseLost:
		span.AddEvent("idempotent.lease_lost")
	case idempotent.EventRenewalFailed:
		span.AddEvent("idempotent.renewal_failed")
	case idempotent.EventCommitRetried:
		span.AddEvent("idempotent.commit_retried")
	}
}

func link(span trace.Span, e *idempotent.Event, as string) {
	if e.Origin == (idempotent.Origin{}) {
		return
	}
	span.AddLink(trace.Link{
		SpanContext: trace.NewSpanContext(trace.SpanContextConfig{
			TraceID: e.Origin.TraceID, SpanID: e.Origin.SpanID, TraceFlags: trace.TraceFlags(e.Origin.Flags), Remote: true,
		}),
		Attributes: []attribute.KeyValue{linkKey.String(as)},
	})
}

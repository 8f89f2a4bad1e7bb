package webhook

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"time"
)

// An Observer is told what an inbox does, for metrics. Observe is called in the goroutines of intake and workers,
// concurrently, so it must be quick. If it panics, that is logged and nothing else happens.
//
//	accepted            ObservedAccepted, by Source; a duplicate if Deliveries is above 1
//	refused             ObservedRefused, by Source and Reason
//	answered with 503   ObservedUnavailable, by Source
//	lag to the handler  Lag of ObservedStarted; lag to the end: Lag of ObservedSettled
//	retries, parked, dead letters, other ends
//	                    ObservedSettled, by Source, State and Cause
//	now waiting, parked and dead, age of the oldest
//	                    Inbox.Backlog, asked when metrics are collected
//
// Source, Reason, State, Cause and Kind have few values and can be labels of metrics; Type, ID, Key and Object cannot.
type Observer interface {
	Observe(ctx context.Context, o Observation)
}

// ObserverFunc makes an Observer of a function.
type ObserverFunc func(ctx context.Context, o Observation)

// Observe calls f.
func (f ObserverFunc) Observe(ctx context.Context, o Observation) { f(ctx, o) }

// An Observation is one thing an inbox did. It holds no payload. Fields that a kind does not mention are zero.
type Observation struct {
	Kind   ObservationKind
	Source string
	// Type, ID, Key and Object are the event's, for kinds that are about an event.
	Type, ID, Key, Object string
	// Deliveries is how many deliveries the event had, for ObservedAccepted: above 1, it is a duplicate.
	Deliveries int
	// Reason is why a request was refused, for ObservedRefused.
	Reason Reason
	// State and Cause are the event's new ones, for ObservedSettled.
	State State
	Cause Cause
	// Attempt is the number of the execution, for ObservedStarted and ObservedSettled.
	Attempt int
	// Duration is how long it took to answer, for the kinds of intake; the handler's time, for ObservedSettled.
	Duration time.Duration
	// Lag is the time from the first delivery, for ObservedStarted and ObservedSettled.
	Lag time.Duration
	// Size is the size of the body in bytes, for ObservedAccepted.
	Size int
	// Err is why an event was not stored, for ObservedUnavailable. Its text holds no payload.
	Err error
}

// An ObservationKind says what happened.
type ObservationKind uint8

const (
	// ObservedAccepted: an event is stored and will be answered with 2xx.
	ObservedAccepted ObservationKind = iota + 1
	// ObservedDropped: Source.Accept did not select an event.
	ObservedDropped
	// ObservedRefused: a request is not authentic or not readable.
	ObservedRefused
	// ObservedUnavailable: a request was answered with 503, since the store did not answer in time, or is full.
	ObservedUnavailable
	// ObservedStarted: a handler is about to run.
	ObservedStarted
	// ObservedSettled: an event was moved to State.
	ObservedSettled
)

var observationNames = [...]string{
	ObservedAccepted:    "accepted",
	ObservedDropped:     "dropped",
	ObservedRefused:     "refused",
	ObservedUnavailable: "unavailable",
	ObservedStarted:     "started",
	ObservedSettled:     "settled",
}

// String returns the kind in lower case.
func (k ObservationKind) String() string {
	if k == 0 || int(k) >= len(observationNames) {
		return fmt.Sprintf("ObservationKind(%d)", uint8(k))
	}
	return observationNames[k]
}

// A Tracer makes spans. Methods are called like an Observer's.
type Tracer interface {
	// StartDelivery begins the span of a request. It returns the request's context with the span, and the span's W3C
	// traceparent, which is stored with the events; "" if it is not to be stored.
	StartDelivery(ctx context.Context, source string, header http.Header) (spanned context.Context, traceparent string)
	// EndDelivery ends the span. err may be nil; its text holds no payload.
	EndDelivery(ctx context.Context, status int, err error)
	// StartAttempt begins the span of one execution of a handler, which links to the delivery's traceparent. It returns
	// the handler's context and the span's traceparent.
	StartAttempt(ctx context.Context, job *Job, delivery string) (spanned context.Context, traceparent string)
	// EndAttempt ends it. err is the handler's error, or nil.
	EndAttempt(ctx context.Context, err error)
}

// noTracer keeps the traceparent of the request.
type noTracer struct{}

func (noTracer) StartDelivery(ctx context.Context, _ string, h http.Header) (context.Context, string) {
	return ctx, h.Get("Traceparent")
}
func (noTracer) EndDelivery(context.Context, int, error) {}
func (noTracer) StartAttempt(ctx context.Context, _ *Job, delivery string) (context.Context, string) {
	return ctx, delivery
}
func (noTracer) EndAttempt(context.Context, error) {}

// validTraceparent returns a W3C traceparent (https://www.w3.org/TR/trace-context/) of version 00, or "" for any other
// text: it comes from outside, and becomes a part of log lines.
func validTraceparent(text string) string {
	if len(text) != 55 || text[:3] != "00-" || text[35] != '-' || text[52] != '-' {
		return ""
	}
	for i, c := range []byte(text) {
		dash := i == 2 || i == 35 || i == 52
		hex := '0' <= c && c <= '9' || 'a' <= c && c <= 'f'
		if dash != (c == '-') || !dash && !hex {
			return ""
		}
	}
	return text
}

// traceID returns the trace id of a traceparent.
func traceID(traceparent string) string {
	if len(traceparent) != 55 {
		return ""
	}
	return traceparent[3:35]
}

// reporter reports to the observer and the log.
type reporter struct {
	observer Observer // may be nil
	logger   *slog.Logger
}

func (r *reporter) observe(ctx context.Context, o Observation) {
	if r.observer == nil {
		return
	}
	defer func() {
		if p := recover(); p != nil {
			r.logger.ErrorContext(ctx, "webhook: observer panicked", "kind", o.Kind.String(), "panic", fmt.Sprintf("a %T", p))
		}
	}()
	r.observer.Observe(ctx, o)
}

// event logs a line about an event. Each has the attributes by which it is found.
func (r *reporter) event(ctx context.Context, level slog.Level, text string, about *Record, attempt int, trace string, more ...slog.Attr) {
	if !r.logger.Enabled(ctx, level) {
		return
	}
	attrs := append([]slog.Attr{
		slog.String("source", about.Source), slog.String("event_id", about.ID), slog.String("key", about.Key),
		slog.Int("attempt", attempt), slog.String("trace_id", trace), slog.String("type", about.Type),
	}, more...)
	r.logger.LogAttrs(ctx, level, text, attrs...)
}

const errorLevel = slog.LevelError

// panicAttrs describes a panic. Its value may hold a payload.
func panicAttrs(p any, stack []byte) []slog.Attr {
	return []slog.Attr{slog.String("panic", fmt.Sprintf("a %T", p)), slog.String("stack", string(stack))}
}

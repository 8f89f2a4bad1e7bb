package idempotent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/idempotent-go/idempotent/internal/record"
	"github.com/idempotent-go/idempotent/internal/rediserr"
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
// many at once, so it must be quick and must not call the executor. If it panics, that is logged
// and nothing else happens.
type Observer interface {
	Observe(ctx context.Context, event Event)
}

// ObserverFunc makes an Observer of a function.
type ObserverFunc func(ctx context.Context, event Event)

// Observe calls f.
func (f ObserverFunc) Observe(ctx context.Context, event Event) { f(ctx, event) }

// An Event is one thing an executor did.
type Event struct {
	Kind      EventKind
	Namespace string
	Key       string
	// Attempt is the number of the execution in question, 0 where none is.
	Attempt int
	// Duration is how long it took, for the kinds that say so.
	Duration time.Duration
	// Size is the size of the record in bytes, for EventRecorded.
	Size int
	// Err is the error, for the kinds that say so. It may hold what fn's error holds.
	Err error
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
	// EventReplayed: a caller got a recorded outcome.
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
}

func (k EventKind) String() string {
	if k == 0 || int(k) >= len(eventNames) {
		return fmt.Sprintf("EventKind(%d)", uint8(k))
	}
	return eventNames[k]
}

var ownerPattern = regexp.MustCompile(`^[ -~]{1,64}$`)

// processName is the default of WithOwner.
var processName = sync.OnceValue(func() string {
	host, err := os.Hostname()
	host = strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' {
			return '_'
		}
		return r
	}, host)
	if err != nil || host == "" {
		host = "unknown"
	}
	pid := fmt.Sprintf(":%d", os.Getpid())
	return host[:min(len(host), record.MaxOwnerSize-len(pid))] + pid
})

// events tells observers and the log what an executor does.
type events struct {
	namespace string
	observers []Observer
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
	defer func() {
		if p := recover(); p != nil { // without its text, which may be that of fn's error
			c.logger.ErrorContext(ctx, "idempotent: observer panicked", "event", e.Kind.String(), "key", e.Key, "panic", fmt.Sprintf("a %T", p))
		}
	}()
	o.Observe(ctx, e)
}

// guardLogger returns a logger that cannot harm a run: a handler that panics or ends its goroutine loses
// its own line and nothing else.
func guardLogger(logger *slog.Logger) *slog.Logger { return slog.New(guardedHandler{logger}) }

type guardedHandler struct{ logger *slog.Logger }

func (h guardedHandler) Enabled(ctx context.Context, level slog.Level) (on bool) {
	_ = apart(func() error { on = h.logger.Enabled(ctx, level); return nil })
	return on
}

func (h guardedHandler) Handle(ctx context.Context, r slog.Record) error {
	return apart(func() error { return h.logger.Handler().Handle(ctx, r) })
}

func (h guardedHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return guardedHandler{slog.New(h.logger.Handler().WithAttrs(attrs))}
}

func (h guardedHandler) WithGroup(name string) slog.Handler {
	return guardedHandler{slog.New(h.logger.Handler().WithGroup(name))}
}

var errGoroutineEnded = errors.New("a hook ended its goroutine")

// apart runs f in a goroutine of its own, and returns an error if f panics or ends that goroutine.
func apart(f func() error) error {
	done := make(chan error, 1)
	go func() {
		err := errGoroutineEnded
		defer func() { done <- err }()
		defer rediserr.RecoverTo(&err)
		err = f()
	}()
	return <-done
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

// Package guard calls code of users in a goroutine of its own, so that a panic or runtime.Goexit there does not end
// the goroutine of a run.
package guard

import (
	"context"
	"errors"
	"log/slog"

	"github.com/idempotent-go/idempotent/internal/rediserr"
)

// ErrExited is the error of a function that ended its goroutine.
var ErrExited = errors.New("a hook ended its goroutine")

// Call runs f in a goroutine of its own, and returns an error if f panics or ends that goroutine.
func Call(f func() error) error {
	done := make(chan error, 1)
	go func() {
		err := ErrExited
		defer func() { done <- err }()
		defer rediserr.RecoverTo(&err)
		err = f()
	}()
	return <-done
}

// Logger returns a logger that cannot harm a run: a handler that panics or ends its goroutine loses its own line and
// nothing else.
func Logger(logger *slog.Logger) *slog.Logger { return slog.New(handler{logger}) }

type handler struct{ logger *slog.Logger }

func (h handler) Enabled(ctx context.Context, level slog.Level) (on bool) {
	_ = Call(func() error { on = h.logger.Enabled(ctx, level); return nil })
	return on
}

func (h handler) Handle(ctx context.Context, r slog.Record) error {
	return Call(func() error { return h.logger.Handler().Handle(ctx, r) })
}

func (h handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return handler{slog.New(h.logger.Handler().WithAttrs(attrs))}
}

func (h handler) WithGroup(name string) slog.Handler {
	return handler{slog.New(h.logger.Handler().WithGroup(name))}
}

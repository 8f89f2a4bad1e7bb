// Package stage is what the demonstrations need to be watched, and nothing that they are about: it runs
// their processes, prints what happens, and judges it. Nothing here is to be copied.
package stage

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// Parent runs a demo on standard output until it is over or interrupted, has it concluded, and
// returns the exit status.
func Parent[T any](demo func(context.Context, *Narrator) (T, error), conclude func(*Narrator, T, error) int) int {
	ctx, stop := Interruptible()
	defer stop()
	out := NewNarrator(os.Stdout)
	result, err := demo(ctx, out)
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("stopped: %w", context.Cause(ctx))
	}
	return conclude(out, result, err)
}

// Interruptible returns a context that ends with Ctrl-C or SIGTERM.
func Interruptible() (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the program at once
	return ctx, stop
}

// Limit bounds a scene, so that a demo fails instead of hanging.
func Limit(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, limit, fmt.Errorf("the scene is not over after %v", limit))
}

// Namespace keeps the runs of a demo apart that share a Redis.
func Namespace(demo string) string { return demo + "-" + strings.ToLower(rand.Text()[:10]) }

// InBackground starts f, and returns a function that waits for what it returns.
func InBackground[T any](f func() (T, error)) (wait func() (T, error)) {
	var v T
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		v, err = f()
	}()
	return func() (T, error) {
		<-done
		return v, err
	}
}

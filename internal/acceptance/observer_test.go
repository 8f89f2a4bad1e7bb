package acceptance

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/idempotent-go/idempotent"
)

// An observer that takes its time, or ends its goroutine, harms no other caller.
func TestObserverHoldsUpItsOwnCallerAlone(t *testing.T) {
	type busy struct{}
	errAgain := errors.New("again")
	for name, first := range map[string]error{"outcome": nil, "lead": errAgain} {
		blocks := map[string]func(over chan struct{}){name + ", exits": func(chan struct{}) { runtime.Goexit() }}
		if first == nil { // an elected caller leads when its own observer returns
			blocks[name+", slow"] = func(over chan struct{}) { <-over }
		}
		for name, block := range blocks {
			t.Run(name, func(t *testing.T) {
				inFakeTime(t, func(w *world) {
					over := make(chan struct{})
					x := w.executor(
						idempotent.WithShouldIgnoreError(func(err error) bool { return errors.Is(err, errAgain) }),
						idempotent.WithObserver(idempotent.ObserverFunc(func(ctx context.Context, e idempotent.Event) {
							if e.Kind == idempotent.EventJoined && ctx.Value(busy{}) != nil {
								block(over)
							}
						})))
					begun, finish := make(chan struct{}), make(chan struct{})
					go x.Run(w.Context(), "k", func(context.Context) (string, error) {
						close(begun)
						<-finish
						return "", first
					})
					<-begun
					fn := func(context.Context) (string, error) { return "", nil }
					go x.Run(context.WithValue(w.Context(), busy{}, true), "k", fn)
					w.settled()
					done := make(chan error, 1)
					go func() {
						_, err := x.Run(w.Context(), "k", fn)
						done <- err
					}()
					w.settled()
					close(finish)
					w.settled()
					select {
					case err := <-done:
						assert.NoError(w, err)
					default:
						w.Error("a caller waits for another one's observer")
					}
					close(over)
				})
			})
		}
	}
}

// A follower whose patience ends before it gets to waiting is told so, too.
func TestObserverOutlastsTheWait(t *testing.T) {
	inFakeTime(t, func(w *world) {
		x := w.executor(idempotent.WithObserver(idempotent.ObserverFunc(func(_ context.Context, e idempotent.Event) {
			if e.Kind == idempotent.EventJoined {
				time.Sleep(2 * time.Second)
			}
		})))
		begun, finish := make(chan struct{}), make(chan struct{})
		go x.Run(w.Context(), "k", func(context.Context) (string, error) {
			close(begun)
			<-finish
			return "", nil
		})
		<-begun
		began := time.Now()
		_, err := x.Run(w.Context(), "k", func(context.Context) (string, error) { return "", nil }, idempotent.WithWaitTimeout(time.Second))
		assert.ErrorIs(w, err, idempotent.ErrInProgress)
		assert.Equal(w, 2*time.Second, time.Since(began))
		close(finish)
	})
}

// fn's outcome is there for others although the caller's own goroutine ended on the way.
func TestObserverExitsAfterFn(t *testing.T) {
	inFakeTime(t, func(w *world) {
		x := w.executor(idempotent.WithObserver(idempotent.ObserverFunc(func(_ context.Context, e idempotent.Event) {
			if e.Kind == idempotent.EventExecuted {
				runtime.Goexit()
			}
		})))
		over := make(chan struct{})
		go func() {
			defer close(over)
			_, _ = x.Run(w.Context(), "k", func(context.Context) (string, error) { return "charged", nil })
		}()
		<-over
		p := w.provider()
		w.executor().start(w.Context(), "k", p.charge).returned(w, "charged")
		assert.Zero(w, p.count())
	})
}

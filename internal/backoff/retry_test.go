package backoff

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
)

var errDown = errors.New("connection refused")

func TestPausesDoubleUpToTheLimit(t *testing.T) {
	b := Backoff{First: 100 * time.Millisecond, Limit: 350 * time.Millisecond}
	for range 2 { // the second time after Reset
		for _, want := range []time.Duration{100, 200, 350, 350} {
			got := b.Next()
			assert.GreaterOrEqual(t, got, want*time.Millisecond*3/4)
			assert.LessOrEqual(t, got, want*time.Millisecond*5/4)
		}
		b.Reset()
	}
}

func TestPausesVary(t *testing.T) {
	seen := make(map[time.Duration]bool)
	for range 50 {
		b := Backoff{First: time.Hour, Limit: time.Hour}
		seen[b.Next()] = true
	}
	assert.Greater(t, len(seen), 1)
}

func TestRetryEndsWithSuccess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		attempts, failures := 0, 0
		err := Retry(t.Context(), func() error {
			if attempts++; attempts < 4 {
				return errDown
			}
			return nil
		}, func(err error) {
			assert.Equal(t, errDown, err)
			failures++
		})
		assert.NoError(t, err)
		assert.Equal(t, 4, attempts)
		assert.Equal(t, 3, failures)
	})
}

func TestRetryEndsWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		began := time.Now()
		err := Retry(ctx, func() error {
			if ctx.Err() != nil {
				return ctx.Err() // what a client returns then
			}
			return errDown
		}, nil)
		assert.Equal(t, errDown, err, "the cause, not the end of the context")
		assert.Equal(t, time.Minute, time.Since(began))
	})
}

func TestRetryOfAnEndedContextTriesOnce(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	attempts := 0
	err := Retry(ctx, func() error { attempts++; return ctx.Err() }, func(error) { t.Error("no retry follows") })
	assert.ErrorIs(t, err, context.Canceled)
	assert.Equal(t, 1, attempts)
}

func TestRetryStopsWhenTheClientIsClosed(t *testing.T) {
	attempts := 0
	err := Retry(t.Context(), func() error { attempts++; return redis.ErrClosed }, nil)
	assert.ErrorIs(t, err, redis.ErrClosed)
	assert.Equal(t, 1, attempts)
}

func TestResumeStartsWithAPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		assert.NoError(t, Resume(t.Context(), errDown, func() error { return nil }, nil))
		assert.GreaterOrEqual(t, time.Since(began), 15*time.Millisecond)
	})
}

func TestReconnectUntilTheSessionIsDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sessions := 0
		var lost []error
		Reconnect(t.Context(), func() error {
			if sessions++; sessions == 3 {
				return nil
			}
			return errDown
		}, func(err error) { lost = append(lost, err) })
		assert.Equal(t, []error{errDown, errDown}, lost)
	})
}

func TestReconnectEndsWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		Reconnect(ctx, func() error { cancel(); return errDown }, func(error) { t.Error("nothing is lost by an end") })
	})
}

func TestReconnectPausesStartOverAfterALongSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		sessions := 0
		var ended time.Time
		var pauses []time.Duration
		Reconnect(ctx, func() error {
			if !ended.IsZero() {
				pauses = append(pauses, time.Since(ended))
			}
			switch sessions++; sessions {
			case 12: // by now the pauses are at their limit
				time.Sleep(time.Minute)
			case 13:
				cancel()
			}
			ended = time.Now()
			return errDown
		}, func(error) {})
		assert.Greater(t, pauses[10], time.Second)
		assert.Less(t, pauses[11], 20*time.Millisecond)
	})
}

// Package backoff owns how a failed call is retried: the pauses between attempts and the loop around
// them. It never decides what is worth a retry, and it starts no goroutine.
package backoff

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/redis/go-redis/v9"
)

// A Backoff returns pauses that double from First up to Limit. Each varies by up to a quarter in
// either direction, because processes that failed together must not return together.
type Backoff struct {
	First, Limit time.Duration
	last         time.Duration
}

// Next returns the next pause.
func (b *Backoff) Next() time.Duration {
	b.last = min(max(2*b.last, b.First), b.Limit)
	return b.last*3/4 + rand.N(b.last/2+1) //nolint:gosec // jitter is no secret
}

// Reset makes the next pause start from First again.
func (b *Backoff) Reset() { b.last = 0 }

// Retry calls try until it succeeds, ctx ends or the client is closed. It returns the last error that
// says more than that ctx ended. failed, if not nil, gets each error that is followed by a retry.
func Retry(ctx context.Context, try func() error, failed func(error)) error {
	return Resume(ctx, try(), try, failed)
}

// Resume is Retry after a first attempt that returned err.
func Resume(ctx context.Context, err error, try func() error, failed func(error)) error {
	pause := Backoff{First: 20 * time.Millisecond, Limit: time.Second}
	var last error
	for {
		switch {
		case err == nil:
			return nil
		case errors.Is(err, redis.ErrClosed): // permanent: a closed client stays closed
			return err
		case ctx.Err() != nil && last != nil && errors.Is(err, ctx.Err()):
			return last // says why the attempts failed; err only says that the time is over
		case ctx.Err() != nil:
			return err
		}
		last = err
		if failed != nil {
			failed(err)
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause.Next()):
		}
		err = try()
	}
}

// MaxReconnectPause is the longest pause between two attempts to restore a subscription.
const MaxReconnectPause = 2 * time.Second

// Reconnect runs session again and again until it returns nil or ctx ends. lost gets each error that
// ended a session. A session that lasted longer than MaxReconnectPause starts the pauses over.
func Reconnect(ctx context.Context, session func() error, lost func(error)) {
	pause := Backoff{First: 10 * time.Millisecond, Limit: MaxReconnectPause}
	for {
		began := time.Now()
		err := session()
		if err == nil || ctx.Err() != nil {
			return
		}
		lost(err)
		if time.Since(began) > MaxReconnectPause {
			pause.Reset()
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause.Next()):
		}
	}
}

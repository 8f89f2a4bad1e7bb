package backoff

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/redis/go-redis/v9"
)

// A backoff doubles from first to limit, each time with up to a quarter more or less so that many
// processes do not come back at once.
type Backoff struct {
	First, Limit time.Duration
	last         time.Duration
}

func (b *Backoff) Next() time.Duration {
	b.last = min(max(2*b.last, b.First), b.Limit)
	return b.last*3/4 + rand.N(b.last/2+1)
}

func (b *Backoff) Reset() { b.last = 0 }

// maxLinkBackoff is the longest pause between two attempts to make a subscription anew.
const MaxReconnectPause = 2 * time.Second

// retry repeats try until it succeeds or ctx ends, and then returns the last error that says more
// than that ctx ended. failed, if not nil, is told of each failure that is followed by another try.
func Retry(ctx context.Context, try func() error, failed func(error)) error {
	err := try()
	if err == nil {
		return nil
	}
	return Resume(ctx, err, try, failed)
}

// retryAfter goes on after a first try that failed.
func Resume(ctx context.Context, err error, try func() error, failed func(error)) error {
	pause := Backoff{First: 20 * time.Millisecond, Limit: time.Second}
	var last error
	for {
		switch {
		case err == nil:
			return nil
		case errors.Is(err, redis.ErrClosed): // the client is closed, for good
			return err
		case ctx.Err() != nil && last != nil && errors.Is(err, ctx.Err()):
			return last
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

package pubsub

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/redis/go-redis/v9"
)

// A Subscription is one connection that receives messages. One goroutine reads it and sends no
// command, so it never waits for what waits for it.
type Subscription struct {
	*redis.PubSub
	sawTraffic atomic.Bool
	reading    sync.WaitGroup
}

// Receive starts to read ps, which the Subscription owns from now on. handle gets everything that is
// received, one by one and in order; its error ends the reading, as an error of the connection does.
// failed gets that error, once and last. Both are called in the reading goroutine.
func Receive(ctx context.Context, ps *redis.PubSub, handle func(any) error, failed func(error)) *Subscription {
	s := &Subscription{PubSub: ps}
	s.reading.Go(func() { failed(s.read(ctx, handle)) })
	return s
}

func (s *Subscription) read(ctx context.Context, handle func(any) error) error {
	for {
		message, err := s.PubSub.Receive(ctx)
		if err != nil {
			// MOVED included: go-redis may have replaced the connection by itself, and what was
			// published in between is lost.
			return err
		}
		s.sawTraffic.Store(true)
		if err := handle(message); err != nil {
			return err
		}
	}
}

// TakeTraffic reports whether anything was received since it was last called.
func (s *Subscription) TakeTraffic() bool { return s.sawTraffic.Swap(false) }

// Close closes the connection and returns when the reading has ended.
func (s *Subscription) Close() {
	_ = s.PubSub.Close()
	s.reading.Wait()
}

// ErrSilent: a server did not answer a ping through the subscription.
var ErrSilent = errors.New("no answer to a ping")

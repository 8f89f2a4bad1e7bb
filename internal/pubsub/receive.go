package pubsub

import (
	"context"
	"sync/atomic"

	"github.com/redis/go-redis/v9"
)

// A receiver reads one connection and passes on what it hears. It only ever takes the hub's
// mutex: it sends no command, so nothing it waits for waits for it.
type receiver struct {
	link    *link
	failed  chan error // one error, when the connection is of no more use
	started bool
	sounds  atomic.Bool
}

// heard reports whether anything came since it was last called.
func (r *receiver) heard() bool { return r.sounds.Swap(false) }

func (r *receiver) receive(ctx context.Context, ps *redis.PubSub) {
	for {
		message, err := ps.Receive(ctx)
		// Told that it moved to where it is, go-redis makes the connection anew, and something is missed.
		if addr, moved := redis.IsMovedError(err); moved && addr != r.link.address && r.link.redirected(err, addr) {
			r.sounds.Store(true)
			continue
		}
		if err != nil {
			r.failed <- err
			return
		}
		r.sounds.Store(true)
		r.pass(message)
	}
}

func (r *receiver) pass(message any) {
	switch m := message.(type) {
	case *redis.Message:
		r.link.hub.deliver(m.Channel, []byte(m.Payload))
	case *redis.Subscription:
		switch m.Kind {
		case "subscribe", "ssubscribe":
			r.link.hub.confirm(m.Channel, r.link)
		case "unsubscribe", "sunsubscribe":
			r.link.unsubscribed(m.Channel)
		}
	}
}

package pubsub

import (
	"context"
	"sync/atomic"

	"github.com/redis/go-redis/v9"
)

// A receiver reads one connection and passes on what it hears. It only ever takes the hub's
// mutex: it sends no command, so nothing it waits for waits for it.
type receiver struct {
	conn       *conn
	failed     chan error // one error, when the connection is of no more use
	started    bool
	sawTraffic atomic.Bool
}

// heard reports whether anything came since it was last called.
func (r *receiver) takeTraffic() bool { return r.sawTraffic.Swap(false) }

func (r *receiver) receive(ctx context.Context, ps *redis.PubSub) {
	for {
		message, err := ps.Receive(ctx)
		// Told that it moved to where it is, go-redis makes the connection anew, and something is missed.
		if addr, moved := redis.IsMovedError(err); moved && addr != r.conn.address && r.conn.redirected(err, addr) {
			r.sawTraffic.Store(true)
			continue
		}
		if err != nil {
			r.failed <- err
			return
		}
		r.sawTraffic.Store(true)
		r.pass(message)
	}
}

func (r *receiver) pass(message any) {
	switch m := message.(type) {
	case *redis.Message:
		r.conn.hub.deliver(m.Channel, []byte(m.Payload))
	case *redis.Subscription:
		switch m.Kind {
		case "subscribe", "ssubscribe":
			r.conn.hub.confirm(m.Channel, r.conn)
		case "unsubscribe", "sunsubscribe":
			r.conn.unsubscribed(m.Channel)
		}
	}
}

package idemhttp

import (
	"context"
	"sync/atomic"

	"github.com/idempotent-go/idempotent"
)

// A progress is what becomes known of one request on its way through the executor.
type progress struct {
	// twin: there is another request with the same key beside it, in this process or elsewhere,
	// which runs the handler or may do so, whatever becomes of Redis.
	twin atomic.Bool
	// claimed: this one runs the handler.
	claimed atomic.Bool
	// unknown: the handler says that it does not know what it did.
	unknown atomic.Bool
	// handled is closed when the handler has returned.
	handled chan struct{}
}

// OutcomeUnknown is for a handler that cannot tell whether it had its effect, because the
// connection to its provider broke after the request was sent. Given the context of the request,
// it keeps the response, a 504 for instance, from being recorded: the client gets it, and when it
// sends the request again, the handler runs as the next attempt and can ask the provider first, or
// the request is refused, as WithInterrupted says. Without a key it has no effect.
func OutcomeUnknown(ctx context.Context) {
	if p, ok := ctx.Value(progressKey{}).(*progress); ok {
		p.unknown.Store(true)
	}
}

type progressKey struct{}

// finish waits for the handler, if this request runs it. Routers keep their contexts in pools and
// give them to the next request as soon as a handler returns to them; a handler that went on
// behind their back, because its client has disconnected, would see another request's parameters.
func (p *progress) finish() {
	if p.claimed.Load() {
		<-p.handled
	}
}

// A watcher is the executor's observer: it writes the progress in the context of a request, and
// passes all on.
type watcher struct{ next idempotent.Observer }

func (w watcher) Observe(ctx context.Context, e idempotent.Event) {
	if p, ok := ctx.Value(progressKey{}).(*progress); ok {
		switch e.Kind {
		case idempotent.EventJoined, idempotent.EventWaitStarted:
			p.twin.Store(true)
		case idempotent.EventClaimed:
			p.claimed.Store(true)
		}
	}
	if w.next != nil {
		w.next.Observe(ctx, e)
	}
}

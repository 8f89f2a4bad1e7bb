package idemhttp

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/internal/runctx"
)

// A progress is what becomes known of one request while the executor has it.
type progress struct {
	// twin: another request with the same key runs the handler or may do so, in this process or
	// another one, whatever happens to Redis.
	twin atomic.Bool
	// unknown and harmless: the handler called OutcomeUnknown, NoEffect.
	unknown, harmless atomic.Bool
	// deadline: something inside asked for the deadline of the handler's context.
	deadline atomic.Bool

	stage   atomic.Int32  // stageWaiting, then one of the others
	handled chan struct{} // closed when the handler has returned

	// These are written before handled is closed.
	response response
	err      error // of perform
	panicked any   // what the handler panicked with, nil if it did not
	cut      bool  // that leaves the outcome unknown
	bypassed bool  // the response went around the middleware
}

const (
	stageWaiting  int32 = iota
	stageHandling       // the handler runs, or has run
	stageLeft           // ServeHTTP has returned: the handler must not begin
)

type progressKey struct{}

// OutcomeUnknown is for a handler that cannot tell whether it had its effect, because the connection
// to its provider broke after the request was sent. Given the context of the request, it keeps the
// response, a 504 for instance, from being recorded: the client gets it, and when it sends the
// request again, the handler runs as the next attempt and can ask the provider first, or the request
// is refused, as WithInterrupted says. Without a key it does nothing. It goes before NoEffect.
func OutcomeUnknown(ctx context.Context) {
	if p, ok := runctx.Value(ctx, progressKey{}).(*progress); ok {
		p.unknown.Store(true)
	}
}

// NoEffect is for a handler that surely had no effect and wants the request to come again, such as one
// that found its database down before it wrote. Given the context of the request, it frees the key,
// whatever the status. Without a key it does nothing.
func NoEffect(ctx context.Context) {
	if p, ok := runctx.Value(ctx, progressKey{}).(*progress); ok {
		p.harmless.Store(true)
	}
}

// begin reports whether the handler may begin.
func (p *progress) begin() bool { return p.stage.CompareAndSwap(stageWaiting, stageHandling) }

// leave waits for the handler if it has begun, and keeps it from beginning if it has not. Routers keep
// their contexts in pools and give them to the next request as soon as a handler returns to them: a
// handler that went on after its client has disconnected would see another request's parameters.
func (p *progress) leave() {
	if !p.stage.CompareAndSwap(stageWaiting, stageLeft) {
		<-p.handled
	}
}

// ran reports whether this request ran the handler. It is called after leave.
func (p *progress) ran() bool { return p.stage.Load() == stageHandling }

// errLeft: the client disconnected after the claim and before the handler began. The key is free.
var errLeft = errors.New("idemhttp: the client left before the handler began")

// A watcher is the executor's observer: it notes twins in the context of a request, and passes all
// events on.
type watcher struct{ next idempotent.Observer }

func (w watcher) Observe(ctx context.Context, e idempotent.Event) {
	if e.Kind == idempotent.EventJoined || e.Kind == idempotent.EventWaitStarted {
		if p, ok := ctx.Value(progressKey{}).(*progress); ok {
			p.twin.Store(true)
		}
	}
	if w.next != nil {
		w.next.Observe(ctx, e)
	}
}

// A handlerContext is the context of a handler. It notes whether the handler asks for its deadline, which
// everything that makes a timeout does.
type handlerContext struct {
	context.Context
	progress *progress
	deadline context.Context // whose deadline it has
}

func (c *handlerContext) Deadline() (time.Time, bool) {
	c.progress.deadline.Store(true)
	return c.deadline.Deadline()
}

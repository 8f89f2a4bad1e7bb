package idemhttp

import (
	"context"
	"errors"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/idemhttp/internal/adapter"
)

// A call is one request with a key on its way through the executor.
type call struct {
	*guard
	key         string
	name        string // instance
	fingerprint []byte
	mark        marker
	progress    progress
}

// run has the handler run, or its recorded response replayed.
func (c *call) run(w http.ResponseWriter, r *http.Request, body []byte) {
	p := &c.progress
	p.handled = make(chan struct{})
	res, err := c.executor.Run(context.WithValue(r.Context(), progressKey{}, p), c.name, func(ctx context.Context) (response, error) {
		if !p.begin() {
			return response{}, errLeft
		}
		defer close(p.handled)
		c.perform(ctx, w, r, body)
		return p.response, p.err
	}, append(c.runOptions(), idempotent.WithFingerprint(c.fingerprint))...)
	p.leave()
	if p.ran() && p.panicked != nil {
		panic(p.panicked)
	}
	if c.failOpen && errors.Is(err, idempotent.ErrUnavailable) && !p.twin.Load() && r.Context().Err() == nil {
		w.Header().Set(UnguardedHeader, "true")
		c.handle(w, withBody(r.Context(), r, body), r)
		return
	}
	c.answer(w, r, &res, err)
}

// handle calls the handler with a copy of net/http's request, and gives that what the handler's routers
// found out: what is in front reads it there.
func (g *guard) handle(w http.ResponseWriter, r, original *http.Request) {
	defer func() {
		if r.MultipartForm != nil { // net/http does this for the request it made itself
			_ = r.MultipartForm.RemoveAll()
		}
		if original.Pattern != r.Pattern {
			original.Pattern = r.Pattern
			for name := range wildcards(r.Pattern) {
				original.SetPathValue(name, r.PathValue(name))
			}
		}
		original.Form, original.PostForm = r.Form, r.PostForm
	}()
	g.next.ServeHTTP(w, r)
}

// wildcards are the names of the wildcards in a pattern of http.ServeMux.
func wildcards(pattern string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for {
			_, rest, found := strings.Cut(pattern, "{")
			if !found {
				return
			}
			name, after, _ := strings.Cut(rest, "}")
			if name = strings.TrimSuffix(name, "..."); name != "$" && !yield(name) {
				return
			}
			pattern = after
		}
	}
}

// perform runs the handler and leaves in the progress what its ending means. A panic goes on to the
// executor, which records it, unless it leaves the outcome unknown.
func (c *call) perform(ctx context.Context, w http.ResponseWriter, r *http.Request, body []byte) {
	p := &c.progress
	handlerCtx := &handlerContext{Context: context.WithValue(ctx, markerKey{}, c.mark), progress: p, deadline: ctx}
	if c.attached {
		attached, cancel := context.WithCancelCause(handlerCtx.Context)
		defer cancel(context.Canceled)
		defer context.AfterFunc(r.Context(), func() { cancel(context.Cause(r.Context())) })()
		handlerCtx.Context, handlerCtx.deadline = attached, r.Context()
	}
	out := newCapture(c.guard, handlerCtx, c.name, w.Header())
	c.handleGuarded(out, withBody(handlerCtx, r, body), r)
	p.bypassed = adapter.Written(w)
	info, _ := idempotent.RunInfoFromContext(ctx)
	p.response = out.response()
	e := Ending{
		Status:   out.status,
		Header:   out.sent,
		Attempt:  info.Attempt,
		Flushed:  out.flushed,
		Deadline: p.deadline.Load(),
		wrote:    out.wrote,
		stopped:  handlerCtx.Err() != nil,
		aborted:  p.cut,
		bypassed: p.bypassed,
		short:    out.short(r.Method),
		unknown:  p.unknown.Load(),
		harmless: p.harmless.Load(),
	}
	switch c.judge(&e) {
	case Record:
		c.keep(&p.response)
	case Free:
		c.keep(&p.response)
		p.err = &unrecordedError{p.response}
	default:
		p.err = idempotent.OutcomeUnknown(errUnknown)
		c.logger.WarnContext(ctx, "idemhttp: outcome unknown", "instance", c.name, "status", e.Status, "attempt", e.Attempt)
	}
}

// handleGuarded runs the handler and notes a panic. It catches those after which the outcome is unknown:
// a response that is cut off, as by a proxy whose backend broke off, and a failure after the context of
// the handler has ended.
func (c *call) handleGuarded(out *capture, r, original *http.Request) {
	returned := false
	defer func() {
		if returned {
			return
		}
		value := recover()
		if value == nil { // runtime.Goexit
			return
		}
		c.progress.panicked = value
		err, _ := value.(error)
		c.progress.cut = errors.Is(err, http.ErrAbortHandler) || out.ctx.Err() != nil
		if !c.progress.cut {
			panic(value)
		}
		if value != http.ErrAbortHandler { //nolint:errorlint // net/http compares it so
			c.logger.Error("idemhttp: handler panicked after its context had ended", "instance", c.name, "stack", string(debug.Stack()))
		}
	}()
	c.handle(out, r, original)
	returned = true
}

// runOptions are the options of each Run on the route. A caller may append to them.
func (c *route) runOptions() []idempotent.RunOption {
	return slices.Clip(c.executorOptions)
}

// answer sends the result of a request. It is the only place that says what the outcomes of the
// executor are in HTTP.
func (c *call) answer(w http.ResponseWriter, r *http.Request, res *response, err error) {
	ran := c.progress.ran()
	if ran && c.progress.bypassed {
		c.logger.ErrorContext(r.Context(), "idemhttp: the handler wrote around the middleware; use the adapter for its framework", "instance", c.name)
		return
	}
	free, isFree := errors.AsType[*unrecordedError](err)
	switch {
	case err == nil:
		c.deliver(w, r, res)
	case errors.Is(err, idempotent.ErrLeaseLost):
		c.refuse(w, r, c.name, problemOf(err))
	case ran && (errors.Is(err, idempotent.ErrNotRecorded) || errors.Is(err, errUnknown)):
		c.deliverUnrecorded(w)
	case errors.Is(err, idempotent.ErrNotRecorded) && res.status != 0 && !res.withheld: // another request here ran it
		w.Header().Set(UnrecordedHeader, "true")
		res.write(w)
	case isFree && (ran || !free.response.withheld):
		free.response.write(w)
	case isFree, errors.Is(err, errLeft), r.Context().Err() != nil: // the client is gone, or something in front has set a deadline
		c.refuse(w, r, c.name, inProgress(retrySoon))
	case errors.Is(err, idempotent.ErrInProgress):
		c.refuse(w, r, c.name, inProgress(c.retryAfter(r.Context())))
	default:
		c.refuse(w, r, c.name, problemOf(err))
	}
}

// deliver sends a recorded response, or what is left of it.
func (c *call) deliver(w http.ResponseWriter, r *http.Request, res *response) {
	if res.withheld && res.decoded {
		c.refuse(w, r, c.name, notKept(res.status))
		return
	}
	h := w.Header()
	switch {
	case res.decoded:
		h.Set(ReplayedHeader, "true")
		h.Set(ExpiresHeader, time.Unix(res.expires, 0).UTC().Format(http.TimeFormat))
		if res.redacted {
			h.Set(RedactedHeader, "true")
		}
	case !c.plain:
		h.Set(ReplayedHeader, "false")
		c.echo(h, r)
	}
	res.write(w)
}

// echo tells the client which key was honoured.
func (c *call) echo(h http.Header, r *http.Request) {
	if c.keyFunc == nil {
		h.Set(KeyHeader, strings.Trim(r.Header.Get(KeyHeader), " \t"))
	} else if quoted, ok := quoteKey(c.key); ok {
		h.Set(KeyHeader, quoted)
	}
}

// deliverUnrecorded sends the response of the handler, which this request ran.
func (c *call) deliverUnrecorded(w http.ResponseWriter) {
	if c.progress.err == nil || errors.Is(c.progress.err, errUnknown) {
		w.Header().Set(UnrecordedHeader, "true")
	}
	c.progress.response.write(w)
}

// retryAfter is when a client should ask again that met a request in progress: half as long as that
// has been running, so that the time lost to asking late stays small against it.
func (c *call) retryAfter(ctx context.Context) time.Duration {
	const longest, patience = 30 * time.Second, 250 * time.Millisecond
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	status, err := c.executor.Peek(ctx, c.name)
	if err != nil || status.State != idempotent.StateRunning {
		return retrySoon
	}
	return min(max(status.Age/2, retrySoon), longest)
}

package idemhttp

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"slices"

	"github.com/redis/go-redis/v9"

	"github.com/idempotent-go/idempotent"
)

// A Middleware runs handlers once for each Idempotency-Key. One is enough for a process; it may
// wrap any number of handlers. Close it when the server has shut down.
type Middleware struct {
	config
	executor *idempotent.Executor[response]
}

// New makes a Middleware on a go-redis client, which stays the caller's. It does not talk to
// Redis. Options that are not allowed are idempotent.ErrInvalidOption, each named with its value
// and what is allowed.
func New(client redis.UniversalClient, opts ...Option) (*Middleware, error) {
	m := &Middleware{config: defaultConfig()}
	for _, o := range opts {
		if o == nil {
			return nil, invalid("New", "option", "nil", "an Option")
		}
		o(&m.config)
	}
	err := m.validate()
	m.prepare()
	var execErr error
	m.executor, execErr = idempotent.New[response](client, m.namespace, m.executorOptions()...)
	if err := errors.Join(err, execErr); err != nil {
		return nil, err
	}
	return m, nil
}

// prepare derives what requests need from the options.
func (c *config) prepare() {
	c.methods = slices.Clone(c.methods)
	c.private = make(map[string]bool, len(hopByHop)+len(c.unrecorded))
	for _, name := range slices.Concat(hopByHop, c.unrecorded) {
		c.private[http.CanonicalHeaderKey(name)] = true
	}
}

func (m *Middleware) executorOptions() []idempotent.Option {
	opts := []idempotent.Option{
		idempotent.WithCodec[response](codec{}),
		idempotent.WithErrors(idempotent.NewErrorRegistry(idempotent.ErrorType[*unrecordedError]("idemhttp.unrecorded"))),
		idempotent.WithLease(m.lease),
		idempotent.WithTTL(m.ttl),
		idempotent.WithWaitTimeout(m.waitTimeout),
		idempotent.WithInterrupted(m.interrupted),
		idempotent.WithShouldIgnoreError(func(err error) bool {
			_, unrecorded := errors.AsType[*unrecordedError](err)
			return unrecorded
		}),
		// Those who wait get the 429 or 503 as well, instead of running the handler one by one.
		idempotent.WithIgnoredErrors(idempotent.ShareWithWaiters),
		idempotent.WithLogger(m.logger),
		idempotent.WithObserver(watcher{m.observer}),
	}
	if m.conflict {
		opts = append(opts, idempotent.WithNoWait())
	}
	if !m.attached {
		opts = append(opts, idempotent.WithDetached())
	}
	return opts
}

// Close waits for the handlers that still run, those whose clients are gone included, until their
// responses are recorded. Call it after http.Server.Shutdown. Later requests get 503.
func (m *Middleware) Close() error { return m.executor.Close() }

// Wrap returns a handler that runs next once for each key. It works wherever an http.Handler does;
// Request.Pattern is part of the scope, so a router's handlers are better wrapped one by one than
// all at once. A handler that is wrapped twice is guarded once.
func (m *Middleware) Wrap(next http.Handler) http.Handler {
	if next == nil {
		panic("idemhttp: Wrap of a nil handler")
	}
	return &guard{Middleware: m, next: next}
}

// A guard is a wrapped handler.
type guard struct {
	*Middleware
	next http.Handler
}

// ServeHTTP implements http.Handler.
func (g *guard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !slices.Contains(g.methods, r.Method) {
		g.next.ServeHTTP(w, r)
		return
	}
	key, present, err := g.keyOf(r.Header)
	switch {
	case err != nil:
		g.refuse(w, r, keyInvalid(err))
	case present:
		g.guarded(w, r, key)
	case g.required:
		g.refuse(w, r, keyMissing())
	default:
		g.next.ServeHTTP(w, r)
	}
}

// guarded serves a request that has a key. The whole request is there before anything is looked
// up.
func (g *guard) guarded(w http.ResponseWriter, r *http.Request, key string) {
	mark := marker{g.Middleware, r.RequestURI, key}
	if r.Context().Value(markerKey{}) == mark {
		g.next.ServeHTTP(w, r)
		return
	}
	key, err := g.lookupKey(r, key)
	if err != nil {
		g.logger.ErrorContext(r.Context(), "idemhttp: no scope", "error", err.Error())
		p, ok := errors.AsType[*Problem](err)
		if !ok {
			p = misconfigured()
		}
		g.refuse(w, r, p)
		return
	}
	body, fingerprint, err := g.read(w, r)
	if err != nil {
		g.logger.InfoContext(r.Context(), "idemhttp: request body refused", "error", err.Error())
		g.refuse(w, r, badBody(err))
		return
	}
	g.run(w, withBody(r, body), key, fingerprint, mark)
}

// A marker in the context of a request says that it is guarded.
type marker struct {
	by  *Middleware
	uri string
	key string
}

type markerKey struct{}

// withBody returns a copy of r that has the body still to be read, and that nobody else changes:
// a handler may use it when its caller is gone.
func withBody(r *http.Request, body []byte) *http.Request {
	r = r.Clone(r.Context())
	r.ContentLength, r.TransferEncoding = int64(len(body)), nil
	r.Body = http.NoBody
	if len(body) > 0 {
		r.Body = io.NopCloser(bytes.NewReader(body))
	}
	return r
}

// run has the handler run, or its recorded response replayed.
func (g *guard) run(w http.ResponseWriter, r *http.Request, key string, fingerprint []byte, mark marker) {
	out, p := newCapture(w.Header()), &progress{handled: make(chan struct{})}
	ctx := context.WithValue(r.Context(), progressKey{}, p)
	res, err := g.executor.Run(ctx, key, func(ctx context.Context) (response, error) {
		defer close(p.handled)
		return g.perform(out, p, r.WithContext(context.WithValue(ctx, markerKey{}, mark)))
	}, idempotent.WithFingerprint(fingerprint))
	p.finish()
	if g.failOpen && errors.Is(err, idempotent.ErrUnavailable) && !p.twin.Load() {
		w.Header().Set(UnguardedHeader, "true")
		g.handle(w, r)
		return
	}
	g.answer(w, r, &res, err)
}

// handle calls the handler with a copy of net/http's request.
func (g *guard) handle(w http.ResponseWriter, r *http.Request) {
	defer func() {
		if r.MultipartForm != nil { // net/http does this for the request it made itself
			_ = r.MultipartForm.RemoveAll()
		}
	}()
	g.next.ServeHTTP(w, r)
}

// perform runs the handler, and says what becomes of its response.
func (g *guard) perform(out *capture, p *progress, r *http.Request) (response, error) {
	g.handle(out, r)
	res := out.response(&g.config)
	switch ctx := r.Context(); {
	case ctx.Err() != nil && (res.status >= 500 || !out.wrote):
		return response{}, &interruptedError{res, context.Cause(ctx)}
	case p.unknown.Load():
		return response{}, idempotent.OutcomeUnknown(&interruptedError{res, errUnknown})
	case !g.shouldRecord(res.status, out.sent):
		return response{}, &unrecordedError{res}
	}
	return res, nil
}

// answer sends what came of a request. It is the only place that says what the outcomes of the
// executor are in HTTP.
func (g *guard) answer(w http.ResponseWriter, r *http.Request, res *response, err error) {
	unrecorded, isUnrecorded := errors.AsType[*unrecordedError](err)
	interrupted, isInterrupted := errors.AsType[*interruptedError](err)
	switch {
	case err == nil, errors.Is(err, idempotent.ErrNotRecorded) && res.status != 0:
		g.deliver(w, r, res, err == nil)
	case errors.Is(err, idempotent.ErrLeaseLost):
		g.refuse(w, r, problemOf(err))
	case isUnrecorded && unrecorded.response.tooLarge && unrecorded.response.decoded:
		g.refuse(w, r, inProgress(nil))
	case isUnrecorded:
		unrecorded.response.write(w)
	case isInterrupted:
		interrupted.response.write(w)
	case r.Context().Err() != nil: // the client is gone, or somebody in front has set a deadline
		g.refuse(w, r, inProgress(err))
	default:
		g.refuse(w, r, problemOf(err))
	}
}

// UnguardedHeader marks a response that WithFailOpen let through: nothing kept its handler from
// running more than once, and it is not recorded.
const UnguardedHeader = "Idempotent-Unguarded"

// UnrecordedHeader marks a response that could not be recorded, although the handler ran: the next
// request with its key may run it again.
const UnrecordedHeader = "Idempotent-Unrecorded"

// deliver sends a handler's response, or what is left of it.
func (g *guard) deliver(w http.ResponseWriter, r *http.Request, res *response, recorded bool) {
	if res.tooLarge && res.decoded {
		g.refuse(w, r, tooLargeToReplay(res.status))
		return
	}
	switch {
	case !recorded:
		w.Header().Set(UnrecordedHeader, "true")
	case res.decoded:
		w.Header().Set(ReplayedHeader, "true")
	}
	res.write(w)
}

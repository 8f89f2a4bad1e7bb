package idemhttp

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/idemhttp/internal/adapter"
)

// A Middleware runs handlers once for each Idempotency-Key. One is enough for a process; it may
// wrap any number of handlers. Close it when the server has shut down.
type Middleware struct {
	config
	executor *idempotent.Executor[response]
	checker  *idempotent.Executor[response] // of options; nothing observes it
}

// New makes a Middleware on a go-redis client, which stays the caller's. It does not talk to
// Redis. namespace is the first part of every name in Redis, as for idempotent.New: middlewares that
// share it share their responses. scope says whose key a request carries; there is no default, since
// each would pay twice or show one caller the responses of another in some API: SingleTenant,
// ScopeAuthorization, ScopeHeader, ScopeBearerSubject, ScopeBasicUser, or a function of your own.
//
// Options that are not allowed are idempotent.ErrInvalidOption, each named with its value and what is
// allowed.
func New(client redis.UniversalClient, namespace string, scope Scope, opts ...Option) (*Middleware, error) {
	m := &Middleware{config: defaultConfig()}
	m.scope = scope
	for _, o := range opts {
		if isNil(o) {
			return nil, invalid("New", "option", "nil", "an Option")
		}
		o.apply(&m.config)
	}
	err := m.config.validate()
	m.prepare()
	silent := m.options()
	observed := append(slices.Clip(silent), m.tracing...)
	var execErr error
	m.executor, execErr = idempotent.New[response](client, namespace, append(observed, idempotent.WithObserver(watcher{m.observer}))...)
	if err := errors.Join(err, execErr); err != nil {
		return nil, err
	}
	m.checker, err = idempotent.New[response](client, namespace, silent...)
	return m, err
}

func (m *Middleware) options() []idempotent.Option {
	opts := []idempotent.Option{
		idempotent.WithCodec[response](codec{}),
		idempotent.WithErrors(idempotent.NewErrorRegistry(idempotent.ErrorType[*unrecordedError]("idemhttp.unrecorded"))),
		idempotent.WithLease(m.lease),
		idempotent.WithShouldIgnoreError(func(err error) bool {
			_, free := errors.AsType[*unrecordedError](err)
			return free || errors.Is(err, errLeft)
		}),
		// Waiters get the 429 or 503 as well, instead of running the handler one by one.
		idempotent.WithIgnoredErrors(idempotent.ShareWithWaiters),
		idempotent.WithDetached(),
		idempotent.WithLogger(m.logger),
	}
	for _, o := range m.executorOptions {
		opts = append(opts, o)
	}
	return opts
}

// Close waits for the handlers that still run, those whose clients are gone included, until their
// responses are recorded. Call it after http.Server.Shutdown. Later requests get 503.
func (m *Middleware) Close() error { return errors.Join(m.executor.Close(), m.checker.Close()) }

// Wrap returns a handler that runs next once for each key. It works wherever an http.Handler does. opts
// replace those of New for this handler. A handler that is wrapped twice is guarded once.
//
// Wrap panics if next is nil or an option is not allowed, as http.ServeMux.Handle does with a pattern:
// both are mistakes of the program that show when it starts.
func (m *Middleware) Wrap(next http.Handler, opts ...RouteOption) http.Handler {
	if next == nil {
		panic("idemhttp: Wrap of a nil handler")
	}
	g := &guard{Middleware: m, route: m.config.route, next: next}
	for _, o := range opts {
		if isNil(o) {
			panic(invalid("Wrap", "option", "nil", "a RouteOption"))
		}
		o.applyRoute(&g.route)
	}
	if len(opts) > 0 {
		if err := g.route.validate(); err != nil {
			panic(err)
		}
		g.prepare()
		if err := m.checkRunOptions(&g.route); err != nil {
			panic(err)
		}
	}
	return g
}

// checkRunOptions has an executor check the options of a route. With a context that has ended, it does
// nothing else.
func (m *Middleware) checkRunOptions(c *route) error {
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := m.checker.Get(ended, "options", c.runOptions()...)
	if errors.Is(err, idempotent.ErrInvalidOption) {
		return err
	}
	return nil
}

// With is Wrap as routers want their middlewares: chi's Use and With, for instance.
func (m *Middleware) With(opts ...RouteOption) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler { return m.Wrap(next, opts...) }
}

// A guard is a wrapped handler.
type guard struct {
	*Middleware
	route
	next http.Handler
}

// ServeHTTP implements http.Handler.
func (g *guard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !slices.Contains(g.methods, r.Method) {
		g.next.ServeHTTP(w, r)
		return
	}
	touched := r.ContentLength < 0 && touched(r.Body)
	peeked, body := r, (*bodyBuffer)(nil)
	if g.keyFunc != nil {
		peeked, body = g.buffered(w, r, touched)
	}
	key, present, err := g.key(peeked)
	if body != nil {
		body.unread(r)
		if body.err != nil {
			g.refuseBody(w, r, body.err)
			return
		}
	}
	switch {
	case err != nil:
		g.refuse(w, r, "", problemIn(err, keyInvalid(err)))
	case present:
		g.guarded(w, r, key, touched)
	case g.required:
		g.refuse(w, r, "", keyMissing())
	default:
		g.next.ServeHTTP(w, r)
	}
}

// guarded serves a request that has a key. The whole request is there before anything is looked
// up.
func (g *guard) guarded(w http.ResponseWriter, r *http.Request, key string, touched bool) {
	mark := marker{g.Middleware, r.RequestURI, key}
	if r.Context().Value(markerKey{}) == mark {
		g.next.ServeHTTP(w, r)
		return
	}
	if adapter.Misused(w, r) {
		g.logger.ErrorContext(r.Context(), "idemhttp: echo.WrapMiddleware loses the errors of handlers; use package idemecho")
		g.refuse(w, r, "", misconfigured())
		return
	}
	if isStream(r.Header) {
		g.refuse(w, r, "", notHTTP())
		return
	}
	scope, err := g.scope(r)
	if err == nil && scope == "" {
		err = errors.New("the scope is empty")
	}
	if err != nil {
		g.logger.ErrorContext(r.Context(), "idemhttp: no scope", "error", err.Error())
		g.refuse(w, r, "", problemIn(err, misconfigured()))
		return
	}
	body, err := g.readBody(w, r, touched)
	if err != nil {
		g.refuseBody(w, r, err)
		return
	}
	fingerprint, err := g.fingerprint.of(r, body)
	if err != nil {
		g.logger.ErrorContext(r.Context(), "idemhttp: no fingerprint", "error", err.Error())
		g.refuse(w, r, "", problemIn(err, misconfigured()))
		return
	}
	c := &call{guard: g, key: key, name: instance(scope, g.routeOf(r), key), fingerprint: fingerprint, mark: mark}
	c.run(w, r, body)
}

func (g *guard) refuseBody(w http.ResponseWriter, r *http.Request, err error) {
	g.logger.InfoContext(r.Context(), "idemhttp: request body refused", "error", err.Error())
	g.refuse(w, r, "", badBody(err))
}

// isStream reports whether a request is a remote procedure call whose status is not that of HTTP: of
// gRPC, gRPC-Web or a stream of Connect. Their failures are 200 with a status behind the body.
func isStream(header http.Header) bool {
	name := strings.ToLower(strings.TrimSpace(header.Get("Content-Type")))
	return strings.HasPrefix(name, "application/grpc") || strings.HasPrefix(name, "application/connect+")
}

// A marker in the context of a request says that it is guarded.
type marker struct {
	by  *Middleware
	uri string
	key string
}

type markerKey struct{}

// withBody returns a copy of r that has the body still to be read, and that nothing else changes:
// a handler may use it when its caller is gone.
func withBody(ctx context.Context, r *http.Request, body []byte) *http.Request {
	r = r.Clone(ctx)
	r.ContentLength, r.TransferEncoding = int64(len(body)), nil
	r.Body = http.NoBody
	if len(body) > 0 {
		r.Body = io.NopCloser(bytes.NewReader(body))
	}
	return r
}

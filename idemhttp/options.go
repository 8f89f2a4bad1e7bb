package idemhttp

import (
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/idempotent-go/idempotent"
)

// Defaults of the options.
const (
	DefaultNamespace     = "http"
	DefaultTTL           = idempotent.DefaultTTL
	DefaultWaitTimeout   = 10 * time.Second
	DefaultRequestLimit  = 1 << 20
	DefaultResponseLimit = 4 << 20

	// MaxKeyLength is the longest Idempotency-Key, in characters.
	MaxKeyLength = 255
)

// An Option configures a Middleware; New takes it.
type Option func(*config)

type config struct {
	methods        []string
	required       bool
	strict         bool
	keyFormat      func(string) error
	keyDescription string
	scope          func(*http.Request) (string, error)
	fingerprint    Fingerprint
	shouldRecord   func(status int, header http.Header) bool
	unrecorded     []string
	private        map[string]bool // unrecorded and hop-by-hop, canonical
	requestLimit   int64
	responseLimit  int
	attached       bool
	failOpen       bool
	documentation  string
	documented     bool
	render         func(http.ResponseWriter, *http.Request, *Problem)

	waitTimeout time.Duration
	conflict    bool
	ttl         time.Duration
	namespace   string
	lease       time.Duration
	interrupted idempotent.InterruptedPolicy
	observer    idempotent.Observer // may be nil
	observed    bool
	logger      *slog.Logger
}

func defaultConfig() config {
	return config{
		methods:       []string{http.MethodPost, http.MethodPatch},
		keyFormat:     func(string) error { return nil },
		scope:         authorizationScope,
		fingerprint:   FingerprintAll,
		shouldRecord:  recordByDefault,
		unrecorded:    []string{"Date", "Set-Cookie"},
		requestLimit:  DefaultRequestLimit,
		responseLimit: DefaultResponseLimit,
		render:        renderProblem,
		waitTimeout:   DefaultWaitTimeout,
		ttl:           DefaultTTL,
		namespace:     DefaultNamespace,
		lease:         idempotent.DefaultLease,
		logger:        slog.New(slog.DiscardHandler),
	}
}

// WithMethods sets the methods whose requests are guarded; all others pass untouched. The default
// is POST and PATCH, which RFC 9110 does not define as idempotent.
func WithMethods(methods ...string) Option {
	return func(c *config) { c.methods = methods }
}

// WithRequiredKey answers 400 to a guarded request without a key. By default such a request passes
// untouched, and unprotected.
func WithRequiredKey() Option {
	return func(c *config) { c.required = true }
}

// WithStrictKey accepts a key as the draft defines it only: one structured-field String, with its
// quotes. By default a bare value, as most clients send it, is taken too, and a field that is
// there twice with one value.
func WithStrictKey() Option {
	return func(c *config) { c.strict = true }
}

// WithKeyFormat sets what a key must look like beyond 1 to 255 printable ASCII characters, for
// instance UUIDKey. A key for which check returns an error is answered with 400; the client sees
// the text of the error. Tell Policy about it with WithKeyDescription.
func WithKeyFormat(check func(key string) error) Option {
	return func(c *config) { c.keyFormat = check }
}

// WithKeyDescription sets what Policy publishes about the format of keys, instead of the general
// rules.
func WithKeyDescription(text string) Option {
	return func(c *config) { c.keyDescription = text }
}

// WithScope sets whose key it is: a tenant or user, usually from the session. Equal keys of
// different scopes never meet, so a scope must be something that no caller can choose freely. The
// default is a hash of the Authorization header, which is wrong where callers are known by a
// cookie, or where a token may be renewed between a request and its retry: the retry would be
// another caller's request, and run.
//
// The method and the route (Request.Pattern, else the path) are part of the scope in any case. An
// error of scope is answered with 500, or with the *Problem that it is or wraps; the handler is
// not run. Put the middleware behind the one that authenticates.
func WithScope(scope func(*http.Request) (string, error)) Option {
	return func(c *config) { c.scope = scope }
}

// WithFingerprint sets which parts of a request must be the same under the same key; else the
// answer is 422. The default is FingerprintAll. Leave out what differs between a request and its
// retry, such as a query with a timestamp.
func WithFingerprint(parts Fingerprint) Option {
	return func(c *config) { c.fingerprint = parts }
}

// WithWaitTimeout sets how long a request waits for another one with the same key that is still
// running; after it, the answer is 409. The default is 10 s. It must be more than 0; see
// WithNoWait.
func WithWaitTimeout(d time.Duration) Option {
	return func(c *config) { c.waitTimeout = d }
}

// WithNoWait answers 409 at once when a request with the same key is still running, as the draft
// has it, instead of waiting for its response.
func WithNoWait() Option {
	return func(c *config) { c.conflict = true }
}

// WithShouldRecord sets which responses are recorded, by status and headers. A response that is
// not recorded goes to the caller and to those who wait for it, and frees the key: the next
// request with it runs the handler. By default all are, 4xx and 500 too, except 429 and 503, by
// which a handler says that it did nothing. Never leave out a response after which the handler's
// effect may have taken place.
func WithShouldRecord(record func(status int, header http.Header) bool) Option {
	return func(c *config) { c.shouldRecord = record }
}

func recordByDefault(status int, _ http.Header) bool {
	return status != http.StatusTooManyRequests && status != http.StatusServiceUnavailable
}

// WithUnrecordedHeaders sets the header fields that the first caller gets and a replay does not
// have, beside the hop-by-hop ones. The default is Date and Set-Cookie; a list replaces it.
func WithUnrecordedHeaders(names ...string) Option {
	return func(c *config) { c.unrecorded = names }
}

// WithRequestLimit sets the largest request body, in bytes; a larger one is answered with 413. The
// default is 1 MiB. Each guarded request is held in memory while its handler runs.
func WithRequestLimit(bytes int64) Option {
	return func(c *config) { c.requestLimit = bytes }
}

// WithResponseLimit sets the largest response body that is recorded, in bytes; 4 MiB by default. A
// larger one is delivered in full to the caller that ran the handler, and only the fact is
// recorded: those who retry get a problem that says so. A response is held in memory until it is
// recorded, whatever its size.
func WithResponseLimit(bytes int) Option {
	return func(c *config) { c.responseLimit = bytes }
}

// WithCancelOnDisconnect ends the context of the handler when its client disconnects, as net/http
// does. By default the handler goes on and its response is recorded, since the client will be
// back. With this option a response of 5xx after the end of the context, or none at all, counts as
// an interrupted execution; see WithInterrupted.
func WithCancelOnDisconnect() Option {
	return func(c *config) { c.attached = true }
}

// WithFailOpen runs the handler unguarded when Redis cannot be asked, and marks the answer with
// Idempotent-Unguarded: true; by default the answer is 503 and the handler is not run. A request
// that is known to have a twin, in this process or another, is answered with 503 even so. Do not
// use it where a second execution costs money.
func WithFailOpen() Option {
	return func(c *config) { c.failOpen = true }
}

// WithDocumentation sets where clients find this API's rules: it goes into the Link field of each
// problem, as rel="describedby", and into Policy.
func WithDocumentation(url string) Option {
	return func(c *config) { c.documentation, c.documented = url, true }
}

// WithProblemRenderer sets how a Problem becomes a response. Retry-After and Link are set already.
// The default negotiates between application/problem+json, application/json and text/plain.
func WithProblemRenderer(render func(http.ResponseWriter, *http.Request, *Problem)) Option {
	return func(c *config) { c.render = render }
}

// WithTTL sets how long a response is replayed, 24 h by default. It must outlast the last retry of
// every client.
func WithTTL(d time.Duration) Option {
	return func(c *config) { c.ttl = d }
}

// WithNamespace sets the first part of every name in Redis, "http" by default. Middlewares that
// share it share their responses.
func WithNamespace(namespace string) Option {
	return func(c *config) { c.namespace = namespace }
}

// WithLease sets how long a process that died can block a key, 10 s by default; see
// idempotent.WithLease.
func WithLease(d time.Duration) Option {
	return func(c *config) { c.lease = d }
}

// WithInterrupted sets what becomes of a request whose execution ended without a response, because
// its process died: by default the next one runs the handler, at attempt 2; with
// idempotent.Refuse it is answered with 500 until somebody has looked into it.
func WithInterrupted(policy idempotent.InterruptedPolicy) Option {
	return func(c *config) { c.interrupted = policy }
}

// WithObserver sets who is told what the executor does, for metrics and traces. The context is the
// request's; keys are hashed.
func WithObserver(observer idempotent.Observer) Option {
	return func(c *config) { c.observer, c.observed = observer, true }
}

// WithLogger sets where trouble is logged. By default nothing is.
func WithLogger(logger *slog.Logger) Option {
	return func(c *config) { c.logger = logger }
}

// invalid is an ErrInvalidOption that names the option, its value and what is allowed.
func invalid(option, argument, value, allowed string) error {
	return fmt.Errorf("%w: %s: %s is %s; allowed: %s", idempotent.ErrInvalidOption, option, argument, value, allowed)
}

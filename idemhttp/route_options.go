package idemhttp

import (
	"net/http"
	"time"

	"github.com/idempotent-go/idempotent"
)

// route is what a handler is guarded with.
type route struct {
	methods         []string
	required        bool
	strict          bool
	keyFunc         KeyFunc // nil for KeyHeader
	keySet          bool
	keyLimit        int
	keyFormat       func(string) error
	keyDescription  string
	scope           Scope
	routeOf         func(*http.Request) string
	fingerprint     Fingerprint
	shouldRecord    func(Ending) Verdict
	redact          func(*Recorded)
	redactSet       bool
	unrecorded      []string
	private         map[string]bool // unrecorded and hop-by-hop, canonical
	requestLimit    int64
	responseLimit   int
	attached        bool
	failOpen        bool
	plain           bool
	commitWait      time.Duration
	documentation   string
	documented      bool
	render          func(http.ResponseWriter, *http.Request, *Problem)
	ttl             time.Duration
	waitTimeout     time.Duration
	noWait          bool
	interrupted     idempotent.InterruptedPolicy
	executorOptions []idempotent.RunOption
}

func defaultRoute() route {
	return route{
		methods:       []string{http.MethodPost, http.MethodPatch},
		keyFormat:     func(string) error { return nil },
		keyLimit:      DefaultKeyLimit,
		routeOf:       PatternRoute,
		fingerprint:   FingerprintParts(AllParts),
		shouldRecord:  Ending.Verdict,
		unrecorded:    []string{"Date", "Set-Cookie"},
		requestLimit:  DefaultRequestLimit,
		responseLimit: DefaultResponseLimit,
		commitWait:    DefaultCommitWait,
		render:        renderProblem,
		waitTimeout:   DefaultWaitTimeout,
		ttl:           DefaultTTL,
	}
}

// WithMethods sets the methods whose requests are guarded; all others pass untouched. The default
// is POST and PATCH, which RFC 9110 does not define as idempotent.
func WithMethods(methods ...string) RouteOption {
	return routeOption(func(c *route) { c.methods = methods })
}

// WithRequiredKey answers 400 to a guarded request without a key. By default such a request passes
// untouched, and unprotected.
func WithRequiredKey() RouteOption {
	return routeOption(func(c *route) { c.required = true })
}

// WithStrictKey accepts a key as the draft defines it only: one structured-field String, with its
// quotes. By default a bare value, as most clients send it, is taken too, and a field that is
// there twice with one value. It has no meaning with WithKey.
func WithStrictKey() RouteOption {
	return routeOption(func(c *route) { c.strict = true })
}

// WithKey sets where the key of a request comes from, instead of the Idempotency-Key field: for
// instance KeyFromHeader or KeyFromJSON. Tell Policy about it with WithKeyDescription.
func WithKey(key KeyFunc) RouteOption {
	return routeOption(func(c *route) { c.keyFunc, c.keySet = key, true })
}

// WithKeyLimit sets how long a key may be, 255 bytes by default.
func WithKeyLimit(bytes int) RouteOption {
	return routeOption(func(c *route) { c.keyLimit = bytes })
}

// WithKeyFormat sets what a key must look like beyond its length, for instance UUIDKey or ULIDKey. A
// key for which check returns an error is answered with 400; the client sees the text of the error.
// Tell Policy about it with WithKeyDescription.
func WithKeyFormat(check func(key string) error) RouteOption {
	return routeOption(func(c *route) { c.keyFormat = check })
}

// WithKeyDescription sets what Policy publishes about the format of keys, instead of the general
// rules.
func WithKeyDescription(text string) RouteOption {
	return routeOption(func(c *route) { c.keyDescription = text })
}

// WithScope replaces the scope that New was given, for a route that is authenticated otherwise.
func WithScope(scope Scope) RouteOption {
	return routeOption(func(c *route) { c.scope = scope })
}

// WithRoute sets what tells one route from another: equal keys of different routes never meet. The
// default is PatternRoute. It is for routers that do not set Request.Pattern. Method and names of
// wildcards in what it returns do not matter.
func WithRoute(of func(*http.Request) string) RouteOption {
	return routeOption(func(c *route) { c.routeOf = of })
}

// WithFingerprint sets what must be the same under the same key; else the answer is 422. The default is
// FingerprintParts(AllParts); FingerprintJSON compares JSON as JSON.
func WithFingerprint(fingerprint Fingerprint) RouteOption {
	return routeOption(func(c *route) { c.fingerprint = fingerprint })
}

// WithWaitTimeout sets how long a request waits for another one with the same key that is still
// running; after it, the answer is 409. The default is 10 s. It must be more than 0; see
// WithNoWait.
func WithWaitTimeout(d time.Duration) RouteOption {
	return routeOption(func(c *route) { c.waitTimeout = d })
}

// WithNoWait answers 409 at once when a request with the same key is still running, as the draft
// has it, instead of waiting for its response.
func WithNoWait() RouteOption {
	return routeOption(func(c *route) { c.noWait = true })
}

// WithCommitWait sets how long a client waits, after its handler has returned, until its response is
// recorded: 2 s by default. After it, the client gets the response, marked with UnrecordedHeader, and
// the commit goes on. Until it has succeeded, a request with the same key waits, and may run the
// handler again if it never does.
func WithCommitWait(d time.Duration) RouteOption {
	return routeOption(func(c *route) { c.commitWait = d })
}

// WithShouldRecord sets what the endings of handlers mean: whether the response is recorded, the key
// is free, or the effect is unknown. The default is Ending.Verdict, which a function calls for the
// endings that it does not know better:
//
//	func(e idemhttp.Ending) idemhttp.Verdict {
//		if e.Header.Get("X-Rolled-Back") != "" {
//			return idemhttp.Free
//		}
//		return e.Verdict()
//	}
//
// It is not asked about broken responses, nor about failures after the handler's own context has
// ended: these are Unknown. Never return Free for a response after which the handler's effect may
// have taken place. Any other value than the three counts as Unknown.
func WithShouldRecord(judge func(Ending) Verdict) RouteOption {
	return routeOption(func(c *route) { c.shouldRecord = judge })
}

// WithRedact has a function change what is stored of a response, for instance to take a secret out of
// it. The client whose request runs the handler gets the response as it was; all others get what is
// stored, marked with RedactedHeader. Status stays as it is, and Content-Length follows the body. If
// the function panics, nothing but the status is stored.
func WithRedact(redact func(*Recorded)) RouteOption {
	return routeOption(func(c *route) { c.redact, c.redactSet = redact, true })
}

// WithUnrecordedHeaders sets the header fields that the first caller gets and a replay does not
// have, in addition to the hop-by-hop ones. The default is Date and Set-Cookie; a list replaces it.
func WithUnrecordedHeaders(names ...string) RouteOption {
	return routeOption(func(c *route) { c.unrecorded = names })
}

// WithRequestLimit sets the largest request body, in bytes; a larger one is answered with 413. The
// default is 1 MiB. Each guarded request is held in memory while its handler runs.
func WithRequestLimit(bytes int64) RouteOption {
	return routeOption(func(c *route) { c.requestLimit = bytes })
}

// WithResponseLimit sets the largest response that is recorded, in bytes of body and header fields; 4
// MiB by default. A larger one is delivered in full to the caller that ran the handler, and only the
// fact is recorded: retries get a problem that says so. A response is held in memory until
// it is recorded, whatever its size.
func WithResponseLimit(bytes int) RouteOption {
	return routeOption(func(c *route) { c.responseLimit = bytes })
}

// WithCancelOnDisconnect ends the context of the handler when its client disconnects, as net/http
// does. By default the handler goes on and its response is recorded, since the client will be
// back. With this option a status of 400 and above after the end of the context, or no response at
// all, is an Unknown ending.
func WithCancelOnDisconnect() RouteOption {
	return routeOption(func(c *route) { c.attached = true })
}

// WithFailOpen runs the handler unguarded when Redis cannot be asked, and marks the answer with
// UnguardedHeader; by default the answer is 503 and the handler is not run. A request that is known to
// have a twin, in this process or another, is answered with 503 even so, and so is one whose own
// context has ended. Do not use it where a second execution costs money.
func WithFailOpen() RouteOption {
	return routeOption(func(c *route) { c.failOpen = true })
}

// WithPlainFirstAnswer leaves KeyHeader, and ReplayedHeader with "false", out of first answers.
func WithPlainFirstAnswer() RouteOption {
	return routeOption(func(c *route) { c.plain = true })
}

// WithDocumentation sets where clients find this API's rules: it goes into the Link field of each
// problem, as rel="describedby", and into Policy.
func WithDocumentation(url string) RouteOption {
	return routeOption(func(c *route) { c.documentation, c.documented = url, true })
}

// WithProblemRenderer sets how a Problem becomes a response. Retry-After and Link are set already.
// The default negotiates between application/problem+json, application/json and text/plain.
func WithProblemRenderer(render func(http.ResponseWriter, *http.Request, *Problem)) RouteOption {
	return routeOption(func(c *route) { c.render = render })
}

// WithTTL sets how long a response is replayed, 24 h by default. It must outlast the last retry of
// every client.
func WithTTL(d time.Duration) RouteOption {
	return routeOption(func(c *route) { c.ttl = d })
}

// WithInterrupted sets what happens to a request whose execution ended without a response, because
// its process died or its ending is Unknown: by default the next one runs the handler as the next
// attempt; with idempotent.Refuse it is answered with 500 until an operator calls Forget or Resolve.
func WithInterrupted(policy idempotent.InterruptedPolicy) RouteOption {
	return routeOption(func(c *route) { c.interrupted = policy })
}

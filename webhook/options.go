package webhook

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"
)

// Defaults of an Inbox.
const (
	DefaultAnswerWithin = 2 * time.Second
	DefaultReadTimeout  = 10 * time.Second
	DefaultBodyMemory   = 256 << 20
	DefaultBacklog      = 10_000
	DefaultWorkers      = 16
	DefaultLease        = 30 * time.Second
	DefaultPoll         = 250 * time.Millisecond
)

// DefaultRetention keeps events for 31 days, which outlasts the redeliveries of all known providers, their bodies for 7,
// and the states of ordered objects for 400.
func DefaultRetention() Retention {
	const day = 24 * time.Hour
	return Retention{Events: 31 * day, Bodies: 7 * day, Positions: 400 * day}
}

// An Option configures an Inbox.
type Option func(*config)

type config struct {
	answerWithin time.Duration
	readTimeout  time.Duration
	bodyMemory   int64
	backlog      int
	workers      int
	lease        time.Duration
	poll         time.Duration
	retention    Retention
	process      string
	unsafeStore  bool
	seal         Seal
	redact       func(*Record)
	reporter     reporter
	tracer       Tracer
	given        map[string]bool // options whose nil is refused
}

func defaultConfig() config {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return config{
		answerWithin: DefaultAnswerWithin, readTimeout: DefaultReadTimeout, bodyMemory: DefaultBodyMemory,
		backlog: DefaultBacklog, workers: DefaultWorkers, lease: DefaultLease, poll: DefaultPoll,
		retention: DefaultRetention(), process: fmt.Sprintf("%s:%d", host, os.Getpid()),
		reporter: reporter{logger: slog.New(slog.DiscardHandler)}, tracer: noTracer{}, given: map[string]bool{},
	}
}

// WithAnswerWithin sets how long the store may take to store the events of a request, from when its body was read: 1 ms or
// more, 2 s by default. After that the request is answered with 503 and Retry-After, and the provider delivers it again. A
// shorter limit of the provider itself (Slack: 3 s) goes before it.
func WithAnswerWithin(d time.Duration) Option { return func(c *config) { c.answerWithin = d } }

// WithReadTimeout sets how long the body of a request may take to arrive: 1 ms or more, 10 s by default.
func WithReadTimeout(d time.Duration) Option { return func(c *config) { c.readTimeout = d } }

// WithBodyMemory sets how many bytes of bodies this process holds at once, until they are stored: 1 or more, 256 MiB by
// default. Requests above it are answered with 503. Bodies count as their bytes arrive, so slow senders take no more than
// they sent.
func WithBodyMemory(bytes int64) Option { return func(c *config) { c.bodyMemory = bytes } }

// WithBacklog sets how many unsettled events one lane of the store may hold: 1 or more, 10,000 by default. Above it, new
// events are answered with 503. Dead letters do not count. Providers that never redeliver get four times as much.
func WithBacklog(perLane int) Option { return func(c *config) { c.backlog = perLane } }

// WithWorkers sets how many handlers this process runs at once: 1 or more, 16 by default.
func WithWorkers(n int) Option { return func(c *config) { c.workers = n } }

// WithLease sets how long the events of a dead process wait until another one gets them: 100 ms or more, 30 s by default.
// A living process renews its leases each third of it.
func WithLease(d time.Duration) Option { return func(c *config) { c.lease = d } }

// WithPoll sets how often a process asks the store for due events: 1 ms or more, 250 ms by default. Events that this
// process accepts are taken at once.
func WithPoll(d time.Duration) Option { return func(c *config) { c.poll = d } }

// WithRetention sets how long events are kept. All three durations must be set, Events the longest of events and bodies.
// The default is DefaultRetention.
func WithRetention(r Retention) Option { return func(c *config) { c.retention = r } }

// WithProcess sets the name of this process in trails. The default is host:pid.
func WithProcess(name string) Option { return func(c *config) { c.process = name } }

// WithUnsafeStore accepts a store that loses accepted events when it restarts.
func WithUnsafeStore() Option { return func(c *config) { c.unsafeStore = true } }

// WithSeal encrypts headers and bodies before they are stored.
func WithSeal(s Seal) Option {
	return func(c *config) { c.seal, c.given["WithSeal"] = s, s != nil }
}

// WithRedact sets a function that changes what the admin handler shows of an event. It may change the record it is given,
// the payload as well, which is a copy. Handlers and the store are not affected.
func WithRedact(redact func(*Record)) Option {
	return func(c *config) { c.redact, c.given["WithRedact"] = redact, redact != nil }
}

// WithObserver sets the Observer.
func WithObserver(o Observer) Option {
	return func(c *config) { c.reporter.observer, c.given["WithObserver"] = o, o != nil }
}

// WithTracer sets the Tracer.
func WithTracer(t Tracer) Option {
	return func(c *config) { c.tracer, c.given["WithTracer"] = t, t != nil }
}

// WithLogger sets the log. Each line about an event has its source, event_id, key, attempt and trace_id. Payloads, secrets
// and errors of handlers are not logged. By default nothing is logged.
func WithLogger(l *slog.Logger) Option {
	return func(c *config) { c.reporter.logger, c.given["WithLogger"] = l, l != nil }
}

// check returns each option that is not allowed.
func (c *config) check() error {
	var errs []error
	allow := func(ok bool, name string, value any, allowed string) {
		if !ok {
			errs = append(errs, fmt.Errorf("webhook: %s is %v; allowed: %s", name, value, allowed))
		}
	}
	for name, d := range map[string]time.Duration{
		"WithAnswerWithin": c.answerWithin, "WithReadTimeout": c.readTimeout, "WithPoll": c.poll,
	} {
		allow(d >= time.Millisecond, name, d, "1 ms or more")
	}
	allow(c.lease >= 100*time.Millisecond, "WithLease", c.lease, "100 ms or more")
	allow(c.bodyMemory > 0, "WithBodyMemory", c.bodyMemory, "1 or more")
	allow(c.backlog > 0, "WithBacklog", c.backlog, "1 or more")
	allow(c.workers > 0, "WithWorkers", c.workers, "1 or more")
	allow(c.process != "" && len(c.process) <= maxKey, "WithProcess", fmt.Sprintf("%d bytes long", len(c.process)), "1 to 128 bytes")
	r := c.retention
	allow(r.Bodies >= time.Second && r.Events >= r.Bodies && r.Positions >= time.Second && max(r.Events, r.Positions) < laneTTL,
		"WithRetention", fmt.Sprintf("%+v", r), "1 s or more of each, less than 10 years, and Events not below Bodies")
	for name, ok := range c.given {
		allow(ok, name, "nil", "a value")
	}
	return errors.Join(errs...)
}

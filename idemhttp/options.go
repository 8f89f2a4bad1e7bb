package idemhttp

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/idempotent-go/idempotent"
)

// Defaults of the options.
const (
	DefaultTTL           = idempotent.DefaultTTL
	DefaultWaitTimeout   = 10 * time.Second
	DefaultCommitWait    = 2 * time.Second
	DefaultRequestLimit  = 1 << 20
	DefaultResponseLimit = 4 << 20
	DefaultKeyLimit      = 255
)

// An Option configures a Middleware; New takes it.
type Option interface{ apply(*config) }

// A RouteOption is an Option that may differ from route to route: New takes it for all handlers, Wrap
// and With for theirs.
type RouteOption interface {
	Option
	applyRoute(*route)
}

type option func(*config)

func (o option) apply(c *config) { o(c) }

type routeOption func(*route)

func (o routeOption) apply(c *config)     { o(&c.route) }
func (o routeOption) applyRoute(c *route) { o(c) }

// config is what New is given.
type config struct {
	route
	lease    time.Duration
	observer idempotent.Observer // may be nil
	observed bool
	tracing  []idempotent.Option
	logger   *slog.Logger
}

func defaultConfig() config {
	return config{
		route:  defaultRoute(),
		lease:  idempotent.DefaultLease,
		logger: slog.New(slog.DiscardHandler),
	}
}

// WithLease sets how long a process that died can block a key, 10 s by default; see
// idempotent.WithLease.
func WithLease(d time.Duration) Option {
	return option(func(c *config) { c.lease = d })
}

// WithObserver sets who is told what the executor does, for metrics and traces. The context is the
// request's; keys are the hashes that Instance returns.
func WithObserver(observer idempotent.Observer) Option {
	return option(func(c *config) { c.observer, c.observed = observer, true })
}

// WithTracer sets what makes spans; see idempotent.WithTracer. The handler's context comes from it.
func WithTracer(tracer idempotent.Tracer) Option {
	return option(func(c *config) { c.tracing = append(c.tracing, idempotent.WithTracer(tracer)) })
}

// WithLogger sets where trouble is logged. By default nothing is.
func WithLogger(logger *slog.Logger) Option {
	return option(func(c *config) { c.logger = logger })
}

// invalid is an ErrInvalidOption that names the option, its value and what is allowed.
func invalid(option, argument, value, allowed string) error {
	return fmt.Errorf("%w: %s: %s is %s; allowed: %s", idempotent.ErrInvalidOption, option, argument, value, allowed)
}

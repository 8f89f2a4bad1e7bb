package idemotel

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"sync"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/idempotent-go/idempotent"
)

// ScopeName is the name of the instrumentation scope.
const ScopeName = "github.com/idempotent-go/idempotent/idemotel"

// Telemetry makes spans and metrics of executors. Give it to any number of them, with WithTracer. It is safe for
// concurrent use.
type Telemetry struct {
	tracer      trace.Tracer
	instruments instruments
	namespaces  sync.Map // of *series, by name
}

var (
	_ idempotent.Tracer   = (*Telemetry)(nil)
	_ idempotent.Observer = (*Telemetry)(nil)
)

// An Option configures New.
type Option func(*config)

type config struct {
	meters     metric.MeterProvider
	traces     trace.TracerProvider
	namespaces []string
	err        error
}

// WithMeterProvider sets where metrics go. The default is otel's global provider.
func WithMeterProvider(p metric.MeterProvider) Option {
	return func(c *config) {
		if c.meters = p; p == nil {
			c.err = errors.Join(c.err, invalid("WithMeterProvider", "provider", "nil", "a MeterProvider"))
		}
	}
}

// WithTracerProvider sets where spans go. The default is otel's global provider.
func WithTracerProvider(p trace.TracerProvider) Option {
	return func(c *config) {
		if c.traces = p; p == nil {
			c.err = errors.Join(c.err, invalid("WithTracerProvider", "provider", "nil", "a TracerProvider"))
		}
	}
}

var namespacePattern = regexp.MustCompile(`^[A-Za-z0-9._/-]{1,64}$`)

// WithNamespaces exports the counters of these namespaces, at 0, before their first run. Those of other namespaces are
// exported from the first run on: an alert that looks for an increase does not see the first failure then.
func WithNamespaces(names ...string) Option {
	return func(c *config) {
		for _, name := range names {
			if !namespacePattern.MatchString(name) {
				c.err = errors.Join(c.err, invalid("WithNamespaces", "name", fmt.Sprintf("%.70q", name), namespacePattern.String()))
			}
		}
		c.namespaces = append(c.namespaces, names...)
	}
}

func invalid(option, argument, value, allowed string) error {
	return fmt.Errorf("%w: %s: %s is %s; allowed: %s", idempotent.ErrInvalidOption, option, argument, value, allowed)
}

// New returns a Telemetry. Errors match idempotent.ErrInvalidOption, or are those of the MeterProvider.
func New(opts ...Option) (*Telemetry, error) {
	c := config{meters: otel.GetMeterProvider(), traces: otel.GetTracerProvider()}
	for i, o := range opts {
		if o == nil {
			return nil, invalid("New", fmt.Sprintf("option %d", i), "nil", "an Option")
		}
		o(&c)
	}
	if c.err != nil {
		return nil, c.err
	}
	t := &Telemetry{tracer: c.traces.Tracer(ScopeName)}
	meter := c.meters.Meter(ScopeName)
	err := t.instruments.make(meter)
	if err == nil {
		_, err = meter.RegisterCallback(t.collect, t.instruments.runs, t.instruments.saved, t.instruments.late)
	}
	if err != nil {
		return nil, fmt.Errorf("idemotel: %w", err)
	}
	for _, name := range c.namespaces {
		t.of(name)
	}
	return t, nil
}

func (t *Telemetry) collect(_ context.Context, to metric.Observer) error {
	for _, s := range t.namespaces.Range {
		t.instruments.collect(to, s.(*series))
	}
	return nil
}

// of returns the attributes of a namespace.
func (t *Telemetry) of(namespace string) *series {
	if known, ok := t.namespaces.Load(namespace); ok {
		return known.(*series)
	}
	known, loaded := t.namespaces.LoadOrStore(namespace, newSeries(namespace))
	s := known.(*series)
	if !loaded {
		t.instruments.zero(context.Background(), s)
	}
	return s
}

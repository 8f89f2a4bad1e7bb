package idemotel

import (
	"context"
	"errors"
	"sync/atomic"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/idempotent-go/idempotent"
)

const (
	namespaceKey = attribute.Key("idempotent.namespace")
	sourceKey    = attribute.Key("idempotent.source")
	waitKey      = attribute.Key("idempotent.wait.for")
	actionKey    = attribute.Key("idempotent.action")
	errorTypeKey = attribute.Key("error.type")
)

type instruments struct {
	runs, saved, late                       metric.Int64ObservableCounter // of each call: cheaper than a Counter
	commitRetries, commitFailures, renewals metric.Int64Counter
	lost, interrupted, actions              metric.Int64Counter
	run, execution, wait, commit            metric.Float64Histogram
	age, headroom                           metric.Float64Histogram
	size                                    metric.Int64Histogram
	executing, waiting                      metric.Int64UpDownCounter
}

// Bounds of histograms: times from 100 µs to 60 s, ages from 1 s to 30 days, and parts of a whole.
var (
	seconds = []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60}
	ages    = []float64{1, 10, 60, 300, 1800, 3600, 6 * 3600, 24 * 3600, 3 * 24 * 3600, 7 * 24 * 3600, 30 * 24 * 3600}
	parts   = []float64{.05, .1, .2, .3, .4, .5, .6, .7, .8, .9, 1}
	bytes   = []float64{64, 128, 256, 512, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 1 << 20}
)

func (i *instruments) make(m metric.Meter) error {
	b := builder{meter: m}
	i.runs = b.observed("idempotent.runs", "{run}", "Calls of Run, Get and RunMany that have returned.")
	i.run = b.histogram("idempotent.run.duration", "s", seconds, "Time from a call to its return.")
	i.execution = b.histogram("idempotent.execution.duration", "s", seconds, "Time that fn ran.")
	i.executing = b.gauge("idempotent.execution.active", "{execution}", "Executions of fn in flight.")
	i.interrupted = b.counter("idempotent.execution.interrupted", "{execution}", "Executions that ended without an outcome.")
	i.saved = b.observed("idempotent.execution.saved", "{execution}", "Calls that got an outcome without running fn.")
	i.wait = b.histogram("idempotent.wait.duration", "s", seconds, "Time that a call waited for another process, or for a caller in its own.")
	i.waiting = b.gauge("idempotent.wait.active", "{wait}", "Calls that wait.")
	i.age = b.histogram("idempotent.replay.age", "s", ages, "Time since an outcome was recorded that is replayed.")
	i.late = b.observed("idempotent.replay.late", "{replay}", "Replays of an outcome older than four fifths of the TTL.")
	i.commit = b.histogram("idempotent.commit.duration", "s", seconds, "Time from the end of fn to the end of its commit.")
	i.commitRetries = b.counter("idempotent.commit.retries", "{retry}", "Commits that failed and were sent again.")
	i.commitFailures = b.counter("idempotent.commit.failures", "{commit}", "Outcomes that were not recorded.")
	i.size = b.sizes("idempotent.record.size", "Size of recorded outcomes.")
	i.renewals = b.counter("idempotent.lease.renewals", "{renewal}", "Replies to renewals of leases.")
	i.headroom = b.histogram("idempotent.lease.headroom", "1", parts, "Part of the lease that was left when it was renewed.")
	i.lost = b.counter("idempotent.lease.lost", "{lease}", "Leases that were lost while fn ran.")
	i.actions = b.counter("idempotent.operator.actions", "{action}", "Calls of Forget and Resolve.")
	return b.err
}

type builder struct {
	meter metric.Meter
	err   error
}

func (b *builder) counter(name, unit, what string) metric.Int64Counter {
	c, err := b.meter.Int64Counter(name, metric.WithUnit(unit), metric.WithDescription(what))
	b.err = errors.Join(b.err, err)
	return c
}

func (b *builder) observed(name, unit, what string) metric.Int64ObservableCounter {
	c, err := b.meter.Int64ObservableCounter(name, metric.WithUnit(unit), metric.WithDescription(what))
	b.err = errors.Join(b.err, err)
	return c
}

func (b *builder) gauge(name, unit, what string) metric.Int64UpDownCounter {
	c, err := b.meter.Int64UpDownCounter(name, metric.WithUnit(unit), metric.WithDescription(what))
	b.err = errors.Join(b.err, err)
	return c
}

func (b *builder) histogram(name, unit string, bounds []float64, what string) metric.Float64Histogram {
	h, err := b.meter.Float64Histogram(name, metric.WithUnit(unit), metric.WithDescription(what), metric.WithExplicitBucketBoundaries(bounds...))
	b.err = errors.Join(b.err, err)
	return h
}

func (b *builder) sizes(name, what string) metric.Int64Histogram {
	h, err := b.meter.Int64Histogram(name, metric.WithUnit("By"), metric.WithDescription(what), metric.WithExplicitBucketBoundaries(bytes...))
	b.err = errors.Join(b.err, err)
	return h
}

// zero exports the counters of a namespace at 0, one for each error.type, so that a first failure is an increase.
func (i *instruments) zero(ctx context.Context, s *series) {
	for _, t := range []errorType{leaseLost, notRecorded} {
		i.commitFailures.Add(ctx, 0, s.err[t].add...)
	}
	for _, t := range []errorType{noError, unavailable} {
		i.renewals.Add(ctx, 0, s.err[t].add...)
	}
	for action := range s.action {
		i.actions.Add(ctx, 0, s.action[action][noError].add...)
	}
	for _, c := range []metric.Int64Counter{i.commitRetries, i.lost, i.interrupted} {
		c.Add(ctx, 0, s.err[noError].add...)
	}
	i.executing.Add(ctx, 0, s.err[noError].add...)
	for waits := range s.wait {
		i.waiting.Add(ctx, 0, s.wait[waits][noError].add...)
	}
}

// collect reports the counts of a namespace: those of each error.type and each source, also at 0, and all others that
// are not 0.
func (i *instruments) collect(to metric.Observer, s *series) {
	for source := range s.run {
		for t := range errorTypes {
			m := &s.run[source][t]
			usual := t == noError && source > 0 || t > noError && sourceOf(t) == idempotent.Source(source)
			if n := m.count.Load(); n > 0 || usual {
				to.ObserveInt64(i.runs, n, m.observe...)
			}
		}
		if source > int(idempotent.Executed) {
			to.ObserveInt64(i.saved, s.source[source].count.Load(), s.source[source].observe...)
		}
	}
	to.ObserveInt64(i.late, s.late.count.Load(), s.late.observe...)
}

// sourceOf returns the source of the calls that usually end with an error.
func sourceOf(t errorType) idempotent.Source {
	switch t {
	case notRecorded, leaseLost, panicked, fnError:
		return idempotent.Executed
	}
	return 0
}

// A measurement is one set of attributes, in the forms in which instruments take it: making them again for each
// measurement would allocate.
type measurement struct {
	add     []metric.AddOption
	record  []metric.RecordOption
	observe []metric.ObserveOption
	count   atomic.Int64 // of observable counters
}

func (m *measurement) of(attrs ...attribute.KeyValue) {
	option := metric.WithAttributeSet(attribute.NewSet(attrs...))
	m.add, m.record, m.observe = []metric.AddOption{option}, []metric.RecordOption{option}, []metric.ObserveOption{option}
}

const (
	forProcess = iota
	forCaller
	waitKinds
)

const (
	forget = iota
	resolve
	actionKinds
)

// A series has the attributes of one namespace.
type series struct {
	run    [idempotent.Cached + 1][errorTypes]measurement
	source [idempotent.Cached + 1]measurement
	late   measurement
	err    [errorTypes]measurement
	wait   [waitKinds][errorTypes]measurement
	action [actionKinds][errorTypes]measurement
	start  []attribute.KeyValue // of spans
}

func newSeries(namespace string) *series {
	in := namespaceKey.String(namespace)
	s := &series{start: []attribute.KeyValue{in}}
	for source := range s.run {
		from := sourceKey.String(idempotent.Source(source).String())
		s.source[source].of(in, from)
		for t := range errorTypes {
			s.run[source][t].of(t.attributes(in, from)...)
		}
	}
	s.late.of(in)
	for t := range errorTypes {
		s.err[t].of(t.attributes(in)...)
		for i, kind := range []string{forProcess: "process", forCaller: "caller"} {
			s.wait[i][t].of(t.attributes(in, waitKey.String(kind))...)
		}
		for i, kind := range []string{forget: "forget", resolve: "resolve"} {
			s.action[i][t].of(t.attributes(in, actionKey.String(kind))...)
		}
	}
	return s
}

// attributes adds error.type to others, unless there is no error.
func (t errorType) attributes(others ...attribute.KeyValue) []attribute.KeyValue {
	if t == noError {
		return others
	}
	return append(others, errorTypeKey.String(errorTypeNames[t]))
}

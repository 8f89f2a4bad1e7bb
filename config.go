package idempotent

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/idempotent-go/idempotent/internal/record"
	"github.com/idempotent-go/idempotent/internal/store"
	"github.com/idempotent-go/idempotent/internal/topology"
)

// An Option configures an executor; New takes it.
type Option interface{ apply(*config) }

// A RunOption configures one Run. Given to New, it is the default of every Run.
type RunOption interface {
	Option
	applyRun(*runConfig)
}

// Limits and defaults of the options.
const (
	DefaultLease        = 10 * time.Second
	DefaultTTL          = 24 * time.Hour
	DefaultWaitTimeout  = time.Minute
	DefaultMessageLimit = 64 << 10

	MinLease = 10 * time.Millisecond
	// MaxDuration is the longest lease and the longest TTL: 100 years.
	MaxDuration = 100 * 365 * 24 * time.Hour
)

// An IgnoredPolicy says what callers get that wait for an execution which ends with an ignored
// error.
type IgnoredPolicy uint8

const (
	// NextWaiterRuns: one of those waiting runs fn, the others wait for that. The default.
	NextWaiterRuns IgnoredPolicy = iota
	// ShareWithWaiters: those waiting get the ignored error too; later callers run fn. One whose
	// wait has only just begun may count as a later one.
	ShareWithWaiters
)

// An InterruptedPolicy says what becomes of an execution that ended without an outcome: its
// process died, it lost its lease, its caller's context ended, its outcome could not be stored, or
// fn said OutcomeUnknown.
type InterruptedPolicy uint8

const (
	// Rerun: the next caller runs fn, with RunInfo.Attempt one higher. The default.
	Rerun InterruptedPolicy = iota
	// Refuse: every caller gets ErrInterrupted, until Forget or Resolve, or until the TTL is over.
	Refuse
)

var namespacePattern = regexp.MustCompile(`^[A-Za-z0-9._/-]{1,64}$`)

type config struct {
	namespace    string
	lease        time.Duration
	messageLimit int
	ack          store.Ack
	ackSet       bool
	cached       bool
	cacheEntries int
	codec        any // boxedCodec[T]
	unchecked    bool
	hooks        any // Hooks[T]
	errors       *ErrorRegistry
	observers    []Observer
	tracer       Tracer
	nilTracer    bool
	owner        string
	logger       *slog.Logger
	given, twice []string // options that may be given once
	run          runConfig
}

type runConfig struct {
	ttl          time.Duration
	errorTTL     time.Duration
	errorTTLSet  bool
	waitTimeout  time.Duration
	noWait       bool
	shouldIgnore func(error) bool
	ignored      IgnoredPolicy
	interrupted  InterruptedPolicy
	fingerprint  []byte
	detached     bool
	unknown      func(error) bool
	commitWait   time.Duration
	report       *Report
	reports      []*Report // further ones
	watch        *watch    // nil without an observer and a tracer

	absent bool // Resolve settles a key under which nothing is stored

	nilUnknown, commitWaitSet bool // for validation

	retention time.Duration // how long a running record outlives its lease, and a refused one lives
	claimPX   any           // lease + retention in ms, as the argument of each claim
}

func defaultConfig(namespace string) config {
	return config{
		namespace:    namespace,
		lease:        DefaultLease,
		messageLimit: DefaultMessageLimit,
		errors:       NewErrorRegistry(),
		owner:        processName(),
		logger:       slog.New(slog.DiscardHandler),
		run:          runConfig{ttl: DefaultTTL, waitTimeout: DefaultWaitTimeout},
	}
}

type option func(*config)

func (o option) apply(c *config) { o(c) }

// once is an option that New refuses when it is given twice: the second would silently replace the first.
// Of options that set a number or a policy, the last one counts.
func once(name string, set option) Option {
	return option(func(c *config) {
		if slices.Contains(c.given, name) {
			c.twice = append(c.twice, name)
		}
		c.given = append(c.given, name)
		set(c)
	})
}

type runOption func(*runConfig)

func (o runOption) apply(c *config)       { o(&c.run) }
func (o runOption) applyRun(c *runConfig) { o(c) }

// boxedCodec tells WithCodec(nil) from no WithCodec.
type boxedCodec[T any] struct{ Codec[T] }

func (b boxedCodec[T]) given() string { return fmt.Sprintf("a %s (%T)", typeName[Codec[T]](), b.Codec) }

func (c *runConfig) fillReports(r Report) {
	if c.watch != nil {
		c.watch.report = r
	}
	if c.report == nil {
		return
	}
	*c.report = r
	for _, more := range c.reports {
		*more = r
	}
}

// nilReport marks WithReport(nil) for validation.
var nilReport = new(Report)

var ownerPattern = regexp.MustCompile(`^[ -~]{1,64}$`)

// processName is the default of WithOwner.
var processName = sync.OnceValue(func() string {
	host, err := os.Hostname()
	host = strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' {
			return '_'
		}
		return r
	}, host)
	if err != nil || host == "" {
		host = "unknown"
	}
	pid := fmt.Sprintf(":%d", os.Getpid())
	return host[:min(len(host), record.MaxOwnerSize-len(pid))] + pid
})

func validateConfig(c *config, client redis.UniversalClient) error {
	var errs []error
	if client == nil || isNil(reflect.ValueOf(client)) {
		errs = append(errs, invalid("New", "client", "nil", "a go-redis client"))
	} else if problem, allowed := topology.Unsupported(client); problem != "" {
		errs = append(errs, invalid("New", "client", problem, allowed))
	}
	if !namespacePattern.MatchString(c.namespace) {
		errs = append(errs, invalid("New", "namespace", fmt.Sprintf("%q", c.namespace), namespacePattern.String()))
	}
	if c.lease < MinLease || c.lease > MaxDuration {
		errs = append(errs, invalid("WithLease", "lease", c.lease.String(), "10ms or more, up to MaxDuration"))
	}
	if c.messageLimit < 0 {
		errs = append(errs, invalid("WithMessageLimit", "limit", fmt.Sprint(c.messageLimit), "0 or more bytes"))
	}
	errs = append(errs, validateAck(c, client))
	if c.cached && c.cacheEntries < 1 {
		errs = append(errs, invalid("WithReplayCache", "entries", fmt.Sprint(c.cacheEntries), "1 or more"))
	}
	if c.cached && !topology.CanSubscribe(client) {
		errs = append(errs, invalid("WithReplayCache", "client", fmt.Sprintf("a %T, which does not say which servers it spreads keys over", client), "one that has ForEachShard, or does not spread keys"))
	}
	if c.logger == nil {
		errs = append(errs, invalid("WithLogger", "logger", "nil", "a logger"))
	}
	for _, o := range c.observers {
		if isNil(reflect.ValueOf(o)) {
			errs = append(errs, invalid("WithObserver", "observer", "nil", "an observer"))
		}
	}
	if c.nilTracer {
		errs = append(errs, invalid("WithTracer", "tracer", "nil", "a Tracer"))
	}
	if !ownerPattern.MatchString(c.owner) {
		errs = append(errs, invalid("WithOwner", "name", fmt.Sprintf("%.70q", c.owner), ownerPattern.String()))
	}
	if c.errors == nil {
		errs = append(errs, invalid("WithErrors", "registry", "nil", "a registry"))
	} else if c.errors.err != nil {
		errs = append(errs, c.errors.err)
	}
	if c.run.report != nil {
		errs = append(errs, invalid("WithReport", "report", "given to New", "given to Run"))
	}
	for _, name := range c.twice {
		errs = append(errs, invalid("New", name, "given twice", "once"))
	}
	errs = append(errs, validateRun(&c.run))
	return errors.Join(errs...)
}

func validateAck(c *config, client redis.UniversalClient) error {
	if !c.ackSet {
		return nil
	}
	var errs []error
	if c.ack.Replicas < 1 {
		errs = append(errs, invalid("WithReplicaAck", "n", fmt.Sprint(c.ack.Replicas), "1 or more"))
	}
	if limit := c.lease / 3; c.ack.Timeout < time.Millisecond || c.ack.Timeout > limit {
		errs = append(errs, invalid("WithReplicaAck", "timeout", c.ack.Timeout.String(), fmt.Sprintf("1ms or more, up to a third of the lease, %v", limit)))
	}
	if limit := readTimeout(client); limit > 0 && c.ack.Timeout >= limit {
		errs = append(errs, invalid("WithReplicaAck", "timeout", c.ack.Timeout.String(), fmt.Sprintf("less than the client's ReadTimeout, %v", limit)))
	}
	return errors.Join(errs...)
}

// readTimeout is how long the client waits for a reply; 0 if that cannot be known.
func readTimeout(client redis.UniversalClient) time.Duration {
	if client == nil || isNil(reflect.ValueOf(client)) {
		return 0
	}
	switch c := client.(type) {
	case interface{ Options() *redis.Options }:
		return c.Options().ReadTimeout
	case interface{ Options() *redis.ClusterOptions }:
		return c.Options().ReadTimeout
	case interface{ Options() *redis.RingOptions }:
		return c.Options().ReadTimeout
	}
	return 0
}

func validateRun(c *runConfig) error {
	var errs []error
	if c.ttl < time.Millisecond || c.ttl > MaxDuration {
		errs = append(errs, invalid("WithTTL", "ttl", c.ttl.String(), "1ms or more, up to MaxDuration"))
	}
	if c.errorTTLSet && (c.errorTTL < time.Millisecond || c.errorTTL > MaxDuration) {
		errs = append(errs, invalid("WithErrorTTL", "ttl", c.errorTTL.String(), "1ms or more, up to MaxDuration"))
	}
	if c.waitTimeout <= 0 {
		errs = append(errs, invalid("WithWaitTimeout", "timeout", c.waitTimeout.String(), "more than 0; WithNoWait does not wait at all"))
	}
	if c.ignored > ShareWithWaiters {
		errs = append(errs, invalid("WithIgnoredErrors", "policy", fmt.Sprint(c.ignored), "NextWaiterRuns or ShareWithWaiters"))
	}
	if c.interrupted > Refuse {
		errs = append(errs, invalid("WithInterrupted", "policy", fmt.Sprint(c.interrupted), "Rerun or Refuse"))
	}
	if c.commitWaitSet && c.commitWait <= 0 {
		errs = append(errs, invalid("WithCommitWait", "wait", c.commitWait.String(), "more than 0"))
	}
	if c.nilUnknown {
		errs = append(errs, invalid("WithUnknownErrors", "function", "nil", "a function"))
	}
	if c.report == nilReport {
		errs = append(errs, invalid("WithReport", "report", "nil", "a Report to fill in"))
	}
	return errors.Join(errs...)
}

// typed takes a codec or hooks out of a config, if they are for the executor's T.
func typed[V any](option string, value any, fallback V, allowed string) (V, error) {
	if value == nil {
		return fallback, nil
	}
	v, ok := value.(V)
	if !ok {
		given := fmt.Sprintf("a %T", value)
		if boxed, ok := value.(interface{ given() string }); ok {
			given = boxed.given()
		}
		return fallback, invalid(option, "argument", given, "a "+allowed)
	}
	return v, nil
}

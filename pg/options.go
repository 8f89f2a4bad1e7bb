package pg

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"reflect"
	"regexp"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/internal/record"
	"github.com/idempotent-go/idempotent/internal/seam"
)

// Defaults and limits of the options.
const (
	DefaultTTL           = idempotent.DefaultTTL
	DefaultWaitTimeout   = idempotent.DefaultWaitTimeout
	DefaultIdleTimeout   = 30 * time.Second
	DefaultCommitTimeout = 10 * time.Second
	DefaultMaxExecutions = 10

	// Forever is the TTL of a record that never expires.
	Forever = time.Duration(math.MaxInt64)
)

// An Option configures an executor; New takes it.
type Option interface{ apply(*config) }

// A RunOption configures one Run. Given to New, it is the default of every Run.
type RunOption interface {
	Option
	applyRun(*runConfig)
}

type config struct {
	namespace     string
	codec         any // idempotent.Codec[T]
	codecSet      bool
	unchecked     bool
	registry      *idempotent.ErrorRegistry
	observer      idempotent.Observer
	observerSet   bool
	tracer        idempotent.Tracer
	tracerSet     bool
	logger        *slog.Logger
	isolation     pgx.TxIsoLevel
	idleTimeout   time.Duration
	commitTimeout time.Duration
	maxExecutions int
	through       any // *idempotent.Executor[T]
	run           runConfig
}

type runConfig struct {
	ttl          time.Duration
	errorTTL     time.Duration // 0: as ttl
	errorTTLSet  bool
	waitTimeout  time.Duration
	noWait       bool
	shouldIgnore func(error) bool
	unknown      func(error) bool
	nilUnknown   bool
	fingerprint  []byte
	report       *idempotent.Report
	reportSet    bool
}

func defaultConfig(namespace string) config {
	return config{
		namespace:     namespace,
		registry:      idempotent.NewErrorRegistry(),
		logger:        slog.New(slog.DiscardHandler),
		idleTimeout:   DefaultIdleTimeout,
		commitTimeout: DefaultCommitTimeout,
		maxExecutions: DefaultMaxExecutions,
		run:           runConfig{ttl: DefaultTTL, waitTimeout: DefaultWaitTimeout},
	}
}

type option func(*config)

func (o option) apply(c *config) { o(c) }

type runOption func(*runConfig)

func (o runOption) apply(c *config)       { o(&c.run) }
func (o runOption) applyRun(c *runConfig) { o(c) }

// WithCodec sets how T becomes bytes. The default is idempotent.Msgpack.
func WithCodec[T any](codec idempotent.Codec[T]) Option {
	return option(func(c *config) { c.codec, c.codecSet = codec, true })
}

// WithUncheckedType accepts a T that the codec says it would change. Callers that did not run fn then get another value
// than the one that did.
func WithUncheckedType() Option {
	return option(func(c *config) { c.unchecked = true })
}

// WithErrors sets which errors come back as themselves on replay. Without it, errors come back with their text and match
// idempotent.ErrReplayed only.
func WithErrors(registry *idempotent.ErrorRegistry) Option {
	return option(func(c *config) { c.registry = registry })
}

// WithObserver sets an observer of what the executor does. Events of this package have attempt 1: an execution that was
// rolled back leaves nothing behind, so executions are not counted.
func WithObserver(observer idempotent.Observer) Option {
	return option(func(c *config) { c.observer, c.observerSet = observer, true })
}

// WithTracer sets what makes spans of calls and executions, and writes their trace into records. By default there is none.
func WithTracer(tracer idempotent.Tracer) Option {
	return option(func(c *config) { c.tracer, c.tracerSet = tracer, true })
}

// WithLogger sets where lost commit answers, panicking observers and errors that cannot be restored are logged. By default
// nothing is logged. Keys are logged, values and errors of fn are not.
func WithLogger(logger *slog.Logger) Option {
	return option(func(c *config) { c.logger = logger })
}

// WithIsolation sets the isolation level of Run's transactions. The default is that of the database, usually read
// committed. At repeatable read and serializable, Run calls fn again more often: Postgres rolls back what conflicts.
func WithIsolation(level pgx.TxIsoLevel) Option {
	return option(func(c *config) { c.isolation = level })
}

// WithIdleTimeout sets the longest time that fn may spend between two statements of its transaction: 1 ms or more, 30 s by
// default. When it is over, Postgres ends the session, rolls back and frees the key (idle_in_transaction_session_timeout,
// set for the transaction alone), so that a process that is paused or unreachable cannot block a key for longer. It does
// not limit a statement. RunTx leaves the setting of the caller's transaction alone.
func WithIdleTimeout(d time.Duration) Option {
	return option(func(c *config) { c.idleTimeout = d })
}

// WithCommitTimeout sets how long Run waits for the answer to COMMIT and, should that be lost, how long it tries to find
// out whether the commit took place: 1 ms or more, 10 s by default, for each of the two. The caller's context does not
// shorten them: what fn did is committed also for a caller that has left.
func WithCommitTimeout(d time.Duration) Option {
	return option(func(c *config) { c.commitTimeout = d })
}

// WithMaxExecutions sets how often Run calls fn at most: 1 or more, 10 by default. It calls fn again when Postgres rolled
// its transaction back in favor of another one (SQLSTATE 40001, 40P01), or when a lost answer to COMMIT turns out to be
// one that did not take place.
func WithMaxExecutions(n int) Option {
	return option(func(c *config) { c.maxExecutions = n })
}

// WithTTL sets how long a result is replayed: 1 ms or more, up to idempotent.MaxDuration, or Forever; 24 h by default. It
// must outlast the last retry of every client.
func WithTTL(d time.Duration) RunOption {
	return runOption(func(c *runConfig) { c.ttl = d })
}

// WithErrorTTL sets how long a recorded error is replayed, by default as long as a result. The same values are allowed.
func WithErrorTTL(d time.Duration) RunOption {
	return runOption(func(c *runConfig) { c.errorTTL, c.errorTTLSet = d, true })
}

// WithWaitTimeout sets the longest wait for another call that runs fn for this key; after it, Run returns ErrInProgress.
// It must be more than 0; 60 s by default. It does not limit fn. Postgres counts it in whole milliseconds.
func WithWaitTimeout(d time.Duration) RunOption {
	return runOption(func(c *runConfig) { c.waitTimeout, c.noWait = d, false })
}

// WithNoWait makes Run return ErrInProgress at once instead of waiting for another call. A later WithWaitTimeout replaces
// it.
func WithNoWait() RunOption {
	return runOption(func(c *runConfig) { c.noWait = true })
}

// WithShouldIgnoreError sets which errors of fn are not recorded: for these, the whole transaction is rolled back, the key
// is free, and the next caller runs fn. By default every error is recorded. idempotent.IsRetryable is the usual function.
// It also gets an *idempotent.PanicError when fn panicked. If it panics itself, the transaction is rolled back and the
// panic goes on to the caller.
func WithShouldIgnoreError(ignore func(error) bool) RunOption {
	return runOption(func(c *runConfig) { c.shouldIgnore = ignore })
}

// WithUnknownErrors sets which errors of fn leave its effect unknown, as if they were marked with idempotent.OutcomeUnknown:
// the whole transaction is rolled back and nothing is recorded. By default none are. Given several times, an error is unknown
// if one of the functions says so. If one panics, everything is rolled back and the panic goes on to the caller.
func WithUnknownErrors(unknown func(error) bool) RunOption {
	return runOption(func(c *runConfig) {
		before := c.unknown
		c.nilUnknown = c.nilUnknown || unknown == nil
		c.unknown = func(err error) bool { return before != nil && before(err) || unknown(err) }
	})
}

// WithFingerprint sets a hash of what is asked for, such as the SHA-256 of the request body. A Run with another
// fingerprint under the same key returns ErrKeyReused. Runs without a fingerprint, nil or empty, match all. More than 32
// bytes are hashed down to 32.
func WithFingerprint(fingerprint []byte) RunOption {
	if len(fingerprint) > record.MaxFingerprintSize {
		sum := sha256.Sum256(fingerprint)
		fingerprint = sum[:]
	} else {
		fingerprint = append([]byte(nil), fingerprint...)
	}
	return runOption(func(c *runConfig) { c.fingerprint = fingerprint })
}

// WithReport has Run fill in report before it returns, also when it returns an error, unless an option is invalid. It
// belongs to one Run: New refuses it. Report.Attempt is always 1. Callers that waited for another process through Postgres
// have the source Replayed.
func WithReport(report *idempotent.Report) RunOption {
	return runOption(func(c *runConfig) { c.report, c.reportSet = report, true })
}

// Through puts a Redis executor in front: callers wait by pub/sub instead of on a connection to Postgres, and later calls
// are replayed without the database. Redis is an accelerator, not a dependency: when it is unavailable, or its record
// cannot be used, Run asks Postgres, and fn's effect happens once either way.
//
// Give it a namespace of its own, the same ErrorRegistry, and a TTL of minutes to hours: a record in Redis may be replayed
// for up to that TTL after the one in Postgres has expired. Its client should have timeouts well under a second: a
// server that does not answer delays a Run by them. After a failure, Redis is left out for a second. The executor is not
// closed by this package.
func Through[T any](executor *idempotent.Executor[T]) Option {
	return option(func(c *config) { c.through = executor })
}

var namespacePattern = regexp.MustCompile(`^[A-Za-z0-9._/-]{1,64}$`)

func (c *config) validate() error {
	var errs []error
	check := func(ok bool, option, argument string, value any, allowed string) {
		if !ok {
			errs = append(errs, invalid(option, argument, fmt.Sprint(value), allowed))
		}
	}
	check(namespacePattern.MatchString(c.namespace), "New", "namespace", fmt.Sprintf("%q", c.namespace), namespacePattern.String())
	check(c.registry != nil, "WithErrors", "registry", "nil", "a registry")
	if c.registry != nil {
		errs = append(errs, seam.CheckRegistry(c.registry))
	}
	check(!c.observerSet || !isNil(c.observer), "WithObserver", "observer", "nil", "an observer")
	check(!c.tracerSet || !isNil(c.tracer), "WithTracer", "tracer", "nil", "a tracer")
	check(c.logger != nil, "WithLogger", "logger", "nil", "a logger")
	switch c.isolation {
	case "", pgx.ReadCommitted, pgx.RepeatableRead, pgx.Serializable:
	default:
		check(false, "WithIsolation", "level", fmt.Sprintf("%q", string(c.isolation)), "pgx.ReadCommitted, pgx.RepeatableRead or pgx.Serializable")
	}
	check(validMillis(c.idleTimeout), "WithIdleTimeout", "timeout", c.idleTimeout, "1ms or more, up to 24 days")
	check(validMillis(c.commitTimeout), "WithCommitTimeout", "timeout", c.commitTimeout, "1ms or more, up to 24 days")
	check(c.maxExecutions >= 1, "WithMaxExecutions", "n", c.maxExecutions, "1 or more")
	check(!c.run.reportSet, "WithReport", "report", "given to New", "given to Run")
	errs = append(errs, c.run.validate())
	return errors.Join(errs...)
}

// maxTimeout is the largest timeout that Postgres has: 2^31 ms.
const maxTimeout = 24 * 24 * time.Hour

func validMillis(d time.Duration) bool { return d >= time.Millisecond && d <= maxTimeout }

func validTTL(d time.Duration) bool {
	return d == Forever || d >= time.Millisecond && d <= idempotent.MaxDuration
}

func (c *runConfig) validate() error {
	var errs []error
	const ttls = "1ms or more, up to MaxDuration, or Forever"
	if !validTTL(c.ttl) {
		errs = append(errs, invalid("WithTTL", "ttl", c.ttl.String(), ttls))
	}
	if c.errorTTLSet && !validTTL(c.errorTTL) {
		errs = append(errs, invalid("WithErrorTTL", "ttl", c.errorTTL.String(), ttls))
	}
	if c.waitTimeout <= 0 || c.waitTimeout > maxTimeout {
		errs = append(errs, invalid("WithWaitTimeout", "timeout", c.waitTimeout.String(), "more than 0, up to 24 days; WithNoWait does not wait at all"))
	}
	if c.nilUnknown {
		errs = append(errs, invalid("WithUnknownErrors", "unknown", "nil", "a function"))
	}
	if c.reportSet && c.report == nil {
		errs = append(errs, invalid("WithReport", "report", "nil", "a Report to fill in"))
	}
	return errors.Join(errs...)
}

// isUnknown reports whether an error of fn says nothing final.
func (c *runConfig) isUnknown(err error) bool {
	return seam.IsUnknown(err) || c.unknown != nil && c.unknown(err)
}

// recordTTL returns how long a record lives, in microseconds, or nil for ever.
func (c *runConfig) recordTTL(outcome record.Outcome) *int64 {
	ttl := c.ttl
	if outcome != record.OutcomeValue && c.errorTTLSet {
		ttl = c.errorTTL
	}
	if ttl == Forever {
		return nil
	}
	return new(ttl.Microseconds())
}

func isNil(v any) bool {
	if v == nil {
		return true
	}
	switch r := reflect.ValueOf(v); r.Kind() {
	case reflect.Pointer, reflect.Map, reflect.Slice, reflect.Interface, reflect.Func, reflect.Chan:
		return r.IsNil()
	}
	return false
}

// typeOf names the type of v in an error.
func typeOf(v any) string { return fmt.Sprintf("a %T", v) }

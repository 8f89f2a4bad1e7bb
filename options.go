package idempotent

import (
	"crypto/sha256"
	"log/slog"
	"reflect"
	"slices"
	"time"

	"github.com/idempotent-go/idempotent/internal/record"
	"github.com/idempotent-go/idempotent/internal/store"
)

// WithCodec sets how T becomes bytes. The default is Msgpack.
func WithCodec[T any](codec Codec[T]) Option {
	return once("WithCodec", func(c *config) { c.codec = boxedCodec[T]{codec} })
}

// WithUncheckedType accepts a T of which the codec is known to lose a part, and values that would not
// come back as they were: callers that did not run fn get what the codec makes of them. By default
// New refuses such a T (TypeChecker), and such a value is not stored (ValueChecker, ErrValueNotKept).
// Prefer a tag "-" on the field that may be lost. Records of another type are refused all the same.
func WithUncheckedType() Option {
	return option(func(c *config) { c.unchecked = true })
}

// WithErrors sets which errors match with errors.Is and errors.As on replay. By default none do: a
// replayed error has its text and matches ErrReplayed only.
func WithErrors(registry *ErrorRegistry) Option {
	return once("WithErrors", func(c *config) { c.errors = registry })
}

// WithHooks sets functions that see, and may change, what a caller gets. By default there are none.
func WithHooks[T any](hooks Hooks[T]) Option {
	return once("WithHooks", func(c *config) { c.hooks = hooks })
}

// WithObserver adds an observer of what the executor does, for metrics and traces. By default there is
// none. Given several times, each is told, in the order given.
func WithObserver(observer Observer) Option {
	if observer == nil {
		observer = ObserverFunc(nil) // refused by New
	}
	return option(func(c *config) { c.observers = append(c.observers, observer) })
}

// WithTracer sets what makes spans of calls and executions, and writes their trace into records. By default there is
// none. A Tracer that is an Observer too needs no WithObserver.
func WithTracer(tracer Tracer) Option {
	return once("WithTracer", func(c *config) {
		c.tracer, c.nilTracer = tracer, tracer == nil || isNil(reflect.ValueOf(tracer))
	})
}

// WithLogger sets where trouble is logged: failed renewals, lost leases, repeated commits,
// panicking observers. By default nothing is logged. Keys are logged, values and errors of fn
// are not.
func WithLogger(logger *slog.Logger) Option {
	return once("WithLogger", func(c *config) { c.logger = logger })
}

// WithOwner sets the name of this process in the records of executions that it runs, for people who look for
// the owner of a key: 1 to 64 printable ASCII characters. The default is host name and process id, as in
// "web-1:4711". It is stored in Redis, so it must not be a secret.
func WithOwner(name string) Option {
	return option(func(c *config) { c.owner = name })
}

// WithLease sets how long a dead owner can block a key: 10 ms or more, 10 s by default. While fn
// runs, the lease is renewed each third of it, so fn may take as long as it likes. A short lease
// is noticed lost by a process that is merely slow (a long garbage collection, a swapped-out
// machine, a Redis failover): below 1 s, be sure that these are shorter. Like all times that Redis
// keeps, it counts in whole milliseconds.
func WithLease(d time.Duration) Option {
	return option(func(c *config) { c.lease = d })
}

// WithMessageLimit sets the largest record, in bytes, that travels inside the message to the
// waiters; they fetch a larger one. 0 makes them fetch every one. The default is 64 KiB. Raise it
// when many processes wait for large results and the client-output-buffer-limit for pubsub
// allows it. Errors that WithIgnoredErrors(ShareWithWaiters) shares travel no other way: above
// the limit they are not shared.
func WithMessageLimit(bytes int) Option {
	return option(func(c *config) { c.messageLimit = bytes })
}

// WithReplicaAck makes a claim, a renewal and a commit count only once n replicas have it, so that
// a failover to one of them loses neither the lock nor the outcome; without it, replicas may lack
// what the master wrote last. n is 1 or more. timeout is how long to wait for them: 1 ms or more,
// up to a third of the lease, and less than the client's ReadTimeout, which go-redis applies to it.
//
// When too few acknowledge in time, a claim is given up: Run returns ErrUnavailable and fn did not
// run. A lease that was not renewed in this sense ends. A commit is repeated, for three leases and
// 5 s at least, and then Run returns the value with ErrNotRecorded; so does Resolve, at once. In
// both cases the outcome is on the master, and callers may get it, but a failover may lose it.
//
// It costs a first run one more round trip, and the time that replicas take; a replay costs
// nothing more. It protects only if the server that is promoted has what n replicas
// acknowledged: be sure of that by making n the number of all replicas that may be promoted.
// Between the write of an outcome and its acknowledgement, others can already get it from the
// master; should the master and the owner both die then, it is run again as the next attempt. The
// default is not to wait.
func WithReplicaAck(n int, timeout time.Duration) Option {
	return option(func(c *config) { c.ack, c.ackSet = store.Ack{Replicas: n, Timeout: timeout}, true })
}

// WithReplayCache keeps up to so many finished records in this process, 1 or more, and replays them
// without asking Redis. By default there is none. It is worth having where one process replays the
// same keys again and again.
//
// A record is kept when this process records it, or reads it to replay it. It is dropped when it
// expires, when Forget or Resolve of this process returns, and when those of another process are
// heard of, on a subscription that the cache holds for this: that takes as long as a message takes.
// When messages are lost on the way, the cache goes on replaying what was forgotten elsewhere for 3
// seconds at most; it is emptied, and every Run asks Redis, until the subscription stands again.
// Do not use it where that is too long. Records that are deleted from Redis by other means than
// Forget are replayed until they expire.
//
// Records above 64 KiB are not kept; beside each, so is the value that callers share (see Codec), once
// one caller has had it. Cached outcomes have the source Cached, and are observed and given to
// hooks like those that come from Redis. Each Run that does not find its key in the cache claims by a script,
// to learn how long a record has to live: a little more work for Redis than without a cache.
func WithReplayCache(entries int) Option {
	return option(func(c *config) { c.cached, c.cacheEntries = true, entries })
}

// WithTTL sets how long a result is replayed: 1 ms or more, 24 h by default. It must outlast the
// last retry of every client: three days for Stripe's webhooks, weeks for some job queues. It is
// also how long the attempt number of a dead execution is remembered, and how long a refused one
// (WithInterrupted) stays refused.
func WithTTL(d time.Duration) RunOption {
	return runOption(func(c *runConfig) { c.ttl = d })
}

// WithErrorTTL sets how long a recorded error is replayed: 1 ms or more, by default as long as a
// result.
func WithErrorTTL(d time.Duration) RunOption {
	return runOption(func(c *runConfig) { c.errorTTL, c.errorTTLSet = d, true })
}

// WithWaitTimeout sets the longest wait, counted from the call of Run, for another caller's
// execution; after it, Run returns ErrInProgress. 60 s by default; it must be more than 0, see
// WithNoWait, of which it takes the place if that comes before it. It does not limit fn, and a context
// that ends earlier ends the wait earlier.
func WithWaitTimeout(d time.Duration) RunOption {
	return runOption(func(c *runConfig) { c.waitTimeout, c.noWait = d, false })
}

// WithNoWait makes Run return ErrInProgress at once, with the time left of the owner's lease,
// instead of waiting. A dead owner's operation is taken over all the same. A later WithWaitTimeout,
// for instance one given to Run, replaces it. By default Run waits, see WithWaitTimeout.
func WithNoWait() RunOption {
	return runOption(func(c *runConfig) { c.noWait = true })
}

// WithShouldIgnoreError sets which errors of fn are not recorded: for these, the key is free
// again, and the next caller runs fn. By default every error is recorded. IsRetryable is the
// usual function. It also gets a *PanicError when fn panicked. If it panics itself, the error is
// recorded. Do not ignore an error after which fn's effect may have taken place: the next execution
// would begin at attempt 1 and know nothing of it. OutcomeUnknown is for those. An ignored error
// at attempt 2 or above keeps the number: what the earlier attempts did is still unknown.
func WithShouldIgnoreError(ignore func(error) bool) RunOption {
	return runOption(func(c *runConfig) { c.shouldIgnore = ignore })
}

// WithIgnoredErrors sets what waiting callers get when an error is ignored: NextWaiterRuns, the
// default, or ShareWithWaiters. The policy of the call that ran fn counts.
func WithIgnoredErrors(policy IgnoredPolicy) RunOption {
	return runOption(func(c *runConfig) { c.ignored = policy })
}

// WithInterrupted sets what happens to a key whose execution ended without an outcome, for instance
// because its owner died: Rerun, the default, or Refuse. If the call that started the execution or
// the call that finds it chose Refuse, Refuse wins.
func WithInterrupted(policy InterruptedPolicy) RunOption {
	return runOption(func(c *runConfig) { c.interrupted = policy })
}

// WithFingerprint sets a hash of what is asked for, such as the SHA-256 of the request body. A
// Run with another fingerprint under the same key is ErrKeyReused, while the first one is in
// flight as well as afterwards. By default there is none: a Run without a fingerprint, nil or empty,
// matches all. More than 32 bytes are hashed down to 32.
func WithFingerprint(fingerprint []byte) RunOption {
	if len(fingerprint) > record.MaxFingerprintSize {
		sum := sha256.Sum256(fingerprint)
		fingerprint = sum[:]
	} else {
		fingerprint = append([]byte(nil), fingerprint...)
	}
	return runOption(func(c *runConfig) { c.fingerprint = fingerprint })
}

// WithUnknownErrors sets which errors of fn leave its effect unknown, as if they were marked with
// OutcomeUnknown: gRPC's status Unavailable, for instance, or a driver's "invalid connection". By
// default none are, but see Run for errors that are always unknown. Given several times, to New and to
// Run for instance, an error is unknown if one of the functions says so. If one panics, the error counts
// as unknown and Run returns a *HookError. The function runs in the goroutine of fn, many at once.
func WithUnknownErrors(unknown func(error) bool) RunOption {
	return runOption(func(c *runConfig) {
		if unknown == nil {
			c.nilUnknown = true
			return
		}
		before := c.unknown
		if c.unknown = unknown; before != nil {
			c.unknown = func(err error) bool { return before(err) || unknown(err) }
		}
	})
}

// WithCommitWait sets how long Run waits for Redis to store the outcome of its fn: more than 0; by
// default as long as a failed commit is retried, three leases and at least 5 s. After it, Run returns
// the outcome with ErrNotRecorded, as it does when the commit failed; the commit goes on, with the lease,
// for the rest of the default time, and Close waits for that. Use it where a client waits for the answer.
func WithCommitWait(d time.Duration) RunOption {
	return runOption(func(c *runConfig) { c.commitWait, c.commitWaitSet = d, true })
}

// WithAbsent has Resolve settle a key under which nothing is stored. By default that is ErrNotFound.
func WithAbsent() RunOption {
	return runOption(func(c *runConfig) { c.absent = true })
}

// WithDetached lets fn go on when its caller's context ends: Run returns then, with the context's
// error, and fn's outcome is recorded for later callers. fn runs in a goroutine of its own, with
// the values of the caller's context and neither its cancellation nor its deadline. A panic
// reaches the caller, with its value but not on fn's stack, which the Observer gets; after the
// caller has left, it is recorded and logged. By default fn runs on its caller's goroutine and context.
func WithDetached() RunOption {
	return runOption(func(c *runConfig) { c.detached = true })
}

// WithReport makes Run fill in report before it returns, with an error as well, unless an option is
// invalid. By default there is no report. Given several times, all reports are filled in. It belongs to
// one Run: New refuses it.
func WithReport(report *Report) RunOption {
	return runOption(func(c *runConfig) {
		switch {
		case report == nil:
			c.report = nilReport
		case c.report == nil:
			c.report = report
		default:
			c.reports = append(slices.Clip(c.reports), report)
		}
	})
}

package idempotent

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/idempotent-go/idempotent/internal/errtree"
	"github.com/idempotent-go/idempotent/internal/record"
	"github.com/idempotent-go/idempotent/internal/rediserr"
)

// Errors of this package, to be matched with errors.Is. Those that say "fn did not run" are safe
// to retry; the others are not without thought.
var (
	// ErrInProgress: another caller runs this key, and the wait for it is over or was not wanted
	// (WithWaitTimeout, WithNoWait), or Run was called for a key inside its own fn. fn did not
	// run. errors.As finds an *InProgressError with a time to retry after.
	ErrInProgress = errors.New("idempotent: operation in progress")

	// ErrKeyReused: the key belongs to an operation with another fingerprint. fn did not run.
	ErrKeyReused = errors.New("idempotent: key reused with another fingerprint")

	// ErrInterrupted: an execution ended without an outcome and the policy is Refuse. fn did not
	// run, and does not until Forget or Resolve, or until the record expires.
	ErrInterrupted = errors.New("idempotent: execution was interrupted, its effect is unknown")

	// ErrLeaseLost: this call ran fn, but lost its lease before it had an outcome, and another
	// caller may have run it too. Nothing of this execution was recorded; the value beside the
	// error is what fn returned, and an error of fn is matched too. It is also the cause of
	// fn's context (context.Cause) once the lease is lost.
	ErrLeaseLost = errors.New("idempotent: lease lost")

	// ErrNotRecorded: fn ran, but its outcome could not be stored. The value beside the error is
	// what fn returned. An error of fn is matched too. The key follows WithInterrupted, unless it was the
	// value that could not be stored: then later calls return ErrValueNotKept, and fn does not run again.
	ErrNotRecorded = errors.New("idempotent: outcome not recorded")

	// ErrValueNotKept: fn succeeded under this key, and its value could not be stored: the codec
	// cannot encode it, or would not bring it back as it was. Only the call that ran fn had it, with
	// ErrNotRecorded. fn did not run, and does not until Forget, or until the record expires; Resolve
	// puts a value in. errors.As finds a *ValueNotKeptError.
	ErrValueNotKept = errors.New("idempotent: done, value not kept")

	// ErrUnavailable: Redis could not be asked, so fn did not run. The cause is wrapped.
	ErrUnavailable = errors.New("idempotent: Redis unavailable")

	// ErrCorruptRecord: what is stored under the key cannot be read: bytes that this library did
	// not write, a newer version's record, or a result that does not decode into T. fn did not
	// run, and does not until Forget, or until the record expires.
	ErrCorruptRecord = record.ErrCorrupt

	// ErrNotFound: Get or Resolve found nothing under the key.
	ErrNotFound = errors.New("idempotent: nothing is recorded")

	// ErrAlreadyRecorded: Resolve found an outcome, which it does not overwrite.
	ErrAlreadyRecorded = errors.New("idempotent: an outcome is recorded already")

	// ErrInvalidKey: the key is empty or longer than MaxKeySize. fn did not run.
	ErrInvalidKey = errors.New("idempotent: invalid key")

	// ErrInvalidOption: an argument or option is not allowed; the text names it, its value and
	// what is allowed. fn did not run.
	ErrInvalidOption = errors.New("idempotent: invalid option")

	// ErrClosed: the executor was closed. fn did not run.
	ErrClosed = errors.New("idempotent: executor closed")

	// ErrReplayed matches every error of an fn that this call did not run itself: one that was recorded,
	// and one that another call shared without recording it (WithIgnoredErrors). Such an error has the
	// text of the first one, and matches what is registered with WithErrors; it is not the same value.
	ErrReplayed = errors.New("idempotent: replayed error")
)

// InProgressError is the ErrInProgress that Run returns.
type InProgressError struct {
	// RetryAfter is what was left of the owner's lease: how long until its death would be
	// noticed at the latest. A living owner renews its lease and may take longer. Zero when
	// unknown.
	RetryAfter time.Duration
}

func (e *InProgressError) Error() string {
	return fmt.Sprintf("%v; retry after %v", ErrInProgress, e.RetryAfter)
}

// Is makes errors.Is(err, ErrInProgress) true.
func (e *InProgressError) Is(target error) bool { return target == ErrInProgress }

// ValueNotKeptError is the ErrValueNotKept that Run and Get return.
type ValueNotKeptError struct {
	// Attempt is the number of the execution that succeeded.
	Attempt int
	// At is when it did, by the clock of its process.
	At time.Time
}

func (e *ValueNotKeptError) Error() string {
	return fmt.Sprintf("%v: fn succeeded at attempt %d, at %s", ErrValueNotKept, e.Attempt, e.At.UTC().Format(time.RFC3339))
}

// Is makes errors.Is(err, ErrValueNotKept) true.
func (e *ValueNotKeptError) Is(target error) bool { return target == ErrValueNotKept }

// PanicError stands for a panic of fn. ShouldIgnoreError gets it, and so does every caller that
// did not run fn itself; the one that did gets the panic.
type PanicError struct {
	// Value is what fn panicked with; for callers that did not run fn, its text.
	Value any
	// Stack is the stack of fn, cut after 4 KiB for callers that did not run fn.
	Stack []byte
}

// Error does not hold the stack.
func (e *PanicError) Error() string { return fmt.Sprintf("idempotent: fn panicked: %v", e.Value) }

// Unwrap returns Value when it is an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// HookError reports that a hook panicked. What was recorded is not affected: the value returned
// beside it is the one the hook was given, and an error the hook was given is matched too.
type HookError struct {
	// Hook is the field of Hooks, or "ShouldIgnoreError".
	Hook string
	// Value is what the hook panicked with.
	Value any
	// Err is the error the hook was given, nil for hooks that get a value.
	Err error
}

func (e *HookError) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("idempotent: %s panicked: %v; it was given: %v", e.Hook, e.Value, e.Err)
	}
	return fmt.Sprintf("idempotent: %s panicked: %v", e.Hook, e.Value)
}

// Unwrap returns the error the hook was given, and Value when that is an error.
func (e *HookError) Unwrap() []error {
	var errs []error
	if e.Err != nil {
		errs = append(errs, e.Err)
	}
	if err, ok := e.Value.(error); ok {
		errs = append(errs, err)
	}
	return errs
}

// Retryable marks err as worth another try, for IsRetryable. The text and what errors.Is and
// errors.As find stay the same. Retryable(nil) is nil.
func Retryable(err error) error {
	if err == nil {
		return nil
	}
	return &retryableError{err}
}

// IsRetryable reports whether err, or an error it wraps, was marked with Retryable or has a
// method Retryable() bool that says so. It is the usual argument of WithShouldIgnoreError. A
// timeout is not retryable by itself: whether it did something is not known.
func IsRetryable(err error) (retryable bool) {
	errtree.Walk(err, func(node error) bool {
		r, ok := node.(interface{ Retryable() bool })
		retryable = ok && r.Retryable()
		return !retryable
	})
	return retryable
}

type retryableError struct{ err error }

func (e *retryableError) Error() string   { return e.err.Error() }
func (e *retryableError) Unwrap() error   { return e.err }
func (e *retryableError) Retryable() bool { return true }

// OutcomeUnknown marks err as one after which fn cannot say whether it had its effect: a
// connection that broke after the request was sent, a timeout. Such an error is not recorded, and
// the key is not simply free either: the execution counts as interrupted, so the next one is told
// by its attempt number to ask the provider first, or is refused (see WithInterrupted). It goes
// before WithShouldIgnoreError. The text and what errors.Is and errors.As find stay the same.
// OutcomeUnknown(nil) is nil.
func OutcomeUnknown(err error) error {
	if err == nil {
		return nil
	}
	return &unknownError{err}
}

type unknownError struct{ err error }

func (e *unknownError) Error() string { return e.err.Error() }
func (e *unknownError) Unwrap() error { return e.err }

// causeError has a text of our own, free of payloads, over a cause that may quote one.
type causeError struct {
	text     string
	sentinel error // may be nil
	cause    error
}

func (e *causeError) Error() string { return e.text }

func (e *causeError) Unwrap() []error {
	if e.sentinel == nil {
		return []error{e.cause}
	}
	return []error{e.sentinel, e.cause}
}

// redisError wraps what Redis or the client said under sentinel. Redis quotes the arguments of a
// command it does not know, and these may hold a payload.
func redisError(sentinel, cause error) error {
	return &causeError{text: fmt.Sprintf("%v: %s", sentinel, rediserr.Text(cause)), sentinel: sentinel, cause: cause}
}

func errorsIsAny(err error, targets ...error) bool {
	for _, target := range targets {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}

// panicCause turns a recovered value into an error.
func panicCause(v any) error {
	if err, ok := v.(error); ok {
		return err
	}
	return fmt.Errorf("panic: %v", v)
}

// contextError returns the error of ctx, with its cause where that is another one.
func contextError(ctx context.Context) error {
	err, cause := ctx.Err(), context.Cause(ctx)
	if errors.Is(cause, err) {
		return cause
	}
	return &causeError{text: fmt.Sprintf("%v: %v", err, cause), sentinel: err, cause: cause}
}

// contextEnd returns the error of ctx if it has ended, also if err is a timeout of the client's that was
// set from ctx's deadline and fired a moment before it. Otherwise it returns nil.
func contextEnd(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return contextError(ctx)
	}
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= earlyTimer && isTimeout(err) {
		return context.DeadlineExceeded
	}
	return nil
}

// earlyTimer is how long before a context's deadline an error counts as caused by it. A driver sets its
// own timer from the deadline, and that can fire a moment before the context ends. earlyTimeout is the
// same for an error that says it is a timeout: some drivers count in whole seconds.
const (
	earlyTimer   = 50 * time.Millisecond
	earlyTimeout = time.Second
)

// isTimeout reports whether err, or an error it wraps, is a timeout.
func isTimeout(err error) (is bool) {
	errtree.Walk(err, func(node error) bool {
		timeout, ok := node.(interface{ Timeout() bool })
		is = ok && timeout.Timeout() || errtree.Matches(node, context.DeadlineExceeded)
		return !is
	})
	return is
}

// invalid is an ErrInvalidOption that names the option, its value and what is allowed.
func invalid(option, argument, value, allowed string) error {
	return fmt.Errorf("%w: %s: %s is %s; allowed: %s", ErrInvalidOption, option, argument, value, allowed)
}

func isNil(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Pointer, reflect.Map, reflect.Slice, reflect.Interface, reflect.Func, reflect.Chan:
		return v.IsNil()
	}
	return false
}

// both is the error of the executor together with fn's, either of which may be nil.
func both(own, err error) error {
	switch {
	case own == nil:
		return err
	case err == nil:
		return own
	}
	return fmt.Errorf("%w; %w", own, err)
}

func typeName[V any]() string { return reflect.TypeFor[V]().String() }

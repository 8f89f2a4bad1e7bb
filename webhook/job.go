package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/idempotent-go/idempotent"
)

// A Handler has the effect of an event. nil means done. An error means:
//
//   - Retry, or an error marked with idempotent.Retryable: nothing happened; the event is tried again.
//   - Skip: there is nothing to do.
//   - Permanent: trying again does not help; the event becomes a dead letter.
//   - any other error, a timeout or a panic: it is unknown whether the effect took place. The event is tried again, with
//     a higher Attempt; with Interrupted(idempotent.Refuse) it becomes a dead letter.
//
// ctx ends at the handler's timeout, and if this process loses the event to another one. A Handler is called
// concurrently.
type Handler func(ctx context.Context, j *Job) error

// A Job is one execution of a Handler.
type Job struct {
	// Event is the event as its scheme read it or, if it was unsigned, as the provider confirmed it.
	Event
	Source string
	Key    string
	// Reference is for the receiver of the effect, as its idempotency key: 64 hexadecimal digits, the same in each
	// attempt and redrive of the event.
	Reference string
	// Attempt is 1 for the first execution. Above 1, an earlier execution may have had its effect: ask the receiver
	// before doing it again. It goes on counting through redrives.
	Attempt int
	// Redrive is how often the event was redriven.
	Redrive int
	// Header is the request's. The values of Authorization and Cookie are replaced by a part of their hash.
	Header http.Header
	// ReceivedAt is when the event was first delivered.
	ReceivedAt time.Time

	changed []byte
}

// Changed records what the handler changed, as JSON, for the audit. The last call counts. It is recorded if the handler
// returns nil or Skip. An error means that v has no JSON.
func (j *Job) Changed(v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("webhook: Changed: a %T has no JSON: %w", v, err)
	}
	j.changed = data
	return nil
}

// Typed makes a Handler of a function that takes the event's body as a T, decoded from JSON. A body that does not decode
// is a dead letter.
func Typed[T any](handle func(ctx context.Context, j *Job, body T) error) Handler {
	if handle == nil {
		return nil
	}
	return func(ctx context.Context, j *Job) error {
		var body T
		if err := json.Unmarshal(j.Body, &body); err != nil { // its text may quote the body
			return Permanent(fmt.Errorf("webhook: the body does not decode into a %T", body))
		}
		return handle(ctx, j, body)
	}
}

// Retry marks err as one after which nothing happened: the event is tried again, after the given time at the earliest. If
// after is 0, the backoff decides. Use the time of a Retry-After header that the receiver sent. Retry(nil, d) is nil.
func Retry(err error, after time.Duration) error {
	if err == nil {
		return nil
	}
	return &retryError{idempotent.Retryable(err), max(0, after)}
}

type retryError struct {
	error
	after time.Duration
}

func (e *retryError) Unwrap() error { return e.error }

// Permanent marks err as one that another attempt cannot mend: the event becomes a dead letter. Permanent(nil) is nil.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return &permanentError{err}
}

type permanentError struct{ error }

func (e *permanentError) Unwrap() error { return e.error }

// Skip returns an error that settles the event without an effect. The reason is kept in the record.
func Skip(reason string) error { return &skipError{reason} }

type skipError struct{ reason string }

func (e *skipError) Error() string { return "webhook: skipped: " + e.reason }

// retryAfter returns the time that Retry was given.
func retryAfter(err error) time.Duration {
	if e, ok := errors.AsType[*retryError](err); ok {
		return e.after
	}
	return 0
}

package pg

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/idempotent-go/idempotent"
)

// Errors of this package, to be matched with errors.Is. Run also returns those of package idempotent where they mean the
// same: ErrInProgress, ErrKeyReused, ErrCorruptRecord, ErrInvalidKey, ErrInvalidOption, ErrReplayed; Get and Forget,
// ErrNotFound and ErrInProgress.
//
// A Run may be repeated with the same key after any error: a Postgres transaction took effect together with its record, or
// not at all.
var (
	// ErrUnavailable: Postgres could not be asked. fn did not run. It matches idempotent.ErrUnavailable, too. The cause is
	// wrapped.
	ErrUnavailable error = &sentinel{"pg: Postgres unavailable", idempotent.ErrUnavailable}

	// ErrRolledBack: fn ran, and its transaction was rolled back: it had no effect, and nothing is recorded. The cause is
	// wrapped: the transaction failed, its connection was lost, or fn's value cannot be stored.
	ErrRolledBack error = &sentinel{"pg: rolled back", nil}

	// ErrCommitUnknown: fn ran, the answer to COMMIT was lost, and Postgres could not be asked within the time for that
	// (WithCommitTimeout). The effect and its record are both there, or neither is: Run with the same key finds out. It
	// matches idempotent.ErrNotRecorded, too. The cause is wrapped.
	ErrCommitUnknown error = &sentinel{"pg: outcome of the commit unknown", idempotent.ErrNotRecorded}
)

// A sentinel matches itself and the error of package idempotent that means the same.
type sentinel struct {
	text string
	root error // may be nil
}

func (s *sentinel) Error() string        { return s.text }
func (s *sentinel) Is(target error) bool { return s.root != nil && target == s.root }

// wrap returns an error that matches sentinel and cause. Its text has of a Postgres error only what cannot hold a value:
// the detail and the failing row are left out.
func wrap(sentinel, cause error) error {
	return &causeError{text: fmt.Sprintf("%v: %s", sentinel, safeText(cause)), causes: []error{sentinel, cause}}
}

type causeError struct {
	text   string
	causes []error
}

func (e *causeError) Error() string   { return e.text }
func (e *causeError) Unwrap() []error { return e.causes }

// safeText describes an error of Postgres or its driver. The message of a data exception quotes a value ("invalid input
// syntax for type integer: ..."), so only those of other classes are repeated.
func safeText(err error) string {
	server, ok := errors.AsType[*pgconn.PgError](err)
	switch {
	case !ok:
		return err.Error()
	case strings.HasPrefix(server.Code, "22"):
		return "SQLSTATE " + server.Code
	}
	return fmt.Sprintf("%s (SQLSTATE %s)", server.Message, server.Code)
}

// SQLSTATEs that decide what Run does next, see Appendix A of the PostgreSQL documentation.
const (
	codeUniqueViolation      = "23505"
	codeSerializationFailure = "40001"
	codeDeadlockDetected     = "40P01"
	codeLockNotAvailable     = "55P03"
)

func sqlState(err error) string {
	if server, ok := errors.AsType[*pgconn.PgError](err); ok {
		return server.Code
	}
	return ""
}

// isSerialization reports whether Postgres rolled the transaction back because of another one, so that running it again
// can succeed.
func isSerialization(err error) bool {
	state := sqlState(err)
	return state == codeSerializationFailure || state == codeDeadlockDetected
}

// isRefused reports whether Postgres refused a commit, so that it certainly did not take place. A FATAL error does not say
// so: a server that shuts down while a commit waits for its replica ends the connection after the commit.
func isRefused(err error) bool {
	server, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return pgconn.SafeToRetry(err) // nothing was sent
	}
	severity := server.SeverityUnlocalized
	if severity == "" {
		severity = server.Severity
	}
	return severity == "ERROR"
}

func invalid(option, argument, value, allowed string) error {
	return fmt.Errorf("%w: %s: %s is %s; allowed: %s", idempotent.ErrInvalidOption, option, argument, value, allowed)
}

// contextError returns why ctx ended: its error, and its cause where that is another one.
func contextError(ctx context.Context) error {
	err, cause := ctx.Err(), context.Cause(ctx)
	if errors.Is(cause, err) {
		return cause
	}
	return &causeError{text: fmt.Sprintf("%v: %v", err, cause), causes: []error{err, cause}}
}

// unavailable is the error of a call whose fn did not run because of err. If ctx ended, that is the reason.
func unavailable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return contextError(ctx)
	}
	return wrap(ErrUnavailable, err)
}

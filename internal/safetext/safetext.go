// Package safetext marks errors whose text contains no part of a user's value, so that it may be
// shown and logged. It never decides that of an error it did not make.
package safetext

import (
	"errors"
	"fmt"
)

// Errorf makes an error. The caller vouches for its text.
func Errorf(format string, args ...any) error {
	return &safeError{text: fmt.Sprintf(format, args...)}
}

// Wrap makes an error that wraps cause and shows of it only what is safe.
func Wrap(text string, cause error) error {
	return &safeError{text + Of(cause), cause}
}

// Of returns ": " and the text of an error in err's tree that is safe, or "" if there is none.
func Of(err error) string {
	if safe, ok := errors.AsType[*safeError](err); ok {
		return ": " + safe.text
	}
	return ""
}

type safeError struct {
	text  string
	cause error
}

func (e *safeError) Error() string { return e.text }
func (e *safeError) Unwrap() error { return e.cause }

// Package rediserr owns what this module says about errors of the client and the server: texts
// without payloads, one class of replies, and panics of the client's hooks. It sends nothing.
package rediserr

import (
	"fmt"
	"strings"
)

// Text returns the text of err without the arguments that Redis quotes when it does not know a
// command: they may be a caller's result.
func Text(err error) string {
	text, _, _ := strings.Cut(err.Error(), ", with args beginning with")
	return text
}

// RecoverTo turns a panic of a client's hook into an error. Defer it around a command: the command may
// have been executed, and its outcome must be handled like a lost reply.
func RecoverTo(err *error) {
	if v := recover(); v != nil {
		*err = PanicError(v)
	}
}

// PanicError returns the error of a command whose hook panicked with v. It never wraps v: a hook that
// panics with redis.Nil or a server's error must not pass for a reply of Redis.
func PanicError(v any) error { return fmt.Errorf("panic: %v", v) }

// IsWrongType reports whether err says that the name holds another type than a string, so that the
// command wrote nothing.
func IsWrongType(err error) bool { return err != nil && strings.Contains(err.Error(), "WRONGTYPE") }

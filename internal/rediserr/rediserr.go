package rediserr

import (
	"fmt"
	"strings"
)

func Text(err error) string {
	text, _, _ := strings.Cut(err.Error(), ", with args beginning with")
	return text
}

// survive makes an error of a panic.
func RecoverTo(err *error) {
	if v := recover(); v != nil {
		*err = PanicError(v)
	}
}

// hookPanic is the error of a command whose hook panicked. It is none of those that Redis could have
// answered, whatever the hook panicked with.
func PanicError(v any) error { return fmt.Errorf("panic: %v", v) }

// wrongType reports whether err says that the name holds something else than a string, so that
// nothing was written.
func IsWrongType(err error) bool { return err != nil && strings.Contains(err.Error(), "WRONGTYPE") }

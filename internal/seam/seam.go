// Package seam gives the nested modules of this repository what package idempotent does not export, so that they record
// errors as it does and their records stay readable by it. Package idempotent sets the variables when it is initialized;
// a package that uses them imports it.
package seam

import (
	"context"

	"github.com/idempotent-go/idempotent/internal/record"
)

// A registry is an *idempotent.ErrorRegistry.
var (
	// CheckRegistry returns the ErrInvalidOption of a registry that cannot be used.
	CheckRegistry func(registry any) error

	// EncodeError returns the payload of the record of err. lost is called with the code of each registered error that
	// cannot be stored.
	EncodeError func(registry any, err error, lost func(code string)) []byte

	// DecodeError returns the error that a record with OutcomeError or OutcomePanic replays.
	DecodeError func(registry any, rec *record.Record, lost func(code string)) error

	// CodecID returns the number that a record has for a codec.
	CodecID func(codec any) record.CodecID

	// IsUnknown reports whether err is marked with OutcomeUnknown, or is one of a nested Run that says nothing final.
	IsUnknown func(err error) bool

	// WithRunInfo returns a context from which RunInfoFromContext returns a RunInfo, with attempt 1.
	WithRunInfo func(ctx context.Context, namespace, key string) context.Context
)

package idemotel

import (
	"context"
	"errors"

	"github.com/idempotent-go/idempotent"
)

// An errorType is a value of error.type. There is a fixed list of them, so that no error adds a series.
type errorType uint8

const (
	noError errorType = iota
	notRecorded
	leaseLost
	inProgress
	keyReused
	interrupted
	unavailable
	corruptRecord
	valueNotKept
	notFound
	alreadyRecorded
	closed
	invalidKey
	invalidOption
	canceled
	deadlineExceeded
	panicked
	fnError
	errorTypes
)

var errorTypeNames = [errorTypes]string{
	notRecorded:      "not_recorded",
	leaseLost:        "lease_lost",
	inProgress:       "in_progress",
	keyReused:        "key_reused",
	interrupted:      "interrupted",
	unavailable:      "unavailable",
	corruptRecord:    "corrupt_record",
	valueNotKept:     "value_not_kept",
	notFound:         "not_found",
	alreadyRecorded:  "already_recorded",
	closed:           "closed",
	invalidKey:       "invalid_key",
	invalidOption:    "invalid_option",
	canceled:         "canceled",
	deadlineExceeded: "deadline_exceeded",
	panicked:         "panic",
	fnError:          "fn",
}

var sentinels = [errorTypes]error{
	notRecorded:      idempotent.ErrNotRecorded,
	leaseLost:        idempotent.ErrLeaseLost,
	inProgress:       idempotent.ErrInProgress,
	keyReused:        idempotent.ErrKeyReused,
	interrupted:      idempotent.ErrInterrupted,
	unavailable:      idempotent.ErrUnavailable,
	corruptRecord:    idempotent.ErrCorruptRecord,
	valueNotKept:     idempotent.ErrValueNotKept,
	notFound:         idempotent.ErrNotFound,
	alreadyRecorded:  idempotent.ErrAlreadyRecorded,
	closed:           idempotent.ErrClosed,
	invalidKey:       idempotent.ErrInvalidKey,
	invalidOption:    idempotent.ErrInvalidOption,
	canceled:         context.Canceled,
	deadlineExceeded: context.DeadlineExceeded,
}

// typeOf returns the type of an error that ended a call without an outcome, or an action of an operator.
func typeOf(err error) errorType {
	if err == nil {
		return noError
	}
	for t := notRecorded; t <= deadlineExceeded; t++ {
		if errors.Is(err, sentinels[t]) {
			return t
		}
	}
	return typeOfFn(err)
}

// typeOfOutcome returns the type of an error that came with fn's outcome. That of a nested executor is fn's.
func typeOfOutcome(err error) errorType {
	switch {
	case err == nil:
		return noError
	case errors.Is(err, idempotent.ErrNotRecorded):
		return notRecorded
	case errors.Is(err, idempotent.ErrLeaseLost):
		return leaseLost
	}
	return typeOfFn(err)
}

// typeOfFn returns the type of fn's error.
func typeOfFn(err error) errorType {
	if err == nil {
		return noError
	}
	if _, ok := errors.AsType[*idempotent.PanicError](err); ok {
		return panicked
	}
	switch {
	case errors.Is(err, context.Canceled):
		return canceled
	case errors.Is(err, context.DeadlineExceeded):
		return deadlineExceeded
	}
	return fnError
}

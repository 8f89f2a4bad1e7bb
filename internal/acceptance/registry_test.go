package acceptance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/idemtest"
)

// firstAndAgain records err and returns what the caller got that ran fn, and what one in another
// process gets later. The second one reads with its own registry.
func firstAndAgain(t *testing.T, writes, reads *idempotent.ErrorRegistry, err error) (first, again error) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		rdb := idemtest.NewRedis(t)
		_, first = executorOn[string](t, rdb, idempotent.WithErrors(writes)).Run(t.Context(), "key", returning("", err))
		_, again = executorOn[string](t, rdb, idempotent.WithErrors(reads)).Run(t.Context(), "key", forbidden[string](t))
	})
	require.Error(t, first)
	require.Error(t, again)
	assert.ErrorIs(t, again, idempotent.ErrReplayed)
	return first, again
}

// codeError is registered as a pointer type.
type codeError struct {
	Code   int
	Detail string
	Inner  error `json:"-"`
	note   string
}

func (e *codeError) Error() string { return fmt.Sprintf("code %d%s", e.Code, e.note) }
func (e *codeError) Unwrap() error { return e.Inner }

// limitError is registered as a value type.
type limitError struct {
	Limit  int `json:"l"`
	Reset  time.Time
	Tags   []string
	Nested struct{ A, B int }
}

func (e limitError) Error() string { return fmt.Sprintf("limit %d", e.Limit) }

// fieldError is registered as something else than a struct.
type fieldError string

func (e fieldError) Error() string { return "bad field " + string(e) }

// aliasError matches what it does not wrap.
type aliasError struct {
	is error
	as *codeError
}

func (e *aliasError) Error() string        { return "alias" }
func (e *aliasError) Is(target error) bool { return e.is != nil && target == e.is }
func (e *aliasError) As(target any) bool {
	p, ok := target.(**codeError)
	if ok && e.as != nil {
		*p = e.as
		return true
	}
	return false
}

// brokenError has methods that panic when it is nil.
type brokenError struct{ Text string }

func (e *brokenError) Error() string { return e.Text }

// strictError panics when it is unwrapped.
type strictError struct{}

func (strictError) Error() string { return "strict" }
func (strictError) Unwrap() error { panic("do not look") }

// uncomparableError makes == panic.
type uncomparableError struct{ parts []string }

func (e uncomparableError) Error() string { return strings.Join(e.parts, " ") }

var (
	errRefund     = errors.New("refund failed")
	errUnknown    = errors.New("not registered")
	errComparable = fieldError("comparable by value")
)

func knownErrors() *idempotent.ErrorRegistry {
	return idempotent.NewErrorRegistry(
		idempotent.Sentinel("declined", errDeclined),
		idempotent.Sentinel("refund", errRefund),
		idempotent.Sentinel("eof", io.EOF),
		idempotent.Sentinel("comparable", errComparable),
		idempotent.ErrorType[*codeError]("code"),
		idempotent.ErrorType[limitError]("limit"),
		idempotent.ErrorType[fieldError]("field"),
	)
}

func TestReplayedErrorMatchesAsTheFirst(t *testing.T) {
	code := &codeError{Code: 402, Detail: "insufficient funds"}
	limit := limitError{Limit: 3, Reset: time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC), Tags: []string{"a"}, Nested: struct{ A, B int }{1, 2}}
	tests := map[string]error{
		"sentinel":                        errDeclined,
		"sentinel, wrapped":               fmt.Errorf("charge: %w", errDeclined),
		"sentinel, 50 times wrapped":      wrapped(errDeclined, 50),
		"sentinel, joined":                errors.Join(errUnknown, errDeclined),
		"two sentinels, joined":           errors.Join(errDeclined, errRefund),
		"two sentinels, one text":         fmt.Errorf("%w while %w", errDeclined, errRefund),
		"joins in joins":                  errors.Join(errUnknown, fmt.Errorf("a: %w", errors.Join(io.EOF, fmt.Errorf("b: %w", errors.Join(errRefund, limit))))),
		"pointer type":                    code,
		"pointer type, wrapped":           fmt.Errorf("charge: %w", code),
		"value type":                      limit,
		"value type, joined":              errors.Join(errUnknown, limit, code),
		"value type behind a pointer":     &limit,
		"type that is no struct":          fmt.Errorf("request: %w", fieldError("amount")),
		"type that wraps a sentinel":      &codeError{Code: 1, Inner: errDeclined},
		"type that wraps its own":         &codeError{Code: 1, Inner: fmt.Errorf("x: %w", &codeError{Code: 2, Inner: limit})},
		"two of one type":                 errors.Join(fmt.Errorf("a: %w", limit), limitError{Limit: 9}),
		"two of one type, the first deep": errors.Join(wrapped(limit, 50), limitError{Limit: 9}),
		"behind 2,000 others":             errors.Join(append(slices.Repeat([]error{errUnknown}, 2000), errDeclined, limit)...),
		"2,000 times wrapped":             wrapped(errors.Join(errDeclined, limit), 2000),
		"unexported field is not carried": fmt.Errorf("charge: %w", &codeError{Code: 402, Detail: "x", note: " (note)"}),
		"own Is":                          fmt.Errorf("x: %w", &aliasError{is: errRefund}),
		"own As":                          fmt.Errorf("x: %w", &aliasError{as: code}),
		"own As that comes first":         errors.Join(&aliasError{as: code}, &codeError{Code: 5}),
		"own As that comes second":        errors.Join(&codeError{Code: 5}, &aliasError{as: code}),
		"own Is and As that say no":       &aliasError{},
		"unregistered":                    errUnknown,
		"unregistered, wrapped":           fmt.Errorf("x: %w", errUnknown),
		"unregistered type":               &fs.PathError{Op: "open", Path: "/x", Err: errUnknown},
		"sentinel equal by value":         fieldError("comparable by value"),
		"uncomparable beside a sentinel":  errors.Join(uncomparableError{[]string{"a", "b"}}, errDeclined),
		"empty text":                      errors.New(""),
		"text that is not UTF-8":          errors.New("\xff\xfe\x00"),
		"long text":                       errors.New(strings.Repeat("x", 1<<20)),
	}
	registry := knownErrors()
	for name, err := range tests {
		t.Run(name, func(t *testing.T) {
			first, again := firstAndAgain(t, registry, registry, err)
			assert.NotErrorIs(t, first, idempotent.ErrReplayed)
			assert.Equal(t, err.Error(), first.Error())
			assert.Equal(t, err.Error(), again.Error())
			for _, target := range []error{errDeclined, errRefund, io.EOF, errComparable} {
				assert.Equal(t, errors.Is(err, target), errors.Is(first, target), "first caller: %v", target)
				assert.Equal(t, errors.Is(err, target), errors.Is(again, target), "replay: %v", target)
			}
			assert.NotErrorIs(t, again, errUnknown, "nobody registered it")
			sameAs[*codeError](t, err, again, func(e *codeError) any { return []any{e.Code, e.Detail} })
			sameAs[limitError](t, err, again, func(e limitError) any { return e })
			sameAs[fieldError](t, err, again, func(e fieldError) any { return e })
		})
	}
}

func wrapped(err error, times int) error {
	for i := range times {
		err = fmt.Errorf("%d: %w", i, err)
	}
	return err
}

// sameAs checks that errors.As finds the same E, as far as it travels, in both.
func sameAs[E error](t *testing.T, first, again error, travels func(E) any) {
	t.Helper()
	want, found := errors.AsType[E](first)
	got, foundAgain := errors.AsType[E](again)
	if assert.Equal(t, found, foundAgain, "a %T", want) && found {
		assert.Equal(t, travels(want), travels(got))
	}
}

func TestReplayedTypesCarryExportedFields(t *testing.T) {
	_, again := firstAndAgain(t, knownErrors(), knownErrors(), fmt.Errorf("x: %w", &codeError{Code: 402, Detail: "funds", note: " kept here", Inner: errDeclined}))
	got, ok := errors.AsType[*codeError](again)
	require.True(t, ok)
	assert.Equal(t, &codeError{Code: 402, Detail: "funds"}, got)
	assert.Equal(t, "x: code 402 kept here", again.Error(), "the text is that of the first")
	assert.ErrorIs(t, again, errDeclined, "found beside it")
}

func TestEveryReplayGetsItsOwnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		registry := idempotent.NewErrorRegistry(idempotent.ErrorType[*codeError]("code"))
		e := executorOn[string](t, idemtest.NewRedis(t), idempotent.WithErrors(registry))
		original := &codeError{Code: 1, Detail: "original"}
		_, err := e.Run(t.Context(), "key", returning("", error(original)))
		first, ok := errors.AsType[*codeError](err)
		require.True(t, ok)
		assert.Same(t, original, first, "the one that ran fn gets its very error")
		first.Detail = "changed"
		for range 2 {
			_, err := e.Run(t.Context(), "key", forbidden[string](t))
			replayed, ok := errors.AsType[*codeError](err)
			require.True(t, ok)
			assert.Equal(t, "original", replayed.Detail)
			replayed.Detail = "changed"
		}
	})
}

// Callers in the same process that waited get what a later one gets.
func TestJoinedCallersGetTheReplayedError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := executorOn[string](t, idemtest.NewRedis(t), idempotent.WithErrors(knownErrors()))
		entered, leave := make(chan struct{}), make(chan struct{})
		go func() {
			_, _ = e.Run(t.Context(), "key", func(context.Context) (string, error) {
				close(entered)
				<-leave
				return "", fmt.Errorf("charge: %w", errors.Join(errDeclined, &codeError{Code: 1}))
			})
		}()
		<-entered
		joined := make(chan error, 1)
		go func() {
			_, err := e.Run(t.Context(), "key", forbidden[string](t))
			joined <- err
		}()
		synctest.Wait()
		close(leave)
		err := <-joined
		require.ErrorIs(t, err, errDeclined)
		assert.ErrorIs(t, err, idempotent.ErrReplayed)
		assert.EqualError(t, err, "charge: card declined\ncode 1")
		_, ok := errors.AsType[*codeError](err)
		assert.True(t, ok)
	})
}

func TestErrorsWithoutARegistryKeepTheirText(t *testing.T) {
	empty := idempotent.NewErrorRegistry()
	_, again := firstAndAgain(t, empty, empty, fmt.Errorf("charge: %w", errors.Join(errDeclined, &codeError{Code: 1})))
	assert.EqualError(t, again, "charge: card declined\ncode 1")
	assert.NotErrorIs(t, again, errDeclined)
	_, ok := errors.AsType[*codeError](again)
	assert.False(t, ok)
}

// A program that does not know the code yet, or not any more, or knows it as something else.
func TestReaderWithAnotherRegistry(t *testing.T) {
	err := fmt.Errorf("charge: %w", errors.Join(errDeclined, &codeError{Code: 402}))
	const text = "charge: card declined\ncode 402"

	t.Run("unknown codes", func(t *testing.T) {
		_, again := firstAndAgain(t, knownErrors(), idempotent.NewErrorRegistry(), err)
		assert.EqualError(t, again, text)
		assert.NotErrorIs(t, again, errDeclined)
	})
	t.Run("one code is known", func(t *testing.T) {
		reads := idempotent.NewErrorRegistry(idempotent.ErrorType[*codeError]("code"))
		_, again := firstAndAgain(t, knownErrors(), reads, err)
		assert.EqualError(t, again, text)
		assert.NotErrorIs(t, again, errDeclined)
		found, ok := errors.AsType[*codeError](again)
		require.True(t, ok)
		assert.Equal(t, 402, found.Code)
	})
	t.Run("type that does not fit any more", func(t *testing.T) {
		reads := idempotent.NewErrorRegistry(idempotent.Sentinel("declined", errDeclined), idempotent.ErrorType[fieldError]("code"))
		_, again := firstAndAgain(t, knownErrors(), reads, err)
		assert.EqualError(t, again, text)
		assert.ErrorIs(t, again, errDeclined, "the others are not affected")
		_, ok := errors.AsType[fieldError](again)
		assert.False(t, ok)
	})
	t.Run("type whose UnmarshalJSON panics", func(t *testing.T) {
		reads := idempotent.NewErrorRegistry(idempotent.Sentinel("declined", errDeclined), idempotent.ErrorType[*fragileError]("code"))
		_, again := firstAndAgain(t, knownErrors(), reads, err)
		assert.EqualError(t, again, text)
		assert.ErrorIs(t, again, errDeclined)
	})
}

type fragileError struct{}

func (*fragileError) Error() string                { return "fragile" }
func (*fragileError) UnmarshalJSON([]byte) error   { panic("cannot") }
func (*fragileError) MarshalJSON() ([]byte, error) { panic("cannot") }

var _ json.Marshaler = (*fragileError)(nil)

func TestErrorsThatPanic(t *testing.T) {
	registry := idempotent.NewErrorRegistry(
		idempotent.Sentinel("declined", errDeclined),
		idempotent.ErrorType[*brokenError]("broken"),
		idempotent.ErrorType[*fragileError]("fragile"),
		idempotent.ErrorType[limitError]("limit"),
	)
	t.Run("typed nil", func(t *testing.T) {
		_, again := firstAndAgain(t, registry, registry, (*brokenError)(nil))
		assert.ErrorContains(t, again, "*acceptance.brokenError")
	})
	t.Run("typed nil, joined", func(t *testing.T) {
		_, again := firstAndAgain(t, registry, registry, &quietJoin{[]error{(*brokenError)(nil), errDeclined, limitError{Limit: 1}}})
		assert.EqualError(t, again, "quiet")
		assert.ErrorIs(t, again, errDeclined)
		_, ok := errors.AsType[limitError](again)
		assert.True(t, ok)
	})
	t.Run("does not encode", func(t *testing.T) {
		_, again := firstAndAgain(t, registry, registry, errors.Join(&fragileError{}, errDeclined))
		assert.EqualError(t, again, "fragile\ncard declined")
		assert.ErrorIs(t, again, errDeclined, "the others are not affected")
	})
	t.Run("cannot be looked into", func(t *testing.T) {
		_, again := firstAndAgain(t, registry, registry, strictError{})
		assert.EqualError(t, again, "strict")
	})
	t.Run("cannot be looked into, behind others", func(t *testing.T) {
		_, again := firstAndAgain(t, registry, registry, &quietJoin{[]error{errDeclined, limitError{Limit: 1}, strictError{}}})
		assert.EqualError(t, again, "quiet")
		assert.ErrorIs(t, again, errDeclined)
		_, ok := errors.AsType[limitError](again)
		assert.True(t, ok, "errors.As found it for the first caller, before it came to the one that panics")
	})
}

type quietJoin struct{ errs []error }

func (*quietJoin) Error() string     { return "quiet" }
func (e *quietJoin) Unwrap() []error { return e.errs }

// A loopError wraps itself. It counts how often it is unwrapped, and gives up before the test
// would hang.
type loopError struct {
	Code    int
	unwraps *int
}

func (e *loopError) Error() string { return "loop" }

func (e *loopError) Unwrap() error {
	if *e.unwraps++; *e.unwraps > maxUnwraps {
		panic("unwrapped without end")
	}
	return e
}

const maxUnwraps = 100_000

// Somebody who asks for a type that is not in a loop hangs, but that is not this library's doing:
// recording the error must end.
func TestErrorThatWrapsItself(t *testing.T) {
	tests := map[string]idempotent.ErrorDef{
		"its type is registered":      idempotent.ErrorType[*loopError]("loop"),
		"another type is registered":  idempotent.ErrorType[*codeError]("code"),
		"another value is registered": idempotent.Sentinel("declined", errDeclined),
	}
	for name, def := range tests {
		t.Run(name, func(t *testing.T) {
			unwraps := 0
			registry := idempotent.NewErrorRegistry(def)
			_, again := firstAndAgain(t, registry, registry, &loopError{Code: 7, unwraps: &unwraps})
			assert.EqualError(t, again, "loop")
			assert.LessOrEqual(t, unwraps, maxUnwraps, "the walk has no end")
			if found, ok := errors.AsType[*loopError](again); name == "its type is registered" && assert.True(t, ok) {
				assert.Equal(t, 7, found.Code)
			}
		})
	}
}

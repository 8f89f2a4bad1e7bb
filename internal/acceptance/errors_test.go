package acceptance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/idemtest"
)

var sentinels = []error{
	idempotent.ErrInProgress, idempotent.ErrKeyReused, idempotent.ErrInterrupted, idempotent.ErrLeaseLost,
	idempotent.ErrNotRecorded, idempotent.ErrUnavailable, idempotent.ErrCorruptRecord, idempotent.ErrAlreadyRecorded,
	idempotent.ErrInvalidKey, idempotent.ErrInvalidOption, idempotent.ErrClosed, idempotent.ErrReplayed,
}

var errDeclined = errors.New("card declined")

// Each way to fail gives the errors it should, and none of the others.
func TestEachFailureHasItsError(t *testing.T) {
	type stage struct {
		*testing.T
		rdb *idemtest.Redis
		e   *idempotent.Executor[string]
	}
	tests := []struct {
		name string
		fail func(s stage) (string, error)
		want []error
		// beside the error
		value string
	}{
		{"wait timeout", func(s stage) (value string, err error) {
			_, _ = executorOn[string](s, s.rdb).Run(s.Context(), "key", func(context.Context) (string, error) {
				value, err = s.e.Run(s.Context(), "key", forbidden[string](s), idempotent.WithWaitTimeout(time.Second))
				return "", nil
			})
			return value, err
		}, []error{idempotent.ErrInProgress}, ""},
		{"no wait", func(s stage) (value string, err error) {
			_, _ = s.e.Run(s.Context(), "key", func(context.Context) (string, error) {
				value, err = s.e.Run(s.Context(), "key", forbidden[string](s), idempotent.WithNoWait())
				return "", nil
			})
			return value, err
		}, []error{idempotent.ErrInProgress}, ""},
		{"inside its own fn", func(s stage) (value string, err error) {
			_, _ = s.e.Run(s.Context(), "key", func(ctx context.Context) (string, error) {
				value, err = s.e.Run(ctx, "key", forbidden[string](s))
				return "", nil
			})
			return value, err
		}, []error{idempotent.ErrInProgress}, ""},
		{"other fingerprint", func(s stage) (string, error) {
			_, err := s.e.Run(s.Context(), "key", returning("a", nil), idempotent.WithFingerprint([]byte("a")))
			require.NoError(s, err)
			return s.e.Run(s.Context(), "key", forbidden[string](s), idempotent.WithFingerprint([]byte("b")))
		}, []error{idempotent.ErrKeyReused}, ""},
		{"interrupted", func(s stage) (string, error) {
			interrupt(s, s.e)
			return s.e.Run(s.Context(), "key", forbidden[string](s), idempotent.WithInterrupted(idempotent.Refuse))
		}, []error{idempotent.ErrInterrupted}, ""},
		{"overtaken", func(s stage) (string, error) {
			return s.e.Run(s.Context(), "key", func(context.Context) (string, error) {
				overtake(s, s.rdb)
				return "mine", nil
			})
		}, []error{idempotent.ErrLeaseLost}, "mine"},
		{"overtaken, with an error", func(s stage) (string, error) {
			return s.e.Run(s.Context(), "key", func(context.Context) (string, error) {
				overtake(s, s.rdb)
				return "mine", errDeclined
			})
		}, []error{idempotent.ErrLeaseLost, errDeclined}, ""},
		{"commit fails", func(s stage) (string, error) {
			return s.e.Run(s.Context(), "key", func(context.Context) (string, error) {
				s.rdb.Fail("ERR out of order")
				return "mine", nil
			})
		}, []error{idempotent.ErrNotRecorded}, "mine"},
		{"commit fails, with an error", func(s stage) (string, error) {
			return s.e.Run(s.Context(), "key", func(context.Context) (string, error) {
				s.rdb.Fail("ERR out of order")
				return "mine", errDeclined
			})
		}, []error{idempotent.ErrNotRecorded, errDeclined}, ""},
		{"claim fails", func(s stage) (string, error) {
			s.rdb.Fail("ERR out of order")
			return s.e.Run(s.Context(), "key", forbidden[string](s))
		}, []error{idempotent.ErrUnavailable}, ""},
		{"no record", func(s stage) (string, error) {
			require.NoError(s, s.rdb.Set(s.Context(), "idempotent:default:key", "hello", 0).Err())
			return s.e.Run(s.Context(), "key", forbidden[string](s))
		}, []error{idempotent.ErrCorruptRecord}, ""},
		{"resolved twice", func(s stage) (string, error) {
			require.NoError(s, resolve(s.e, s.Context(), "key", "a"))
			return "", resolve(s.e, s.Context(), "key", "b")
		}, []error{idempotent.ErrAlreadyRecorded}, ""},
		{"bad key", func(s stage) (string, error) {
			return s.e.Run(s.Context(), "", forbidden[string](s))
		}, []error{idempotent.ErrInvalidKey}, ""},
		{"bad option", func(s stage) (string, error) {
			return s.e.Run(s.Context(), "key", forbidden[string](s), idempotent.WithTTL(-1))
		}, []error{idempotent.ErrInvalidOption}, ""},
		{"no fn", func(s stage) (string, error) {
			return s.e.Run(s.Context(), "key", nil)
		}, []error{idempotent.ErrInvalidOption}, ""},
		{"closed", func(s stage) (string, error) {
			require.NoError(s, s.e.Close())
			return s.e.Run(s.Context(), "key", forbidden[string](s))
		}, []error{idempotent.ErrClosed}, ""},
		{"replayed", func(s stage) (string, error) {
			_, _ = s.e.Run(s.Context(), "key", returning("", errDeclined))
			return s.e.Run(s.Context(), "key", forbidden[string](s))
		}, []error{idempotent.ErrReplayed}, ""},
		{"fn's own error", func(s stage) (string, error) {
			return s.e.Run(s.Context(), "key", returning("", errDeclined))
		}, []error{errDeclined}, ""},
		{"fn's context ended", func(s stage) (string, error) {
			ctx, cancel := context.WithCancel(s.Context())
			return s.e.Run(ctx, "key", func(ctx context.Context) (string, error) {
				cancel()
				return "", ctx.Err()
			})
		}, []error{context.Canceled}, ""},
		{"context ended before", func(s stage) (string, error) {
			ctx, cancel := context.WithCancelCause(s.Context())
			cancel(io.ErrClosedPipe)
			return s.e.Run(ctx, "key", forbidden[string](s))
		}, []error{context.Canceled, io.ErrClosedPipe}, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rdb := idemtest.NewRedis(t)
				value, err := test.fail(stage{t, rdb, executorOn[string](t, rdb)})
				rdb.Fail("")
				require.Error(t, err)
				assert.Equal(t, test.value, value)
				for _, target := range test.want {
					assert.ErrorIs(t, err, target)
					if target != idempotent.ErrReplayed { // it has the text of the first
						assert.ErrorContains(t, err, target.Error())
					}
				}
				for _, target := range sentinels {
					if !slices.Contains(test.want, target) {
						assert.NotErrorIs(t, err, target)
					}
				}
			})
		})
	}
}

// interrupt leaves an execution of "key" without an outcome.
func interrupt(t testing.TB, e *idempotent.Executor[string]) {
	ctx, cancel := context.WithCancel(t.Context())
	_, err := e.Run(ctx, "key", func(ctx context.Context) (string, error) {
		cancel()
		return "", ctx.Err()
	})
	require.ErrorIs(t, err, context.Canceled)
}

// overtake has another process finish "key" while its owner runs.
func overtake(t testing.TB, rdb *idemtest.Redis) {
	other := executorOn[string](t, rdb)
	require.NoError(t, other.Forget(t.Context(), "key"))
	_, err := other.Run(t.Context(), "key", returning("theirs", nil))
	require.NoError(t, err)
}

func TestSentinelsAreDistinct(t *testing.T) {
	texts := make(map[string]bool)
	for _, err := range sentinels {
		assert.False(t, texts[err.Error()], "two sentinels say %q", err)
		texts[err.Error()] = true
		assert.Contains(t, err.Error(), "idempotent: ")
		for _, other := range sentinels {
			if err != other { //nolint:errorlint // the very one
				assert.NotErrorIs(t, err, other)
			}
		}
	}
}

func TestInProgressErrorSaysWhenToRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := idemtest.NewRedis(t)
		owner := executorOn[string](t, rdb, idempotent.WithLease(30*time.Second))
		other := executorOn[string](t, rdb)
		_, err := owner.Run(t.Context(), "key", func(context.Context) (string, error) {
			for name, e := range map[string]*idempotent.Executor[string]{"same process": owner, "other process": other} {
				_, err := e.Run(t.Context(), "key", forbidden[string](t), idempotent.WithNoWait())
				busy, ok := errors.AsType[*idempotent.InProgressError](err)
				require.True(t, ok, name)
				assert.Equal(t, 30*time.Second, busy.RetryAfter, name)
				assert.ErrorIs(t, fmt.Errorf("wrapped: %w", err), idempotent.ErrInProgress, name)
				assert.ErrorContains(t, err, "30s", name)
			}
			_, err := other.Run(t.Context(), "key", forbidden[string](t), idempotent.WithWaitTimeout(4*time.Second))
			busy, ok := errors.AsType[*idempotent.InProgressError](err)
			require.True(t, ok)
			assert.Equal(t, 26*time.Second, busy.RetryAfter, "what is left after the wait")
			return "", nil
		})
		require.NoError(t, err)
	})
}

func TestPanicErrorOfAReplay(t *testing.T) {
	tests := map[string]struct {
		value any
		text  string
	}{
		"text":              {"boom", "boom"},
		"number":            {42, "42"},
		"error":             {errDeclined, "card declined"},
		"nil":               {nil, "panic called with nil argument"},
		"error that is nil": {(*brokenError)(nil), "nil"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rdb := idemtest.NewRedis(t)
				e := executorOn[string](t, rdb)
				first := func() { _, _ = e.Run(t.Context(), "key", func(context.Context) (string, error) { panic(test.value) }) }
				if test.value != nil {
					assert.PanicsWithValue(t, test.value, first, "the one that ran fn gets the panic itself")
				} else {
					assert.Panics(t, first)
				}

				_, err := executorOn[string](t, rdb).Run(t.Context(), "key", forbidden[string](t))
				panicked, ok := errors.AsType[*idempotent.PanicError](err)
				require.True(t, ok)
				assert.ErrorIs(t, err, idempotent.ErrReplayed)
				assert.Contains(t, panicked.Value, test.text)
				assert.ErrorContains(t, err, test.text)
				assert.Equal(t, panicked.Error(), err.Error())
				assert.Contains(t, string(panicked.Stack), "TestPanicErrorOfAReplay")
				assert.LessOrEqual(t, len(panicked.Stack), 4<<10)
				assert.NotContains(t, err.Error(), "goroutine")
			})
		})
	}
}

func TestPanicErrorOfAReplayHasAShortStack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := executorOn[string](t, idemtest.NewRedis(t))
		assert.Panics(t, func() {
			_, _ = e.Run(t.Context(), "key", func(context.Context) (string, error) {
				fall(200)
				return "", nil
			})
		})
		_, err := e.Run(t.Context(), "key", forbidden[string](t))
		panicked, ok := errors.AsType[*idempotent.PanicError](err)
		require.True(t, ok)
		assert.Len(t, panicked.Stack, 4<<10)
	})
}

func fall(depth int) {
	if depth == 0 {
		panic("bottom")
	}
	fall(depth - 1)
}

func TestPanicErrorUnwrapsAnErrorValue(t *testing.T) {
	assert.ErrorIs(t, &idempotent.PanicError{Value: fmt.Errorf("wrapped: %w", errDeclined)}, errDeclined)
	assert.NoError(t, (&idempotent.PanicError{Value: "text"}).Unwrap())
}

func TestHookErrorNamesTheHook(t *testing.T) {
	type panics struct {
		name  string
		hooks idempotent.Hooks[string]
		opts  []idempotent.RunOption
		fnErr error
	}
	onValue := func(context.Context, string, string) string { panic(io.ErrClosedPipe) }
	onError := func(context.Context, string, error) error { panic(io.ErrClosedPipe) }
	tests := []panics{
		{"OnActionSuccess", idempotent.Hooks[string]{OnActionSuccess: onValue}, nil, nil},
		{"OnActionError", idempotent.Hooks[string]{OnActionError: onError}, nil, errDeclined},
		{"OnSuccessReplay", idempotent.Hooks[string]{OnSuccessReplay: onValue}, nil, nil},
		{"OnErrorReplay", idempotent.Hooks[string]{OnErrorReplay: onError}, nil, errDeclined},
		{"ShouldIgnoreError", idempotent.Hooks[string]{}, []idempotent.RunOption{
			idempotent.WithShouldIgnoreError(func(error) bool { panic(io.ErrClosedPipe) }),
		}, errDeclined},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rdb := idemtest.NewRedis(t)
				registry := idempotent.NewErrorRegistry(idempotent.Sentinel("declined", errDeclined))
				e := executorOn[string](t, rdb, idempotent.WithHooks(test.hooks), idempotent.WithErrors(registry))
				value, err := e.Run(t.Context(), "key", returning("charged", test.fnErr), test.opts...)
				if _, ok := errors.AsType[*idempotent.HookError](err); !ok { // a hook of replays
					value, err = e.Run(t.Context(), "key", forbidden[string](t), test.opts...)
				}
				hookErr, ok := errors.AsType[*idempotent.HookError](err)
				require.True(t, ok)
				assert.Equal(t, test.name, hookErr.Hook)
				assert.Equal(t, io.ErrClosedPipe, hookErr.Value)
				assert.ErrorIs(t, err, io.ErrClosedPipe, "what it panicked with")
				assert.ErrorContains(t, err, test.name)
				if test.fnErr == nil {
					assert.Equal(t, "charged", value, "the value it was given")
					assert.NoError(t, hookErr.Err)
				} else {
					assert.ErrorIs(t, err, errDeclined, "the error it was given")
					assert.ErrorContains(t, err, "card declined")
					require.ErrorIs(t, hookErr.Err, errDeclined)
				}

				// What is recorded is what fn returned.
				_, err = executorOn[string](t, rdb, idempotent.WithErrors(registry)).Run(t.Context(), "key", forbidden[string](t))
				if test.fnErr == nil {
					assert.NoError(t, err)
				} else {
					assert.EqualError(t, err, "card declined")
					assert.ErrorIs(t, err, errDeclined)
				}
			})
		})
	}
}

// temporaryError answers for itself whether another try is worth it.
type temporaryError struct{ again bool }

func (e temporaryError) Error() string   { return fmt.Sprintf("temporary: %v", e.again) }
func (e temporaryError) Retryable() bool { return e.again }

func TestIsRetryable(t *testing.T) {
	yes, no := temporaryError{true}, temporaryError{false}
	tests := map[string]struct {
		err  error
		want bool
	}{
		"nil":                              {nil, false},
		"plain":                            {errDeclined, false},
		"marked":                           {idempotent.Retryable(errDeclined), true},
		"marked, then wrapped":             {fmt.Errorf("charge: %w", idempotent.Retryable(errDeclined)), true},
		"marked, then joined":              {errors.Join(errDeclined, idempotent.Retryable(io.EOF)), true},
		"joined, then marked":              {idempotent.Retryable(errors.Join(errDeclined, io.EOF)), true},
		"wrapped twice with two":           {fmt.Errorf("%w, %w", errDeclined, fmt.Errorf("deep: %w", idempotent.Retryable(io.EOF))), true},
		"says yes":                         {yes, true},
		"says yes, wrapped":                {fmt.Errorf("charge: %w", yes), true},
		"says no":                          {no, false},
		"says no, marked":                  {idempotent.Retryable(no), true},
		"says no, joined before a marked":  {errors.Join(no, idempotent.Retryable(errDeclined)), true},
		"says no, joined behind a marked":  {errors.Join(idempotent.Retryable(errDeclined), no), true},
		"two that say no":                  {errors.Join(no, fmt.Errorf("deep: %w", no)), false},
		"timeout":                          {context.DeadlineExceeded, false},
		"this library's":                   {idempotent.ErrUnavailable, false},
		"panic with a marked error inside": {&idempotent.PanicError{Value: idempotent.Retryable(errDeclined)}, true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, test.want, idempotent.IsRetryable(test.err))
		})
	}
}

func TestRetryableChangesNothingElse(t *testing.T) {
	require.NoError(t, idempotent.Retryable(nil))
	inner := &codeError{Code: 7}
	err := idempotent.Retryable(fmt.Errorf("charge: %w", errors.Join(errDeclined, inner)))
	assert.EqualError(t, err, "charge: card declined\ncode 7")
	assert.ErrorIs(t, err, errDeclined)
	found, ok := errors.AsType[*codeError](err)
	require.True(t, ok)
	assert.Same(t, inner, found)
	assert.NotErrorIs(t, err, io.EOF)
}

// A marked error that is recorded all the same is replayed with its text and its matches.
func TestRetryableErrorReplays(t *testing.T) {
	registry := idempotent.NewErrorRegistry(idempotent.Sentinel("declined", errDeclined))
	first, again := firstAndAgain(t, registry, registry, idempotent.Retryable(errDeclined))
	assert.Equal(t, first.Error(), again.Error())
	assert.ErrorIs(t, again, errDeclined)
}

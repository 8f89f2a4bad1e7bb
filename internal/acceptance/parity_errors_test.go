package acceptance

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/idemtest"
)

// run(key, action, {errorSerializer}): name and message there; text and matches here.
func TestParityErrorSerializer(t *testing.T) {
	err := fmt.Errorf("charge order 42: %w", &codeError{Code: 402, Detail: "insufficient funds", Inner: errDeclined})
	first, again := firstAndAgain(t, knownErrors(), knownErrors(), err)
	assert.NotErrorIs(t, first, idempotent.ErrReplayed)
	assert.EqualError(t, again, "charge order 42: code 402")
	assert.ErrorIs(t, again, errDeclined)
	code, ok := errors.AsType[*codeError](again)
	require.True(t, ok)
	assert.Equal(t, "insufficient funds", code.Detail)
}

// shouldIgnoreError(error): an ignored error is not recorded.
func TestParityShouldIgnoreError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := executorOn[string](t, idemtest.NewRedis(t),
			idempotent.WithShouldIgnoreError(func(err error) bool { return errors.Is(err, errDeclined) }))
		for range 2 {
			_, err := e.Run(t.Context(), "key", returning("", fmt.Errorf("charge: %w", errDeclined)))
			require.ErrorIs(t, err, errDeclined)
			assert.NotErrorIs(t, err, idempotent.ErrReplayed)
		}
		v, err := e.Run(t.Context(), "key", returning("charged", nil))
		require.NoError(t, err)
		assert.Equal(t, "charged", v)

		_, err = e.Run(t.Context(), "other", returning("", errRefund))
		require.ErrorIs(t, err, errRefund)
		_, err = e.Run(t.Context(), "other", forbidden[string](t))
		assert.ErrorIs(t, err, idempotent.ErrReplayed, "another error is recorded")
	})
}

// There, all ten callers run an action that fails with an ignored error, one after the other. Here
// the callers that wait may share it.
func TestParityIgnoredErrorIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := executorOn[string](t, idemtest.NewRedis(t), idempotent.WithIgnoredErrors(idempotent.ShareWithWaiters),
			idempotent.WithShouldIgnoreError(func(error) bool { return true }))
		var mu sync.Mutex
		runs := 0
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				_, err := e.Run(t.Context(), "key", func(context.Context) (string, error) {
					mu.Lock()
					runs++
					mu.Unlock()
					<-time.After(time.Second)
					return "", errDeclined
				})
				assert.EqualError(t, err, "card declined")
			})
		}
		wg.Wait()
		assert.Equal(t, 1, runs)
		v, err := e.Run(t.Context(), "key", returning("charged", nil))
		require.NoError(t, err)
		assert.Equal(t, "charged", v, "later callers run it")
	})
}

// IdempotentExecutorErrorBase: there is no common type. What a caller asks is whether fn ran, and
// that is for the errors below to say.
func TestParityErrorsTellWhetherFnRan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := idemtest.NewRedis(t)
		e := executorOn[string](t, rdb)
		ran := false
		fn := func(context.Context) (string, error) {
			ran = true
			rdb.Fail("ERR no more room")
			return "charged", nil
		}
		rdb.Fail("ERR no more room")
		_, err := e.Run(t.Context(), "key", fn)
		require.ErrorIs(t, err, idempotent.ErrUnavailable)
		assert.False(t, ran)
		rdb.Fail("")
		v, err := e.Run(t.Context(), "key", fn)
		require.ErrorIs(t, err, idempotent.ErrNotRecorded)
		assert.True(t, ran)
		assert.Equal(t, "charged", v)
	})
}

// CriticalError: the action ran and its result could not be saved. The result is not lost here.
func TestParityCriticalError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := idemtest.NewRedis(t)
		e := executorOn[string](t, rdb)
		v, err := e.Run(t.Context(), "key", func(context.Context) (string, error) {
			rdb.Fail("ERR no more room")
			return "charged", nil
		})
		require.ErrorIs(t, err, idempotent.ErrNotRecorded)
		assert.Equal(t, "charged", v)

		// Redis is away for less than it takes to give up.
		rdb.Fail("")
		v, err = e.Run(t.Context(), "other", func(context.Context) (string, error) {
			rdb.Fail("ERR no more room")
			time.AfterFunc(5*time.Second, func() { rdb.Fail("") })
			return "charged", nil
		})
		require.NoError(t, err)
		assert.Equal(t, "charged", v)
		v, err = e.Run(t.Context(), "other", forbidden[string](t))
		require.NoError(t, err)
		assert.Equal(t, "charged", v)
	})
}

// CacheError: the cache could not be read. The action does not run.
func TestParityCacheError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := idemtest.NewRedis(t)
		e := executorOn[string](t, rdb)
		rdb.Fail("ERR no more room")
		_, err := e.Run(t.Context(), "key", forbidden[string](t))
		require.ErrorIs(t, err, idempotent.ErrUnavailable)
		assert.ErrorContains(t, err, "no more room")
		rdb.Fail("")
		require.NoError(t, rdb.Set(t.Context(), "idempotent:default:key", "hello", time.Hour).Err())
		_, err = e.Run(t.Context(), "key", forbidden[string](t))
		require.ErrorIs(t, err, idempotent.ErrCorruptRecord)
	})
}

// SerializationError: in two directions.
func TestParitySerializationError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := idemtest.NewRedis(t)
		v, err := executorOn[any](t, rdb).Run(t.Context(), "in", returning(any(func() {}), nil))
		require.ErrorIs(t, err, idempotent.ErrNotRecorded)
		assert.NotNil(t, v, "the value is returned")

		_, err = executorOn[string](t, rdb).Run(t.Context(), "out", returning("charged", nil))
		require.NoError(t, err)
		_, err = executorOn[receipt](t, rdb).Run(t.Context(), "out", forbidden[receipt](t))
		require.ErrorIs(t, err, idempotent.ErrCorruptRecord)
	})
}

// CallbackError, with its callback: a callback threw. The value is not lost here.
func TestParityCallbackError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := idemtest.NewRedis(t)
		e := executorOn[string](t, rdb, idempotent.WithHooks(idempotent.Hooks[string]{
			OnActionSuccess: func(context.Context, string, string) string { panic(errRefund) },
		}))
		v, err := e.Run(t.Context(), "key", returning("charged", nil))
		hookErr, ok := errors.AsType[*idempotent.HookError](err)
		require.True(t, ok)
		assert.Equal(t, "OnActionSuccess", hookErr.Hook)
		assert.ErrorIs(t, err, errRefund)
		assert.Equal(t, "charged", v)
		v, err = e.Run(t.Context(), "key", forbidden[string](t))
		require.NoError(t, err, "the result is recorded")
		assert.Equal(t, "charged", v)
	})
}

// NonErrorWrapperError: the action threw what is no error. Here it panicked with it.
func TestParityNonErrorWrapperError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := executorOn[string](t, idemtest.NewRedis(t))
		assert.PanicsWithValue(t, 42, func() {
			_, _ = e.Run(t.Context(), "key", func(context.Context) (string, error) { panic(42) })
		})
		_, err := e.Run(t.Context(), "key", forbidden[string](t))
		panicked, ok := errors.AsType[*idempotent.PanicError](err)
		require.True(t, ok)
		assert.Equal(t, "42", panicked.Value)
		assert.ErrorIs(t, err, idempotent.ErrReplayed)
	})
}

// UnknownError: among others, the lock was not got in time.
func TestParityUnknownError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := idemtest.NewRedis(t)
		other := executorOn[string](t, rdb)
		_, err := executorOn[string](t, rdb).Run(t.Context(), "key", func(context.Context) (string, error) {
			_, err := other.Run(t.Context(), "key", forbidden[string](t), idempotent.WithWaitTimeout(2*time.Second))
			require.ErrorIs(t, err, idempotent.ErrInProgress)
			busy, ok := errors.AsType[*idempotent.InProgressError](err)
			require.True(t, ok)
			assert.Equal(t, 8*time.Second, busy.RetryAfter)
			return "", nil
		})
		require.NoError(t, err)
	})
}

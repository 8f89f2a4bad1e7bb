package idempotent_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/idemtest"
)

// What holds, one test for each line. Read these first. They run in fake time, on a Redis in memory; the
// tests in internal/acceptance show the same, and much more, on real servers and with real processes.

// start returns a Redis and an executor of strings on it, as one process has them.
func start(t *testing.T, opts ...idempotent.Option) (*idemtest.Redis, *idempotent.Executor[string]) {
	t.Helper()
	rdb := idemtest.NewRedis(t)
	return rdb, another(t, rdb, opts...)
}

// another returns the executor of another process.
func another(t *testing.T, rdb *idemtest.Redis, opts ...idempotent.Option) *idempotent.Executor[string] {
	t.Helper()
	x, err := idempotent.New[string](rdb, "payments", opts...)
	require.NoError(t, err)
	t.Cleanup(func() { _ = x.Close() })
	return x
}

// counting returns an fn that counts its runs.
func counting(runs *int, value string, err error) func(context.Context) (string, error) {
	return func(context.Context) (string, error) {
		*runs++
		return value, err
	}
}

func TestOneCallerRunsFn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb, one := start(t)
		other, runs := another(t, rdb), 0
		var all sync.WaitGroup
		for _, x := range []*idempotent.Executor[string]{one, one, other, other} {
			all.Go(func() {
				v, err := x.Run(t.Context(), "order-42", counting(&runs, "ch_1", nil))
				require.NoError(t, err)
				require.Equal(t, "ch_1", v)
			})
		}
		all.Wait()
		require.Equal(t, 1, runs)
	})
}

func TestLaterCallersGetTheSameValue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb, one := start(t, idempotent.WithTTL(time.Hour))
		runs := 0
		_, _ = one.Run(t.Context(), "order-42", counting(&runs, "ch_1", nil))
		v, err := another(t, rdb).Run(t.Context(), "order-42", counting(&runs, "ch_2", nil))
		require.NoError(t, err)
		require.Equal(t, "ch_1", v)
		time.Sleep(time.Hour + time.Millisecond)
		v, _ = one.Run(t.Context(), "order-42", counting(&runs, "ch_3", nil))
		require.Equal(t, "ch_3", v)
	})
}

func TestErrorsAreOutcomes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		declined := errors.New("card declined")
		_, x := start(t, idempotent.WithErrors(idempotent.NewErrorRegistry(idempotent.Sentinel("declined", declined))))
		runs := 0
		_, _ = x.Run(t.Context(), "order-42", counting(&runs, "", declined))
		_, err := x.Run(t.Context(), "order-42", counting(&runs, "", nil))
		require.ErrorIs(t, err, declined)
		require.ErrorIs(t, err, idempotent.ErrReplayed)
		require.Equal(t, 1, runs)
	})
}

func TestIgnoredErrorsFreeTheKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, x := start(t, idempotent.WithShouldIgnoreError(idempotent.IsRetryable))
		runs := 0
		_, _ = x.Run(t.Context(), "order-42", counting(&runs, "", idempotent.Retryable(errors.New("rate limit"))))
		v, err := x.Run(t.Context(), "order-42", counting(&runs, "ch_1", nil))
		require.NoError(t, err)
		require.Equal(t, "ch_1", v)
	})
}

func TestUnknownOutcomesAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, x := start(t)
		runs, attempt := 0, 0
		_, _ = x.Run(t.Context(), "order-42", counting(&runs, "", idempotent.OutcomeUnknown(errors.New("connection reset"))))
		_, _ = x.Run(t.Context(), "order-42", func(ctx context.Context) (string, error) {
			info, _ := idempotent.RunInfoFromContext(ctx)
			attempt = info.Attempt
			return "ch_1", nil
		})
		require.Equal(t, 2, attempt, "ask the provider first")
	})
}

func TestUnknownOutcomesCanBeRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, x := start(t, idempotent.WithInterrupted(idempotent.Refuse))
		runs := 0
		_, _ = x.Run(t.Context(), "order-42", counting(&runs, "", idempotent.OutcomeUnknown(errors.New("connection reset"))))
		_, err := x.Run(t.Context(), "order-42", counting(&runs, "ch_1", nil))
		require.ErrorIs(t, err, idempotent.ErrInterrupted)
		_, err = x.Resolve(t.Context(), "order-42", "ch_1, says the provider")
		require.NoError(t, err)
		v, _ := x.Run(t.Context(), "order-42", counting(&runs, "ch_2", nil))
		require.Equal(t, "ch_1, says the provider", v)
	})
}

func TestAnotherRequestUnderTheKeyIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, x := start(t)
		runs := 0
		_, _ = x.Run(t.Context(), "order-42", counting(&runs, "ch_1", nil), idempotent.WithFingerprint([]byte("42 EUR")))
		_, err := x.Run(t.Context(), "order-42", counting(&runs, "ch_2", nil), idempotent.WithFingerprint([]byte("99 EUR")))
		require.ErrorIs(t, err, idempotent.ErrKeyReused)
	})
}

func TestFnDoesNotRunWithoutRedis(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb, x := start(t)
		rdb.Fail("LOADING the dataset")
		runs := 0
		_, err := x.Run(t.Context(), "order-42", counting(&runs, "ch_1", nil))
		require.ErrorIs(t, err, idempotent.ErrUnavailable)
		require.Zero(t, runs)
	})
}

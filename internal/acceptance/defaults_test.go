package acceptance

import (
	"context"
	"log/slog"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/idemtest"
)

func TestGoodOptions(t *testing.T) {
	for name, opt := range map[string]idempotent.Option{
		"shortest lease":         idempotent.WithLease(idempotent.MinLease),
		"shortest TTL":           idempotent.WithTTL(time.Millisecond),
		"shortest error TTL":     idempotent.WithErrorTTL(time.Millisecond),
		"shortest wait":          idempotent.WithWaitTimeout(1),
		"no message":             idempotent.WithMessageLimit(0),
		"smallest cache":         idempotent.WithReplayCache(1),
		"no fingerprint":         idempotent.WithFingerprint(nil),
		"nothing to ignore":      idempotent.WithShouldIgnoreError(nil),
		"logger":                 idempotent.WithLogger(slog.Default()),
		"own codec of that type": idempotent.WithCodec[string](codecOf[string]{}),
		"no hooks":               idempotent.WithHooks(idempotent.Hooks[string]{}),
		"owner":                  idempotent.WithOwner("web-1 " + strings.Repeat("~", 58)),
		"observer":               idempotent.WithObserver(idempotent.ObserverFunc(func(context.Context, idempotent.Event) {})),
	} {
		t.Run(name, func(t *testing.T) {
			e, err := idempotent.New[string](idemtest.NewRedis(t), "default", opt)
			require.NoError(t, err)
			require.NoError(t, e.Close())
		})
	}
}

// A duration that is as good as for ever works, or is refused as what it is.
func TestLongestDurations(t *testing.T) {
	for name, opt := range map[string]idempotent.Option{
		"TTL":       idempotent.WithTTL(math.MaxInt64),
		"error TTL": idempotent.WithErrorTTL(math.MaxInt64),
		"lease":     idempotent.WithLease(math.MaxInt64),
		"wait":      idempotent.WithWaitTimeout(math.MaxInt64),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rdb := idemtest.NewRedis(t)
				e, err := idempotent.New[string](rdb, "default", opt)
				if err != nil {
					require.ErrorIs(t, err, idempotent.ErrInvalidOption)
					return
				}
				defer e.Close()
				v, err := e.Run(t.Context(), "key", returning("charged", nil))
				require.NoError(t, err)
				assert.Equal(t, "charged", v)
			})
		})
	}
}

func TestMaxDuration(t *testing.T) {
	for name, with := range map[string]func(time.Duration) idempotent.Option{
		"WithLease":    idempotent.WithLease,
		"WithTTL":      func(d time.Duration) idempotent.Option { return idempotent.WithTTL(d) },
		"WithErrorTTL": func(d time.Duration) idempotent.Option { return idempotent.WithErrorTTL(d) },
	} {
		t.Run(name, func(t *testing.T) {
			_, err := idempotent.New[string](idemtest.NewRedis(t), "default", with(idempotent.MaxDuration+1))
			refused(t, err, []string{name, (idempotent.MaxDuration + 1).String(), "MaxDuration"})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		e := executorOn[string](t, idemtest.NewRedis(t), idempotent.WithLease(idempotent.MaxDuration),
			idempotent.WithTTL(idempotent.MaxDuration), idempotent.WithErrorTTL(idempotent.MaxDuration))
		v, err := e.Run(t.Context(), "key", func(ctx context.Context) (string, error) {
			status, err := e.Peek(ctx, "key")
			require.NoError(t, err)
			assert.Equal(t, idempotent.MaxDuration, status.LeaseLeft)
			return "charged", nil
		})
		require.NoError(t, err)
		assert.Equal(t, "charged", v)
		assert.Equal(t, idempotent.MaxDuration, ttlLeft(t, e, "key"))
	})
}

func TestDefaults(t *testing.T) {
	assert.Equal(t, 10*time.Second, idempotent.DefaultLease)
	assert.Equal(t, 24*time.Hour, idempotent.DefaultTTL)
	assert.Equal(t, time.Minute, idempotent.DefaultWaitTimeout)
	assert.Equal(t, 64<<10, idempotent.DefaultMessageLimit)
	assert.Equal(t, 10*time.Millisecond, idempotent.MinLease)
	assert.Zero(t, idempotent.NextWaiterRuns)
	assert.Zero(t, idempotent.Rerun)

	synctest.Test(t, func(t *testing.T) {
		rdb := idemtest.NewRedis(t)
		e, other := executorOn[string](t, rdb), executorOn[string](t, rdb)
		_, err := e.Run(t.Context(), "key", func(ctx context.Context) (string, error) {
			info, ok := idempotent.RunInfoFromContext(ctx)
			require.True(t, ok)
			assert.Equal(t, idempotent.RunInfo{Namespace: "default", Key: "key", Attempt: 1}, info)
			status, err := other.Peek(ctx, "key")
			require.NoError(t, err)
			assert.Equal(t, 10*time.Second, status.LeaseLeft)
			assert.Equal(t, 24*time.Hour+10*time.Second, status.TTLLeft)

			began := time.Now()
			_, err = other.Run(t.Context(), "key", forbidden[string](t))
			require.ErrorIs(t, err, idempotent.ErrInProgress)
			assert.Equal(t, time.Minute, time.Since(began))
			return "value", nil
		})
		require.NoError(t, err)
		assert.EqualValues(t, 1, rdb.Exists(t.Context(), "idempotent:default:key").Val())
		assert.Equal(t, 24*time.Hour, ttlLeft(t, e, "key"))
		_, err = e.Run(t.Context(), "failed", returning("", errDeclined))
		require.ErrorIs(t, err, errDeclined)
		assert.Equal(t, 24*time.Hour, ttlLeft(t, e, "failed"), "every error is recorded, for as long as a value")
	})
}

func ttlLeft(t *testing.T, e *idempotent.Executor[string], key string) time.Duration {
	t.Helper()
	status, err := e.Peek(t.Context(), key)
	require.NoError(t, err)
	return status.TTLLeft
}

// What New is given holds for each Run that is not given something else, and for that Run alone.
func TestRunOptionsOverrideThoseOfNew(t *testing.T) {
	bubble := func(name string, test func(t *testing.T, rdb *idemtest.Redis)) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { test(t, idemtest.NewRedis(t)) })
		})
	}
	ignoreAll := func(error) bool { return true }

	bubble("TTL", func(t *testing.T, rdb *idemtest.Redis) {
		e := executorOn[string](t, rdb, idempotent.WithTTL(time.Hour))
		for key, opts := range map[string][]idempotent.RunOption{"a": nil, "b": {idempotent.WithTTL(time.Minute)}, "c": nil} {
			_, err := e.Run(t.Context(), key, returning("", nil), opts...)
			require.NoError(t, err)
		}
		assert.Equal(t, time.Hour, ttlLeft(t, e, "a"))
		assert.Equal(t, time.Minute, ttlLeft(t, e, "b"))
		assert.Equal(t, time.Hour, ttlLeft(t, e, "c"))
	})
	bubble("error TTL", func(t *testing.T, rdb *idemtest.Redis) {
		e := executorOn[string](t, rdb, idempotent.WithTTL(time.Hour), idempotent.WithErrorTTL(time.Minute))
		for key, opts := range map[string][]idempotent.RunOption{"a": nil, "b": {idempotent.WithErrorTTL(time.Second)}, "c": {idempotent.WithTTL(time.Second)}} {
			_, err := e.Run(t.Context(), key, returning("", errDeclined), opts...)
			require.ErrorIs(t, err, errDeclined)
		}
		assert.Equal(t, time.Minute, ttlLeft(t, e, "a"))
		assert.Equal(t, time.Second, ttlLeft(t, e, "b"))
		assert.Equal(t, time.Minute, ttlLeft(t, e, "c"), "an error TTL holds whatever the TTL is")
		_, err := e.Run(t.Context(), "value", returning("", nil))
		require.NoError(t, err)
		assert.Equal(t, time.Hour, ttlLeft(t, e, "value"), "it is for errors alone")
	})
	bubble("wait timeout", func(t *testing.T, rdb *idemtest.Redis) {
		e := executorOn[string](t, rdb, idempotent.WithWaitTimeout(time.Hour))
		other := executorOn[string](t, rdb, idempotent.WithWaitTimeout(time.Hour))
		_, err := e.Run(t.Context(), "key", func(context.Context) (string, error) {
			for _, waiter := range []*idempotent.Executor[string]{e, other} {
				for _, want := range []time.Duration{time.Second, time.Hour} {
					var opts []idempotent.RunOption
					if want != time.Hour {
						opts = append(opts, idempotent.WithWaitTimeout(want))
					}
					began := time.Now()
					_, err := waiter.Run(t.Context(), "key", forbidden[string](t), opts...)
					require.ErrorIs(t, err, idempotent.ErrInProgress)
					assert.Equal(t, want, time.Since(began))
				}
			}
			return "", nil
		})
		require.NoError(t, err)
	})
	bubble("no wait", func(t *testing.T, rdb *idemtest.Redis) {
		e := executorOn[string](t, rdb, idempotent.WithNoWait())
		_, err := e.Run(t.Context(), "key", func(context.Context) (string, error) {
			began := time.Now()
			_, err := e.Run(t.Context(), "key", forbidden[string](t))
			require.ErrorIs(t, err, idempotent.ErrInProgress)
			assert.Zero(t, time.Since(began))
			_, err = e.Run(t.Context(), "key", forbidden[string](t), idempotent.WithWaitTimeout(time.Second))
			require.ErrorIs(t, err, idempotent.ErrInProgress)
			assert.Equal(t, time.Second, time.Since(began), "the option that comes last counts")
			return "", nil
		})
		require.NoError(t, err)
	})
	bubble("which errors are ignored", func(t *testing.T, rdb *idemtest.Redis) {
		e := executorOn[string](t, rdb, idempotent.WithShouldIgnoreError(ignoreAll))
		_, err := e.Run(t.Context(), "key", returning("", errDeclined))
		require.ErrorIs(t, err, errDeclined)
		_, err = e.Run(t.Context(), "key", returning("", errDeclined), idempotent.WithShouldIgnoreError(nil))
		require.ErrorIs(t, err, errDeclined)
		assert.NotErrorIs(t, err, idempotent.ErrReplayed, "the first one was not recorded")
		_, err = e.Run(t.Context(), "key", forbidden[string](t))
		assert.ErrorIs(t, err, idempotent.ErrReplayed, "the second one was")
	})
	bubble("interrupted", func(t *testing.T, rdb *idemtest.Redis) {
		e := executorOn[string](t, rdb, idempotent.WithInterrupted(idempotent.Refuse))
		interrupt(t, e)
		_, err := e.Run(t.Context(), "key", forbidden[string](t))
		require.ErrorIs(t, err, idempotent.ErrInterrupted)

		require.NoError(t, e.Forget(t.Context(), "key"))
		ctx, cancel := context.WithCancel(t.Context())
		_, err = e.Run(ctx, "key", func(ctx context.Context) (string, error) {
			cancel()
			return "", ctx.Err()
		}, idempotent.WithInterrupted(idempotent.Rerun))
		require.ErrorIs(t, err, context.Canceled)
		v, err := e.Run(t.Context(), "key", returning("again", nil), idempotent.WithInterrupted(idempotent.Rerun))
		require.NoError(t, err)
		assert.Equal(t, "again", v)
	})
	bubble("fingerprint", func(t *testing.T, rdb *idemtest.Redis) {
		e := executorOn[string](t, rdb, idempotent.WithFingerprint([]byte("a")))
		_, err := e.Run(t.Context(), "key", returning("", nil))
		require.NoError(t, err)
		_, err = e.Run(t.Context(), "key", forbidden[string](t), idempotent.WithFingerprint([]byte("b")))
		require.ErrorIs(t, err, idempotent.ErrKeyReused)
		_, err = e.Run(t.Context(), "key", forbidden[string](t), idempotent.WithFingerprint(nil))
		require.NoError(t, err, "none matches all")
		_, err = e.Run(t.Context(), "key", forbidden[string](t))
		require.NoError(t, err)
	})
	bubble("the last one counts", func(t *testing.T, rdb *idemtest.Redis) {
		e := executorOn[string](t, rdb, idempotent.WithTTL(-1), idempotent.WithTTL(time.Hour))
		_, err := e.Run(t.Context(), "key", returning("", nil), idempotent.WithTTL(-1), idempotent.WithTTL(time.Minute))
		require.NoError(t, err)
		assert.Equal(t, time.Minute, ttlLeft(t, e, "key"))
	})
}

func TestFingerprintIsTakenWhenTheOptionIsMade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := executorOn[string](t, idemtest.NewRedis(t))
		for key, size := range map[string]int{"short": 8, "longest": 32, "hashed": 33} {
			sum := make([]byte, size)
			opt := idempotent.WithFingerprint(sum)
			_, err := e.Run(t.Context(), key, returning("", nil), opt)
			require.NoError(t, err)
			sum[size-1] = 1
			_, err = e.Run(t.Context(), key, forbidden[string](t), opt)
			require.NoError(t, err, key)
			_, err = e.Run(t.Context(), key, forbidden[string](t), idempotent.WithFingerprint(sum))
			require.ErrorIs(t, err, idempotent.ErrKeyReused, key)
		}
	})
}

// Executors may be made with the same options, in any number.
func TestOptionsAreReusable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := idemtest.NewRedis(t)
		opts := []idempotent.Option{idempotent.WithTTL(time.Hour), idempotent.WithCodec(idempotent.JSON[string]())}
		for range 2 {
			e := executorOn[string](t, rdb, opts...)
			v, err := e.Run(t.Context(), "key", returning("first", nil), idempotent.WithTTL(time.Minute))
			require.NoError(t, err)
			assert.Equal(t, "first", v)
			_, err = e.Run(t.Context(), "other", returning("", nil))
			require.NoError(t, err)
			assert.Equal(t, time.Hour, ttlLeft(t, e, "other"))
		}
	})
}

// A namespace is refused with a text that has its value and what is allowed.
func TestNamespaces(t *testing.T) {
	for name, test := range map[string]struct {
		namespace string
		texts     []string
	}{
		"namespace, empty":                   {"", []string{"namespace", `""`, "A-Za-z0-9._/-", "64"}},
		"namespace, 65 characters":           {strings.Repeat("n", 65), []string{"namespace", strings.Repeat("n", 65), "64"}},
		"namespace with a colon":             {"a:b", []string{"namespace", `"a:b"`, "A-Za-z0-9._/-"}},
		"namespace with braces":              {"{a}", []string{"namespace", `"{a}"`, "A-Za-z0-9._/-"}},
		"namespace with a space":             {"a b", []string{"namespace", `"a b"`}},
		"namespace with a line break behind": {"a\n", []string{"namespace", `"a\n"`}},
		"namespace with a glob":              {"a*", []string{"namespace", `"a*"`}},
		"namespace beyond ASCII":             {"zählung", []string{"namespace", "zählung"}},
		"namespace that is not UTF-8":        {"\xff", []string{"namespace", `"\xff"`}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := idempotent.New[string](idemtest.NewRedis(t), test.namespace)
			require.ErrorIs(t, err, idempotent.ErrInvalidOption)
			for _, text := range append(test.texts, "allowed: ") {
				assert.ErrorContains(t, err, text)
			}
		})
	}
	for _, good := range []string{"n", strings.Repeat("n", 64), "AZaz09._/-"} {
		executorIn[string](t, idemtest.NewRedis(t), good)
	}
}

package acceptance

import (
	"context"
	"log/slog"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/idemtest"
)

// Each bad option is refused with a text that names it, its value and what is allowed.
func TestBadOptions(t *testing.T) {
	type other = struct{ Other int }
	type nothing struct{ idempotent.Observer }
	tests := []struct {
		name  string
		opt   idempotent.Option
		texts []string
	}{
		{"codec, nil", idempotent.WithCodec[string](nil), []string{"WithCodec", "nil"}},
		{"codec of another type", idempotent.WithCodec(idempotent.JSON[other]()), []string{"WithCodec", "Other", "string"}},
		{"codec of another type, nil", idempotent.WithCodec[other](nil), []string{"WithCodec", "Other", "string"}},
		{"hooks of another type", idempotent.WithHooks(idempotent.Hooks[other]{}), []string{"WithHooks", "Other", "string"}},
		{"errors, nil", idempotent.WithErrors(nil), []string{"WithErrors", "nil", "registry"}},
		{"owner, empty", idempotent.WithOwner(""), []string{"WithOwner", `""`}},
		{"owner, 65 characters", idempotent.WithOwner(strings.Repeat("o", 65)), []string{"WithOwner", `"oooo`, "64"}},
		{"owner, line break", idempotent.WithOwner("a\nb"), []string{"WithOwner", `a\nb`}},
		{"observer, nil", idempotent.WithObserver(nil), []string{"WithObserver", "nil", "observer"}},
		{"observer, nil pointer", idempotent.WithObserver((*nothing)(nil)), []string{"WithObserver", "nil", "observer"}},
		{"observer, nil function", idempotent.WithObserver(idempotent.ObserverFunc(nil)), []string{"WithObserver", "nil", "observer"}},
		{"logger, nil", idempotent.WithLogger(nil), []string{"WithLogger", "nil", "logger"}},
		{"lease, zero", idempotent.WithLease(0), []string{"WithLease", "0s", "10ms or more"}},
		{"lease, negative", idempotent.WithLease(-time.Second), []string{"WithLease", "-1s", "10ms or more"}},
		{"lease, too short", idempotent.WithLease(10*time.Millisecond - 1), []string{"WithLease", "9.999999ms", "10ms or more"}},
		{"message limit, negative", idempotent.WithMessageLimit(-1), []string{"WithMessageLimit", "-1", "0 or more"}},
		{"replay cache, nothing", idempotent.WithReplayCache(0), []string{"WithReplayCache", "entries", "0", "1 or more"}},
		{"replay cache, negative", idempotent.WithReplayCache(-1), []string{"WithReplayCache", "-1", "1 or more"}},
		{"option, nil", nil, []string{"option 0", "nil", "Option"}},
		{"report in New", idempotent.WithReport(new(idempotent.Report)), []string{"WithReport", "New", "Run"}},
		{"nil report in New", idempotent.WithReport(nil), []string{"WithReport"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			e, err := idempotent.New[string](idemtest.NewRedis(t), "default", test.opt)
			require.ErrorIs(t, err, idempotent.ErrInvalidOption)
			assert.Nil(t, e)
			for _, text := range append(test.texts, "allowed: ") {
				assert.ErrorContains(t, err, text)
			}
		})
	}
}

var badRunOptions = []struct {
	name  string
	opt   idempotent.RunOption
	texts []string
}{
	{"TTL, zero", idempotent.WithTTL(0), []string{"WithTTL", "0s", "1ms or more"}},
	{"TTL, negative", idempotent.WithTTL(-time.Hour), []string{"WithTTL", "-1h0m0s", "1ms or more"}},
	{"TTL, below a millisecond", idempotent.WithTTL(time.Millisecond - 1), []string{"WithTTL", "999.999µs", "1ms or more"}},
	{"error TTL, zero", idempotent.WithErrorTTL(0), []string{"WithErrorTTL", "0s", "1ms or more"}},
	{"error TTL, negative", idempotent.WithErrorTTL(-1), []string{"WithErrorTTL", "-1ns", "1ms or more"}},
	{"wait timeout, zero", idempotent.WithWaitTimeout(0), []string{"WithWaitTimeout", "0s", "more than 0", "WithNoWait"}},
	{"wait timeout, negative", idempotent.WithWaitTimeout(-time.Second), []string{"WithWaitTimeout", "-1s", "more than 0"}},
	{"policy for ignored errors", idempotent.WithIgnoredErrors(2), []string{"WithIgnoredErrors", "2", "NextWaiterRuns", "ShareWithWaiters"}},
	{"policy for interrupted executions", idempotent.WithInterrupted(255), []string{"WithInterrupted", "255", "Rerun", "Refuse"}},
}

func TestBadRunOptions(t *testing.T) {
	for _, test := range badRunOptions {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rdb := idemtest.NewRedis(t)
				_, err := idempotent.New[string](rdb, "default", test.opt)
				refused(t, err, test.texts)
				e := executorOn[string](t, rdb)
				_, err = e.Run(t.Context(), "key", forbidden[string](t), test.opt)
				refused(t, err, test.texts)
				refused(t, resolve(e, t.Context(), "key", "", test.opt), test.texts)
				assert.Zero(t, rdb.DBSize(t.Context()).Val(), "nothing is claimed")
			})
		})
	}
}

func refused(t *testing.T, err error, texts []string) {
	t.Helper()
	require.ErrorIs(t, err, idempotent.ErrInvalidOption)
	for _, text := range append(texts, "allowed: ") {
		assert.ErrorContains(t, err, text)
	}
}

func TestBadArgumentsOfRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := executorOn[string](t, idemtest.NewRedis(t))
		_, err := e.Run(t.Context(), "key", nil)
		refused(t, err, []string{"Run", "fn", "nil", "function"})
		_, err = e.Run(nil, "key", forbidden[string](t)) //nolint:staticcheck // that is the point
		refused(t, err, []string{"Run", "ctx", "nil", "context"})
		_, err = e.Run(t.Context(), "key", forbidden[string](t), idempotent.WithNoWait(), nil)
		refused(t, err, []string{"Run", "option 1", "nil", "RunOption"})
		_, err = e.Run(t.Context(), "key", forbidden[string](t), idempotent.WithReport(nil))
		refused(t, err, []string{"WithReport", "nil", "Report"})
	})
}

func TestNoClient(t *testing.T) {
	for name, client := range map[string]redis.UniversalClient{
		"nil":              nil,
		"nil client":       (*redis.Client)(nil),
		"nil cluster":      (*redis.ClusterClient)(nil),
		"nil ring":         (*redis.Ring)(nil),
		"nil test's Redis": (*idemtest.Redis)(nil),
	} {
		t.Run(name, func(t *testing.T) {
			e, err := idempotent.New[string](client, "default")
			refused(t, err, []string{"New", "client", "nil", "go-redis"})
			assert.Nil(t, e)
		})
	}
}

func TestSeveralBadOptionsAreAllNamed(t *testing.T) {
	opts := []idempotent.Option{
		idempotent.WithLease(-1),
		idempotent.WithMessageLimit(-1),
		idempotent.WithReplayCache(-1),
		idempotent.WithLogger(nil),
		idempotent.WithErrors(nil),
		idempotent.WithCodec[int](idempotent.JSON[int]()),
		idempotent.WithHooks(idempotent.Hooks[int]{}),
		idempotent.WithReport(new(idempotent.Report)),
	}
	names := []string{"client", "namespace", "WithLease", "WithMessageLimit", "WithReplayCache", "WithLogger", "WithErrors", "WithCodec", "WithHooks", "WithReport"}
	for _, name := range []string{"WithTTL", "WithErrorTTL", "WithWaitTimeout", "WithIgnoredErrors", "WithInterrupted"} {
		names = append(names, name)
		for _, bad := range badRunOptions {
			if bad.texts[0] == name {
				opts = append(opts, bad.opt)
			}
		}
	}
	_, err := idempotent.New[string](nil, "a:b", opts...)
	refused(t, err, names)

	synctest.Test(t, func(t *testing.T) {
		e := executorOn[string](t, idemtest.NewRedis(t))
		_, err := e.Run(t.Context(), "key", forbidden[string](t),
			idempotent.WithTTL(-1), idempotent.WithWaitTimeout(-1), idempotent.WithInterrupted(9))
		refused(t, err, []string{"WithTTL", "WithWaitTimeout", "WithInterrupted"})
	})
}

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

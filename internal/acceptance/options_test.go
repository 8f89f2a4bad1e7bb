package acceptance

import (
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

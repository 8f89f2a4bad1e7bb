package endpoint

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestIntakeRefusesAndStoresNothing(t *testing.T) {
	r := newRig(t, succeeds)
	now := time.Now()
	huge := event("evt") + strings.Repeat(" ", maxBody)
	for _, tt := range []struct {
		name, path, body, signature string
		want                        int
	}{
		{"no signature", "/webhooks/stripe", event("evt"), "", 400},
		{"no signature and no event", "/webhooks/stripe", "{", "", 400},
		{"another body", "/webhooks/stripe", event("evt"), signed(event("evt2"), now), 400},
		{"too old", "/webhooks/stripe", event("evt"), signed(event("evt"), now.Add(-tolerance-time.Minute)), 400},
		{"another provider's secret", "/webhooks/bank", event("evt"), signed(event("evt"), now), 400},
		{"another scheme", "/webhooks/stripe", event("evt"), strings.Replace(signed(event("evt"), now), "v1=", "v0=", 1), 400},
		{"unknown provider", "/webhooks/nobody", event("evt"), signed(event("evt"), now), 404},
		{"no event", "/webhooks/stripe", "{", signed("{", now), 400},
		{"no id", "/webhooks/stripe", event(""), signed(event(""), now), 400},
		{"too large", "/webhooks/stripe", huge, signed(huge, now), 413},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := r.post(tt.path, tt.body, tt.signature)
			assert.Equal(t, tt.want, w.Code)
			assert.NotContains(t, w.Body.String(), "signature", "the answer does not say why")
			assert.Empty(t, r.server.Keys())
		})
	}
}

// Without a version, two changes of a transfer would look the same.
func TestIntakeRefusesAChangeWithoutVersion(t *testing.T) {
	r := newRig(t, succeeds, func(c *Config) { c.Providers[0].Key = ByChange })
	w := r.post("/webhooks/stripe", event("evt"), signed(event("evt"), time.Now()))
	assert.Equal(t, http.StatusBadRequest, w.Code)
	assert.Empty(t, r.server.Keys())
}

func TestIntakeStoresBeforeItAnswers(t *testing.T) {
	r := newRig(t, succeeds)
	r.deliver("evt")
	assert.Equal(t, Backlog{Queued: 1}, r.backlog())
	ev, err := r.store.find(t.Context(), "stripe", "evt")
	require.NoError(t, err)
	assert.JSONEq(t, event("evt"), string(ev.body))
	assert.Equal(t, "queued", r.ask("evt").Processed.State)
	r.requireExpiries()
}

// What is not stored for sure is not acknowledged, and the provider is told to come again.
func TestIntakeFailsClosed(t *testing.T) {
	refusal := func(t *testing.T, r *rig) {
		t.Helper()
		w := r.post("/webhooks/stripe", event("evt"), signed(event("evt"), time.Now()))
		assert.Equal(t, http.StatusServiceUnavailable, w.Code)
		assert.NotEmpty(t, w.Header().Get("Retry-After"))
	}
	t.Run("Redis is gone", func(t *testing.T) {
		r := newRig(t, succeeds)
		r.server.Close()
		refusal(t, r)
	})
	t.Run("Redis refuses", func(t *testing.T) {
		r := newRig(t, succeeds)
		r.server.SetError("OOM command not allowed when used memory > 'maxmemory'.")
		refusal(t, r)
	})
	t.Run("Redis is slow", func(t *testing.T) {
		r := newRig(t, succeeds, func(c *Config) { c.AnswerWithin = time.Millisecond })
		r.rdb.AddHook(slow{})
		refusal(t, r)
	})
	t.Run("too much is unsettled", func(t *testing.T) {
		r := newRig(t, succeeds, func(c *Config) { c.Backlog = 2 })
		r.deliver("a")
		r.deliver("b")
		refusal(t, r)
		r.step()
		r.deliver("c")
	})
	t.Run("too many at once", func(t *testing.T) {
		r := newRig(t, succeeds)
		in := newIntake(&r.cfg, r.store)
		for range maxReading {
			in.places <- struct{}{}
		}
		mux := http.NewServeMux()
		mux.Handle("POST /webhooks/{provider}", in)
		r.intake = mux
		refusal(t, r)
		<-in.places
		r.deliver("evt")
		assert.Len(t, in.places, maxReading-1, "the place is free again")
	})
}

// Slow is a Redis that does not answer in time.
type slow struct{}

func (slow) DialHook(next redis.DialHook) redis.DialHook { return next }
func (slow) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}
func (slow) ProcessHook(redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, _ redis.Cmder) error {
		<-ctx.Done()
		return ctx.Err()
	}
}

func TestOnlyOperatorsCanAsk(t *testing.T) {
	r := newRig(t, succeeds)
	r.deliver("evt")
	for _, path := range []string{"/events/stripe/evt", "/dead", "/backlog"} {
		w := httptest.NewRecorder()
		r.intake.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		assert.Equal(t, http.StatusNotFound, w.Code, path)
	}
}

package endpoint

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestNewRefusesWhatIsNotSafe(t *testing.T) {
	for _, tt := range []struct {
		name  string
		spoil func(c *Config)
		says  string
	}{
		{"no secret", func(c *Config) { c.Providers[1].Secret = "" }, `provider "bank" has no signing secret`},
		{"a secret that is none", func(c *Config) { c.Providers[0].Secret = "whsec_" }, `provider "stripe" has no signing secret`},
		{"no provider", func(c *Config) { c.Providers = nil }, "no provider"},
		{"no key", func(c *Config) { c.Providers[0].Key = nil }, "no key"},
		{"no ledger", func(c *Config) { c.LedgerURL = "" }, "no ledger"},
		{"no namespace", func(c *Config) { c.Namespace = "" }, "no namespace"},
		{"a namespace that the executor refuses", func(c *Config) { c.Namespace = "a:b" }, "a:b"},
		{"nothing is kept", func(c *Config) { c.Keep = 0 }, "Keep is 0s"},
		{"no backoff", func(c *Config) { c.Backoff = Backoff{} }, "Backoff.Base is 0s"},
		{"no workers", func(c *Config) { c.Workers = 0 }, "Workers"},
		{"no logger", func(c *Config) { c.Logger = nil }, "no logger"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := testConfig()
			cfg.Stale = time.Second
			tt.spoil(&cfg)
			_, err := New(nil, cfg)
			require.ErrorContains(t, err, tt.says)
			assert.NotContains(t, err.Error(), secret)
		})
	}
}

func TestBackoff(t *testing.T) {
	b := Backoff{Base: 100 * time.Millisecond, Limit: time.Second}
	different := make(map[time.Duration]bool)
	for failures, full := range map[int]time.Duration{
		1: 100 * time.Millisecond, 2: 200 * time.Millisecond, 4: 800 * time.Millisecond, 5: time.Second, 1 << 20: time.Second,
	} {
		for range 100 {
			d := b.After(failures)
			assert.GreaterOrEqual(t, d, full/2)
			assert.LessOrEqual(t, d, full)
			different[d] = true
		}
	}
	assert.Greater(t, len(different), 100, "it is left to chance")
}

func TestKeys(t *testing.T) {
	payload := func(id, kind, object string, version int64) Payload {
		p := Payload{ID: id, Type: kind}
		p.Data.Object = Object{ID: object, Version: version}
		return p
	}
	one := payload("evt_1", "settled", "t_1", 1)
	key := func(f KeyFunc, provider string, p Payload) string {
		t.Helper()
		k, err := f(provider, p)
		require.NoError(t, err)
		return k
	}
	other := payload("evt_2", "settled", "t_1", 1)
	again := one
	assert.Equal(t, key(ByEventID, "a", one), key(ByEventID, "a", again))
	assert.NotEqual(t, key(ByEventID, "a", one), key(ByEventID, "a", other))
	assert.NotEqual(t, key(ByEventID, "a", one), key(ByEventID, "b", one), "another provider's event")

	assert.Equal(t, key(ByChange, "a", one), key(ByChange, "a", other), "another id of the same change")
	for _, change := range []Payload{
		payload("evt_1", "failed", "t_1", 1), payload("evt_1", "settled", "t_2", 1), payload("evt_1", "settled", "t_1", 2),
	} {
		assert.NotEqual(t, key(ByChange, "a", one), key(ByChange, "a", change), "another change")
	}
	for _, unclear := range []Payload{payload("evt_1", "settled", "", 1), payload("evt_1", "settled", "t_1", 0)} {
		_, err := ByChange("a", unclear)
		assert.Error(t, err)
	}
}

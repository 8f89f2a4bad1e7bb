package webhook_test

import (
	"encoding/hex"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent/webhook"
	"github.com/idempotent-go/idempotent/webhook/webhooktest"
)

func decodeHexKey(s string) ([]byte, error) { return hex.DecodeString(s) }

func TestHMACConfigs(t *testing.T) {
	provider := webhook.Provider{Name: "acme"}
	for name, c := range map[string]struct {
		config webhook.HMACConfig
		sign   webhooktest.Signer
	}{
		"body": {webhook.HMACConfig{SignatureHeader: "x-acme-signature"}, webhooktest.HMAC("X-Acme-Signature", "", "", "secret")},
		"prefix": {webhook.HMACConfig{SignatureHeader: "X-Acme-Signature", SignaturePrefix: "v1="},
			webhooktest.HMAC("X-Acme-Signature", "v1=", "", "secret")},
		"time": {webhook.HMACConfig{SignatureHeader: "X-Acme-Signature", TimestampHeader: "x-acme-time"},
			webhooktest.HMAC("X-Acme-Signature", "", "X-Acme-Time", "secret")},
		"Slack's, written as a config": {webhook.HMACConfig{
			SignatureHeader: "X-Slack-Signature", SignaturePrefix: "v0=", TimestampHeader: "X-Slack-Request-Timestamp",
			Signed: func(r *webhook.Request, timestamp string) []byte {
				return append([]byte("v0:"+timestamp+":"), r.Body...)
			}}, webhooktest.Slack("secret")},
		"base64": {webhook.HMACConfig{SignatureHeader: "X-Shopify-Hmac-Sha256", Encoding: webhook.Base64},
			webhooktest.Shopify("a/b", "e", "secret")},
	} {
		t.Run(name, func(t *testing.T) {
			c.config.Provider = provider
			s, err := webhook.HMAC(c.config, []string{"secret"})
			require.NoError(t, err)
			header, body, err := c.sign([]byte(`{"id":"e1","type":"a"}`), signedAt)
			require.NoError(t, err)
			r := &webhook.Request{Header: header, Body: body, ReceivedAt: signedAt}
			content, err := s.Verify(r)
			require.NoError(t, err)
			assert.Equal(t, "e1", content.Events[0].ID)

			r.ReceivedAt = signedAt.Add(6 * time.Minute)
			_, err = s.Verify(r)
			assert.Equal(t, c.config.TimestampHeader != "", err != nil)
			r.ReceivedAt = signedAt

			for name := range header {
				if http.CanonicalHeaderKey(c.config.SignatureHeader) == name || http.CanonicalHeaderKey(c.config.TimestampHeader) == name {
					value := header.Get(name)
					header.Set(name, flipped(value, len(value)/2, 1))
					_, err = s.Verify(r)
					assert.False(t, verified(err), name)
					header.Set(name, value)
				}
			}
			r.Body[0] ^= 1
			_, err = s.Verify(r)
			assert.Equal(t, webhook.ReasonMismatch, webhook.ReasonOf(err))
		})
	}
}

func TestHMACRefusesIncompleteConfigs(t *testing.T) {
	provider := webhook.Provider{Name: "acme"}
	for _, c := range []webhook.HMACConfig{
		{}, {Provider: provider}, {SignatureHeader: "X-Signature"},
		{Provider: provider, SignatureHeader: "X-Signature", Encoding: 7},
		{Provider: provider, SignatureHeader: "X-Signature", Key: func(string) ([]byte, error) { return nil, nil }},
		{Provider: provider, SignatureHeader: "X-Signature", Key: func(s string) ([]byte, error) { return nil, errors.New(s) }},
	} {
		s, err := webhook.HMAC(c, []string{"canary"})
		assert.Nil(t, s)
		require.ErrorIs(t, err, webhook.ErrInvalidScheme)
		assert.NotContains(t, err.Error(), "canary")
	}
}

// Timestamps have one spelling, so that what is signed is what is checked.
func TestTimestamps(t *testing.T) {
	s, err := constructors("")["hmac"]([]string{"secret"})
	require.NoError(t, err)
	sign := webhooktest.HMAC("X-Acme-Signature", "", "X-Acme-Time", "secret")
	for _, stamp := range []string{"0", "-1", "+1795824816", "01795824816", "1795824816.0", "1.8e9", "17958248160000",
		"99999999999999999999", " 1795824816", "0x6b0a", "١٧"} {
		header, body, err := sign([]byte(`{"id":1}`), signedAt)
		require.NoError(t, err)
		header.Set("X-Acme-Time", stamp)
		_, err = s.Verify(&webhook.Request{Header: header, Body: body, ReceivedAt: signedAt})
		assert.Equal(t, webhook.ReasonMalformed, webhook.ReasonOf(err), stamp)
	}
}

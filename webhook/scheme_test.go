package webhook_test

import (
	"encoding/json"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent/webhook"
)

// A vector is a request that a provider's documentation, test suite or library has signed or verified; Source says which.
type vector struct {
	Scheme, Name, Source, Secret, Body, URL string
	Headers                                 map[string]string
	At                                      int64
	Refused                                 webhook.Reason // after the signature was verified: the body has no event
	ID, Type                                string
}

func vectors(t testing.TB) []vector {
	raw, err := os.ReadFile("testdata/vectors.json")
	require.NoError(t, err)
	var vs []vector
	require.NoError(t, json.Unmarshal(raw, &vs))
	return vs
}

func (v *vector) request() *webhook.Request {
	r := &webhook.Request{Method: http.MethodPost, Header: http.Header{}, Body: []byte(v.Body), ReceivedAt: time.Unix(v.At, 0)}
	for name, value := range v.Headers {
		r.Header.Set(name, value)
	}
	return r
}

type constructor func(secrets []string, opts ...webhook.SchemeOption) (webhook.Scheme, error)

func constructors(squareURL string) map[string]constructor {
	return map[string]constructor{
		"stripe": webhook.Stripe, "standardwebhooks": webhook.StandardWebhooks, "svix": webhook.Svix,
		"github": webhook.GitHub, "slack": webhook.Slack, "shopify": webhook.Shopify, "paddle": webhook.Paddle,
		"adyen": webhook.Adyen, "tosspayments": webhook.TossPayments,
		"square": func(secrets []string, opts ...webhook.SchemeOption) (webhook.Scheme, error) {
			return webhook.Square(squareURL, secrets, opts...)
		},
		"hmac": func(secrets []string, opts ...webhook.SchemeOption) (webhook.Scheme, error) {
			return webhook.HMAC(webhook.HMACConfig{
				Provider: webhook.Provider{Name: "acme"}, SignatureHeader: "X-Acme-Signature", TimestampHeader: "X-Acme-Time",
			}, secrets, opts...)
		},
	}
}

func (v *vector) scheme(t testing.TB, secrets ...string) webhook.Scheme {
	if len(secrets) == 0 {
		secrets = []string{v.Secret}
	}
	s, err := constructors(v.URL)[v.Scheme](secrets)
	require.NoError(t, err)
	return s
}

func (v *vector) timed() bool {
	return !strings.Contains("github shopify square adyen", v.Scheme)
}

// otherSecret returns a secret in the form of v's, but another one.
func (v *vector) otherSecret() string {
	prefix, body := "", v.Secret
	for _, p := range []string{"whsec_", "whpk_"} {
		if rest, ok := strings.CutPrefix(v.Secret, p); ok {
			prefix, body = p, rest
		}
	}
	first := byte('A')
	if body[0] == 'A' {
		first = 'B'
	}
	return prefix + string(first) + body[1:]
}

// verified reports whether the signature was accepted, whatever the body is.
func verified(err error) bool {
	reason := webhook.ReasonOf(err)
	return err == nil || reason == webhook.ReasonBadBody || reason == webhook.ReasonNoEventID
}

func TestVectors(t *testing.T) {
	for _, v := range vectors(t) {
		t.Run(v.Scheme+"/"+v.Name, func(t *testing.T) {
			content, err := v.scheme(t).Verify(v.request())
			require.Equal(t, v.Refused, webhook.ReasonOf(err), "%v", err)
			if v.Refused != "" {
				return
			}
			require.Len(t, content.Events, 1)
			assert.Equal(t, v.Type, orVectorType(v, content.Events[0].Type))
			assert.Equal(t, v.ID, orVectorID(v, content.Events[0].ID))
		})
	}
}

// orVectorType returns got, unless the vector leaves the type open.
func orVectorType(v vector, got string) string {
	if v.Type == "" {
		return ""
	}
	return got
}

func orVectorID(v vector, got string) string {
	if v.ID == "" {
		return ""
	}
	return got
}

// Rotation: any of several secrets verifies, wherever it is in the list; another one alone does not.
func TestSecretsInRotation(t *testing.T) {
	for _, v := range vectors(t) {
		t.Run(v.Scheme+"/"+v.Name, func(t *testing.T) {
			other := v.otherSecret()
			for _, secrets := range [][]string{{other, v.Secret}, {v.Secret, other}} {
				_, err := v.scheme(t, secrets...).Verify(v.request())
				assert.True(t, verified(err), "%v", err)
			}
			_, err := v.scheme(t, other).Verify(v.request())
			assert.Equal(t, webhook.ReasonMismatch, webhook.ReasonOf(err))
			assert.ErrorIs(t, err, webhook.ErrRefused)
		})
	}
}

func TestTolerance(t *testing.T) {
	for _, v := range vectors(t) {
		t.Run(v.Scheme+"/"+v.Name, func(t *testing.T) {
			s := v.scheme(t)
			at := func(d time.Duration) webhook.Reason {
				r := v.request()
				r.ReceivedAt = r.ReceivedAt.Add(d)
				_, err := s.Verify(r)
				return webhook.ReasonOf(err)
			}
			tooOld, tooNew := webhook.ReasonTooOld, webhook.ReasonTooNew
			if !v.timed() {
				tooOld, tooNew = v.Refused, v.Refused
			}
			assert.Equal(t, tooOld, at(6*time.Minute))
			assert.Equal(t, tooOld, at(5*time.Minute+time.Second))
			assert.Equal(t, v.Refused, at(5*time.Minute))
			assert.Equal(t, v.Refused, at(-5*time.Minute))
			assert.Equal(t, tooNew, at(-5*time.Minute-time.Second))
			assert.Equal(t, tooNew, at(-6*time.Minute))
			assert.Equal(t, tooNew, at(-365*24*time.Hour))
		})
	}
}

func TestWithTolerance(t *testing.T) {
	s, err := webhook.Stripe([]string{"whsec_stripe_secret_123"}, webhook.WithTolerance(time.Minute))
	require.NoError(t, err)
	for _, v := range vectors(t) {
		if v.Scheme != "stripe" {
			continue
		}
		r := v.request()
		r.ReceivedAt = r.ReceivedAt.Add(61 * time.Second)
		_, err := s.Verify(r)
		assert.Equal(t, webhook.ReasonTooOld, webhook.ReasonOf(err))
		assert.Contains(t, err.Error(), "1m0s")
	}
}

// A forged request is a mismatch at any time: too_old and too_new are said of authentic requests only.
func TestForgeryIsNeverCalledOld(t *testing.T) {
	for _, v := range vectors(t) {
		r := v.request()
		r.ReceivedAt = r.ReceivedAt.Add(time.Hour)
		_, err := v.scheme(t, v.otherSecret()).Verify(r)
		assert.Equal(t, webhook.ReasonMismatch, webhook.ReasonOf(err), v.Scheme)
	}
}

func TestConstructorsRefuseMissingSecrets(t *testing.T) {
	valid := map[string]string{"adyen": "00ff", "standardwebhooks": "whsec_AAAA", "svix": "whsec_AAAA"}
	for name, construct := range constructors("https://example.com/hook") {
		t.Run(name, func(t *testing.T) {
			secret := valid[name]
			if secret == "" {
				secret = "a-secret"
			}
			_, err := construct([]string{secret})
			require.NoError(t, err)
			for _, secrets := range [][]string{nil, {}, {""}, {secret, ""}, {"", secret}} {
				s, err := construct(secrets)
				assert.Nil(t, s)
				require.ErrorIs(t, err, webhook.ErrInvalidScheme)
				assert.NotContains(t, err.Error(), secret)
			}
			for _, d := range []time.Duration{0, -time.Second} {
				_, err := construct([]string{secret}, webhook.WithTolerance(d))
				assert.ErrorIs(t, err, webhook.ErrInvalidScheme)
			}
		})
	}
}

func TestConstructorsRefuseMalformedSecrets(t *testing.T) {
	for name, secrets := range map[string][]string{
		"adyen":            {"not-hex", "abc", " 00"},
		"standardwebhooks": {"whsec_", "whsec_!", "whsec_AA\nAA", "whsec_AAB=", "whpk_AAAA", "whsk_AAAA", "whpk_"},
	} {
		for _, secret := range secrets {
			_, err := constructors("")[name]([]string{secret})
			require.ErrorIs(t, err, webhook.ErrInvalidScheme, secret)
			assert.NotContains(t, strings.ReplaceAll(err.Error(), "whsk_…; must be whsec_… or whpk_…", ""), secret)
		}
	}
	_, err := webhook.Svix([]string{"whsk_VEVTVFNJR05JTkdLRVlET05PVFVTRVRISVNGT1JBTlk="})
	assert.ErrorContains(t, err, "private key")
	for _, u := range []string{"", "/hook", "example.com/hook", "https://", "://"} {
		_, err := webhook.Square(u, []string{"key"})
		assert.ErrorIs(t, err, webhook.ErrInvalidScheme, u)
	}
}

func TestReasonsAreClosed(t *testing.T) {
	for _, reason := range webhook.Reasons() {
		assert.Equal(t, reason, webhook.ReasonOf(webhook.Refuse(reason, "")))
	}
	assert.Equal(t, webhook.ReasonOther, webhook.ReasonOf(webhook.Refuse("made up", "")))
	assert.Equal(t, webhook.ReasonOther, webhook.ReasonOf(&webhook.RefusedError{Reason: "made up"}))
	assert.Equal(t, webhook.ReasonOther, webhook.ReasonOf(os.ErrNotExist))
	assert.Equal(t, webhook.Reason(""), webhook.ReasonOf(nil))
	assert.EqualError(t, webhook.Refuse(webhook.ReasonBadBody, "no items"), "webhook: request refused: bad_body: no items")
	assert.EqualError(t, webhook.Refuse(webhook.ReasonTooOld, ""), "webhook: request refused: too_old")
}

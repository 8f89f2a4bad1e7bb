package webhook_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent/webhook"
	"github.com/idempotent-go/idempotent/webhook/webhooktest"
)

var signedAt = time.Unix(1795824816, 0)

// verify signs a body and verifies it with the scheme of name, which has the secret "secret" in the provider's form.
func verify(t testing.TB, name string, sign webhooktest.Signer, body string) (webhook.Content, error) {
	secret := map[string]string{"adyen": "00ff", "standardwebhooks": "whsec_c2VjcmV0", "svix": "whsec_c2VjcmV0"}[name]
	if secret == "" {
		secret = "secret"
	}
	s, err := constructors("https://example.com/hook")[name]([]string{secret})
	require.NoError(t, err)
	header, signed, err := sign([]byte(body), signedAt)
	require.NoError(t, err)
	return s.Verify(&webhook.Request{Method: http.MethodPost, Header: header, Body: signed, ReceivedAt: signedAt})
}

func TestEvents(t *testing.T) {
	at := func(s string) time.Time {
		parsed, err := time.Parse(time.RFC3339, s)
		require.NoError(t, err)
		return parsed
	}
	for name, c := range map[string]struct {
		scheme string
		sign   webhooktest.Signer
		body   string
		want   webhook.Event
	}{
		"stripe": {"stripe", webhooktest.Stripe("secret"),
			`{"id":"evt_1","type":"charge.succeeded","created":1795824000,"data":{"object":{"id":"ch_1"}}}`,
			webhook.Event{ID: "evt_1", Type: "charge.succeeded", Object: "ch_1", OccurredAt: time.Unix(1795824000, 0)}},
		"stripe, thin": {"stripe", webhooktest.Stripe("secret"),
			`{"id":"evt_2","object":"v2.core.event","type":"v1.billing.meter.error_report_triggered",
			"created":"2026-11-28T00:00:00.5Z","related_object":{"id":"mtr_1"}}`,
			webhook.Event{ID: "evt_2", Type: "v1.billing.meter.error_report_triggered", Object: "mtr_1",
				OccurredAt: at("2026-11-28T00:00:00.5Z")}},
		"standard": {"standardwebhooks", webhooktest.StandardWebhooks("msg_1", "whsec_c2VjcmV0"),
			`{"type":"contact.created","timestamp":"2022-11-03T20:26:10.344522Z","data":{"id":"c_1"}}`,
			webhook.Event{ID: "msg_1", Type: "contact.created", Object: "c_1", OccurredAt: at("2022-11-03T20:26:10.344522Z")}},
		"standard, not JSON": {"standardwebhooks", webhooktest.StandardWebhooks("msg_1", "whsec_c2VjcmV0"),
			`<event/>`, webhook.Event{ID: "msg_1"}},
		"svix": {"svix", webhooktest.Svix("msg_2", "whsec_c2VjcmV0"), `{"type":"a"}`, webhook.Event{ID: "msg_2", Type: "a"}},
		"github, without action": {"github", webhooktest.GitHub("push", "guid-1", "secret"), `{"ref":"main"}`,
			webhook.Event{ID: "guid-1", Type: "push"}},
		"github, with action": {"github", webhooktest.GitHub("issues", "guid-2", "secret"),
			`{"action":"opened","issue":{"id":73,"number":1}}`,
			webhook.Event{ID: "guid-2", Type: "issues.opened", Object: "73"}},
		"slack": {"slack", webhooktest.Slack("secret"),
			`{"type":"event_callback","event_id":"Ev1","event_time":1795824000,"event":{"type":"app_mention"}}`,
			webhook.Event{ID: "Ev1", Type: "app_mention", OccurredAt: time.Unix(1795824000, 0)}},
		"slack, rate limited": {"slack", webhooktest.Slack("secret"),
			`{"type":"app_rate_limited","team_id":"T1","api_app_id":"A1","minute_rate_limited":1518467820}`,
			webhook.Event{ID: "app_rate_limited:A1:T1:1518467820", Type: "app_rate_limited"}},
		"shopify": {"shopify", webhooktest.Shopify("orders/paid", "e-1", "secret"),
			`{"id":820982911946154508,"admin_graphql_api_id":"gid://shopify/Order/820982911946154508"}`,
			webhook.Event{ID: "orders/paid:e-1", Type: "orders/paid", Object: "gid://shopify/Order/820982911946154508",
				OccurredAt: signedAt.UTC()}},
		"shopify, without GraphQL": {"shopify", webhooktest.Shopify("orders/paid", "e-1", "secret"),
			`{"id":820982911946154508}`,
			webhook.Event{ID: "orders/paid:e-1", Type: "orders/paid", Object: "820982911946154508", OccurredAt: signedAt.UTC()}},
		"paddle": {"paddle", webhooktest.Paddle("secret"),
			`{"event_id":"evt_1","event_type":"transaction.paid","notification_id":"ntf_1","data":{"id":"txn_1"},
			"occurred_at":"2024-03-20T10:07:35.590857Z"}`,
			webhook.Event{ID: "evt_1", Type: "transaction.paid", Object: "txn_1", OccurredAt: at("2024-03-20T10:07:35.590857Z")}},
		"square": {"square", webhooktest.Square("https://example.com/hook", "secret"),
			`{"event_id":"e1","type":"payment.updated","created_at":"2022-07-13T20:30:59Z",
			"data":{"id":"p1","object":{"payment":{"id":"p1","version":3}}}}`,
			webhook.Event{ID: "e1", Type: "payment.updated", Object: "p1", Version: 3, OccurredAt: at("2022-07-13T20:30:59Z")}},
		"toss, payout": {"tosspayments", webhooktest.TossPayments("secret"),
			`{"eventType":"payout.changed","createdAt":"2024-12-02T12:15:20+09:00","eventId":"ev1","entityBody":{"id":"FPA_1"}}`,
			webhook.Event{ID: "ev1", Type: "payout.changed", Object: "FPA_1", OccurredAt: at("2024-12-02T12:15:20+09:00")}},
		"hmac": {"hmac", webhooktest.HMAC("X-Acme-Signature", "", "X-Acme-Time", "secret"), `{"id":7,"type":"a.b"}`,
			webhook.Event{ID: "7", Type: "a.b"}},
	} {
		t.Run(name, func(t *testing.T) {
			content, err := verify(t, c.scheme, c.sign, c.body)
			require.NoError(t, err)
			require.Len(t, content.Events, 1)
			assert.Nil(t, content.Answer)
			got := content.Events[0]
			assert.WithinDuration(t, c.want.OccurredAt, got.OccurredAt, 0)
			assert.Equal(t, c.body, string(got.Body))
			got.Body, got.OccurredAt, c.want.OccurredAt = nil, time.Time{}, time.Time{}
			assert.Equal(t, c.want, got)
		})
	}
}

// An authentic request without an id, or with another body than documented, is refused with its own reason.
func TestBodiesThatHoldNoEvent(t *testing.T) {
	for _, c := range []struct {
		scheme string
		sign   webhooktest.Signer
	}{
		{"stripe", webhooktest.Stripe("secret")}, {"paddle", webhooktest.Paddle("secret")},
		{"square", webhooktest.Square("https://example.com/hook", "secret")},
		{"slack", webhooktest.Slack("secret")}, {"tosspayments", webhooktest.TossPayments("secret")},
		{"github", webhooktest.GitHub("push", "", "secret")}, {"shopify", webhooktest.Shopify("a/b", "", "secret")},
		{"hmac", webhooktest.HMAC("X-Acme-Signature", "", "X-Acme-Time", "secret")},
	} {
		for _, body := range []string{"", "null", "[]", "7", `"x"`, "{", "{}", "{}{}", "\xff", `{"id":"secret-canary`} {
			_, err := verify(t, c.scheme, c.sign, body)
			want := webhook.ReasonBadBody
			if (body == "{}" || body == "null") && c.scheme != "slack" {
				want = webhook.ReasonNoEventID
			}
			require.Equal(t, want, webhook.ReasonOf(err), "%s: %q: %v", c.scheme, body, err)
			assert.NotContains(t, err.Error(), "canary")
		}
	}
	_, err := verify(t, "stripe", webhooktest.Stripe("secret"), `{"id":"`+strings.Repeat("x", 256)+`"}`)
	assert.Equal(t, webhook.ReasonNoEventID, webhook.ReasonOf(err))
}

func TestSlackChallengeIsAnsweredOnlyIfSigned(t *testing.T) {
	body := `{"token":"x","challenge":"3eZbrw1a<b>","type":"url_verification"}`
	content, err := verify(t, "slack", webhooktest.Slack("secret"), body)
	require.NoError(t, err)
	assert.Empty(t, content.Events)
	require.NotNil(t, content.Answer)
	assert.Equal(t, "3eZbrw1a<b>", string(content.Answer.Body))
	assert.Equal(t, "text/plain; charset=utf-8", content.Answer.ContentType)
	assert.Equal(t, http.StatusOK, content.Answer.Status)

	content, err = verify(t, "slack", webhooktest.Slack("another"), body)
	assert.Equal(t, webhook.ReasonMismatch, webhook.ReasonOf(err))
	assert.Nil(t, content.Answer)

	_, err = verify(t, "slack", webhooktest.Slack("secret"), `{"type":"url_verification"}`)
	assert.Equal(t, webhook.ReasonBadBody, webhook.ReasonOf(err))
}

func TestGitHubForm(t *testing.T) {
	form := func(body []byte, at time.Time) (http.Header, []byte, error) {
		header, body, err := webhooktest.GitHub("issues", "guid", "secret")([]byte(url.Values{"payload": {string(body)}}.Encode()), at)
		header.Set("Content-Type", "application/x-www-form-urlencoded")
		return header, body, err
	}
	content, err := verify(t, "github", form, `{"action":"closed"}`)
	require.NoError(t, err)
	assert.Equal(t, "issues.closed", content.Events[0].Type)
	assert.JSONEq(t, `{"action":"closed"}`, string(content.Events[0].Body))
}

// A period in the id would let a part of the id count as the time: "a.1" at 2 is signed like "a" at 1.
func TestStandardWebhooksRefusesAnIDWithAPeriod(t *testing.T) {
	_, err := verify(t, "standardwebhooks", webhooktest.StandardWebhooks("msg.1", "whsec_c2VjcmV0"), `{}`)
	assert.Equal(t, webhook.ReasonMalformed, webhook.ReasonOf(err))
}

// A public key must never verify v1, since every client could sign with it.
func TestStandardWebhooksPublicKeyIsNoSharedSecret(t *testing.T) {
	const public = "whpk_KKAiIRaX1fNiV3PkhYoT7fWTpUWpTaIlQzaitaBreFY="
	shared := "whsec_" + strings.TrimPrefix(public, "whpk_")
	header, body, err := webhooktest.StandardWebhooks("msg_1", shared)([]byte(`{}`), signedAt)
	require.NoError(t, err)
	s, err := webhook.StandardWebhooks([]string{public})
	require.NoError(t, err)
	_, err = s.Verify(&webhook.Request{Header: header, Body: body, ReceivedAt: signedAt})
	assert.Equal(t, webhook.ReasonMismatch, webhook.ReasonOf(err))
}

func TestSquareURLIsSigned(t *testing.T) {
	_, err := verify(t, "square", webhooktest.Square("https://example.com/hook/", "secret"), `{"event_id":"e1"}`)
	assert.Equal(t, webhook.ReasonMismatch, webhook.ReasonOf(err))
}

func TestProviders(t *testing.T) {
	for name, construct := range constructors("https://example.com/hook") {
		secret := "00ff"
		if name == "standardwebhooks" || name == "svix" {
			secret = "whsec_c2VjcmV0"
		}
		s, err := construct([]string{secret})
		require.NoError(t, err)
		p := s.Provider()
		if name == "hmac" {
			name = "acme"
		}
		assert.Equal(t, name, p.Name)
		assert.Equal(t, name == "github", p.NeverRedelivers)
		assert.Equal(t, name == "tosspayments", p.SendsUnsigned)
		assert.Less(t, p.RetriesFor, 31*24*time.Hour, "the default time for which ids are kept")
	}
}

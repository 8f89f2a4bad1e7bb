package webhook_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent/webhook"
	"github.com/idempotent-go/idempotent/webhook/webhooktest"
)

func hmacAcme(secret string) webhooktest.Signer {
	return webhooktest.HMAC("X-Acme-Signature", "", "X-Acme-Time", secret)
}

func rawKey(key []byte) string      { return string(key) }
func standardKey(key []byte) string { return "whsec_" + base64.StdEncoding.EncodeToString(key) }

func FuzzStripe(f *testing.F) {
	fuzzScheme(f, "stripe", "Stripe-Signature", rawKey, func(s string) webhooktest.Signer { return webhooktest.Stripe(s) })
}

func FuzzPaddle(f *testing.F) {
	fuzzScheme(f, "paddle", "Paddle-Signature", rawKey, func(s string) webhooktest.Signer { return webhooktest.Paddle(s) })
}

func FuzzStandardWebhooks(f *testing.F) {
	fuzzScheme(f, "standardwebhooks", "Webhook-Signature", standardKey, func(s string) webhooktest.Signer {
		return webhooktest.StandardWebhooks("msg_1", s)
	})
}

func FuzzSvix(f *testing.F) {
	fuzzScheme(f, "svix", "Svix-Signature", standardKey, func(s string) webhooktest.Signer { return webhooktest.Svix("msg_1", s) })
}

func FuzzGitHub(f *testing.F) {
	fuzzScheme(f, "github", "X-Hub-Signature-256", rawKey, func(s string) webhooktest.Signer {
		return webhooktest.GitHub("issues", "guid", s)
	})
}

func FuzzSlack(f *testing.F) {
	fuzzScheme(f, "slack", "X-Slack-Signature", rawKey, webhooktest.Slack)
}

func FuzzShopify(f *testing.F) {
	fuzzScheme(f, "shopify", "X-Shopify-Hmac-Sha256", rawKey, func(s string) webhooktest.Signer {
		return webhooktest.Shopify("orders/paid", "e1", s)
	})
}

func FuzzSquare(f *testing.F) {
	fuzzScheme(f, "square", "X-Square-Hmacsha256-Signature", rawKey, func(s string) webhooktest.Signer {
		return webhooktest.Square("https://example.com/hook", s)
	})
}

func FuzzTossPayments(f *testing.F) {
	fuzzScheme(f, "tosspayments", "Tosspayments-Webhook-Signature", rawKey, func(s string) webhooktest.Signer {
		return webhooktest.TossPayments(s)
	})
}

func FuzzHMAC(f *testing.F) { fuzzScheme(f, "hmac", "X-Acme-Signature", rawKey, hmacAcme) }

// fuzzScheme sends a body that is signed rightly, with a byte of it changed, with a bit of the key changed, and with any text
// as its signature. Only the first may be authentic, and nothing may panic.
func fuzzScheme(f *testing.F, name, signatureHeader string, secretOf func([]byte) string, sign func(string) webhooktest.Signer) {
	for _, v := range vectors(f) {
		if v.Scheme == name {
			f.Add([]byte(v.Body), []byte("secret"), v.request().Header.Get(signatureHeader), v.At, uint16(7))
		}
	}
	f.Add([]byte(`{"id":"1","type":"a"}`), []byte("s"), "t=1,v1=00", int64(1), uint16(0))
	f.Fuzz(func(t *testing.T, body, key []byte, text string, unix int64, position uint16) {
		if len(key) == 0 || unix <= 0 || unix > 99999999999 || bytes.IndexByte(key, 0) >= 0 {
			return // HMAC pads keys with zeros, so a key with a zero has others that equal it
		}
		if len(key) > 64 {
			key = key[:64] // HMAC hashes longer ones
		}
		at := time.Unix(unix, 0)
		header, body, err := sign(secretOf(key))(body, at)
		require.NoError(t, err)
		try := func(h http.Header, b, k []byte) (webhook.Content, error) {
			s, err := constructors("https://example.com/hook")[name]([]string{secretOf(k)})
			require.NoError(t, err)
			content, err := s.Verify(&webhook.Request{Method: http.MethodPost, Header: h, Body: b, ReceivedAt: at})
			requireSound(t, content, err, b)
			return content, err
		}
		_, err = try(header, body, key)
		require.True(t, verified(err), "%v", err)
		if len(body) > 0 {
			_, err = try(header, flipAt(body, position), key)
			require.Equal(t, webhook.ReasonMismatch, webhook.ReasonOf(err))
		}
		if other := flipAt(key, position); bytes.IndexByte(other, 0) < 0 {
			_, err = try(header, body, other)
			require.Equal(t, webhook.ReasonMismatch, webhook.ReasonOf(err))
		}
		right := header.Get(signatureHeader)
		header.Set(signatureHeader, text)
		_, err = try(header, body, key)
		if verified(err) {
			require.Contains(t, text, right[len(right)-43:], "a signature without the key")
		}
	})
}

func flipAt(b []byte, position uint16) []byte {
	b = slices.Clone(b)
	b[int(position)%len(b)] ^= 1 << (position % 8)
	return b
}

// requireSound checks what holds for each result: events have ids, and errors are refusals that quote nothing.
func requireSound(t testing.TB, content webhook.Content, err error, body []byte) {
	if err == nil {
		require.True(t, len(content.Events) > 0 || content.Answer != nil)
		for _, e := range content.Events {
			require.NotEmpty(t, e.ID)
			require.LessOrEqual(t, len(e.ID), 255)
		}
		return
	}
	require.Empty(t, content.Events)
	require.Nil(t, content.Answer)
	_, ok := errors.AsType[*webhook.RefusedError](err)
	require.True(t, ok)
	require.NotEqual(t, webhook.ReasonOther, webhook.ReasonOf(err))
	if len(body) >= 12 {
		require.NotContains(t, err.Error(), string(body))
	}
}

// FuzzAdyen changes a signed body at one byte: what is then accepted must have the same signed fields.
func FuzzAdyen(f *testing.F) {
	for _, v := range vectors(f) {
		if v.Scheme == "adyen" {
			f.Add([]byte(v.Body), uint16(40), byte(1))
		}
	}
	f.Add([]byte(adyenBody(adyenItem, adyenItem)), uint16(300), byte('"'))
	f.Fuzz(func(t *testing.T, body []byte, position uint16, with byte) {
		_, signed, err := webhooktest.Adyen("00ff")(body, signedAt)
		if err != nil {
			signed = body
		}
		content, err := verifyAdyen(t, string(signed))
		requireSound(t, content, err, signed)
		if err != nil {
			return
		}
		changed := slices.Clone(signed)
		changed[int(position)%len(changed)] = with
		again, err := verifyAdyen(t, string(changed))
		requireSound(t, again, err, changed)
		if err != nil {
			return
		}
		require.Len(t, again.Events, len(content.Events))
		for i := range again.Events {
			require.Equal(t, content.Events[i].ID, again.Events[i].ID)
			require.Equal(t, content.Events[i].Object, again.Events[i].Object)
		}
	})
}

// FuzzTossUnsigned reads unsigned bodies.
func FuzzTossUnsigned(f *testing.F) {
	for _, body := range []string{tossPayment, tossDeposit, tossPayout, `{"eventType":"BILLING_DELETED"}`} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		content, err := webhook.TossPaymentsUnsigned().Verify(&webhook.Request{Body: body, ReceivedAt: signedAt})
		requireSound(t, content, err, body)
		for _, e := range content.Events {
			require.True(t, e.Unsigned)
			require.NotContains(t, []string{"payout.changed", "seller.changed"}, e.Type)
		}
	})
}

package webhooktest_test

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent/webhook/webhooktest"
)

// Each signer makes the signature that the provider's documentation, test suite or library made.
func TestSignersMakeTheVectors(t *testing.T) {
	raw, err := os.ReadFile("../testdata/vectors.json")
	require.NoError(t, err)
	var vectors []struct {
		Scheme, Name, Secret, Body, URL, ID string
		Headers                             map[string]string
		At                                  int64
	}
	require.NoError(t, json.Unmarshal(raw, &vectors))
	made := map[string]bool{}
	for _, v := range vectors {
		if strings.HasPrefix(v.Secret, "whpk_") {
			continue // TestSignsWithAPrivateKey
		}
		h := http.Header{}
		for name, value := range v.Headers {
			h.Set(name, value)
		}
		signer := map[string]webhooktest.Signer{
			"stripe": webhooktest.Stripe(v.Secret), "paddle": webhooktest.Paddle(v.Secret),
			"standardwebhooks": webhooktest.StandardWebhooks(h.Get("Webhook-Id"), v.Secret),
			"svix":             webhooktest.Svix(h.Get("Svix-Id"), v.Secret),
			"github":           webhooktest.GitHub(h.Get("X-GitHub-Event"), h.Get("X-GitHub-Delivery"), v.Secret),
			"slack":            webhooktest.Slack(v.Secret),
			"shopify":          webhooktest.Shopify(h.Get("X-Shopify-Topic"), h.Get("X-Shopify-Event-Id"), v.Secret),
			"square":           webhooktest.Square(v.URL, v.Secret), "adyen": webhooktest.Adyen(v.Secret),
			"tosspayments": webhooktest.TossPayments(v.Secret),
		}[v.Scheme]
		header, body, err := signer([]byte(v.Body), time.Unix(v.At, 0))
		require.NoError(t, err)
		if v.Scheme == "adyen" {
			assert.JSONEq(t, v.Body, string(body))
		} else {
			assert.Equal(t, v.Body, string(body))
		}
		for name := range h { // a vector may have a second signature, under another secret
			got := header.Get(name)
			parts := strings.FieldsFunc(strings.TrimPrefix(got, "v1:"), func(r rune) bool { return r == ',' || r == ';' || r == ' ' })
			for _, part := range parts {
				assert.Contains(t, h.Get(name), part, "%s %s: %s", v.Scheme, v.Name, name)
			}
			assert.NotEmpty(t, got, name)
		}
		made[v.Scheme] = true
	}
	assert.Len(t, made, 10)
}

// The vector of the Standard Webhooks Go library's test of asymmetric keys.
func TestSignsWithAPrivateKey(t *testing.T) {
	sign := webhooktest.StandardWebhooks("msg_p5jXN8AQM9LWM0D4loKWxJek", "whsk_VEVTVFNJR05JTkdLRVlET05PVFVTRVRISVNGT1JBTlk=")
	header, _, err := sign([]byte(`{"test": 2432232314}`), time.Unix(1614265330, 0))
	require.NoError(t, err)
	assert.Equal(t, "v1a,tQ9V2XOqn7jL/DQenEFpqIugdBVtiMmER5mhSkXBNwM0mkATuDe6KYYUuxqtaiHeYGb7KaaBRdM5WqyeFiL8Ag==",
		header.Get("Webhook-Signature"))
}

func TestSignersRefuseWhatTheyCannotSign(t *testing.T) {
	for name, c := range map[string]struct {
		sign webhooktest.Signer
		body string
	}{
		"Adyen's key is not hex":        {webhooktest.Adyen("xyz"), `{}`},
		"Adyen's body is not an object": {webhooktest.Adyen("00"), `[]`},
		"an item without its item":      {webhooktest.Adyen("00"), `{"notificationItems":[{}]}`},
		"a shared secret is not base64": {webhooktest.StandardWebhooks("m", "whsec_!"), `{}`},
		"a private key is too short":    {webhooktest.Svix("m", "whsk_AAAA"), `{}`},
	} {
		_, _, err := c.sign([]byte(c.body), time.Unix(1, 0))
		assert.Error(t, err, name)
	}
}

func TestRequest(t *testing.T) {
	r := webhooktest.GitHub("push", "guid", "secret").Request(t, "/hooks/github", []byte(`{}`), time.Unix(1, 0))
	body, err := io.ReadAll(r.Body)
	require.NoError(t, err)
	assert.Equal(t, `{}`, string(body))
	assert.Equal(t, "POST /hooks/github push", r.Method+" "+r.URL.Path+" "+r.Header.Get("X-GitHub-Event"))
}

func TestShopifyDeliveriesDiffer(t *testing.T) {
	sign := webhooktest.Shopify("orders/paid", "e1", "secret")
	first, _, _ := sign(nil, time.Unix(1, 0))
	second, _, _ := sign(nil, time.Unix(1, 0))
	assert.Equal(t, first.Get("X-Shopify-Event-Id"), second.Get("X-Shopify-Event-Id"))
	assert.NotEqual(t, first.Get("X-Shopify-Webhook-Id"), second.Get("X-Shopify-Webhook-Id"))
}

package webhooktest

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// A Signer signs a body as a provider does, at a given time. It returns the headers of the delivery and the body to send,
// which is the given one except for Adyen, whose signature is in the body. Several secrets give several signatures, as
// while a secret is rotated.
//
// Signers are written apart from the schemes that verify, and verified with the providers' vectors, so that a test does
// not compare a mistake with itself.
type Signer func(body []byte, at time.Time) (http.Header, []byte, error)

// Request returns a signed POST for an http.Handler. A body that cannot be signed ends the test.
func (s Signer) Request(t testing.TB, url string, body []byte, at time.Time) *http.Request {
	t.Helper()
	header, body, err := s(body, at)
	if err != nil {
		t.Fatalf("webhooktest: %v", err)
	}
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, url, bytes.NewReader(body))
	r.Header = header
	return r
}

// Stripe signs with the signing secrets of an endpoint.
func Stripe(secrets ...string) Signer { return pairs("Stripe-Signature", "t", ".", ",v1=", secrets) }

// Paddle signs with the secret keys of a notification destination.
func Paddle(secrets ...string) Signer { return pairs("Paddle-Signature", "ts", ":", ";h1=", secrets) }

func pairs(name, timeName, joint, signatureName string, secrets []string) Signer {
	return func(body []byte, at time.Time) (http.Header, []byte, error) {
		var value strings.Builder
		value.WriteString(timeName + "=" + unix(at))
		for _, secret := range secrets {
			value.WriteString(signatureName + hex.EncodeToString(sum([]byte(secret), unix(at), joint, string(body))))
		}
		return jsonHeader(name, value.String()), body, nil
	}
}

// StandardWebhooks signs the message of an id, with shared secrets ("whsec_base64", v1) and private keys ("whsk_base64",
// v1a).
func StandardWebhooks(id string, secrets ...string) Signer { return standard("Webhook-", id, secrets) }

// Svix signs the message of an id, as StandardWebhooks does, under Svix's header names.
func Svix(id string, secrets ...string) Signer { return standard("Svix-", id, secrets) }

func standard(prefix, id string, secrets []string) Signer {
	return func(body []byte, at time.Time) (http.Header, []byte, error) {
		content := id + "." + unix(at) + "." + string(body)
		var signatures []string
		for _, secret := range secrets {
			seed, private := strings.CutPrefix(secret, "whsk_")
			key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(seed, "whsec_"))
			switch {
			case err != nil || len(key) == 0:
				return nil, nil, errors.New("a secret is not base64 after whsec_ or whsk_")
			case private && len(key) != ed25519.SeedSize:
				return nil, nil, fmt.Errorf("a private key of %d bytes, must have %d", len(key), ed25519.SeedSize)
			case private:
				signature := ed25519.Sign(ed25519.NewKeyFromSeed(key), []byte(content))
				signatures = append(signatures, "v1a,"+base64.StdEncoding.EncodeToString(signature))
			default:
				signatures = append(signatures, "v1,"+base64.StdEncoding.EncodeToString(sum(key, content)))
			}
		}
		return jsonHeader(prefix+"Id", id, prefix+"Timestamp", unix(at), prefix+"Signature", strings.Join(signatures, " ")),
			body, nil
	}
}

// GitHub signs the delivery of an event, "push", under a delivery id.
func GitHub(event, delivery, secret string) Signer {
	return func(body []byte, _ time.Time) (http.Header, []byte, error) {
		signature := "sha256=" + hex.EncodeToString(sum([]byte(secret), string(body)))
		return jsonHeader("X-Hub-Signature-256", signature, "X-GitHub-Event", event, "X-GitHub-Delivery", delivery), body, nil
	}
}

// Slack signs with an app's signing secret.
func Slack(secret string) Signer {
	return func(body []byte, at time.Time) (http.Header, []byte, error) {
		signature := "v0=" + hex.EncodeToString(sum([]byte(secret), "v0:", unix(at), ":", string(body)))
		return jsonHeader("X-Slack-Signature", signature, "X-Slack-Request-Timestamp", unix(at)), body, nil
	}
}

// Shopify signs the delivery of a topic, "orders/paid", under an event id. The delivery's own id differs each time.
func Shopify(topic, eventID, secret string) Signer {
	var deliveries atomic.Int64
	return func(body []byte, at time.Time) (http.Header, []byte, error) {
		signature := base64.StdEncoding.EncodeToString(sum([]byte(secret), string(body)))
		return jsonHeader("X-Shopify-Hmac-Sha256", signature, "X-Shopify-Topic", topic, "X-Shopify-Event-Id", eventID,
			"X-Shopify-Webhook-Id", fmt.Sprintf("%s-delivery-%d", eventID, deliveries.Add(1)),
			"X-Shopify-Triggered-At", at.UTC().Format(time.RFC3339Nano)), body, nil
	}
}

// Square signs for a notification URL with its signature key.
func Square(notificationURL, signatureKey string) Signer {
	return func(body []byte, _ time.Time) (http.Header, []byte, error) {
		signature := base64.StdEncoding.EncodeToString(sum([]byte(signatureKey), notificationURL, string(body)))
		return jsonHeader("X-Square-Hmacsha256-Signature", signature), body, nil
	}
}

// TossPayments signs with the security keys of payouts. An event about a payment is sent without a signature: use Unsigned.
func TossPayments(secrets ...string) Signer {
	return func(body []byte, at time.Time) (http.Header, []byte, error) {
		stamp := at.In(time.FixedZone("KST", 9*60*60)).Format(time.RFC3339)
		var signatures []string
		for _, secret := range secrets {
			signatures = append(signatures, base64.StdEncoding.EncodeToString(sum([]byte(secret), string(body), ":", stamp)))
		}
		return jsonHeader("Tosspayments-Webhook-Transmission-Time", stamp,
			"Tosspayments-Webhook-Signature", "v1:"+strings.Join(signatures, ",")), body, nil
	}
}

// Unsigned sends a body without a signature.
func Unsigned() Signer {
	return func(body []byte, _ time.Time) (http.Header, []byte, error) { return jsonHeader(), body, nil }
}

// HMAC signs in hex, after a prefix, in the given header: the body or, with the name of a time's header, "time.body".
func HMAC(signatureHeader, prefix, timestampHeader, secret string) Signer {
	return func(body []byte, at time.Time) (http.Header, []byte, error) {
		header, content := jsonHeader(), string(body)
		if timestampHeader != "" {
			header.Set(timestampHeader, unix(at))
			content = unix(at) + "." + content
		}
		header.Set(signatureHeader, prefix+hex.EncodeToString(sum([]byte(secret), content)))
		return header, body, nil
	}
}

// Adyen signs each NotificationRequestItem of a body with a key in hex. The signature replaces one that is there.
func Adyen(key string) Signer {
	return func(body []byte, _ time.Time) (http.Header, []byte, error) {
		raw, err := hex.DecodeString(key)
		if err != nil {
			return nil, nil, errors.New("the key is not hex")
		}
		var b map[string]any
		d := json.NewDecoder(bytes.NewReader(body))
		d.UseNumber()
		if err := d.Decode(&b); err != nil {
			return nil, nil, errors.New("the body is not a JSON object")
		}
		items, _ := b["notificationItems"].([]any)
		for _, i := range items {
			outer, _ := i.(map[string]any)
			item, ok := outer["NotificationRequestItem"].(map[string]any)
			if !ok {
				return nil, nil, errors.New("an item of notificationItems has no NotificationRequestItem")
			}
			signAdyen(item, raw)
		}
		body, err = json.Marshal(b)
		return jsonHeader(), body, err
	}
}

func signAdyen(item map[string]any, key []byte) {
	amount, _ := item["amount"].(map[string]any)
	var fields []string
	for _, v := range []any{item["pspReference"], item["originalReference"], item["merchantAccountCode"],
		item["merchantReference"], amount["value"], amount["currency"], item["eventCode"], item["success"]} {
		if v == nil {
			v = ""
		}
		fields = append(fields, fmt.Sprint(v))
	}
	data, ok := item["additionalData"].(map[string]any)
	if !ok {
		data = map[string]any{}
		item["additionalData"] = data
	}
	data["hmacSignature"] = base64.StdEncoding.EncodeToString(sum(key, strings.Join(fields, ":")))
}

func sum(key []byte, parts ...string) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(strings.Join(parts, "")))
	return mac.Sum(nil)
}

func unix(at time.Time) string { return strconv.FormatInt(at.Unix(), 10) }

func jsonHeader(pairs ...string) http.Header {
	h := http.Header{"Content-Type": {"application/json"}}
	for pair := range slices.Chunk(pairs, 2) {
		if name, value := pair[0], pair[len(pair)-1]; value != "" {
			h.Set(name, value)
		}
	}
	return h
}

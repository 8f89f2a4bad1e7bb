package webhook_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent/webhook"
)

// Flips of single bits: the lowest, the one between upper and lower case, and the highest.
var flips = []byte{0x01, 0x20, 0x80}

func flipped(s string, i int, mask byte) string {
	b := []byte(s)
	b[i] ^= mask
	return string(b)
}

// signedHeaders are the headers that a scheme verifies. Those of GitHub and Shopify that name the event are not signed.
func (v *vector) signedHeaders() (names []string) {
	for name := range v.Headers {
		switch http.CanonicalHeaderKey(name) {
		case "X-Github-Delivery", "X-Github-Event", "X-Shopify-Event-Id", "X-Shopify-Topic":
		default:
			names = append(names, name)
		}
	}
	return names
}

// spare reports whether the header has a signature that may be wrong, because there is a second one.
func spare(value string) bool {
	return strings.Count(value, "h1=") > 1 || strings.Count(value, "v1,") > 1 || strings.Count(value, "v1a,") > 1 ||
		(strings.HasPrefix(value, "v1:") && strings.Contains(value, ","))
}

func TestEachFlippedByteOfTheBodyIsRefused(t *testing.T) {
	for _, v := range vectors(t) {
		if v.Scheme == "adyen" {
			continue // signs eight fields: TestAdyenFlippedFields
		}
		t.Run(v.Scheme+"/"+v.Name, func(t *testing.T) {
			s := v.scheme(t)
			for i := range v.Body {
				for _, mask := range flips {
					r := v.request()
					r.Body = []byte(flipped(v.Body, i, mask))
					_, err := s.Verify(r)
					require.Equal(t, webhook.ReasonMismatch, webhook.ReasonOf(err), "byte %d", i)
				}
			}
			for _, body := range []string{"", v.Body + " ", v.Body[1:], v.Body[:len(v.Body)-1]} {
				r := v.request()
				r.Body = []byte(body)
				_, err := s.Verify(r)
				require.Equal(t, webhook.ReasonMismatch, webhook.ReasonOf(err), "%d bytes", len(body))
			}
		})
	}
}

func TestEachFlippedByteOfTheHeadersIsRefused(t *testing.T) {
	for _, v := range vectors(t) {
		t.Run(v.Scheme+"/"+v.Name, func(t *testing.T) {
			s := v.scheme(t)
			for _, name := range v.signedHeaders() {
				value := v.Headers[name]
				accepted := 0
				for i := range value {
					for _, mask := range flips {
						r := v.request()
						r.Header.Set(name, flipped(value, i, mask))
						if _, err := s.Verify(r); verified(err) {
							accepted++
							require.True(t, spare(value), "%s, byte %d, mask %x: %v", name, i, mask, err)
						}
					}
				}
				if spare(value) { // no more than the signature that does not matter, its name and its separator
					require.Less(t, accepted, len(value)*len(flips)*3/4, name)
				}
			}
		})
	}
}

func TestMissingEmptyAndRepeatedHeadersAreRefused(t *testing.T) {
	for _, v := range vectors(t) {
		t.Run(v.Scheme+"/"+v.Name, func(t *testing.T) {
			s := v.scheme(t)
			for _, name := range v.signedHeaders() {
				for change, apply := range map[string]func(http.Header){
					"missing": func(h http.Header) { h.Del(name) },
					"empty":   func(h http.Header) { h.Set(name, "") },
					"twice":   func(h http.Header) { h.Add(name, h.Get(name)) },
					"spaced":  func(h http.Header) { h.Set(name, " "+h.Get(name)) },
					"tail":    func(h http.Header) { h.Set(name, h.Get(name)+"\n") },
				} {
					r := v.request()
					apply(r.Header)
					_, err := s.Verify(r)
					if change == "spaced" && strings.HasSuffix(name, "-signature") || change == "tail" && spare(v.Headers[name]) {
						continue // a space separates signatures, and the last one of several may be malformed
					}
					require.False(t, verified(err), "%s %s: %v", change, name, err)
				}
			}
		})
	}
}

func TestEachFlippedByteOfTheSecretIsRefused(t *testing.T) {
	for _, v := range vectors(t) {
		t.Run(v.Scheme+"/"+v.Name, func(t *testing.T) {
			construct := constructors(v.URL)[v.Scheme]
			refused := 0
			for i := range v.Secret {
				for _, mask := range flips {
					secret := flipped(v.Secret, i, mask)
					if v.Scheme == "adyen" && strings.EqualFold(secret, v.Secret) {
						continue // hex in another case is the same key
					}
					s, err := construct([]string{secret})
					if err == nil {
						_, err = s.Verify(v.request())
					}
					require.False(t, verified(err), "byte %d, mask %x", i, mask)
					refused++
				}
			}
			assert.Positive(t, refused)
		})
	}
}

// One signature has one spelling: other forms that lax decoders accept are refused.
func TestSpellingsOfSignatures(t *testing.T) {
	for _, v := range vectors(t) {
		for _, name := range v.signedHeaders() {
			value := v.Headers[name]
			changed := []string{strings.ToUpper(value), strings.TrimRight(value, "="), value + "="}
			if len(value) > 10 {
				changed = append(changed, value[:len(value)-5]+"\n"+value[len(value)-5:], value[:len(value)-2])
			}
			for _, c := range changed {
				if c == value || spare(value) {
					continue
				}
				r := v.request()
				r.Header.Set(name, c)
				_, err := v.scheme(t).Verify(r)
				assert.False(t, verified(err), "%s: %s: %q", v.Scheme, name, c)
			}
		}
	}
}

func TestManySignaturesAreRefused(t *testing.T) {
	for _, v := range vectors(t) {
		many := map[string][2]string{
			"stripe": {"Stripe-Signature", ",v1=00"}, "paddle": {"Paddle-Signature", ";h1=00"},
			"standardwebhooks": {"Webhook-Signature", " v1a,AA"}, "tosspayments": {"Tosspayments-Webhook-Signature", ",AA"},
		}[v.Scheme]
		if many[0] == "" {
			continue
		}
		r := v.request()
		r.Header.Set(many[0], r.Header.Get(many[0])+strings.Repeat(many[1], 16))
		_, err := v.scheme(t).Verify(r)
		assert.Equal(t, webhook.ReasonMalformed, webhook.ReasonOf(err), v.Scheme)
	}
}

// A signature of another length is no signature, and a pair that is there twice has two readings.
func TestMalformedSignatures(t *testing.T) {
	for _, v := range vectors(t) {
		for name, values := range map[string][]string{
			"Stripe-Signature": {"t=1795824816", "v1=00", "t=1795824816,v1=00", "t=1,t=1795824816,v1=" + strings.Repeat("0", 64),
				"t=1795824816,v1=" + strings.Repeat("z", 64)},
			"Paddle-Signature":              {"ts=1795824816", "ts=1795824816;h1=00"},
			"Webhook-Signature":             {"v1,AAAA", "v1a,AAAA", "v2,AAAA", "v1", ","},
			"X-Hub-Signature-256":           {"sha1=00", "sha256=", "sha256=00"},
			"X-Slack-Signature":             {"v1=00", "v0=00"},
			"X-Shopify-Hmac-Sha256":         {"AAAA", "=", strings.Repeat("A", 44)},
			"X-Square-Hmacsha256-Signature": {"AAAA"},
		} {
			if v.request().Header.Get(name) == "" {
				continue
			}
			for _, value := range values {
				r := v.request()
				r.Header.Set(name, value)
				_, err := v.scheme(t).Verify(r)
				assert.Equal(t, webhook.ReasonMalformed, webhook.ReasonOf(err), "%s: %s: %v", name, value, err)
			}
		}
	}
}

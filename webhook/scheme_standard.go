package webhook

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Prefixes of secrets in Standard Webhooks. A shared secret without a prefix is taken as well, as the spec's own library does.
const (
	sharedPrefix  = "whsec_"
	publicPrefix  = "whpk_"
	privatePrefix = "whsk_"
)

// StandardWebhooks returns the scheme of standardwebhooks.com, which many providers use. A secret is a shared one,
// "whsec_base64", or a provider's public key, "whpk_base64"; both kinds may be given at once.
//
// The provider signs "id.time.body" with HMAC-SHA256 (v1) or Ed25519 (v1a) and sends "webhook-id", "webhook-timestamp" and
// "webhook-signature: v1,base64 v1a,base64": several while a secret is rotated. Each attempt is signed again
// with its own time; the id stays.
//
// Traps:
//   - A shared secret is base64, and its decoded bytes are the key.
//   - A public key verifies v1a and nothing else. As a shared secret it would let every client sign v1, since it is public.
//   - A private key, "whsk_…", is refused: the receiver has no use for it.
//   - An id with a period is refused: the border between id and time would not be part of what is signed.
//   - The body need not be JSON. Then an event has no type.
//
// Source: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
func StandardWebhooks(secrets []string, opts ...SchemeOption) (Scheme, error) {
	return newStandard(Provider{Name: "standardwebhooks", AnswerWithin: 15 * time.Second}, "Webhook-", secrets, opts)
}

// Svix returns the scheme of Svix, which is StandardWebhooks under the header names "svix-id", "svix-timestamp" and
// "svix-signature". Svix delivers under one set of names, so a provider's documentation decides between the two schemes.
//
// Source: https://docs.svix.com/receiving/verifying-payloads/how-manual, https://docs.svix.com/retries
func Svix(secrets []string, opts ...SchemeOption) (Scheme, error) {
	p := Provider{
		Name: "svix", AnswerWithin: 15 * time.Second, RetriesFor: 27*time.Hour + 35*time.Minute + 5*time.Second,
	}
	return newStandard(p, "Svix-", secrets, opts)
}

type standardScheme struct {
	provider   Provider
	tolerance  time.Duration
	headers    string // their prefix, in canonical form
	sharedKeys [][]byte
	publicKeys []ed25519.PublicKey
}

func newStandard(p Provider, headers string, secrets []string, opts []SchemeOption) (Scheme, error) {
	c, err := newConfig(p.Name, secrets, opts)
	if err != nil {
		return nil, err
	}
	s := &standardScheme{provider: p, tolerance: c.tolerance, headers: headers}
	for i, secret := range secrets {
		if err := s.addKey(secret); err != nil {
			return nil, fmt.Errorf("%w: %s: secret %d of %d: %w", ErrInvalidScheme, p.Name, i+1, len(secrets), err)
		}
	}
	return s, nil
}

// addKey returns errors that do not quote the secret.
func (s *standardScheme) addKey(secret string) error {
	if strings.HasPrefix(secret, privatePrefix) {
		return errors.New("a private key, whsk_…; must be whsec_… or whpk_…")
	}
	encoded, public := strings.CutPrefix(secret, publicPrefix)
	if !public {
		encoded = strings.TrimPrefix(secret, sharedPrefix)
	}
	key, err := base64.StdEncoding.DecodeString(encoded)
	switch {
	case err != nil || base64.StdEncoding.EncodeToString(key) != encoded: // the decoder skips line breaks
		return errors.New("not standard base64 with padding after its prefix")
	case public && len(key) != ed25519.PublicKeySize:
		return fmt.Errorf("a public key of %d bytes, must have %d", len(key), ed25519.PublicKeySize)
	case len(key) == 0:
		return errors.New("a key of 0 bytes")
	case public:
		s.publicKeys = append(s.publicKeys, key)
	default:
		s.sharedKeys = append(s.sharedKeys, key)
	}
	return nil
}

func (s *standardScheme) Provider() Provider { return s.provider }

func (s *standardScheme) Verify(r *Request) (Content, error) {
	id, v1, v1a, err := s.read(r)
	if err != nil {
		return Content{}, err
	}
	// Both kinds are tried whatever the first one says: v1 in constant time, v1a with nothing secret to protect.
	shared, public := v1.matches(s.sharedKeys), v1a.matchesPublic(s.publicKeys)
	if !shared && !public {
		return Content{}, Refuse(ReasonMismatch, "no secret verifies it")
	}
	if err := checkTime(v1.at, r.ReceivedAt, s.tolerance); err != nil {
		return Content{}, err
	}
	e := Event{ID: id, Body: r.Body}
	var b struct {
		Type, Timestamp string
		Data            struct{ ID textOrNumber }
	}
	if json.Unmarshal(r.Body, &b) == nil {
		e.Type, e.Object, e.OccurredAt = b.Type, string(b.Data.ID), parseTime(b.Timestamp)
	}
	return singleEvent(e)
}

// read returns what the request claims: one signature for each algorithm, over the same content.
func (s *standardScheme) read(r *Request) (id string, v1, v1a signature, err error) {
	var values [3]string
	for i, name := range [...]string{"Id", "Timestamp", "Signature"} {
		if values[i], err = singleHeader(r, s.headers+name); err != nil {
			return "", v1, v1a, err
		}
	}
	id = values[0]
	if strings.Contains(id, ".") {
		return "", v1, v1a, Refuse(ReasonMalformed, s.headers+"Id has a period")
	}
	v1.at, err = parseUnix(s.headers+"Timestamp", values[1])
	if err != nil {
		return "", v1, v1a, err
	}
	v1a.at = v1.at
	v1.signed = [][]byte{[]byte(id + "." + values[1] + "."), r.Body}
	v1a.signed = v1.signed
	v1.candidates, v1a.candidates, err = decodeVersions(s.headers+"Signature", values[2])
	return id, v1, v1a, err
}

// decodeVersions decodes "v1,base64 v1a,base64". Other versions are ignored, as the spec wants.
func decodeVersions(name, value string) (v1, v1a [][]byte, err error) {
	parts := strings.Split(value, " ")
	if len(parts) > maxCandidates {
		return nil, nil, Refuse(ReasonMalformed, fmt.Sprintf("%s has more than %d signatures", name, maxCandidates))
	}
	for _, part := range parts {
		version, encoded, _ := strings.Cut(part, ",")
		if version == "v1" {
			if b, ok := decodeMAC64(encoded); ok {
				v1 = append(v1, b)
			}
		}
		if version == "v1a" {
			if b, ok := decodeBase64(encoded, ed25519.SignatureSize); ok {
				v1a = append(v1a, b)
			}
		}
	}
	if len(v1)+len(v1a) == 0 {
		return nil, nil, Refuse(ReasonMalformed, name+" has no v1 or v1a in the documented form")
	}
	return v1, v1a, nil
}

func (s *signature) matchesPublic(keys []ed25519.PublicKey) bool {
	if len(keys) == 0 || len(s.candidates) == 0 {
		return false
	}
	var content []byte // Ed25519 needs it in one piece
	for _, part := range s.signed {
		content = append(content, part...)
	}
	for _, key := range keys {
		for _, candidate := range s.candidates {
			if ed25519.Verify(key, content, candidate) {
				return true
			}
		}
	}
	return false
}

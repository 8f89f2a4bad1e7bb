package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// ErrInvalidScheme is matched by the error of a constructor that refuses its arguments: no secret, an empty secret, a
// secret in another form than the provider's, a tolerance that is not positive.
var ErrInvalidScheme = errors.New("webhook: invalid scheme")

// maxCandidates bounds the signatures of one request. Providers send two while a secret is rotated. Without a bound, a
// header of a megabyte would buy thousands of Ed25519 verifications.
const maxCandidates = 16

// maxTimestampDigits bounds a Unix time: eleven digits last until the year 5138.
const maxTimestampDigits = 11

// A signature is what a request claims, decoded but not believed.
type signature struct {
	candidates [][]byte  // any of them may be right
	at         time.Time // zero if the provider signs no time
	signed     [][]byte  // the signed content, in parts, so that the body is not copied
}

// A macScheme verifies one HMAC-SHA256 over the request. Providers differ in where the signature is and in what it covers.
type macScheme struct {
	provider  Provider
	keys      [][]byte
	tolerance time.Duration
	signature func(r *Request) (signature, error)
	content   func(r *Request) (Content, error)
}

func (s *macScheme) Provider() Provider { return s.provider }

func (s *macScheme) Verify(r *Request) (Content, error) {
	sig, err := s.signature(r)
	if err != nil {
		return Content{}, err
	}
	if !sig.matches(s.keys) {
		return Content{}, Refuse(ReasonMismatch, "no secret verifies it")
	}
	// The time is checked after the signature: too_old and too_new then never mean a forgery.
	if err := checkTime(sig.at, r.ReceivedAt, s.tolerance); err != nil {
		return Content{}, err
	}
	return s.content(r)
}

// matches reports whether a key verifies a candidate. It compares each key with each candidate, in constant time, so that
// the time it takes tells neither how much of a signature was right nor which key it was.
func (s *signature) matches(keys [][]byte) bool {
	found := false
	for _, key := range keys {
		mac := hmac.New(sha256.New, key)
		for _, part := range s.signed {
			mac.Write(part)
		}
		sum := mac.Sum(nil)
		for _, candidate := range s.candidates {
			if hmac.Equal(candidate, sum) {
				found = true
			}
		}
	}
	return found
}

func checkTime(at, now time.Time, tolerance time.Duration) error {
	switch {
	case at.IsZero():
		return nil
	case now.Sub(at) > tolerance:
		return Refuse(ReasonTooOld, "signed more than "+tolerance.String()+" ago")
	case at.Sub(now) > tolerance:
		return Refuse(ReasonTooNew, "signed more than "+tolerance.String()+" ahead")
	}
	return nil
}

// singleHeader returns the one value of a header. Two values are refused, because the provider's own code and a proxy may read
// different ones.
func singleHeader(r *Request, name string) (string, error) {
	values := r.Header[http.CanonicalHeaderKey(name)]
	switch {
	case len(values) > 1:
		return "", Refuse(ReasonMalformed, "header "+name+" is there more than once")
	case len(values) == 0 || values[0] == "":
		return "", Refuse(ReasonNoSignature, "header "+name)
	}
	return values[0], nil
}

// decodeHex decodes a SHA-256 sum in lower-case hex, the one form that providers send: one signature has one spelling.
func decodeHex(s string) ([]byte, bool) {
	b, err := hex.DecodeString(s)
	return b, err == nil && len(b) == sha256.Size && hex.EncodeToString(b) == s
}

// decodeBase64 decodes padded standard base64 of size bytes. Go's decoder skips line breaks and, unless it is strict,
// accepts several spellings of the last byte; comparing with the encoding of the result refuses both.
func decodeBase64(s string, size int) ([]byte, bool) {
	b, err := base64.StdEncoding.DecodeString(s)
	return b, err == nil && len(b) == size && base64.StdEncoding.EncodeToString(b) == s
}

func decodeMAC64(s string) ([]byte, bool) { return decodeBase64(s, sha256.Size) }

// decodeAll decodes candidates. Those in another form are dropped, since one of the others may be right.
func decodeAll(name string, encoded []string, decode func(string) ([]byte, bool)) ([][]byte, error) {
	if len(encoded) > maxCandidates {
		return nil, Refuse(ReasonMalformed, fmt.Sprintf("%s has more than %d signatures", name, maxCandidates))
	}
	var candidates [][]byte
	for _, s := range encoded {
		if b, ok := decode(s); ok {
			candidates = append(candidates, b)
		}
	}
	if len(candidates) == 0 {
		return nil, Refuse(ReasonMalformed, name+" has no signature in the documented form")
	}
	return candidates, nil
}

// parseUnix parses Unix seconds without a sign, space or leading zero.
func parseUnix(name, s string) (time.Time, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n <= 0 || len(s) > maxTimestampDigits || strconv.FormatInt(n, 10) != s {
		return time.Time{}, Refuse(ReasonMalformed, name+" is not a Unix time in seconds")
	}
	return time.Unix(n, 0), nil
}

// newConfig applies the options and validates them together with the secrets.
func newConfig(provider string, secrets []string, opts []SchemeOption) (schemeConfig, error) {
	c := schemeConfig{tolerance: DefaultTolerance}
	for _, opt := range opts {
		if opt != nil {
			opt(&c)
		}
	}
	if c.tolerance <= 0 {
		return c, fmt.Errorf("%w: %s: tolerance %v, must be positive", ErrInvalidScheme, provider, c.tolerance)
	}
	if len(secrets) == 0 {
		return c, fmt.Errorf("%w: %s: no secret, at least one is needed: without it every client could send events",
			ErrInvalidScheme, provider)
	}
	for i, s := range secrets {
		if s == "" {
			return c, fmt.Errorf("%w: %s: secret %d of %d is empty", ErrInvalidScheme, provider, i+1, len(secrets))
		}
	}
	return c, nil
}

// newMAC returns a scheme whose keys decodeKey makes of the secrets; nil means the secret's bytes.
func newMAC(p Provider, secrets []string, opts []SchemeOption, decodeKey func(string) ([]byte, error)) (*macScheme, error) {
	c, err := newConfig(p.Name, secrets, opts)
	if err != nil {
		return nil, err
	}
	s := &macScheme{provider: p, tolerance: c.tolerance}
	for i, secret := range secrets {
		key := []byte(secret)
		if decodeKey != nil {
			// The decoder's error is dropped: it may quote the secret.
			if key, err = decodeKey(secret); err != nil || len(key) == 0 {
				return nil, fmt.Errorf("%w: %s: secret %d of %d is not in the provider's form", ErrInvalidScheme, p.Name,
					i+1, len(secrets))
			}
		}
		s.keys = append(s.keys, key)
	}
	return s, nil
}

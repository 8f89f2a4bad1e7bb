package webhook

import (
	"fmt"
	"net/http"
)

// Encoding says how a signature is written.
type Encoding int

// Encodings of an HMACConfig.
const (
	// Hex is lower-case hex, the default.
	Hex Encoding = iota
	// Base64 is standard base64 with padding.
	Base64
)

// HMACConfig describes a provider that signs with HMAC-SHA256, for HMAC.
type HMACConfig struct {
	// Provider describes how it delivers; its Name is needed.
	Provider Provider
	// SignatureHeader names the header of the signature. It is needed.
	SignatureHeader string
	// SignaturePrefix is cut from the header's value, "sha256=". A value without it is refused.
	SignaturePrefix string
	// Encoding is how the signature is written after the prefix.
	Encoding Encoding
	// TimestampHeader names the header of the signed time, in Unix seconds. Without it no time is signed, and a recorded
	// request can be sent again for ever: only the event's id tells.
	TimestampHeader string
	// Signed returns what is signed; timestamp is the value of TimestampHeader as it was sent. It must not parse the body,
	// which is not verified yet. nil means the body or, with a TimestampHeader, timestamp + "." + body.
	Signed func(r *Request, timestamp string) []byte
	// Key decodes a secret; nil means its bytes. Use hex.DecodeString or base64.StdEncoding.DecodeString where the
	// provider documents that.
	Key func(secret string) ([]byte, error)
	// Content reads a verified request. nil means one event, with the fields "id" and "type" of a JSON body.
	Content func(r *Request) (Content, error)
}

// HMAC returns the scheme of a provider that signs requests with HMAC-SHA256 in a way that c describes.
func HMAC(c HMACConfig, secrets []string, opts ...SchemeOption) (Scheme, error) {
	if c.Provider.Name == "" || c.SignatureHeader == "" {
		return nil, fmt.Errorf("%w: HMACConfig with Provider.Name %q and SignatureHeader %q, both are needed",
			ErrInvalidScheme, c.Provider.Name, c.SignatureHeader)
	}
	decode, ok := map[Encoding]func(string) ([]byte, bool){Hex: decodeHex, Base64: decodeMAC64}[c.Encoding]
	if !ok {
		return nil, fmt.Errorf("%w: %s: Encoding %d, must be Hex or Base64", ErrInvalidScheme, c.Provider.Name, c.Encoding)
	}
	s, err := newMAC(c.Provider, secrets, opts, c.Key)
	if err != nil {
		return nil, err
	}
	read := bodySignature(http.CanonicalHeaderKey(c.SignatureHeader), c.SignaturePrefix, decode)
	s.signature = func(r *Request) (signature, error) {
		sig, err := read(r)
		if err != nil {
			return signature{}, err
		}
		return c.timed(r, sig)
	}
	if s.content = c.Content; s.content == nil {
		s.content = idAndTypeContent
	}
	return s, nil
}

// timed adds the signed time and content to a signature.
func (c *HMACConfig) timed(r *Request, sig signature) (signature, error) {
	var timestamp string
	if c.TimestampHeader != "" {
		var err error
		if timestamp, err = singleHeader(r, c.TimestampHeader); err != nil {
			return signature{}, err
		}
		if sig.at, err = parseUnix(c.TimestampHeader, timestamp); err != nil {
			return signature{}, err
		}
		sig.signed = [][]byte{[]byte(timestamp + "."), r.Body}
	}
	if c.Signed != nil {
		sig.signed = [][]byte{c.Signed(r, timestamp)}
	}
	return sig, nil
}

func idAndTypeContent(r *Request) (Content, error) {
	var b struct {
		ID   textOrNumber
		Type string
	}
	if err := decodeBody(r.Body, &b); err != nil {
		return Content{}, err
	}
	return singleEvent(Event{ID: string(b.ID), Type: b.Type, Body: r.Body})
}

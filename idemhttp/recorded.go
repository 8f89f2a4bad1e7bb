package idemhttp

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"

	"github.com/idempotent-go/idempotent"
)

// A Recorded is a response as it is stored: for WithRedact, which may change it, and for Resolve. Fields
// that concern one connection or one caller (WithUnrecordedHeaders) are not in it.
type Recorded struct {
	Status  int
	Header  http.Header
	Trailer http.Header
	Body    []byte
}

// DecodeRecorded reads a response out of a record, for tools: the payload that idempotent.Inspector returns for a key of a
// Middleware's namespace. A response that was too large, or could not be redacted, has a
// Status alone.
func DecodeRecorded(payload []byte) (Recorded, error) {
	r, err := decodeResponse(payload)
	return Recorded{Status: r.status, Header: r.header, Trailer: r.trailer, Body: r.body}, err
}

// redacted has WithRedact change a copy of a response, and reports whether it did not fail. Status
// stays as it is.
func (g *guard) redacted(r *response) (ok bool) {
	given := Recorded{Status: r.status, Header: r.header.Clone(), Trailer: r.trailer.Clone(), Body: bytes.Clone(r.body)}
	if given.Header == nil {
		given.Header = make(http.Header)
	}
	defer func() {
		if p := recover(); p != nil { // its text may have what was to be redacted
			g.logger.Error("idemhttp: WithRedact panicked; the response is not kept", "panic", fmt.Sprintf("a %T", p))
		}
	}()
	g.redact(&given)
	if !bytes.Equal(given.Body, r.body) {
		delete(given.Header, "Content-Length")
	}
	r.header, r.trailer, r.body, r.redacted = given.Header, given.Trailer, given.Body, true
	return true
}

// response checks a response that an operator gives.
func (r *Recorded) response(private map[string]bool) (response, error) {
	if r.Status < 200 || r.Status > 999 {
		return response{}, invalid("Resolve", "status", fmt.Sprint(r.Status), "200 to 999")
	}
	if len(r.Body) > 0 && !bodyAllowed(r.Status) {
		return response{}, invalid("Resolve", "body", fmt.Sprintf("%d bytes with status %d", len(r.Body), r.Status), "none with this status")
	}
	for _, fields := range []http.Header{r.Header, r.Trailer} {
		for name, values := range fields {
			if !isToken(name) || strings.ContainsAny(strings.Join(values, ""), "\r\n\x00") {
				return response{}, invalid("Resolve", "field", fmt.Sprintf("%q", name), "a field name, with values of one line")
			}
		}
	}
	res := response{status: r.Status, trailer: r.Trailer.Clone(), body: bytes.Clone(r.Body)}
	names := privateNames(private, r.Header)
	for name, values := range r.Header {
		if name = http.CanonicalHeaderKey(name); !names[name] && name != "Content-Length" {
			res.header = set(res.header, name, values)
		}
	}
	return res, nil
}

// checkInstance refuses what cannot be the name of an operation.
func checkInstance(name string) error {
	if len(name) == 64 && strings.Trim(name, "0123456789abcdef") == "" {
		return nil
	}
	return fmt.Errorf("%w: instance is %q; allowed: 64 hexadecimal digits, from Instance, a problem or a log line", idempotent.ErrInvalidKey, shorten(name))
}

// shorten keeps a text that came from outside from filling a log.
func shorten(text string) string {
	const limit = 100
	if len(text) > limit {
		return text[:limit] + "..."
	}
	return text
}

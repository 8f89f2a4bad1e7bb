package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/idemhttp"
	"github.com/idempotent-go/idempotent/internal/present"
)

// A payload is a recorded value, or the text of a recorded error, as far as it can be shown.
type payload struct {
	Codec  string          `json:"codec"`
	JSON   json.RawMessage `json:"json,omitempty"`
	Text   string          `json:"text,omitempty"`
	Base64 string          `json:"base64,omitempty"`
	HTTP   *response       `json:"http,omitempty"`
}

// A response is what idemhttp recorded.
type response struct {
	Status int                 `json:"status"`
	Header map[string][]string `json:"header,omitempty"`
	Body   string              `json:"body,omitempty"`
}

// payloadOf reads the payload of an entry; nil without one.
func (a *app) payloadOf(ctx context.Context, e *idempotent.Entry) (*payload, error) {
	raw, codec, err := a.inspector.Payload(ctx, e.Namespace, e.Key)
	switch {
	case errors.Is(err, idempotent.ErrNotFound), errors.Is(err, idempotent.ErrCorruptRecord):
		return nil, nil
	case err != nil:
		return nil, err
	}
	return decoded(raw, codec), nil
}

// decoded shows bytes in the most readable form that loses nothing.
func decoded(raw []byte, codec string) *payload {
	p := &payload{Codec: codec}
	switch codec {
	case "msgpack", "JSON":
		if text, ok := present.Decode(raw, codec); ok {
			p.JSON = text
		}
	case "custom":
		if r, err := idemhttp.DecodeRecorded(raw); err == nil {
			p.HTTP = &response{r.Status, r.Header, string(r.Body)}
			return p
		}
	}
	switch {
	case p.JSON != nil:
	case utf8.Valid(raw) && codec != "custom":
		p.Text = string(raw)
	default:
		p.Base64 = base64.StdEncoding.EncodeToString(raw)
	}
	return p
}

// String shows a payload to people. What could control a terminal is escaped.
func (p *payload) String() string {
	switch {
	case p.HTTP != nil:
		var b strings.Builder
		fmt.Fprintf(&b, "an HTTP response, as package idemhttp records it:\nstatus %d\n", p.HTTP.Status)
		for name, values := range p.HTTP.Header {
			fmt.Fprintf(&b, "%s: %s\n", present.Text(name), present.Text(strings.Join(values, ", ")))
		}
		return b.String() + "\n" + present.Text(p.HTTP.Body)
	case p.JSON != nil:
		return escapeControls(string(p.JSON))
	case p.Base64 != "":
		return "base64 " + p.Base64
	}
	return present.Text(p.Text)
}

// escapeControls escapes what JSON leaves as it is within strings: DEL and the C1 controls.
func escapeControls(text string) string {
	var b strings.Builder
	for _, r := range text {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == 0x2028 || r == 0x2029 || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 {
			fmt.Fprintf(&b, `\u%04x`, r)
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

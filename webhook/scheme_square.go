package webhook

import (
	"encoding/json"
	"fmt"
	"net/url"
	"time"
)

// Square returns the scheme of Square's webhooks. A secret is a subscription's signature key. notificationURL is the URL
// of the subscription, character by character as it is registered at Square.
//
// Square signs the notification URL followed by the body with HMAC-SHA256 and sends
// "X-Square-Hmacsha256-Signature: base64".
//
// Traps:
//   - The URL is part of what is signed. Behind a proxy the server sees another scheme, host or path, so the request's URL
//     is not used.
//   - No time is signed, so WithTolerance has no effect: a recorded request is only recognized by its event_id.
//   - X-Square-Signature is the old one, with SHA-1. It is ignored.
//   - Each subscription has its own key and URL: give each its own source.
//
// Source: https://developer.squareup.com/docs/webhooks/step3validate,
// https://developer.squareup.com/docs/webhooks-api/delivery-sla
func Square(notificationURL string, secrets []string, opts ...SchemeOption) (Scheme, error) {
	p := Provider{Name: "square", AnswerWithin: 10 * time.Second, RetriesFor: 72 * time.Hour}
	s, err := newMAC(p, secrets, opts, nil)
	if err != nil {
		return nil, err
	}
	if u, err := url.Parse(notificationURL); err != nil || u.Scheme == "" || u.Host == "" {
		return nil, fmt.Errorf("%w: square: notification URL %q, must be the absolute URL registered at Square",
			ErrInvalidScheme, notificationURL)
	}
	read := bodySignature("X-Square-Hmacsha256-Signature", "", decodeMAC64)
	s.signature = func(r *Request) (signature, error) {
		sig, err := read(r)
		sig.signed = [][]byte{[]byte(notificationURL), r.Body}
		return sig, err
	}
	s.content = squareContent
	return s, nil
}

func squareContent(r *Request) (Content, error) {
	var b struct {
		ID   string `json:"event_id"`
		Type string
		At   string `json:"created_at"`
		Data struct {
			ID     string
			Object map[string]json.RawMessage
		}
	}
	if err := decodeBody(r.Body, &b); err != nil {
		return Content{}, err
	}
	e := Event{ID: b.ID, Type: b.Type, Object: b.Data.ID, OccurredAt: parseTime(b.At), Body: r.Body}
	if len(b.Data.Object) == 1 { // {"payment": {…, "version": 3}}
		for _, raw := range b.Data.Object {
			var object struct{ Version int64 }
			if json.Unmarshal(raw, &object) == nil {
				e.Version = object.Version
			}
		}
	}
	return singleEvent(e)
}

package webhook

import "time"

// Paddle returns the scheme of Paddle Billing. A secret is a notification destination's secret key, "pdl_ntfset_…".
//
// Paddle signs "ts:body" with HMAC-SHA256 and sends "Paddle-Signature: ts=…;h1=hex[;h1=hex]".
//
// Traps:
//   - There are several h1 while a secret is rotated; any of them may be the right one. Paddle's own Go library accepts
//     exactly one.
//   - event_id identifies the event. notification_id identifies the notification of one destination.
//   - The separator is a semicolon, and a colon in what is signed; Stripe's are a comma and a period.
//   - Paddle Classic signs with RSA over sorted form fields. It is another product, and not supported.
//
// Source: https://developer.paddle.com/webhooks/signature-verification,
// https://developer.paddle.com/webhooks/respond-to-webhooks
func Paddle(secrets []string, opts ...SchemeOption) (Scheme, error) {
	p := Provider{Name: "paddle", AnswerWithin: 5 * time.Second, RetriesFor: 3 * 24 * time.Hour}
	s, err := newMAC(p, secrets, opts, nil)
	if err != nil {
		return nil, err
	}
	s.signature = pairsSignature("Paddle-Signature", ";", "ts", "h1", ":")
	s.content = paddleContent
	return s, nil
}

func paddleContent(r *Request) (Content, error) {
	var b struct {
		ID   string `json:"event_id"`
		Type string `json:"event_type"`
		At   string `json:"occurred_at"`
		Data struct{ ID textOrNumber }
	}
	if err := decodeBody(r.Body, &b); err != nil {
		return Content{}, err
	}
	return singleEvent(Event{ID: b.ID, Type: b.Type, Object: string(b.Data.ID), OccurredAt: parseTime(b.At), Body: r.Body})
}

package webhook

import "time"

// Shopify returns the scheme of Shopify's webhooks. A secret is the app's client secret.
//
// Shopify signs the body with HMAC-SHA256 and sends "X-Shopify-Hmac-Sha256: base64". An event's type is X-Shopify-Topic,
// "orders/paid".
//
// Traps:
//   - X-Shopify-Event-Id identifies the event. X-Shopify-Webhook-Id identifies one delivery: two subscriptions of one
//     topic deliver one event under two of them.
//   - One act of a merchant may cause events of several topics, so an event's id is topic and event id together.
//   - Only the body is signed: topic, event id, shop and times are not. An attacker that has recorded a request can send it
//     under another id or topic. Only TLS protects against that.
//   - No time is signed, so WithTolerance has no effect. A retry carries the body of the first attempt; X-Shopify-Triggered-At
//     tells its age.
//   - After eight failed retries in four hours Shopify gives up, and may remove the subscription.
//   - While a client secret is rotated, either secret may sign: give both.
//
// Source: https://shopify.dev/docs/apps/build/webhooks/ignore-duplicates,
// https://shopify.dev/changelog/updates-to-webhook-retry-mechanism,
// https://shopify.dev/docs/apps/build/authentication-authorization/client-secrets/rotate-revoke-client-credentials
func Shopify(secrets []string, opts ...SchemeOption) (Scheme, error) {
	p := Provider{Name: "shopify", AnswerWithin: 5 * time.Second, RetriesFor: 4 * time.Hour}
	s, err := newMAC(p, secrets, opts, nil)
	if err != nil {
		return nil, err
	}
	s.signature = bodySignature("X-Shopify-Hmac-Sha256", "", decodeMAC64)
	s.content = shopifyContent
	return s, nil
}

func shopifyContent(r *Request) (Content, error) {
	var b struct {
		ID  textOrNumber
		GID string `json:"admin_graphql_api_id"`
	}
	if err := decodeBody(r.Body, &b); err != nil {
		return Content{}, err
	}
	e := Event{
		Type: r.Header.Get("X-Shopify-Topic"), Object: b.GID,
		OccurredAt: parseTime(r.Header.Get("X-Shopify-Triggered-At")), Body: r.Body,
	}
	if e.Object == "" {
		e.Object = string(b.ID)
	}
	if id := r.Header.Get("X-Shopify-Event-Id"); id != "" {
		e.ID = e.Type + ":" + id
	}
	return singleEvent(e)
}

package webhook

import (
	"encoding/json"
	"mime"
	"net/url"
	"strings"
	"time"
)

// GitHub returns the scheme of GitHub's webhooks. A secret is the one that was entered in the webhook's settings.
//
// GitHub signs the body with HMAC-SHA256 and sends "X-Hub-Signature-256: sha256=hex". An event's type is X-GitHub-Event,
// followed by the body's action if it has one: "pull_request.opened", "push".
//
// Traps:
//   - GitHub never redelivers by itself: an event that gets a 503 or waits for 10 s is lost, unless its delivery is
//     requested again by hand or through the API. A receiver that is overloaded refuses GitHub last.
//   - No time is signed, so WithTolerance has no effect.
//   - X-GitHub-Delivery is the event's id, the same when a delivery is repeated by hand. It is not signed, and neither is
//     X-GitHub-Event: an attacker that has recorded a request can send it again under a new id.
//     Only TLS protects against that.
//   - X-Hub-Signature is the old one, with SHA-1. It is ignored.
//   - The body may have 25 MB.
//   - With the content type application/x-www-form-urlencoded the JSON is in the field payload, while the signature
//     covers the form. Event.Body is then the JSON.
//
// Source: https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries,
// https://docs.github.com/en/webhooks/using-webhooks/handling-failed-webhook-deliveries,
// https://docs.github.com/en/webhooks/using-webhooks/best-practices-for-using-webhooks
func GitHub(secrets []string, opts ...SchemeOption) (Scheme, error) {
	p := Provider{Name: "github", NeverRedelivers: true, AnswerWithin: 10 * time.Second, MaxBody: 25 << 20}
	s, err := newMAC(p, secrets, opts, nil)
	if err != nil {
		return nil, err
	}
	s.signature = bodySignature("X-Hub-Signature-256", "sha256=", decodeHex)
	s.content = githubContent
	return s, nil
}

func githubContent(r *Request) (Content, error) {
	body, err := githubBody(r)
	if err != nil {
		return Content{}, err
	}
	event := r.Header.Get("X-GitHub-Event")
	var fields map[string]json.RawMessage
	if err := decodeBody(body, &fields); err != nil {
		return Content{}, err
	}
	e := Event{ID: r.Header.Get("X-GitHub-Delivery"), Type: event, Body: body}
	var action string
	if json.Unmarshal(fields["action"], &action) == nil && action != "" {
		e.Type += "." + action
	}
	// The object has the event's name, in the singular: issues → issue.
	for _, name := range []string{event, strings.TrimSuffix(event, "s")} {
		var object struct{ ID textOrNumber }
		if json.Unmarshal(fields[name], &object) == nil && object.ID != "" {
			e.Object = string(object.ID)
		}
	}
	return singleEvent(e)
}

// githubBody returns the JSON of a request.
func githubBody(r *Request) ([]byte, error) {
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if kind != "application/x-www-form-urlencoded" {
		return r.Body, nil
	}
	form, err := url.ParseQuery(string(r.Body))
	if err != nil {
		return nil, Refuse(ReasonBadBody, "the body is not the form that its content type announces")
	}
	return []byte(form.Get("payload")), nil
}

// bodySignature reads a header that holds one signature of the body.
func bodySignature(name, prefix string, decode func(string) ([]byte, bool)) func(*Request) (signature, error) {
	return func(r *Request) (signature, error) {
		value, err := singleHeader(r, name)
		if err != nil {
			return signature{}, err
		}
		encoded, ok := strings.CutPrefix(value, prefix)
		if !ok {
			return signature{}, Refuse(ReasonMalformed, name+" does not begin with "+prefix)
		}
		candidates, err := decodeAll(name, []string{encoded}, decode)
		return signature{candidates: candidates, signed: [][]byte{r.Body}}, err
	}
}

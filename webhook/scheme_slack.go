package webhook

import (
	"fmt"
	"net/http"
	"strings"
	"time"
)

// Slack returns the scheme of Slack's Events API. A secret is the app's signing secret.
//
// Slack signs "v0:time:body" with HMAC-SHA256 and sends "X-Slack-Signature: v0=hex" and "X-Slack-Request-Timestamp". An
// event's type is the inner event's, "message".
//
// Traps:
//   - When the URL is registered, Slack sends a url_verification, which must be answered with its challenge. It is signed
//     as well, and only then answered.
//   - Slack waits for 3 s, then retries at once, after 1 min and after 5 min. A retry has the event_id of the first
//     attempt.
//   - The secret is used as it is. It looks like hex, but is not decoded.
//   - The verification token in the body is deprecated, and is not looked at.
//   - Slash commands and interactions are signed in the same way, but are no events: they want an answer with content.
//     They are refused as bad_body.
//
// Source: https://docs.slack.dev/authentication/verifying-requests-from-slack, https://docs.slack.dev/apis/events-api,
// https://docs.slack.dev/reference/events/url_verification
func Slack(secrets []string, opts ...SchemeOption) (Scheme, error) {
	p := Provider{Name: "slack", AnswerWithin: 3 * time.Second, RetriesFor: 6 * time.Minute}
	s, err := newMAC(p, secrets, opts, nil)
	if err != nil {
		return nil, err
	}
	s.signature = slackSignature
	s.content = slackContent
	return s, nil
}

func slackSignature(r *Request) (signature, error) {
	sig, err := bodySignature("X-Slack-Signature", "v0=", decodeHex)(r)
	if err != nil {
		return signature{}, err
	}
	at, err := singleHeader(r, "X-Slack-Request-Timestamp")
	if err != nil {
		return signature{}, err
	}
	sig.signed = [][]byte{[]byte("v0:" + at + ":"), r.Body}
	sig.at, err = parseUnix("X-Slack-Request-Timestamp", at)
	return sig, err
}

func slackContent(r *Request) (Content, error) {
	var b struct {
		Type, Challenge string
		ID              string `json:"event_id"`
		Time            int64  `json:"event_time"`
		Event           struct{ Type string }
		Team            string `json:"team_id"`
		App             string `json:"api_app_id"`
		Minute          int64  `json:"minute_rate_limited"`
	}
	if err := decodeBody(r.Body, &b); err != nil {
		return Content{}, err
	}
	e := Event{ID: b.ID, Type: b.Event.Type, Body: r.Body}
	if b.Time > 0 {
		e.OccurredAt = time.Unix(b.Time, 0)
	}
	switch b.Type {
	case "url_verification":
		return slackChallenge(b.Challenge)
	case "event_callback":
		return singleEvent(e)
	case "app_rate_limited": // it has no id; Slack sends one for each app, team and minute
		e.ID = strings.Join([]string{b.Type, b.App, b.Team, fmt.Sprint(b.Minute)}, ":")
		e.Type = b.Type
		return singleEvent(e)
	}
	return Content{}, Refuse(ReasonBadBody, "the body is not of the Events API")
}

func slackChallenge(challenge string) (Content, error) {
	if challenge == "" {
		return Content{}, Refuse(ReasonBadBody, "url_verification without a challenge")
	}
	return Content{Answer: &Answer{Status: http.StatusOK, ContentType: "text/plain; charset=utf-8",
		Body: []byte(challenge)}}, nil
}

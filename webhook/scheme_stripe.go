package webhook

import (
	"encoding/json"
	"strconv"
	"strings"
	"time"
)

// Stripe returns the scheme of Stripe's webhooks. A secret is an endpoint's signing secret, "whsec_…"; each endpoint
// has its own secret, and so has the Stripe CLI.
//
// Stripe signs "t.body" with HMAC-SHA256 and sends "Stripe-Signature: t=…,v1=hex[,v1=hex]": two v1 while a secret is
// rolled. Each retry is signed again with its own time, so the tolerance need not cover the three days of retries.
//
// Traps:
//   - v0 in the header is a made-up signature for test mode. It is ignored.
//   - The secret is used as it is, "whsec_" included; it is not base64 as in Standard Webhooks.
//   - Stripe may create two events, with two ids, for one change. ByChange and ByObject join them, ByID does not.
//   - Events come in any order, and "created" has a resolution of one second.
//   - Thin events (API v2) name the object in related_object and have a time in RFC 3339.
//
// Source: https://docs.stripe.com/webhooks
func Stripe(secrets []string, opts ...SchemeOption) (Scheme, error) {
	s, err := newMAC(Provider{Name: "stripe", RetriesFor: 3 * 24 * time.Hour}, secrets, opts, nil)
	if err != nil {
		return nil, err
	}
	s.signature = pairsSignature("Stripe-Signature", ",", "t", "v1", ".")
	s.content = stripeContent
	return s, nil
}

func stripeContent(r *Request) (Content, error) {
	var b struct {
		ID, Type string
		Created  json.RawMessage
		Data     struct {
			Object struct{ ID textOrNumber }
		}
		RelatedObject struct{ ID string } `json:"related_object"`
	}
	if err := decodeBody(r.Body, &b); err != nil {
		return Content{}, err
	}
	object := b.RelatedObject.ID
	if object == "" {
		object = string(b.Data.Object.ID)
	}
	return singleEvent(Event{ID: b.ID, Type: b.Type, Object: object, OccurredAt: stripeTime(b.Created), Body: r.Body})
}

// stripeTime reads "created": Unix seconds in events of API v1, a string in RFC 3339 in those of v2.
func stripeTime(raw json.RawMessage) time.Time {
	var text textOrNumber
	_ = text.UnmarshalJSON(raw) // it returns no error
	if n, err := strconv.ParseInt(string(text), 10, 64); err == nil && n > 0 {
		return time.Unix(n, 0)
	}
	return parseTime(string(text))
}

// pairsSignature reads a header of pairs such as "t=1,v1=a,v1=b". What is signed is the time, as it is written, joint, and the body.
// Pairs with another name are ignored, because providers add new versions of a signature next to the old ones.
func pairsSignature(name, separator, timeName, signatureName, joint string) func(*Request) (signature, error) {
	return func(r *Request) (signature, error) {
		value, err := singleHeader(r, name)
		if err != nil {
			return signature{}, err
		}
		var at string
		var encoded []string
		for pair := range strings.SplitSeq(value, separator) {
			k, v, _ := strings.Cut(pair, "=")
			switch {
			case k == timeName && at != "":
				return signature{}, Refuse(ReasonMalformed, name+" has "+timeName+" twice")
			case k == timeName:
				at = v
			case k == signatureName:
				encoded = append(encoded, v)
			}
		}
		if at == "" || len(encoded) == 0 {
			return signature{}, Refuse(ReasonMalformed, name+" has no "+timeName+" or no "+signatureName)
		}
		sig := signature{signed: [][]byte{[]byte(at + joint), r.Body}}
		if sig.at, err = parseUnix(timeName+" in "+name, at); err != nil {
			return signature{}, err
		}
		sig.candidates, err = decodeAll(name, encoded, decodeHex)
		return sig, err
	}
}

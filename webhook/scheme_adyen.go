package webhook

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"io"
	"strings"
	"time"
)

// Adyen returns the scheme of Adyen's standard webhooks (payments). A secret is an endpoint's HMAC key, in hex.
//
// Adyen does not sign the body, but eight fields of each of its items: pspReference, originalReference,
// merchantAccountCode, merchantReference, amount.value, amount.currency, eventCode and success, joined by colons. The
// signature is in the item, additionalData.hmacSignature, in base64. So the body has to be parsed before it is verified.
//
// Traps:
//   - Only the eight fields are authentic. Everything else in an item, eventDate, reason and paymentMethod included, can
//     be changed by an attacker that has recorded it. A handler must act on the eight alone.
//   - A request may hold several items. All of them must be authentic, or the request is refused; each is an event.
//   - The key is hex, and its decoded bytes are the key.
//   - Colons are not escaped. merchantReference alone may have one: otherwise a field could be moved into its neighbour
//     under the same signature.
//   - A signed field that is there twice, or in another case of letters, is refused, because a handler's parser might read
//     another value than the one that was verified.
//   - No time is signed, so WithTolerance has no effect. An event's id is eventCode, pspReference and success, which are
//     signed; Adyen calls two events with the first two in common duplicates, but success may change.
//   - Adyen retries for 30 days, and holds back later events of the endpoint meanwhile.
//   - Events of Adyen's platforms carry the signature of the body in the header HmacSignature instead: use HMAC, with
//     Encoding Base64 and Key hex.DecodeString.
//
// Source: https://docs.adyen.com/development-resources/webhooks/secure-webhooks/verify-hmac-signatures,
// https://docs.adyen.com/development-resources/webhooks/handle-webhook-events,
// https://docs.adyen.com/development-resources/webhooks/troubleshoot
func Adyen(secrets []string, opts ...SchemeOption) (Scheme, error) {
	p := Provider{Name: "adyen", AnswerWithin: 10 * time.Second, RetriesFor: 30 * 24 * time.Hour}
	s, err := newMAC(p, secrets, opts, hex.DecodeString)
	if err != nil {
		return nil, err
	}
	return &adyenScheme{provider: p, keys: s.keys}, nil
}

type adyenScheme struct {
	provider Provider
	keys     [][]byte
}

// An adyenItem holds the signed fields. Amount.Value is the number as it is written.
type adyenItem struct {
	PSPReference        string `json:"pspReference"`
	OriginalReference   string `json:"originalReference"`
	MerchantAccountCode string `json:"merchantAccountCode"`
	MerchantReference   string `json:"merchantReference"`
	Amount              struct {
		Value    json.Number `json:"value"`
		Currency string      `json:"currency"`
	} `json:"amount"`
	EventCode      string `json:"eventCode"`
	Success        string `json:"success"`
	EventDate      string `json:"eventDate"`
	AdditionalData struct {
		Signature string `json:"hmacSignature"`
	} `json:"additionalData"`
}

func (s *adyenScheme) Provider() Provider { return s.provider }

func (s *adyenScheme) Verify(r *Request) (Content, error) {
	items, err := adyenItems(r.Body)
	if err != nil {
		return Content{}, err
	}
	// Older integrations wait for this text; newer ones look at the status only.
	content := Content{Answer: &Answer{ContentType: "text/plain; charset=utf-8", Body: []byte("[accepted]")}}
	for _, raw := range items {
		e, err := s.verifyItem(raw)
		if err != nil {
			return Content{}, err
		}
		content.Events = append(content.Events, e)
	}
	return content, nil
}

// adyenItems returns the items of a body that is not verified.
func adyenItems(body []byte) ([]json.RawMessage, error) {
	var b struct {
		Items []struct {
			Item json.RawMessage `json:"NotificationRequestItem"`
		} `json:"notificationItems"`
	}
	if err := decodeBody(body, &b); err != nil {
		return nil, err
	}
	if len(b.Items) == 0 || len(b.Items) > maxAdyenItems {
		return nil, Refuse(ReasonBadBody, "notificationItems has no item, or more than 100")
	}
	if !plainNames(body) {
		return nil, Refuse(ReasonBadBody, "a signed field is there twice, or in another case of letters")
	}
	var items []json.RawMessage
	for _, i := range b.Items {
		items = append(items, i.Item)
	}
	return items, nil
}

// maxAdyenItems bounds the items of one request. Adyen documents one in JSON, and six in SOAP.
const maxAdyenItems = 100

func (s *adyenScheme) verifyItem(raw json.RawMessage) (Event, error) {
	var item adyenItem
	if err := decodeBody(raw, &item); err != nil {
		return Event{}, err
	}
	if item.AdditionalData.Signature == "" {
		return Event{}, Refuse(ReasonNoSignature, "additionalData.hmacSignature")
	}
	signed, err := item.signed()
	if err != nil {
		return Event{}, err
	}
	sig := signature{signed: [][]byte{signed}}
	sig.candidates, err = decodeAll("additionalData.hmacSignature", []string{item.AdditionalData.Signature}, decodeMAC64)
	if err != nil {
		return Event{}, err
	}
	if !sig.matches(s.keys) {
		return Event{}, Refuse(ReasonMismatch, "no secret verifies it")
	}
	return item.event(raw)
}

// signed returns the signed fields, joined. No more than one of them may have a colon, so that the text can be split in one
// way only.
func (i *adyenItem) signed() ([]byte, error) {
	fields := []string{i.PSPReference, i.OriginalReference, i.MerchantAccountCode, i.MerchantReference,
		i.Amount.Value.String(), i.Amount.Currency, i.EventCode, i.Success}
	for n, field := range fields {
		if n != 3 && strings.Contains(field, ":") {
			return nil, Refuse(ReasonBadBody, "a signed field other than merchantReference has a colon")
		}
	}
	return []byte(strings.Join(fields, ":")), nil
}

func (i *adyenItem) event(raw json.RawMessage) (Event, error) {
	if i.PSPReference == "" || i.EventCode == "" {
		return Event{}, Refuse(ReasonNoEventID, "an item has no pspReference or no eventCode")
	}
	e := Event{
		ID: i.EventCode + ":" + i.PSPReference + ":" + i.Success, Type: i.EventCode, Object: i.OriginalReference,
		OccurredAt: parseTime(i.EventDate), Body: raw,
	}
	if e.Object == "" { // the event is about the payment itself, not about a change of it
		e.Object = i.PSPReference
	}
	return e, checkID(e.ID)
}

// adyenNames are the names on the way to what is signed, by their folded form.
var adyenNames = func() map[string]string {
	names := map[string]string{}
	for _, name := range []string{"notificationItems", "NotificationRequestItem", "pspReference", "originalReference",
		"merchantAccountCode", "merchantReference", "amount", "value", "currency", "eventCode", "success",
		"additionalData", "hmacSignature"} {
		names[fold(name)] = name
	}
	return names
}()

// fold makes names equal that encoding/json takes for the same, which include ſ and s.
func fold(name string) string { return strings.ToLower(strings.ToUpper(name)) }

// plainNames reports whether no object in valid JSON has one of adyenNames twice or in another case of letters:
// encoding/json matches names without regard to case and takes the last one, other parsers do not.
func plainNames(body []byte) bool {
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	var open []map[string]bool // for each open object its adyenNames so far; nil for an array
	name := false              // the next string is a name
	for {
		token, err := d.Token()
		if err == io.EOF {
			return true
		}
		if err != nil {
			return false
		}
		text, isText := token.(string)
		switch {
		case token == json.Delim('{'):
			open = append(open, map[string]bool{})
		case token == json.Delim('['):
			open = append(open, nil)
		case token == json.Delim('}') || token == json.Delim(']'):
			open = open[:len(open)-1]
		case name && isText:
			if want, ok := adyenNames[fold(text)]; ok {
				if text != want || open[len(open)-1][text] {
					return false
				}
				open[len(open)-1][text] = true
			}
			name = false
			continue // its value is next
		}
		name = len(open) > 0 && open[len(open)-1] != nil
	}
}

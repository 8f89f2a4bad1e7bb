package webhook

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"time"
)

const (
	tossSignature = "Tosspayments-Webhook-Signature"
	tossTime      = "Tosspayments-Webhook-Transmission-Time"
)

// Types of Toss Payments that this package reads more of than their name.
const (
	tossPayment = "PAYMENT_STATUS_CHANGED"
	tossDeposit = "DEPOSIT_CALLBACK"
	tossPayout  = "payout.changed"
	tossSeller  = "seller.changed"
)

// TossPayments returns the scheme of Toss Payments. A secret is the security key (보안 키) of payouts; without payouts, use
// TossPaymentsUnsigned.
//
// Toss signs payout.changed and seller.changed only: "body:time" with HMAC-SHA256, as "tosspayments-webhook-signature:
// v1:base64,base64" and "tosspayments-webhook-transmission-time", in RFC 3339. The time is that of the attempt, retries
// included. All other events are not signed and come as Unsigned, for TossConfirm or a custom Confirm.
//
// Traps:
//   - Payments are not signed: every client that knows the URL can send "DONE". Nothing in such a request can be believed, the
//     transmission id included, so an event's id is made of what TossConfirm verifies.
//   - DEPOSIT_CALLBACK has another form than the other events, without eventType. Its secret is that of the payment.
//   - With both PAYMENT_STATUS_CHANGED and DEPOSIT_CALLBACK registered, one deposit causes two events. Both have the
//     orderId as their object.
//   - A deposit can go back from DONE to WAITING_FOR_DEPOSIT.
//   - createdAt has no zone; it is Korean time.
//   - Toss counts nothing but the status 200 as received, and retries seven times in 3 days and 19 hours.
//
// Source: https://docs.tosspayments.com/reference/using-api/webhook-events, https://docs.tosspayments.com/guides/webhook
func TossPayments(secrets []string, opts ...SchemeOption) (Scheme, error) {
	s, err := newMAC(tossProvider(), secrets, opts, nil)
	if err != nil {
		return nil, err
	}
	s.signature, s.content = tossRead, tossContent
	return &tossScheme{signed: s}, nil
}

// TossPaymentsUnsigned returns the scheme of Toss Payments for a receiver without payouts: it has no secret, because the
// events it takes are not signed. It refuses payout.changed and seller.changed. Each event needs a Confirm.
func TossPaymentsUnsigned() Scheme { return &tossScheme{} }

type tossScheme struct {
	signed *macScheme // nil: no security key
}

func tossProvider() Provider {
	return Provider{
		Name: "tosspayments", AnswerWithin: 10 * time.Second, RetriesFor: 91*time.Hour + time.Minute, SendsUnsigned: true,
	}
}

func (s *tossScheme) Provider() Provider { return tossProvider() }

func (s *tossScheme) Verify(r *Request) (Content, error) {
	if len(r.Header[tossSignature]) > 0 && s.signed != nil {
		return s.signed.Verify(r)
	}
	c, err := tossContent(r)
	if err != nil {
		return Content{}, err
	}
	if e := &c.Events[0]; strings.EqualFold(e.Type, tossPayout) || strings.EqualFold(e.Type, tossSeller) {
		return Content{}, Refuse(ReasonNoSignature, "header "+tossSignature+", or the scheme has no secret")
	}
	c.Events[0].Unsigned = true
	return c, nil
}

func tossRead(r *Request) (signature, error) {
	value, err := singleHeader(r, tossSignature)
	if err != nil {
		return signature{}, err
	}
	list, ok := strings.CutPrefix(value, "v1:")
	if !ok {
		return signature{}, Refuse(ReasonMalformed, tossSignature+" does not begin with v1:")
	}
	at, err := singleHeader(r, tossTime)
	if err != nil {
		return signature{}, err
	}
	sig := signature{signed: [][]byte{r.Body, []byte(":" + at)}}
	if sig.at = parseTime(at); sig.at.IsZero() {
		return signature{}, Refuse(ReasonMalformed, tossTime+" is not a time in RFC 3339")
	}
	sig.candidates, err = decodeAll(tossSignature, strings.Split(list, ","), decodeMAC64)
	return sig, err
}

// A tossBody is any event of Toss. DEPOSIT_CALLBACK has its fields at the top.
type tossBody struct {
	EventID        string      `json:"eventId"`
	EventType      string      `json:"eventType"`
	CreatedAt      string      `json:"createdAt"`
	Data           tossDetails `json:"data"`
	EntityBody     struct{ ID string }
	Secret         string `json:"secret"`
	Status         string `json:"status"`
	TransactionKey string `json:"transactionKey"`
	OrderID        string `json:"orderId"`
}

// tossDetails are the fields of a Payment object that identify one change of it.
type tossDetails struct {
	PaymentKey         string `json:"paymentKey"`
	OrderID            string `json:"orderId"`
	Status             string `json:"status"`
	LastTransactionKey string `json:"lastTransactionKey"`
}

func tossContent(r *Request) (Content, error) {
	var b tossBody
	if err := decodeBody(r.Body, &b); err != nil {
		return Content{}, err
	}
	e := Event{Type: b.EventType, OccurredAt: tossCreated(b.CreatedAt), Body: r.Body}
	switch {
	case b.EventType == "" && b.TransactionKey != "":
		e.Type, e.Object = tossDeposit, b.OrderID
		e.ID = strings.Join([]string{tossDeposit, b.OrderID, b.Status, b.TransactionKey}, ":")
	case b.EventType == tossPayment && b.Data.PaymentKey != "":
		e.ID, e.Object = b.Data.id(), b.Data.OrderID
	case b.EventID != "":
		e.ID, e.Object = b.EventID, b.EntityBody.ID
	case b.EventType != "": // nothing in it identifies the change; a retry has the same bytes
		sum := sha256.Sum256(r.Body)
		e.ID = b.EventType + ":" + hex.EncodeToString(sum[:])
	}
	return singleEvent(e)
}

func (d *tossDetails) id() string {
	return strings.Join([]string{tossPayment, d.PaymentKey, d.Status, d.LastTransactionKey}, ":")
}

// tossCreated reads createdAt, with a zone in events of payouts, and in Korean time without one in all others.
func tossCreated(s string) time.Time {
	if t := parseTime(s); !t.IsZero() {
		return t
	}
	t, err := time.ParseInLocation("2006-01-02T15:04:05.999999999", s, time.FixedZone("KST", 9*60*60))
	if err != nil {
		return time.Time{}
	}
	return t
}

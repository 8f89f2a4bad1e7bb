package webhook

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

const (
	tossAPI = "https://api.tosspayments.com/v1/payments/"
	// maxTossPayment bounds a Payment object in bytes.
	maxTossPayment = 1 << 20
)

// TossConfirm returns a Confirm that asks Toss Payments for the payment of an event: by paymentKey for
// PAYMENT_STATUS_CHANGED, by orderId for DEPOSIT_CALLBACK, whose secret is compared as well. The payment must be in the
// state that the event claims; an event that a later one has overtaken is refused, and the later one has the current
// state. Events of other types are refused.
//
// The confirmed event's body is {"eventType": …, "data": Payment}, for both types, with the Payment that the API returned.
// Its OccurredAt is zero, since Toss does not confirm createdAt.
//
// secretKey is the API's secret key, "live_sk_…" or "live_gsk_…". client sends the requests; nil means a client with a
// timeout of 10 s.
//
// Source: https://docs.tosspayments.com/reference#paymentkey로-결제-조회
func TossConfirm(client *http.Client, secretKey string) (Confirm, error) {
	if secretKey == "" {
		return nil, fmt.Errorf("%w: tosspayments: TossConfirm with an empty secret key", ErrInvalidScheme)
	}
	if client == nil {
		client = &http.Client{Timeout: 10 * time.Second}
	}
	c := &tossConfirm{client: client, secretKey: secretKey}
	return c.confirm, nil
}

type tossConfirm struct {
	client    *http.Client
	secretKey string
}

func (c *tossConfirm) confirm(ctx context.Context, e Event) (Event, error) {
	var claimed tossBody
	if err := decodeBody(e.Body, &claimed); err != nil {
		return Event{}, err
	}
	var path string
	switch {
	case e.Type == tossPayment && claimed.Data.PaymentKey != "":
		path = url.PathEscape(claimed.Data.PaymentKey)
	case e.Type == tossDeposit && claimed.OrderID != "":
		path = "orders/" + url.PathEscape(claimed.OrderID)
	default:
		return Event{}, Refuse(ReasonNotConfirmed, "an event that the API of payments cannot confirm")
	}
	if path == "." || path == ".." || path == "orders/." || path == "orders/.." { // PathEscape leaves them
		return Event{}, Refuse(ReasonNotConfirmed, "the payment's key cannot be part of a URL")
	}
	raw, err := c.payment(ctx, path)
	if err != nil {
		return Event{}, err
	}
	return tossConfirmed(e, &claimed, raw)
}

// tossConfirmed compares what the event claims with the payment, and returns the event that the payment states.
func tossConfirmed(e Event, claimed *tossBody, raw json.RawMessage) (Event, error) {
	var payment struct {
		tossDetails
		Secret string `json:"secret"`
	}
	if err := json.Unmarshal(raw, &payment); err != nil {
		return Event{}, errors.New("webhook: tosspayments: the API's response is no Payment object")
	}
	confirmed := Event{ID: e.ID, Type: e.Type, Object: payment.OrderID}
	switch {
	case e.Type == tossPayment && payment.id() != e.ID:
		return Event{}, Refuse(ReasonNotConfirmed, "the payment is in another state")
	case e.Type == tossDeposit && !sameSecret(payment.Secret, claimed.Secret):
		return Event{}, Refuse(ReasonNotConfirmed, "the payment has another secret")
	case e.Type == tossDeposit && (payment.Status != claimed.Status || payment.OrderID != claimed.OrderID):
		return Event{}, Refuse(ReasonNotConfirmed, "the payment is in another state")
	}
	body, err := json.Marshal(struct {
		Type string          `json:"eventType"`
		Data json.RawMessage `json:"data"`
	}{e.Type, raw})
	if err != nil {
		return Event{}, errors.New("webhook: tosspayments: the API's response is no Payment object")
	}
	confirmed.Body = body
	return confirmed, nil
}

// sameSecret compares in constant time. An empty secret equals nothing.
func sameSecret(a, b string) bool {
	return a != "" && subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1
}

// payment returns the Payment object at path. Its errors hold no part of the request or response.
func (c *tossConfirm) payment(ctx context.Context, path string) (json.RawMessage, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, tossAPI+path, nil)
	if err != nil {
		return nil, Refuse(ReasonNotConfirmed, "the payment's key cannot be part of a URL")
	}
	request.SetBasicAuth(c.secretKey, "")
	response, err := c.client.Do(request)
	if err != nil {
		if cause, ok := errors.AsType[*url.Error](err); ok {
			err = cause.Err // without the URL, which names the payment
		}
		return nil, fmt.Errorf("webhook: tosspayments: payment not asked for: %w", err)
	}
	defer func() { _ = response.Body.Close() }()
	switch response.StatusCode {
	case http.StatusOK:
	case http.StatusBadRequest, http.StatusNotFound: // 400: a key that no payment can have
		return nil, Refuse(ReasonNotConfirmed, "the payment does not exist")
	default:
		return nil, fmt.Errorf("webhook: tosspayments: the API answered with status %d", response.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, maxTossPayment+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("webhook: tosspayments: payment not read: %w", err)
	case len(body) > maxTossPayment:
		return nil, fmt.Errorf("webhook: tosspayments: the API's response has more than %d bytes", maxTossPayment)
	}
	return body, nil
}

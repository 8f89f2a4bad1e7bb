package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/idempotent-go/idempotent"
)

// An Order is what is to be paid.
type Order struct {
	ID    string `json:"id"`
	Cents int64  `json:"cents"`
}

// fingerprint tells this request from another one that comes with the same key.
func (o Order) fingerprint() []byte {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %d EUR", o.ID, o.Cents))
	return sum[:]
}

// A Charge is money taken by the provider.
type Charge struct {
	ID    string `json:"id"`
	Cents int64  `json:"cents"`
}

// A CardError is the bank's no. It is a result like any other: asking again changes nothing.
type CardError struct {
	Reason  string `json:"reason"`
	Request string `json:"request"` // the provider's name for the request that was declined
}

func (e *CardError) Error() string { return "card declined: " + e.Reason }

// A providerClient speaks to the payment provider.
type providerClient struct {
	url    string
	worker int // who asks, for the provider's log
}

// charge takes the money. Only an answer that promises that nothing happened is marked as
// retryable. After any other trouble the money may be gone, so the next execution has to ask.
func (c *providerClient) charge(ctx context.Context, reference string, o Order) (Charge, error) {
	body, err := json.Marshal(o)
	if err != nil {
		return Charge{}, err
	}
	resp, err := c.do(ctx, http.MethodPost, "/charges", reference, body)
	if err != nil {
		return Charge{}, idempotent.OutcomeUnknown(err)
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
		charge, err := decode[Charge](resp)
		return charge, idempotent.OutcomeUnknown(err)
	case http.StatusPaymentRequired:
		declined, err := decode[CardError](resp)
		if err != nil {
			return Charge{}, idempotent.OutcomeUnknown(err)
		}
		return Charge{}, &declined
	case http.StatusServiceUnavailable:
		return Charge{}, idempotent.Retryable(fmt.Errorf("provider: %s", resp.Status))
	}
	return Charge{}, idempotent.OutcomeUnknown(fmt.Errorf("provider: %s", resp.Status))
}

// lookLimit is how long the provider may take to say what became of a charge.
const lookLimit = 3 * time.Second

// find asks what became of an earlier charge. Without an answer that is as unknown as before, and
// the next execution asks again.
func (c *providerClient) find(ctx context.Context, reference string) (charge Charge, found bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	resp, err := c.do(ctx, http.MethodGet, "/charges", reference, nil)
	if err != nil {
		return Charge{}, false, idempotent.OutcomeUnknown(err)
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
		charge, err = decode[Charge](resp)
		return charge, err == nil, idempotent.OutcomeUnknown(err)
	case http.StatusNotFound:
		return Charge{}, false, nil
	}
	return Charge{}, false, idempotent.OutcomeUnknown(fmt.Errorf("provider: %s", resp.Status))
}

func (c *providerClient) do(ctx context.Context, method, path, reference string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.url+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set(referenceHeader, reference)
	req.Header.Set(workerHeader, strconv.Itoa(c.worker))
	return http.DefaultClient.Do(req)
}

func decode[T any](resp *http.Response) (v T, err error) {
	err = json.NewDecoder(resp.Body).Decode(&v)
	return v, err
}

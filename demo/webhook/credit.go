package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/webhook"
)

// A payload is what the handler reads of an event's body.
type payload struct {
	ID   string `json:"id"`
	Type string `json:"type"`
	Data struct {
		Object object `json:"object"`
	} `json:"data"`
}

// An object is what an event is about.
type object struct {
	ID      string `json:"id"`
	Amount  int64  `json:"amount"`
	Version int64  `json:"version,omitempty"`
}

// A change is what an event changed, for the audit.
type change struct {
	Order  string `json:"order"`
	Cents  int64  `json:"cents"`
	Credit string `json:"credit"` // the ledger's name for it
}

// A credit is a request to the ledger.
type credit struct {
	Reference string `json:"reference"`
	Order     string `json:"order"`
	Cents     int64  `json:"cents"`
}

// A ledgerClient credits orders. The ledger of this demo does not deduplicate. One that does should get the reference as
// its idempotency key, since a request of a dead process may arrive after the next attempt asked.
type ledgerClient struct {
	url     string
	client  *http.Client
	timeout time.Duration // of one request; shorter than an attempt, so that there is time to ask
}

// handle is the handler of all events: it credits the order once.
func (l *ledgerClient) handle(ctx context.Context, j *webhook.Job, p payload) error {
	if j.Attempt > 1 { // an earlier attempt may have credited
		made, found, err := l.find(ctx, j.Reference)
		if err != nil {
			return err
		}
		if found {
			return j.Changed(made)
		}
	}
	made, err := l.post(ctx, credit{Reference: j.Reference, Order: p.Data.Object.ID, Cents: p.Data.Object.Amount})
	if err != nil {
		return err
	}
	return j.Changed(made)
}

// post credits. Its error says whether that may have happened.
func (l *ledgerClient) post(ctx context.Context, c credit) (change, error) {
	body, err := json.Marshal(c)
	if err != nil {
		return change{}, err
	}
	made, status, err := l.do(ctx, http.MethodPost, "/credits", body)
	switch {
	case err != nil && notConnected(err):
		return change{}, idempotent.Retryable(err)
	case err != nil:
		return change{}, err // unknown
	case status == http.StatusOK:
		return made, nil
	case status == http.StatusServiceUnavailable: // by its contract, nothing happened
		return change{}, idempotent.Retryable(errors.New("the ledger is unavailable"))
	case status == http.StatusUnprocessableEntity:
		return change{}, webhook.Permanent(fmt.Errorf("the ledger has no order %q", c.Order))
	}
	return change{}, fmt.Errorf("the ledger answered status %d", status) // unknown
}

func notConnected(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "dial"
}

// find asks for the credit of a reference.
func (l *ledgerClient) find(ctx context.Context, reference string) (made change, found bool, err error) {
	made, status, err := l.do(ctx, http.MethodGet, "/credits/"+url.PathEscape(reference), nil)
	switch {
	case err != nil:
		return change{}, false, err
	case status == http.StatusOK:
		return made, true, nil
	case status == http.StatusNotFound:
		return change{}, false, nil
	}
	return change{}, false, fmt.Errorf("the ledger answered status %d", status)
}

func (l *ledgerClient) do(ctx context.Context, method, path string, body []byte) (made change, status int, err error) {
	ctx, cancel := context.WithTimeout(ctx, l.timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, l.url+path, bytes.NewReader(body))
	if err != nil {
		return change{}, 0, err
	}
	resp, err := l.client.Do(req)
	if err != nil {
		return change{}, 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusOK {
		err = json.NewDecoder(http.MaxBytesReader(nil, resp.Body, maxBody)).Decode(&made)
	}
	return made, resp.StatusCode, err
}

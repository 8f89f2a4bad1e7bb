package endpoint

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
)

// A Change is what an event has changed. It is recorded, and is the answer to the question.
type Change struct {
	Order  string `json:"order"`
	Cents  int64  `json:"cents"`
	Credit string `json:"credit"` // the ledger's name for it
}

// credit is the handler of this example: it credits the order that the event is about.
func (l *ledgerClient) credit(ctx context.Context, t task) (Change, error) {
	if t.Again {
		change, found, err := l.find(ctx, t.Reference)
		if found || err != nil {
			return change, err
		}
	}
	return l.post(ctx, t.Reference, t.Data.Object)
}

// A ledgerClient speaks to the ledger, over HTTP. The ledger of this example does not look for
// duplicates. One that does is better: give it the reference as its idempotency key, since a
// request of a dead process may still be under way while the next execution asks.
type ledgerClient struct {
	url    string
	client *http.Client
	// patience is for one request, and shorter than an execution: time must be left to ask.
	patience time.Duration
}

func newLedgerClient(cfg *Config) *ledgerClient {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = cfg.Workers
	return &ledgerClient{url: cfg.LedgerURL, client: &http.Client{Transport: transport}, patience: cfg.HandlerTimeout / 3}
}

// An unclearError: the effect may have taken place, and nobody knows. It must be neither retried as
// if nothing had happened nor recorded as if that were the end of it.
type unclearError struct{ err error }

func (e *unclearError) Error() string { return "unclear: " + e.err.Error() }
func (e *unclearError) Unwrap() error { return e.err }

func isUnclear(err error) bool {
	_, unclear := errors.AsType[*unclearError](err)
	return unclear
}

// A Credit is a request to the ledger.
type Credit struct {
	Reference string `json:"reference"`
	Order     string `json:"order"`
	Cents     int64  `json:"cents"`
}

// post makes the credit. An error is retryable only where nothing can have happened.
func (l *ledgerClient) post(ctx context.Context, reference string, o Object) (Change, error) {
	body, err := json.Marshal(Credit{Reference: reference, Order: o.ID, Cents: o.Amount})
	if err != nil {
		return Change{}, err
	}
	change, status, err := l.do(ctx, http.MethodPost, "/credits", body)
	switch {
	case err != nil && notConnected(err):
		return Change{}, idempotent.Retryable(err)
	case err != nil:
		return Change{}, &unclearError{err}
	case status == http.StatusOK:
		return change, nil
	case status == http.StatusServiceUnavailable: // by its contract, nothing was done
		return Change{}, idempotent.Retryable(errors.New("ledger: unavailable"))
	case status == http.StatusUnprocessableEntity:
		return Change{}, fmt.Errorf("ledger: does not know order %q", o.ID)
	}
	return Change{}, &unclearError{fmt.Errorf("ledger: status %d", status)}
}

func notConnected(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "dial"
}

// find asks what became of an earlier request. Without an answer, that stays unclear, and the next
// execution asks again.
func (l *ledgerClient) find(ctx context.Context, reference string) (change Change, found bool, err error) {
	change, status, err := l.do(ctx, http.MethodGet, "/credits/"+url.PathEscape(reference), nil)
	switch {
	case err != nil:
		return Change{}, false, &unclearError{err}
	case status == http.StatusOK:
		return change, true, nil
	case status == http.StatusNotFound:
		return Change{}, false, nil
	}
	return Change{}, false, &unclearError{fmt.Errorf("ledger: status %d", status)}
}

func (l *ledgerClient) do(ctx context.Context, method, path string, body []byte) (change Change, status int, err error) {
	ctx, cancel := context.WithTimeout(ctx, l.patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, l.url+path, bytes.NewReader(body))
	if err != nil {
		return Change{}, 0, err
	}
	resp, err := l.client.Do(req)
	if err != nil {
		return Change{}, 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusOK {
		err = json.NewDecoder(http.MaxBytesReader(nil, resp.Body, maxBody)).Decode(&change)
	}
	return change, resp.StatusCode, err
}

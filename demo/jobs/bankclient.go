package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"github.com/idempotent-go/idempotent"
)

const (
	// referenceHeader is not called Idempotency-Key, which a bank that asks for it honours:
	// net/http takes a POST with that header for one that may be repeated, and repeats it by
	// itself when a connection breaks. This bank would pay twice.
	referenceHeader = "X-Reference"

	workerHeader = "X-Worker"
)

// A bankClient speaks to the bank. It has no timeout of its own: asynq's is in the context.
type bankClient struct {
	url    string
	worker int // who asks, for the bank's log
}

// refund pays. Only an answer that promises that nothing happened is marked as retryable.
func (c *bankClient) refund(ctx context.Context, reference string, r Refund) (Receipt, error) {
	body, err := json.Marshal(r)
	if err != nil {
		return Receipt{}, err
	}
	resp, err := c.do(ctx, http.MethodPost, reference, body)
	if err != nil {
		return Receipt{}, err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
		return decode[Receipt](resp)
	case http.StatusUnprocessableEntity:
		refused, err := decode[RefusedError](resp)
		if err != nil {
			return Receipt{}, err
		}
		return Receipt{}, &refused
	case http.StatusServiceUnavailable:
		return Receipt{}, idempotent.Retryable(fmt.Errorf("bank: %s", resp.Status))
	}
	return Receipt{}, fmt.Errorf("bank: %s", resp.Status)
}

// find asks whether a refund was paid. None of its errors is marked as retryable: as long as there
// is no answer, the question has to be asked again.
func (c *bankClient) find(ctx context.Context, reference string) (receipt Receipt, found bool, err error) {
	resp, err := c.do(ctx, http.MethodGet, reference, nil)
	if err != nil {
		return Receipt{}, false, err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
		receipt, err = decode[Receipt](resp)
		return receipt, err == nil, err
	case http.StatusNotFound:
		return Receipt{}, false, nil
	}
	return Receipt{}, false, fmt.Errorf("bank: %s", resp.Status)
}

func (c *bankClient) do(ctx context.Context, method, reference string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.url+"/refunds", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set(referenceHeader, reference)
	req.Header.Set(workerHeader, strconv.Itoa(c.worker))
	resp, err := http.DefaultClient.Do(req)
	if failed, ok := errors.AsType[*url.Error](err); ok {
		err = fmt.Errorf("bank: no answer: %w", failed.Err) // asynq stores it: without the URL
	}
	return resp, err
}

func decode[T any](resp *http.Response) (v T, err error) {
	err = json.NewDecoder(resp.Body).Decode(&v)
	return v, err
}

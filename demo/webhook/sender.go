package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/idempotent-go/idempotent/demo/webhook/endpoint"
	"github.com/stripe/stripe-go/v85/webhook"
)

// A sender is a provider: it signs events, sends them, and sends again what was not accepted.
type sender struct {
	client *http.Client
	url    string // where its events go
	secret string

	mu    sync.Mutex
	tally tally
}

// A tally is what a sender has seen.
type tally struct {
	accepted   int // events, at last
	duplicates int // of these, those that the endpoint says it had before
	resent     int // because the answer was that there is no room or no time, or there was none
	answers    []time.Duration
}

// senders is how many events a provider sends at once.
const senders = 16

func newSender(url, secret string) *sender {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = senders
	return &sender{client: &http.Client{Transport: transport}, url: url, secret: secret}
}

// eventBody is an event as a provider writes it.
func eventBody(id, kind string, o endpoint.Object) []byte {
	p := endpoint.Payload{ID: id, Type: kind}
	p.Data.Object = o
	body, err := json.Marshal(struct {
		Object string `json:"object"`
		endpoint.Payload
	}{"event", p})
	if err != nil {
		panic(err) // of strings and numbers alone
	}
	return body
}

// sign makes the signature that Stripe would.
func sign(body []byte, secret string, at time.Time) (header string) {
	return webhook.GenerateTestSignedPayload(&webhook.UnsignedPayload{Payload: body, Secret: secret, Timestamp: at}).Header
}

// post sends a body once, with any signature.
func (s *sender) post(ctx context.Context, body []byte, signature string) (status int, answer []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	if signature != "" {
		req.Header.Set("Stripe-Signature", signature)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	answer, err = io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	return resp.StatusCode, answer, err
}

// patience is how long a sender waits before it sends again. A provider would take hours.
var patience = endpoint.Backoff{Base: 50 * time.Millisecond, Limit: time.Second}

// deliver sends an event until it is accepted.
func (s *sender) deliver(ctx context.Context, body []byte) error {
	for refused := 1; ; refused++ {
		began := time.Now()
		status, answer, err := s.post(ctx, body, sign(body, s.secret, began))
		var accepted endpoint.Accepted
		switch {
		case ctx.Err() != nil:
			return fmt.Errorf("an event was not accepted: %w", context.Cause(ctx))
		case err == nil && status == http.StatusOK:
			if err := json.Unmarshal(answer, &accepted); err != nil {
				return err
			}
		case err == nil && status != http.StatusServiceUnavailable:
			return fmt.Errorf("an event was refused with status %d", status)
		}
		s.count(time.Since(began), accepted.Delivery)
		if accepted.Delivery > 0 {
			return nil
		}
		pause(ctx, patience.After(refused))
	}
}

func (s *sender) count(took time.Duration, delivery int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tally.answers = append(s.tally.answers, took)
	switch {
	case delivery == 0:
		s.tally.resent++
	case delivery > 1:
		s.tally.duplicates++
		fallthrough
	default:
		s.tally.accepted++
	}
}

// deliverAll sends many events, a bounded number of them at once.
func (s *sender) deliverAll(ctx context.Context, bodies [][]byte) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	todo := make(chan []byte)
	var all sync.WaitGroup
	for range min(senders, len(bodies)) {
		all.Go(func() {
			for body := range todo {
				if err := s.deliver(ctx, body); err != nil {
					cancel(err)
				}
			}
		})
	}
	for _, body := range bodies {
		todo <- body // the first error ends each of the others at once
	}
	close(todo)
	all.Wait()
	return context.Cause(ctx)
}

// tick is the pause before one looks again, where nobody says when there is something to see.
func tick(ctx context.Context) { pause(ctx, 20*time.Millisecond) }

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

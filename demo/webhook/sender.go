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

	stripego "github.com/stripe/stripe-go/v85/webhook"
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
	accepted int // deliveries
	resent   int // deliveries without a 2xx
	answers  []time.Duration
}

// senders is how many events a provider sends at once.
const senders = 16

func newSender(url, secret string) *sender {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = senders
	return &sender{client: &http.Client{Transport: transport}, url: url, secret: secret}
}

// eventBody is an event as a provider writes it.
func eventBody(id, kind string, o object) []byte {
	p := payload{ID: id, Type: kind}
	p.Data.Object = o
	body, err := json.Marshal(struct {
		Object string `json:"object"`
		payload
	}{"event", p})
	if err != nil {
		panic(err) // of strings and numbers alone
	}
	return body
}

// sign makes the signature that Stripe would.
func sign(body []byte, secret string, at time.Time) (header string) {
	return stripego.GenerateTestSignedPayload(&stripego.UnsignedPayload{Payload: body, Secret: secret, Timestamp: at}).Header
}

// post sends a body once, with any signature.
func (s *sender) post(ctx context.Context, body []byte, signature string) (status int, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	if signature != "" {
		req.Header.Set("Stripe-Signature", signature)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<10)) // so that the connection is used again
	return resp.StatusCode, err
}

// resendAfter returns how long a sender waits before it sends again. A provider would take hours.
func resendAfter(refused int) time.Duration {
	return min(50*time.Millisecond<<min(refused-1, 10), time.Second)
}

// deliver sends an event until it is accepted.
func (s *sender) deliver(ctx context.Context, body []byte) error {
	for refused := 1; ; refused++ {
		began := time.Now()
		status, err := s.post(ctx, body, sign(body, s.secret, began))
		switch {
		case ctx.Err() != nil:
			return fmt.Errorf("an event was not accepted: %w", context.Cause(ctx))
		case err == nil && status != http.StatusOK && status != http.StatusServiceUnavailable:
			return fmt.Errorf("an event was refused with status %d", status)
		}
		accepted := err == nil && status == http.StatusOK
		s.count(time.Since(began), accepted)
		if accepted {
			return nil
		}
		pause(ctx, resendAfter(refused))
	}
}

func (s *sender) count(took time.Duration, accepted bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tally.answers = append(s.tally.answers, took)
	if accepted {
		s.tally.accepted++
	} else {
		s.tally.resent++
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

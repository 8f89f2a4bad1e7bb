package endpoint

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/stripe/stripe-go/v85/webhook"
)

const (
	// maxBody is the largest event. Stripe's are a few kilobytes.
	maxBody = 256 << 10
	// maxReading bounds the requests that are dealt with at once, and with maxBody the memory.
	maxReading = 128
	// tolerance is how old a signature may be: whoever got hold of a signed request cannot send it
	// again much later.
	tolerance = 5 * time.Minute

	signatureHeader = "Stripe-Signature"
)

// An intake takes events from providers. It does nothing but make sure that they are genuine and
// that they will not be lost; the workers do the rest.
type intake struct {
	providers map[string]*Provider
	store     *store
	within    time.Duration
	places    chan struct{}
	logger    *slog.Logger
}

func newIntake(cfg *Config, s *store) *intake {
	in := &intake{
		providers: make(map[string]*Provider),
		store:     s,
		within:    cfg.AnswerWithin,
		places:    make(chan struct{}, maxReading),
		logger:    cfg.Logger,
	}
	for _, p := range cfg.Providers {
		in.providers[p.Name] = &p
	}
	return in
}

// A refusal is an answer other than 2xx.
type refusal struct {
	status int
	err    error
}

func refuse(status int, err error) *refusal { return &refusal{status, err} }

func (in *intake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	deliveries, no := in.take(w, r)
	if no != nil {
		// The log may have the reason. The answer has not: it would help those who try signatures.
		in.logger.Warn("event refused", "provider", r.PathValue("provider"), "status", no.status, "error", no.err)
		if no.status == http.StatusServiceUnavailable {
			w.Header().Set("Retry-After", "1")
		}
		http.Error(w, http.StatusText(no.status), no.status)
		return
	}
	writeJSON(w, http.StatusOK, Accepted{Delivery: deliveries})
}

// Accepted is the answer to an event that was taken.
type Accepted struct {
	Delivery int `json:"delivery"` // 1 when the event was new
}

// take returns how often the event was delivered so far. The order of its steps matters: nothing
// is parsed before the signature was checked, and nothing is acknowledged before it is stored.
func (in *intake) take(w http.ResponseWriter, r *http.Request) (deliveries int, no *refusal) {
	provider, ok := in.providers[r.PathValue("provider")]
	if !ok {
		return 0, refuse(http.StatusNotFound, errors.New("unknown provider"))
	}
	select {
	case in.places <- struct{}{}:
		defer func() { <-in.places }()
	default:
		return 0, refuse(http.StatusServiceUnavailable, errors.New("too many requests at once"))
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return 0, refuse(unreadable(err), err)
	}
	if err := webhook.ValidatePayloadWithTolerance(body, r.Header.Get(signatureHeader), provider.Secret, tolerance); err != nil {
		return 0, refuse(http.StatusBadRequest, err)
	}
	payload, key, err := provider.parse(body)
	if err != nil {
		return 0, refuse(http.StatusBadRequest, err)
	}
	ctx, cancel := context.WithTimeout(r.Context(), in.within)
	defer cancel()
	deliveries, err = in.store.accept(ctx, arrival{key: key, provider: provider.Name, id: payload.ID, kind: payload.Type, body: body})
	if err != nil {
		// It may be stored all the same. The provider sends it again, and that does no harm.
		return 0, refuse(http.StatusServiceUnavailable, fmt.Errorf("event %q is not stored: %w", payload.ID, err))
	}
	return deliveries, nil
}

func unreadable(err error) (status int) {
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
		return http.StatusRequestEntityTooLarge
	}
	return http.StatusBadRequest
}

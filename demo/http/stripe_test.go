package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/stripe/stripe-go/v85"

	"github.com/idempotent-go/idempotent/idemhttp"
)

// Stripe's own Go client, pointed at a server with this middleware in the place of Stripe's.

// A stripeServer makes customers, behind the middleware and a network that loses answers.
type stripeServer struct {
	*httptest.Server
	mu     sync.Mutex
	made   int
	keys   []string // of the requests that came
	lose   int      // so many answers
	failed int      // answers of the handler that are to be this status
	status int

	running, third chan struct{} // closed when the handler runs, and when the third request comes
}

func newStripeServer(t *testing.T, opts ...idemhttp.Option) *stripeServer {
	t.Helper()
	s := &stripeServer{running: make(chan struct{}), third: make(chan struct{})}
	guarded := newMiddleware(t, opts...).Wrap(http.HandlerFunc(s.create))
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.keys = append(s.keys, r.Header.Get("Idempotency-Key"))
		lose := s.lose > 0
		s.lose--
		if len(s.keys) == 3 {
			close(s.third)
		}
		s.mu.Unlock()
		if lose {
			guarded.ServeHTTP(httptest.NewRecorder(), r)
			panic(http.ErrAbortHandler) // the handler ran, and the client never hears of it
		}
		guarded.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *stripeServer) create(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.FormValue("email"), "slow") {
		close(s.running)
		select {
		case <-s.third:
		case <-time.After(time.Minute): // nobody came back
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed > 0 {
		s.failed--
		http.Error(w, "busy", s.status) // as a gateway would, which stripe-go takes for worth a retry
		return
	}
	s.made++
	answer(w, http.StatusOK, map[string]any{"id": fmt.Sprint("cus_", s.made), "object": "customer", "email": r.FormValue("email")})
}

// asStripe renders problems the way Stripe's clients know them.
func asStripe(w http.ResponseWriter, _ *http.Request, p *idemhttp.Problem) {
	kind := stripe.ErrorTypeAPI
	if p.Type == idemhttp.TypeKeyReused {
		kind = stripe.ErrorTypeIdempotency
	}
	answer(w, p.Status, map[string]any{"error": map[string]any{"type": kind, "message": p.Detail}})
}

func (s *stripeServer) client() *stripe.Client {
	backends := stripe.NewBackendsWithConfig(&stripe.BackendConfig{
		URL:               stripe.String(s.URL),
		HTTPClient:        &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}, // so that Go does not retry by itself
		MaxNetworkRetries: stripe.Int64(3),
		LeveledLogger:     &stripe.LeveledLogger{Level: stripe.LevelNull},
	})
	return stripe.NewClient("sk_test_123", stripe.WithBackends(backends))
}

func customer(email, key string) *stripe.CustomerCreateParams {
	p := &stripe.CustomerCreateParams{Email: stripe.String(email)}
	if key != "" {
		p.IdempotencyKey = stripe.String(key)
	}
	return p
}

// The retries of stripe-go carry the key of the first try, so that the customer is made once.
func TestStripeClientRetries(t *testing.T) {
	s := newStripeServer(t)
	s.lose = 2
	got, err := s.client().V1Customers.Create(t.Context(), customer("anna@example.com", ""))
	require.NoError(t, err)
	assert.Equal(t, "cus_1", got.ID)
	assert.Equal(t, "anna@example.com", got.Email)
	assert.Equal(t, "true", got.LastResponse.Header.Get("Idempotent-Replayed"))
	assert.Equal(t, 1, s.made)
	require.Len(t, s.keys, 3)
	assert.NotEmpty(t, s.keys[0])
	assert.Len(t, slices.Compact(s.keys), 1, "one key")
}

// A failure that is recorded is replayed to the retries; one that is not lets them through.
func TestStripeClientAndFailures(t *testing.T) {
	for status, made := range map[int]int{http.StatusInternalServerError: 0, http.StatusServiceUnavailable: 1} {
		s := newStripeServer(t)
		s.failed, s.status = 1, status
		_, err := s.client().V1Customers.Create(t.Context(), customer("anna@example.com", "k"))
		assert.Equal(t, made == 0, err != nil, status)
		assert.Equal(t, made, s.made)
	}
}

func TestStripeClientReusesAKey(t *testing.T) {
	s := newStripeServer(t, idemhttp.WithProblemRenderer(asStripe))
	_, err := s.client().V1Customers.Create(t.Context(), customer("anna@example.com", "k"))
	require.NoError(t, err)
	_, err = s.client().V1Customers.Create(t.Context(), customer("bert@example.com", "k"))
	var reused *stripe.IdempotencyError
	require.ErrorAs(t, err, &reused)
	assert.Equal(t, 1, s.made)
}

// Two clients at the same moment, with one key: the second is told so, and comes back by itself.
func TestStripeClientMeetsAConflict(t *testing.T) {
	s := newStripeServer(t, idemhttp.WithNoWait())
	first := make(chan string, 1)
	go func() {
		got, err := s.client().V1Customers.Create(t.Context(), customer("slow@example.com", "k"))
		if assert.NoError(t, err) {
			first <- got.ID
		}
	}()
	<-s.running
	got, err := s.client().V1Customers.Create(t.Context(), customer("slow@example.com", "k"))
	require.NoError(t, err)
	assert.Equal(t, "cus_1", got.ID)
	assert.Equal(t, "cus_1", <-first)
	assert.Equal(t, 1, s.made)
}

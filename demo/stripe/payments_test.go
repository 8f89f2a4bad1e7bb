package main

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/idempotent-go/idempotent"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/stripe/stripe-go/v85"
)

// A shop is payments with a Redis and a Stripe of their own.
type shop struct {
	*payments
	redis *miniredis.Miniredis
	proxy *testProxy
}

func newShop(t *testing.T) *shop {
	t.Helper()
	server := miniredis.RunT(t)
	rdb := redis.NewClient(&redis.Options{Addr: server.Addr()})
	t.Cleanup(func() { rdb.Close() })
	p := newTestProxy(t)
	payments, err := newPayments(rdb, "stripe", newStripe("sk_test_mock", p.url))
	require.NoError(t, err)
	t.Cleanup(func() { payments.executor.Close() })
	return &shop{payments: payments, redis: server, proxy: p}
}

func (s *shop) books() books { return s.proxy.ledger.read(s.proxy.ledger.account("cus")) }

func payment(card string) Payment {
	return Payment{Order: "order-1", Try: 1, Cents: 4999, Currency: "eur", Customer: "cus", Method: card, Placed: time.Now()}
}

func TestChargeIsReplayed(t *testing.T) {
	s := newShop(t)
	first, err := s.charge(t.Context(), payment(cardGood))
	require.NoError(t, err)
	var report idempotent.Report
	second, err := s.charge(t.Context(), payment(cardGood), idempotent.WithReport(&report))
	require.NoError(t, err)
	assert.Equal(t, first, second)
	assert.Equal(t, idempotent.Replayed, report.Source)
	assert.Equal(t, Charge{Intent: first.Intent, Status: "succeeded", Cents: 4999, Currency: "eur"}, first)
	assert.Equal(t, 1, s.books().Requests)
	assert.Zero(t, s.books().LookUps, "attempt 1 needs none")
	assert.InDelta(t, defaultTTL, s.redis.TTL("idempotent:stripe:order-1/1"), float64(time.Minute))
	s.assertNoSecrets(t)
}

// The one that ran fn and those it is replayed to get the same error, in all that it says.
func TestDeclineIsReplayed(t *testing.T) {
	s := newShop(t)
	_, first := s.charge(t.Context(), payment(cardDeclined))
	_, second := s.charge(t.Context(), payment(cardDeclined))
	assert.NotErrorIs(t, first, idempotent.ErrReplayed)
	assert.ErrorIs(t, second, idempotent.ErrReplayed)
	assert.Equal(t, first.Error(), second.Error())
	one, ok := errors.AsType[*stripe.Error](first)
	require.True(t, ok)
	two, ok := errors.AsType[*stripe.Error](second)
	require.True(t, ok)
	assert.Equal(t, one, two)
	assert.Equal(t, stripe.ErrorCodeCardDeclined, two.Code)
	assert.Equal(t, stripe.DeclineCode("generic_decline"), two.DeclineCode)
	assert.Equal(t, http.StatusPaymentRequired, two.HTTPStatusCode)
	assert.NotEmpty(t, two.RequestID)
	assert.NotEmpty(t, two.PaymentIntent.ID)
	assert.False(t, idempotent.IsRetryable(first) || idempotent.IsRetryable(second))
	assert.Equal(t, 1, s.books().Requests)
	s.assertNoSecrets(t)
}

// assertNoSecrets makes sure that no client secret went to Redis.
func (s *shop) assertNoSecrets(t *testing.T) {
	t.Helper()
	require.NotEmpty(t, s.redis.Keys())
	for _, key := range s.redis.Keys() {
		value, err := s.redis.Get(key)
		require.NoError(t, err)
		assert.NotContains(t, value, "_secret_")
	}
}

// The next card needs another key, and gets its own answer.
func TestAnotherCardIsAnotherTry(t *testing.T) {
	s := newShop(t)
	_, err := s.charge(t.Context(), payment(cardDeclined))
	require.Error(t, err)
	other := payment(cardGood)
	_, err = s.charge(t.Context(), other)
	require.ErrorIs(t, err, idempotent.ErrKeyReused)
	other.Try = 2
	_, err = s.charge(t.Context(), other)
	require.NoError(t, err)
	assert.Len(t, s.books().Charges, 1)
}

// cutOff has an attempt 1 that Stripe carries out, and whose connection is cut before the answer.
func (s *shop) cutOff(t *testing.T, pay Payment) {
	t.Helper()
	s.proxy.ledger.open("cus", manner{cuts: true})
	var report idempotent.Report
	_, err := s.charge(t.Context(), pay, idempotent.WithReport(&report))
	require.Error(t, err)
	require.True(t, idempotent.IsRetryable(err))
	require.Equal(t, 1, report.Attempt)
	require.Equal(t, 1, len(s.books().Charges)+s.books().Declines)
	s.proxy.ledger.open("cus", manner{})
}

// forgetKey makes Stripe forget the key, as it may after a day.
func (s *shop) forgetKey(pay Payment) {
	s.proxy.ledger.withdraw(idempotent.RunInfo{Namespace: "stripe", Key: pay.key()}.DownstreamKey())
}

// Nobody knows what became of attempt 1. Days later, when Stripe has forgotten the key, that is still
// known, and the look-up finds the charge.
func TestUnknownOutcomeIsLookedUpDaysLater(t *testing.T) {
	s := newShop(t)
	s.cutOff(t, payment(cardGood))
	asked := s.books().Requests
	s.redis.FastForward(6 * 24 * time.Hour)
	s.forgetKey(payment(cardGood))

	var report idempotent.Report
	_, err := s.charge(t.Context(), payment(cardGood), idempotent.WithReport(&report))
	require.NoError(t, err)
	assert.Equal(t, 2, report.Attempt)
	assert.Equal(t, 1, s.books().LookUps)
	assert.Equal(t, asked, s.books().Requests)
	assert.Len(t, s.books().Charges, 1)
}

func TestDeclinedIntentIsNotTakenForACharge(t *testing.T) {
	s := newShop(t)
	s.cutOff(t, payment(cardDeclined))
	_, err := s.charge(t.Context(), payment(cardDeclined))
	e, ok := errors.AsType[*stripe.Error](err)
	require.True(t, ok)
	assert.Equal(t, stripe.ErrorCodeCardDeclined, e.Code)
	assert.Equal(t, 1, s.books().LookUps)
	assert.Equal(t, 1, s.books().Declines, "the same key brings the same answer")
}

// Attempt 2 looks first. Here attempt 1 was ended by its caller, after the money was taken.
func TestSecondAttemptLooksFirst(t *testing.T) {
	s := newShop(t)
	a := s.proxy.ledger.open("cus", manner{until: make(chan struct{})})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		<-a.answered
		cancel()
	}()
	_, err := s.charge(ctx, payment(cardGood))
	require.ErrorIs(t, err, context.Canceled)

	var report idempotent.Report
	_, err = s.charge(t.Context(), payment(cardGood), idempotent.WithReport(&report))
	require.NoError(t, err)
	assert.Equal(t, 2, report.Attempt)
	b := s.books()
	assert.Equal(t, 1, b.LookUps)
	assert.Equal(t, 1, b.Requests)
	assert.Len(t, b.Charges, 1)
}

// A look-up that fails says nothing about the money: nothing is recorded, nobody is charged, and
// the next one looks again.
func TestFailedLookUpIsMadeAgain(t *testing.T) {
	for _, status := range []int32{http.StatusForbidden, http.StatusTooManyRequests, http.StatusInternalServerError} {
		s := newShop(t)
		s.cutOff(t, payment(cardGood))
		asked := s.books().Requests
		s.forgetKey(payment(cardGood))
		s.proxy.refuses.Store(status)
		_, err := s.charge(t.Context(), payment(cardGood))
		require.Error(t, err)
		assert.Equal(t, asked, s.books().Requests, "nobody was charged blindly")
		s.proxy.refuses.Store(0)
		var report idempotent.Report
		_, err = s.charge(t.Context(), payment(cardGood), idempotent.WithReport(&report))
		require.NoError(t, err)
		assert.Equal(t, 3, report.Attempt)
		assert.Len(t, s.books().Charges, 1)
	}
}

// stripe-go repeats a request whose connection broke. If the repetition is refused, the refusal is
// not the whole story.
func TestRefusalAfterALostConnectionIsUnknown(t *testing.T) {
	s := newShop(t)
	var requests atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			_, _ = io.WriteString(w, `{"object":"list","data":[]}`)
			return
		}
		switch requests.Add(1) {
		case 1:
			panic(http.ErrAbortHandler)
		case 2:
			w.WriteHeader(http.StatusTooManyRequests)
			_, _ = io.WriteString(w, `{"error":{"type":"invalid_request_error","code":"rate_limit"}}`)
		default:
			_, _ = io.WriteString(w, `{"object":"payment_intent","id":"pi","status":"succeeded"}`)
		}
	}))
	defer server.Close()
	s.stripe = newStripe("sk_test_mock", server.URL)
	_, err := s.charge(t.Context(), payment(cardGood))
	e, ok := errors.AsType[*stripe.Error](err)
	require.True(t, ok)
	assert.Equal(t, http.StatusTooManyRequests, e.HTTPStatusCode)
	var report idempotent.Report
	_, err = s.charge(t.Context(), payment(cardGood), idempotent.WithReport(&report))
	require.NoError(t, err)
	assert.Equal(t, 2, report.Attempt)
}

// What becomes of the key: the outcome is recorded, the key is free as if nothing had been, or the
// next execution is attempt 2.
func TestWhatBecomesOfTheKey(t *testing.T) {
	const recorded, free, unknown = "recorded", "free", "unknown"
	s := newShop(t)
	for _, test := range []struct {
		name      string
		err       error
		repeated  bool
		key       string
		retryable bool
	}{
		{"card declined", &stripe.Error{Type: stripe.ErrorTypeCard, HTTPStatusCode: 402}, false, recorded, false},
		{"card declined, for a repeated request", &stripe.Error{Type: stripe.ErrorTypeCard, HTTPStatusCode: 402}, true, recorded, false},
		{"rate limit", &stripe.Error{Type: stripe.ErrorTypeInvalidRequest, HTTPStatusCode: 429, Code: stripe.ErrorCodeRateLimit}, false, free, true},
		{"rate limit, for a repeated request", &stripe.Error{Type: stripe.ErrorTypeInvalidRequest, HTTPStatusCode: 429, Code: stripe.ErrorCodeRateLimit}, true, unknown, true},
		{"lock timeout", &stripe.Error{Type: stripe.ErrorTypeInvalidRequest, HTTPStatusCode: 429, Code: stripe.ErrorCodeLockTimeout}, false, free, true},
		{"key in use", &stripe.Error{Type: stripe.ErrorTypeIdempotency, HTTPStatusCode: 409}, false, free, true},
		{"bad request", &stripe.Error{Type: stripe.ErrorTypeInvalidRequest, HTTPStatusCode: 400}, false, free, false},
		{"other parameters", &stripe.Error{Type: stripe.ErrorTypeIdempotency, HTTPStatusCode: 400}, false, free, false},
		{"wrong API key", &stripe.Error{Type: stripe.ErrorTypeInvalidRequest, HTTPStatusCode: 401}, false, free, false},
		{"Stripe is down", &stripe.Error{Type: stripe.ErrorTypeAPI, HTTPStatusCode: 500}, false, unknown, true},
		{"no connection", errors.New("dial tcp: connection refused"), false, unknown, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := explain(test.err, test.repeated)
			assert.Equal(t, test.retryable, idempotent.IsRetryable(err))
			assert.Equal(t, test.err.Error(), err.Error())

			var report idempotent.Report
			run := func(err error) error {
				_, err = s.executor.Run(t.Context(), test.name, func(context.Context) (Charge, error) {
					return Charge{}, err
				}, idempotent.WithReport(&report))
				return err
			}
			require.Error(t, run(err))
			err = run(nil)
			if test.key == recorded {
				require.ErrorIs(t, err, idempotent.ErrReplayed)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, map[string]int{free: 1, unknown: 2}[test.key], report.Attempt)
		})
	}
	assert.False(t, notBegun(&idempotent.PanicError{Value: "a bug"}))
}

// Everything that an error says and that may be stored is kept, and nothing else.
func TestPortable(t *testing.T) {
	e := portable(&stripe.Error{
		Msg: "no", PaymentMethod: &stripe.PaymentMethod{ID: "pm"}, Err: errors.New("inner"),
		PaymentIntent: &stripe.PaymentIntent{ID: "pi", ClientSecret: "pi_secret_x", Status: "requires_payment_method", ReceiptEmail: "someone@example.com"},
		APIResource:   stripe.APIResource{LastResponse: &stripe.APIResponse{RawJSON: []byte("{}")}},
	})
	assert.Equal(t, &stripe.Error{
		Msg:           "no",
		PaymentIntent: &stripe.PaymentIntent{ID: "pi", Status: "requires_payment_method"},
	}, e)
	assert.False(t, strings.Contains(e.Error(), "secret_x") || strings.Contains(e.Error(), "example.com"))
}

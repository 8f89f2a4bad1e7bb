package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"
	"time"

	"github.com/idempotent-go/idempotent"
	"github.com/redis/go-redis/v9"
	"github.com/stripe/stripe-go/v85"
)

const (
	// defaultTTL is how long an outcome is replayed, and how long it is known that an execution
	// without one had begun. It must outlast the last retry of everybody who may ask again: Stripe
	// sends its webhooks for three days, a job queue may try for longer.
	defaultTTL = 7 * 24 * time.Hour

	// defaultLease is how long a process that was killed blocks its payment.
	defaultLease = 10 * time.Second
)

// A Payment is one try to charge a customer for an order.
type Payment struct {
	Order    string
	Try      int // 1; another one, with another card, when this one was declined
	Cents    int64
	Currency string
	Customer string
	Method   string    // the PaymentMethod
	Placed   time.Time // before the first request to Stripe: the look-up begins there
}

// key names the try. A decline is final for its key, so the next card needs another one; hand it
// out only after this one has ended in a card error, or an order may be paid twice after all.
func (p Payment) key() string { return fmt.Sprintf("%s/%d", p.Order, p.Try) }

// fingerprint tells this request from another one under the same key, as Stripe does.
func (p Payment) fingerprint() []byte {
	sum := sha256.Sum256(fmt.Appendf(nil, "%d %q %q %q", p.Cents, p.Currency, p.Customer, p.Method))
	return sum[:]
}

// A Charge is what is recorded of a PaymentIntent: what callers need and no more. The whole object
// has a client secret, which does not belong into a cache.
type Charge struct {
	Intent   string
	Status   string // when it was asked for; "processing" is settled by Stripe's webhook
	Cents    int64
	Currency string
}

// payments charges each Payment once, whichever process is asked and how often.
type payments struct {
	executor *idempotent.Executor[Charge]
	stripe   *stripe.Client
}

func newPayments(rdb redis.UniversalClient, namespace string, client *stripe.Client, opts ...idempotent.Option) (*payments, error) {
	executor, err := idempotent.New[Charge](rdb, namespace, append([]idempotent.Option{
		idempotent.WithTTL(defaultTTL),
		idempotent.WithLease(defaultLease),
		idempotent.WithErrors(idempotent.NewErrorRegistry(
			idempotent.ErrorType[*stripe.Error]("stripe_error"))),
		idempotent.WithShouldIgnoreError(notBegun),
		// When Stripe refuses for the moment, those who wait are to hear of it and come back later,
		// by their own back-off. By default the next of them would ask Stripe at once, and then the
		// next: the wrong thing to do to a rate limit.
		idempotent.WithIgnoredErrors(idempotent.ShareWithWaiters),
	}, opts...)...)
	if err != nil {
		return nil, err
	}
	return &payments{executor: executor, stripe: client}, nil
}

// charge returns the Payment's charge or card error, the same for every caller. Any other error,
// but for a panic of ours, has settled nothing: ask again, at once or later, as often as you like.
func (p *payments) charge(ctx context.Context, pay Payment, opts ...idempotent.RunOption) (Charge, error) {
	return p.executor.Run(ctx, pay.key(), func(ctx context.Context) (Charge, error) {
		return p.execute(ctx, pay)
	}, append([]idempotent.RunOption{idempotent.WithFingerprint(pay.fingerprint())}, opts...)...)
}

// execute runs in one process at a time for a Payment. Above attempt 1, an earlier execution may
// have charged already: its process died, or it could not say. Two things keep this one from
// charging again:
//
//   - the look-up, however old the order is. It also spares the charge a refusal when a new version
//     of this program sends other parameters under an old key.
//   - Stripe's Idempotency-Key, which Stripe remembers for 24 h at least. It covers what a look-up
//     cannot see: an earlier request that is still on its way.
func (p *payments) execute(ctx context.Context, pay Payment) (Charge, error) {
	info, _ := idempotent.RunInfoFromContext(ctx)
	key := info.DownstreamKey() // the same in every process and for every attempt
	if info.Attempt > 1 {
		charge, found, err := p.find(ctx, pay, key)
		if found || err != nil {
			return charge, err
		}
	}
	return p.create(ctx, pay, key)
}

// keyInMetadata is where a PaymentIntent says for which key it was made.
const keyInMetadata = "idempotency_key"

func (p *payments) create(ctx context.Context, pay Payment, key string) (Charge, error) {
	params := &stripe.PaymentIntentCreateParams{
		Amount:                new(pay.Cents),
		Currency:              new(pay.Currency),
		Customer:              new(pay.Customer),
		PaymentMethod:         new(pay.Method),
		PaymentMethodTypes:    []*string{new("card")},
		Confirm:               new(true),
		ErrorOnRequiresAction: new(true), // nobody is there to authenticate: a card error
	}
	params.AddMetadata("order_id", pay.Order)
	params.AddMetadata(keyInMetadata, key)
	params.SetIdempotencyKey(key)
	var sent atomic.Int32 // stripe-go repeats a request by itself, and so does net/http
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		WroteRequest: func(httptrace.WroteRequestInfo) { sent.Add(1) },
	})
	intent, err := p.stripe.V1PaymentIntents.Create(ctx, params)
	if err != nil {
		return Charge{}, explain(err, sent.Load() > 1)
	}
	return chargeOf(intent), nil
}

// find asks Stripe for the PaymentIntent of an earlier execution.
//
// It lists, because Stripe's lists show at once what was written. Search, by metadata, would be
// less to read through, but lags behind: under a minute as a rule, up to an hour in an outage, and
// not in every country. Retrieve would be best, but a process that died took the id with it.
//
// If the look-up fails, so does the execution, and nobody is charged. The error is ignored, so that
// those who wait hear of it too; the next execution is one attempt further, and looks again.
func (p *payments) find(ctx context.Context, pay Payment, key string) (charge Charge, found bool, err error) {
	params := &stripe.PaymentIntentListParams{
		Customer:     new(pay.Customer),
		CreatedRange: &stripe.RangeQueryParams{GreaterThanOrEqual: pay.Placed.Add(-time.Hour).Unix()},
	}
	params.Limit = new(int64(100))
	for intent, err := range p.stripe.V1PaymentIntents.List(ctx, params).All(ctx) {
		if err != nil {
			return Charge{}, false, presentable(err)
		}
		if intent.Metadata[keyInMetadata] == key && moved(intent) {
			return chargeOf(intent), true, nil
		}
	}
	return Charge{}, false, nil
}

// moved says whether a PaymentIntent takes money, by now or soon. A declined one does not: to hear
// of the decline, ask again with the same key.
func moved(intent *stripe.PaymentIntent) bool {
	switch intent.Status {
	case stripe.PaymentIntentStatusSucceeded, stripe.PaymentIntentStatusProcessing, stripe.PaymentIntentStatusRequiresCapture:
		return true
	}
	return false
}

func chargeOf(intent *stripe.PaymentIntent) Charge {
	return Charge{
		Intent:   intent.ID,
		Status:   string(intent.Status),
		Cents:    intent.Amount,
		Currency: string(intent.Currency),
	}
}

// newStripe makes a client of the API at url, or of Stripe's own if that is empty.
func newStripe(key, url string) *stripe.Client {
	config := &stripe.BackendConfig{
		EnableTelemetry:   new(false),
		MaxNetworkRetries: new(stripe.DefaultMaxNetworkRetries), // they carry the same key
		// One request. fn may take longer than the lease, which is renewed meanwhile.
		HTTPClient: &http.Client{Timeout: 20 * time.Second},
		// What goes wrong is returned. stripe-go would log it as well, with the customer's data.
		LeveledLogger: &stripe.LeveledLogger{Level: stripe.LevelNull},
	}
	if url != "" {
		config.URL = new(url)
	}
	return stripe.NewClient(key, stripe.WithBackends(stripe.NewBackendsWithConfig(config)))
}

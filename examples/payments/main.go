// Payments charges a customer with Stripe: once for each order, whoever asks and how often.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/examples/internal/demoredis"
	"github.com/redis/go-redis/v9"
	"github.com/stripe/stripe-go/v85"
)

type Order struct {
	ID, Customer, Card string // Card is a PaymentMethod
	Cents              int64
	Placed             time.Time
}

// A Charge is what is recorded of a PaymentIntent. The whole object holds a client secret.
type Charge struct{ Intent, Status string }

type Payments struct {
	charges *idempotent.Executor[Charge]
	stripe  *stripe.Client
}

func newCharges(rdb redis.UniversalClient) (*idempotent.Executor[Charge], error) {
	return idempotent.New[Charge](rdb, "payments",
		idempotent.WithTTL(7*24*time.Hour), // longer than the last retry of a caller
		idempotent.WithErrors(idempotent.NewErrorRegistry(idempotent.ErrorType[*stripe.Error]("stripe"))),
		idempotent.WithShouldIgnoreError(refused),
		idempotent.WithIgnoredErrors(idempotent.ShareWithWaiters)) // waiters back off instead of asking in turn
}

// Charge returns the order's charge or card error, the same to each caller. After another error, call it again.
func (p *Payments) Charge(ctx context.Context, o Order) (Charge, error) {
	return p.charges.Run(ctx, o.ID, func(ctx context.Context) (Charge, error) {
		info, _ := idempotent.RunInfoFromContext(ctx)
		if info.Attempt > 1 { // the owner before us died, or did not get Stripe's answer
			if charge, found, err := p.find(ctx, o, info.DownstreamKey()); found || err != nil {
				return charge, idempotent.OutcomeUnknown(err) // nil stays nil
			}
		}
		return p.create(ctx, o, info.DownstreamKey())
	}, idempotent.WithFingerprint(fmt.Appendf(nil, "%d %s %s", o.Cents, o.Customer, o.Card)))
}

func (p *Payments) create(ctx context.Context, o Order, key string) (Charge, error) {
	fmt.Println("asking Stripe for", o.Cents, "cents of", o.ID)
	params := &stripe.PaymentIntentCreateParams{
		Amount: &o.Cents, Currency: new("eur"), Customer: &o.Customer, PaymentMethod: &o.Card,
		PaymentMethodTypes: []*string{new("card")}, Confirm: new(true), ErrorOnRequiresAction: new(true),
		Metadata: map[string]string{"key": key},
	}
	params.SetIdempotencyKey(key) // attempt 2 cannot charge again while Stripe remembers it
	intent, err := p.stripe.V1PaymentIntents.Create(ctx, params)
	if err != nil {
		return Charge{}, settle(err)
	}
	return Charge{intent.ID, string(intent.Status)}, nil
}

// find looks for the charge of an earlier attempt. Stripe's search would be shorter, but lags behind.
func (p *Payments) find(ctx context.Context, o Order, key string) (Charge, bool, error) {
	since := &stripe.RangeQueryParams{GreaterThanOrEqual: o.Placed.Add(-time.Hour).Unix()}
	params := &stripe.PaymentIntentListParams{Customer: &o.Customer, CreatedRange: since}
	for intent, err := range p.stripe.V1PaymentIntents.List(ctx, params).All(ctx) {
		if err != nil {
			return Charge{}, false, err
		}
		taken := intent.Status == stripe.PaymentIntentStatusSucceeded || intent.Status == stripe.PaymentIntentStatusProcessing
		if taken && intent.Metadata["key"] == key {
			return Charge{intent.ID, string(intent.Status)}, true, nil
		}
	}
	return Charge{}, false, nil
}

// settle marks an error after which the money may be gone. Stripe's other errors say what happened.
func settle(err error) error {
	e, ok := errors.AsType[*stripe.Error](err)
	if !ok || e.HTTPStatusCode >= 500 {
		return idempotent.OutcomeUnknown(err) // the next attempt looks first
	}
	// The whole error has the PaymentIntent in it, with the client secret and the customer's address.
	return &stripe.Error{Type: e.Type, Code: e.Code, DeclineCode: e.DeclineCode, HTTPStatusCode: e.HTTPStatusCode, Msg: e.Msg}
}

// refused reports that Stripe did not begin: a rate limit, our mistake. A declined card is an outcome.
func refused(err error) bool {
	e, ok := errors.AsType[*stripe.Error](err)
	return ok && e.Type != stripe.ErrorTypeCard
}

func main() {
	ctx := context.Background()
	rdb, stop, err := demoredis.Connect(ctx)
	if err != nil {
		log.Fatal(err)
	}
	defer stop()
	charges, err := newCharges(rdb)
	if err != nil {
		log.Fatal(err)
	}
	defer charges.Close()
	url := cmp.Or(os.Getenv("STRIPE_URL"), stripe.APIURL)
	api := stripe.NewBackendsWithConfig(&stripe.BackendConfig{URL: &url, MaxNetworkRetries: new(int64(0))}) // a refusal answers the only request
	payments := &Payments{charges, stripe.NewClient(os.Getenv("STRIPE_API_KEY"), stripe.WithBackends(api))}
	order := Order{ID: "order-42", Cents: 49_99, Customer: os.Getenv("STRIPE_CUSTOMER"), Card: "pm_card_visa", Placed: time.Now()}
	for range 3 {
		fmt.Println(payments.Charge(ctx, order))
	}
}

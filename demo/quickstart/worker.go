package main

import (
	"context"
	"time"

	"github.com/idempotent-go/idempotent"
	"github.com/redis/go-redis/v9"
)

// lease is how long a dead owner blocks a key. It is short here so that nobody has to wait in
// front of a demo; the default of 10 s is the better choice for a service.
const lease = 2 * time.Second

// payments makes each order's payment once, whichever process is asked for it and how often.
type payments struct {
	executor *idempotent.Executor[Charge]
	provider *providerClient
}

func newPayments(rdb redis.UniversalClient, namespace string, provider *providerClient, observer idempotent.Observer) (*payments, error) {
	executor, err := idempotent.New[Charge](rdb, namespace,
		idempotent.WithErrors(idempotent.NewErrorRegistry(
			idempotent.ErrorType[*CardError]("card_declined"))),
		idempotent.WithShouldIgnoreError(idempotent.IsRetryable),
		idempotent.WithTTL(5*time.Minute), // until the demo's keys are gone; a shop needs a day or more
		idempotent.WithLease(lease),
		idempotent.WithObserver(observer))
	if err != nil {
		return nil, err
	}
	return &payments{executor: executor, provider: provider}, nil
}

// pay returns the order's charge. It may be called by anybody at any time: the money is taken once.
func (p *payments) pay(ctx context.Context, o Order, report *idempotent.Report) (Charge, error) {
	return p.executor.Run(ctx, o.ID, func(ctx context.Context) (Charge, error) {
		return p.charge(ctx, o)
	}, idempotent.WithFingerprint(o.fingerprint()), idempotent.WithReport(report))
}

// charge runs in one process at a time for an order. When it runs again because its process was
// killed, or could not say, nobody knows whether the money was taken: nobody but the provider.
func (p *payments) charge(ctx context.Context, o Order) (Charge, error) {
	info, _ := idempotent.RunInfoFromContext(ctx)
	reference := info.DownstreamKey() // the same in every process and for every attempt
	if info.Attempt > 1 {
		charge, found, err := p.provider.find(ctx, reference)
		if found || err != nil {
			return charge, err
		}
	}
	return p.provider.charge(ctx, reference, o)
}

// Webhook receives events from Stripe and credits an order once for each event, however often it comes.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/idempotent-go/idempotent/examples/internal/demoredis"
	"github.com/idempotent-go/idempotent/webhook"
)

// A Credit is what an event changed: the audit's answer to "what did this event do?"
type Credit struct {
	Order string `json:"order"`
	Cents int64  `json:"cents"`
}

// A PaymentEvent is the part of a payment_intent event that the handler reads.
type PaymentEvent struct {
	Data struct {
		Object struct {
			Amount   int64 `json:"amount"`
			Metadata struct {
				Order string `json:"order"`
			} `json:"metadata"`
		} `json:"object"`
	} `json:"data"`
}

// A Ledger stands for the books. An error after which nothing happened should be wrapped in idempotent.Retryable, and one
// that another attempt repeats in webhook.Permanent. After any other error it is unknown whether the entry is there.
type Ledger struct{}

func (Ledger) Has(context.Context, string) (bool, error) { return false, nil }

func (Ledger) Add(_ context.Context, _ string, c Credit) error {
	fmt.Println("crediting", c.Cents, "cents to", c.Order)
	return nil
}

func credit(ctx context.Context, j *webhook.Job, e PaymentEvent) error {
	var ledger Ledger
	c := Credit{e.Data.Object.Metadata.Order, e.Data.Object.Amount}
	if j.Attempt > 1 { // an earlier attempt may have credited
		found, err := ledger.Has(ctx, j.Reference)
		if err != nil {
			return err
		}
		if found {
			return j.Changed(c)
		}
	}
	if err := ledger.Add(ctx, j.Reference, c); err != nil {
		return err
	}
	return j.Changed(c)
}

func newInbox(ctx context.Context, rdb redis.UniversalClient, secret string) (*webhook.Inbox, error) {
	stripe, err := webhook.Stripe([]string{secret})
	if err != nil {
		return nil, err
	}
	store, err := webhook.NewRedisStore(rdb, "shop")
	if err != nil {
		return nil, err
	}
	router := webhook.NewRouter()
	router.Handle("stripe", "payment_intent.succeeded", webhook.Typed(credit))
	return webhook.New(ctx, store, []webhook.Source{{Name: "stripe", Scheme: stripe}}, router,
		webhook.WithLogger(slog.Default()),
		webhook.WithUnsafeStore()) // remove this: it accepts a Redis that loses accepted events when it restarts
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	rdb, stop, err := demoredis.Connect(ctx)
	if err != nil {
		return err
	}
	defer stop()
	inbox, err := newInbox(ctx, rdb, os.Getenv("STRIPE_WEBHOOK_SECRET"))
	if err != nil {
		return err
	}
	defer inbox.Close()
	mux := http.NewServeMux()
	mux.Handle("POST /webhooks/{source}", inbox)
	mux.Handle("GET /", inbox.Probes())
	listener, err := net.Listen("tcp", cmp.Or(os.Getenv("ADDR"), "localhost:8080"))
	if err != nil {
		return err
	}
	fmt.Println("listening on", listener.Addr())
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	go func() { log.Println(server.Serve(listener)) }()
	return errors.Join(inbox.Work(ctx), server.Close()) // Work ends at Ctrl-C, when the running handlers have returned
}

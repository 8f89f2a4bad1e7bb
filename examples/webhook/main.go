// Webhook receives events from Stripe and credits an order once for each event, however often it comes.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/examples/internal/demoredis"
	"github.com/redis/go-redis/v9"
	"github.com/stripe/stripe-go/v85"
	"github.com/stripe/stripe-go/v85/webhook"
)

// A Credit is what an event has changed. It is recorded: the answer to "what did this event do?"
type Credit struct {
	Order string
	Cents int64
}

type Endpoint struct {
	credits *idempotent.Executor[Credit]
	secret  string
	ledger  Ledger
}

func newCredits(rdb redis.UniversalClient) (*idempotent.Executor[Credit], error) {
	return idempotent.New[Credit](rdb, "webhook",
		idempotent.WithTTL(31*24*time.Hour), // Stripe repeats for 3 days, people resend for weeks
		idempotent.WithDetached(),           // a provider that hangs up stops nothing
		idempotent.WithWaitTimeout(5*time.Second),
		idempotent.WithShouldIgnoreError(idempotent.IsRetryable))
}

// ServeHTTP answers 200 once the event is handled for good, and 503 to have it delivered again.
func (e *Endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 256<<10))
	if err != nil {
		http.Error(w, "cannot read the event", http.StatusBadRequest)
		return
	}
	// First the signature, over the raw bytes, and then what they say.
	event, err := webhook.ConstructEventWithOptions(body, r.Header.Get("Stripe-Signature"), e.secret,
		webhook.ConstructEventOptions{IgnoreAPIVersionMismatch: true, Tolerance: 5 * time.Minute})
	if err != nil {
		http.Error(w, "not signed by Stripe", http.StatusBadRequest)
		return
	}
	var report idempotent.Report
	_, err = e.credits.Run(r.Context(), event.ID, func(ctx context.Context) (Credit, error) {
		return e.handle(ctx, event)
	}, idempotent.WithReport(&report))
	log.Println(event.ID, report.Source, err)
	if err != nil && report.RecordedAt.IsZero() { // not settled: in flight elsewhere, or to be tried again
		w.Header().Set("Retry-After", "5")
		http.Error(w, "try again", http.StatusServiceUnavailable)
		return
	}
	_, _ = io.WriteString(w, "ok") // also after a recorded error: another delivery would get the same
}

func (e *Endpoint) handle(ctx context.Context, event stripe.Event) (Credit, error) {
	if event.Type != "payment_intent.succeeded" {
		return Credit{}, nil
	}
	var intent stripe.PaymentIntent
	if err := json.Unmarshal(event.Data.Raw, &intent); err != nil {
		return Credit{}, err // recorded: it is the same in each delivery
	}
	credit := Credit{intent.Metadata["order"], intent.Amount}
	info, _ := idempotent.RunInfoFromContext(ctx)
	if info.Attempt > 1 { // an earlier attempt died: did it credit?
		if found, err := e.ledger.Has(ctx, info.DownstreamKey()); found || err != nil {
			return credit, idempotent.OutcomeUnknown(err) // nil stays nil
		}
	}
	return credit, e.ledger.Add(ctx, info.DownstreamKey(), credit)
}

// A Ledger stands for the books. It wraps an error after which the entry may be there in
// idempotent.OutcomeUnknown, and one that promises that nothing happened in idempotent.Retryable.
type Ledger struct{}

func (Ledger) Has(context.Context, string) (bool, error) { return false, nil }

func (Ledger) Add(_ context.Context, _ string, c Credit) error {
	fmt.Println("crediting", c.Cents, "cents to", c.Order)
	return nil
}

func main() {
	rdb, stop, err := demoredis.Connect(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	defer stop()
	credits, err := newCredits(rdb)
	if err != nil {
		log.Fatal(err)
	}
	secret := os.Getenv("STRIPE_WEBHOOK_SECRET")
	if secret == "" { // with an empty secret, everybody can sign
		log.Fatal("STRIPE_WEBHOOK_SECRET is empty")
	}
	listener, err := net.Listen("tcp", cmp.Or(os.Getenv("ADDR"), "localhost:8080"))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("listening on", listener.Addr())
	server := &http.Server{Handler: &Endpoint{credits, secret, Ledger{}}, ReadTimeout: 10 * time.Second}
	log.Fatal(server.Serve(listener))
}

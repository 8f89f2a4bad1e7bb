package webhook_test

import (
	"context"
	"log"
	"net/http"
	"os"

	"github.com/redis/go-redis/v9"

	"github.com/idempotent-go/idempotent/webhook"
)

// The first verified Stripe event.
func Example() {
	ctx := context.Background()
	stripe, err := webhook.Stripe([]string{os.Getenv("STRIPE_WEBHOOK_SECRET")})
	if err != nil {
		log.Fatal(err)
	}
	store, err := webhook.NewRedisStore(redis.NewClient(&redis.Options{Addr: "localhost:6379"}), "shop")
	if err != nil {
		log.Fatal(err)
	}
	router := webhook.NewRouter()
	router.Handle("stripe", "payment_intent.succeeded", func(ctx context.Context, j *webhook.Job) error {
		log.Printf("paid: %s (attempt %d)", j.Object, j.Attempt)
		return nil
	})
	inbox, err := webhook.New(ctx, store, []webhook.Source{{Name: "stripe", Scheme: stripe}}, router)
	if err != nil {
		log.Fatal(err)
	}
	go func() { log.Print(inbox.Work(ctx)) }()
	http.Handle("POST /webhooks/{source}", inbox)
	log.Fatal(http.ListenAndServe(":8080", nil))
}

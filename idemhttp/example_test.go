package idemhttp_test

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/idemhttp"
)

// A payments API: the handler runs once for each key, whichever process the requests come to.
func Example() {
	rdb := redis.NewClient(&redis.Options{Addr: "localhost:6379"})
	// Basic authentication is checked by a middleware in front of this one.
	mw, err := idemhttp.New(rdb, "payments-api", idemhttp.ScopeBasicUser, idemhttp.WithRequiredKey())
	if err != nil {
		panic(err)
	}
	defer mw.Close()

	mux := http.NewServeMux()
	mux.Handle("GET /idempotency", mw.Policy())
	mux.Handle("POST /payments", mw.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		info, _ := idempotent.RunInfoFromContext(r.Context())
		if info.Attempt > 1 {
			// An earlier attempt died half-way: ask the provider, under info.DownstreamKey(),
			// whether the card was charged.
			fmt.Println("attempt", info.Attempt)
		}
		w.WriteHeader(http.StatusCreated)
	})))
	_ = http.ListenAndServe(":8080", mux)
}

// A client that may lose answers and still pays once.
func ExampleNewTransport() {
	rt, err := idemhttp.NewTransport(http.DefaultTransport, idemhttp.WithMaxAttempts(4))
	if err != nil {
		panic(err)
	}
	client := &http.Client{Transport: rt}
	res, err := client.Post("http://localhost:8080/payments", "application/json", strings.NewReader(`{"amount":42}`))
	if err != nil {
		panic(err)
	}
	defer res.Body.Close()
	fmt.Println(res.Status, "replayed:", res.Header.Get(idemhttp.ReplayedHeader) == "true")
}

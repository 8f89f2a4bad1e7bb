// Http is a payments API whose POST /payments takes an Idempotency-Key: however often a client
// sends a payment, it is made once. README.md has the curl commands to try it with.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"time"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/demo/internal/redisproc"
	"github.com/idempotent-go/idempotent/idemhttp"
	"github.com/redis/go-redis/v9"
)

func main() {
	redisproc.Main()
	addr := flag.String("addr", "localhost:8080", "where to listen")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := serve(ctx, *addr); err != nil {
		log.Fatal(err)
	}
}

// serve runs the API until ctx ends.
func serve(ctx context.Context, addr string) error {
	server, err := redisproc.Start(ctx)
	if err != nil {
		return err
	}
	defer server.Stop()
	opts, err := redis.ParseURL(server.URL)
	if err != nil {
		return err
	}
	rdb := redis.NewClient(opts)
	defer rdb.Close()
	mw, err := idemhttp.New(rdb, "payments", idemhttp.SingleTenant,
		idemhttp.WithTTL(10*time.Minute), // a demo; the default is a day
		idemhttp.WithRequiredKey(),
		idemhttp.WithWaitTimeout(2*time.Second),
		idemhttp.WithDocumentation("/idempotency"))
	if err != nil {
		return err
	}
	defer mw.Close() // waits for payments whose clients have gone

	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	fmt.Printf("Redis     %s\nlistening http://%s\n", server.Description, listener.Addr())
	api := &http.Server{Handler: routes(mw, &bank{}), ReadTimeout: 10 * time.Second}
	context.AfterFunc(ctx, func() { _ = api.Shutdown(context.WithoutCancel(ctx)) })
	if err := api.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func routes(mw *idemhttp.Middleware, b *bank) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("POST /payments", mw.Wrap(http.HandlerFunc(b.pay)))
	mux.HandleFunc("GET /payments", b.list)
	mux.Handle("GET /idempotency", mw.Policy())
	return mux
}

// A payment is one that was made. The bank charges again for each request it gets.
type payment struct {
	ID      string `json:"id"`
	Amount  int    `json:"amount"`
	Attempt int    `json:"attempt"`
}

type bank struct {
	mu    sync.Mutex
	books []payment
}

func (b *bank) pay(w http.ResponseWriter, r *http.Request) {
	var order struct{ Amount, Seconds int }
	if err := json.NewDecoder(r.Body).Decode(&order); err != nil || order.Amount <= 0 {
		answer(w, http.StatusBadRequest, map[string]string{"error": "an amount above 0, please"})
		return
	}
	if order.Amount > 10_000 { // nothing happened, so another try is welcome: 503 is not recorded
		answer(w, http.StatusServiceUnavailable, map[string]string{"error": "the vault is closed"})
		return
	}
	time.Sleep(time.Duration(min(order.Seconds, 60)) * time.Second) // banks take their time
	info, _ := idempotent.RunInfoFromContext(r.Context())
	b.mu.Lock()
	defer b.mu.Unlock()
	made := payment{ID: fmt.Sprintf("pay_%d", len(b.books)+1), Amount: order.Amount, Attempt: cmp.Or(info.Attempt, 1)}
	b.books = append(b.books, made)
	answer(w, http.StatusCreated, made)
}

func (b *bank) list(w http.ResponseWriter, _ *http.Request) {
	b.mu.Lock()
	defer b.mu.Unlock()
	answer(w, http.StatusOK, b.books)
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

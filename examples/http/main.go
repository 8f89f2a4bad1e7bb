// Http is a payments API whose POST takes an Idempotency-Key: however often a client sends a payment, it
// is made once.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync/atomic"
	"time"

	"github.com/idempotent-go/idempotent/examples/internal/demoredis"
	"github.com/idempotent-go/idempotent/idemhttp"
)

type payment struct {
	ID     string `json:"id"`
	Amount int    `json:"amount"`
}

var payments atomic.Int64

// pay knows nothing of keys: the middleware runs it once for each.
func pay(w http.ResponseWriter, r *http.Request) {
	var p payment
	if err := json.NewDecoder(r.Body).Decode(&p); err != nil || p.Amount <= 0 {
		http.Error(w, "amount must be above 0", http.StatusBadRequest)
		return
	}
	p.ID = fmt.Sprint("pay_", payments.Add(1))
	fmt.Println("paying", p.Amount, "as", p.ID)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusCreated)
	_ = json.NewEncoder(w).Encode(p)
}

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt)
	defer cancel()
	rdb, stop, err := demoredis.Connect(ctx)
	if err != nil {
		return err
	}
	defer stop()
	mw, err := idemhttp.New(rdb, "payments-api", idemhttp.SingleTenant, idemhttp.WithRequiredKey()) // with callers, ScopeBearerSubject for instance
	if err != nil {
		return err
	}
	defer mw.Close() // waits for payments whose clients have gone

	mux := http.NewServeMux()
	mux.Handle("POST /payments", mw.Wrap(http.HandlerFunc(pay)))
	listener, err := net.Listen("tcp", cmp.Or(os.Getenv("ADDR"), "localhost:8080"))
	if err != nil {
		return err
	}
	fmt.Println("listening on", listener.Addr())
	server := &http.Server{Handler: mux, ReadTimeout: 10 * time.Second}
	context.AfterFunc(ctx, func() { _ = server.Shutdown(context.WithoutCancel(ctx)) })
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

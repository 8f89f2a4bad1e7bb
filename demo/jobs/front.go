package main

import (
	"context"
	"errors"
	"log"
	"net/http"
	"strconv"
	"time"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/demo/internal/stage"
)

// waitLimit is how long the front lets a visitor wait for a result.
const waitLimit = 10 * time.Second

// A front is where visitors ask what came of a refund:
//
//	GET /refunds/{id}?wait=5s
//
// It is an HTTP server in a process of its own, which knows neither the queue nor the bank.
type front struct{ reader *reader }

// attendFront is what the front's process does.
func attendFront(s setup, desk *stage.Desk) error {
	up := line{desk}
	rdb, err := connect(context.Background(), s.RedisURL)
	if err != nil {
		return err
	}
	defer rdb.Close()
	receipts, err := newReceipts(rdb, s.Namespace, idempotent.WithObserver(idempotent.ObserverFunc(up.observe)))
	if err != nil {
		return err
	}
	defer receipts.Close()
	f := &front{reader: &reader{receipts: receipts}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /refunds/{id}", f.tell)
	url, stop, err := stage.ServeHTTP(mux, func(err error) { log.Fatal("front: ", err) })
	if err != nil {
		return err
	}
	defer stop()
	return up.ready(url)
}

func (f *front) tell(w http.ResponseWriter, r *http.Request) {
	wait, err := time.ParseDuration(r.FormValue("wait"))
	if err != nil {
		wait = 0
	}
	receipt, err := f.reader.receipt(r.Context(), r.PathValue("id"), min(wait, waitLimit))
	if err == nil {
		stage.Respond(w, http.StatusOK, receipt)
		return
	}
	if refused, ok := errors.AsType[*RefusedError](err); ok {
		stage.Respond(w, http.StatusUnprocessableEntity, refused)
		return
	}
	status := http.StatusInternalServerError
	busy, running := errors.AsType[*idempotent.InProgressError](err)
	switch {
	case running:
		status = http.StatusAccepted
		seconds := max(1, int(busy.RetryAfter.Seconds()))
		w.Header().Set("Retry-After", strconv.Itoa(seconds))
	case errors.Is(err, errNotYet):
		status = http.StatusNotFound
	case errors.Is(err, idempotent.ErrUnavailable):
		status = http.StatusServiceUnavailable
	}
	stage.Respond(w, status, map[string]string{"error": err.Error()})
}

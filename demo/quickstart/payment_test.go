package main

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/alicebob/miniredis/v2"
	"github.com/idempotent-go/idempotent"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// As long as the provider gives no clear answer, each execution asks it what happened, and none
// takes the money again.
func TestUnknownOutcomeIsAskedFor(t *testing.T) {
	broken := func(http.ResponseWriter) { panic(http.ErrAbortHandler) }
	garbled := func(w http.ResponseWriter) { _, _ = w.Write([]byte("{")) }
	failing := func(w http.ResponseWriter) { w.WriteHeader(http.StatusInternalServerError) }
	for name, trouble := range map[string]func(http.ResponseWriter){"broken": broken, "garbled": garbled, "failing": failing} {
		t.Run(name, func(t *testing.T) {
			taken := Charge{ID: "ch_1", Cents: 4999}
			charges, looks := 0, 0
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodPost {
					charges++
				} else if looks++; looks == 2 {
					_ = json.NewEncoder(w).Encode(taken)
					return
				}
				trouble(w)
			}))
			defer server.Close()
			rdb := redis.NewClient(&redis.Options{Addr: miniredis.RunT(t).Addr()})
			defer rdb.Close()
			p, err := newPayments(rdb, "test", &providerClient{url: server.URL}, idempotent.ObserverFunc(func(context.Context, idempotent.Event) {}))
			require.NoError(t, err)
			defer p.executor.Close()

			order := Order{ID: "order-1", Cents: 4999}
			var report idempotent.Report
			for attempt := 1; attempt <= 2; attempt++ {
				_, err = p.pay(t.Context(), order, &report)
				require.Error(t, err)
				assert.Equal(t, attempt, report.Attempt)
			}
			got, err := p.pay(t.Context(), order, &report)
			require.NoError(t, err)
			assert.Equal(t, taken, got)
			assert.Equal(t, 3, report.Attempt)
			assert.Equal(t, 1, charges)
			assert.Equal(t, 2, looks)
		})
	}
}

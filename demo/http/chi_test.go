package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/alicebob/miniredis/v2"
	"github.com/go-chi/chi/v5"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent/idemhttp"
	"github.com/idempotent-go/idempotent/idemtest"
)

func newMiddleware(t *testing.T, opts ...idemhttp.Option) *idemhttp.Middleware {
	t.Helper()
	rdb := redis.NewClient(&redis.Options{Addr: miniredis.RunT(t).Addr()})
	t.Cleanup(func() { _ = rdb.Close() })
	mw, err := idemhttp.New(rdb, "chi", idemhttp.SingleTenant, opts...)
	require.NoError(t, err)
	t.Cleanup(func() { _ = mw.Close() })
	return mw
}

func post(ctx context.Context, h http.Handler, path, key, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequestWithContext(ctx, http.MethodPost, path, strings.NewReader(body))
	r.Header.Set("Idempotency-Key", key)
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, r)
	return rec
}

func TestChi(t *testing.T) {
	var runs atomic.Int32
	pay := func(w http.ResponseWriter, r *http.Request) {
		runs.Add(1)
		w.WriteHeader(http.StatusCreated)
		fmt.Fprint(w, chi.URLParam(r, "account"))
	}
	for name, mount := range map[string]func(*chi.Mux, *idemhttp.Middleware){
		"Use": func(r *chi.Mux, mw *idemhttp.Middleware) {
			r.Use(mw.With())
			r.Post("/accounts/{account}/payments", pay)
		},
		"With": func(r *chi.Mux, mw *idemhttp.Middleware) { r.With(mw.With()).Post("/accounts/{account}/payments", pay) },
		"Route": func(r *chi.Mux, mw *idemhttp.Middleware) {
			r.Route("/accounts/{account}", func(r chi.Router) {
				r.Use(mw.With())
				r.Post("/payments", pay)
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			runs.Store(0)
			r := chi.NewRouter()
			mount(r, newMiddleware(t))
			first := post(t.Context(), r, "/accounts/7/payments", "k", "x")
			assert.Equal(t, http.StatusCreated, first.Code)
			assert.Equal(t, "7", first.Body.String())
			again := post(t.Context(), r, "/accounts/7/payments", "k", "x")
			assert.Equal(t, "true", again.Header().Get(idemhttp.ReplayedHeader))
			assert.Equal(t, "7", again.Body.String())
			assert.EqualValues(t, 1, runs.Load())
			other := post(t.Context(), r, "/accounts/8/payments", "k", "x")
			assert.NotEqual(t, "7", other.Body.String(), "another account never gets it")
		})
	}
}

// chi gives a request's context to the next request as soon as the first one is over. A handler
// that goes on because its client has disconnected must still see its own parameters.
func TestChiWhenTheClientDisconnects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mw, err := idemhttp.New(idemtest.NewRedis(t), "chi", idemhttp.SingleTenant)
		require.NoError(t, err)
		defer mw.Close()
		finish, saw := make(chan bool), make(chan string, 1)
		r := chi.NewRouter()
		r.With(mw.With()).Post("/accounts/{account}/payments", func(_ http.ResponseWriter, r *http.Request) {
			<-finish
			saw <- chi.URLParam(r, "account")
		})
		r.Post("/other/{account}", func(http.ResponseWriter, *http.Request) {})
		ctx, leave := context.WithCancel(t.Context())
		over := make(chan bool, 1)
		go func() {
			post(ctx, r, "/accounts/7/payments", "k", "x")
			over <- true
		}()
		synctest.Wait() // until the handler runs
		leave()
		synctest.Wait()
		assert.Empty(t, over, "chi has not got the request back")
		for i := range 100 {
			post(t.Context(), r, fmt.Sprint("/other/", 1000+i), "", "")
		}
		finish <- true
		assert.Equal(t, "7", <-saw)
		<-over
	})
}

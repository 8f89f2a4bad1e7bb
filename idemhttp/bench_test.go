package idemhttp_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"sync/atomic"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/idemhttp"
	"github.com/idempotent-go/idempotent/internal/redistest"
)

// What the middleware costs is FirstRun less Bare and ExecutorFirstRun, and Replay less
// ExecutorReplay: the same work, without HTTP, on the same Redis.

var benchBody = []byte(`{"amount":4200,"currency":"eur","source":"tok_visa","description":"order 42"}`)

var benchKeys atomic.Int64

func benchKey() string { return fmt.Sprintf("bench-%d-%d", os.Getpid(), benchKeys.Add(1)) }

func benchRedis(b *testing.B) *redis.Client {
	b.Helper()
	options, err := redis.ParseURL(redistest.URL(b))
	require.NoError(b, err)
	rdb := redis.NewClient(options)
	b.Cleanup(func() { _ = rdb.Close() })
	return rdb
}

func benchHandler(b *testing.B, handler http.Handler, key func() string) {
	b.Helper()
	b.ReportAllocs()
	for b.Loop() {
		r := httptest.NewRequest(http.MethodPost, "/payments", bytes.NewReader(benchBody))
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Authorization", "Bearer 0123456789abcdef")
		r.Header.Set(idemhttp.KeyHeader, key())
		rec := httptest.NewRecorder()
		handler.ServeHTTP(rec, r)
		if rec.Code != http.StatusCreated {
			b.Fatal(rec.Code, rec.Body)
		}
	}
}

func BenchmarkBare(b *testing.B) { benchHandler(b, http.HandlerFunc(created), benchKey) }

func BenchmarkFirstRun(b *testing.B) {
	benchHandler(b, middleware(b, benchRedis(b)).Wrap(http.HandlerFunc(created)), benchKey)
}

func BenchmarkReplay(b *testing.B) {
	key := benchKey()
	benchHandler(b, middleware(b, benchRedis(b)).Wrap(http.HandlerFunc(created)), func() string { return key })
}

func BenchmarkReplayInParallel(b *testing.B) {
	key := benchKey()
	handler := middleware(b, benchRedis(b)).Wrap(http.HandlerFunc(created))
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			r := httptest.NewRequest(http.MethodPost, "/payments", bytes.NewReader(benchBody))
			r.Header.Set(idemhttp.KeyHeader, key)
			handler.ServeHTTP(httptest.NewRecorder(), r)
		}
	})
}

func benchExecutor(b *testing.B, key func() string) {
	b.Helper()
	x, err := idempotent.New[[]byte](benchRedis(b), "default", idempotent.WithCodec(idempotent.Raw[[]byte]()), idempotent.WithDetached())
	require.NoError(b, err)
	defer x.Close()
	b.ReportAllocs()
	for b.Loop() {
		_, err := x.Run(b.Context(), key(), func(context.Context) ([]byte, error) { return benchBody, nil })
		require.NoError(b, err)
	}
}

func BenchmarkExecutorFirstRun(b *testing.B) { benchExecutor(b, benchKey) }

func BenchmarkExecutorReplay(b *testing.B) {
	key := benchKey()
	benchExecutor(b, func() string { return key })
}

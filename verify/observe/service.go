package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/internal/redistest"
)

const (
	namespace = "payments"

	// The service runs for so long, is slow from the second time on, and without Redis from the third on.
	whole, slowFrom, slowTo, downFrom, downTo = 100 * time.Second, 30 * time.Second, 45 * time.Second, 60 * time.Second, 70 * time.Second
)

var errDeclined = errors.New("declined")

// quiet drops what go-redis logs of the outage.
type quiet struct{}

func (quiet) Printf(context.Context, string, ...any) {}

// serve runs two processes' executors, callers who retry, and an outage of Redis.
func serve(ctx context.Context, tracer idempotent.Tracer) error {
	redis.SetLogger(quiet{})
	server, err := redistest.Launch()
	if err != nil {
		return err
	}
	defer server.Close()
	began := time.Now()
	var callers sync.WaitGroup
	for i := range 2 {
		client := redis.NewClient(&redis.Options{Addr: server.Addr(), MaxRetries: -1, DialTimeout: 200 * time.Millisecond})
		defer client.Close()
		opts := []idempotent.Option{
			idempotent.WithTracer(tracer), idempotent.WithLease(1500 * time.Millisecond), idempotent.WithTTL(30 * time.Second),
			idempotent.WithWaitTimeout(2 * time.Second), idempotent.WithOwner(fmt.Sprintf("web-%d", i)),
		}
		if i == 1 {
			opts = append(opts, idempotent.WithReplayCache(100))
		}
		x, err := idempotent.New[string](client, namespace, opts...)
		if err != nil {
			return err
		}
		defer x.Close()
		for n := range 12 {
			callers.Go(func() { call(ctx, x, began, rand.New(rand.NewPCG(uint64(i), uint64(n)))) })
		}
	}
	callers.Go(func() {
		time.Sleep(downFrom)
		server.Kill()
		time.Sleep(downTo - downFrom)
		err = server.Run()
	})
	callers.Wait()
	return err
}

// call is one client: it sends requests, some of them for a second time, and one in a hundred with another body.
func call(ctx context.Context, x *idempotent.Executor[string], began time.Time, r *rand.Rand) {
	for time.Since(began) < whole {
		at := time.Since(began)
		takes := time.Duration(2+r.IntN(20)) * time.Millisecond
		if at > slowFrom && at < slowTo {
			takes = time.Duration(200+r.IntN(1500)) * time.Millisecond
		}
		key := fmt.Sprintf("order-%d", int(at.Milliseconds())/100*4+r.IntN(8))
		body := []byte(key)
		if r.IntN(100) == 0 {
			body = append(body, '!')
		}
		_, _ = x.Run(ctx, key, func(ctx context.Context) (string, error) {
			select {
			case <-time.After(takes):
			case <-ctx.Done():
				return "", ctx.Err()
			}
			if r.IntN(50) == 0 {
				return "", errDeclined
			}
			return "charged", nil
		}, idempotent.WithFingerprint(body))
		time.Sleep(time.Duration(20+r.IntN(80)) * time.Millisecond)
	}
}

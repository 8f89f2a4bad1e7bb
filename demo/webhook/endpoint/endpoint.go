// Package endpoint takes webhook events and handles each of them once. This is the part to copy:
//
//   - intake.go checks the signature, stores the event and answers;
//   - worker.go takes events from the queue, and has an idempotent.Executor run the handler;
//   - credit.go is the handler, to be replaced by yours;
//   - operate.go answers questions and replays dead letters;
//   - store.go and lua/ keep the events in Redis.
package endpoint

import (
	"context"
	"fmt"
	"net/http"

	"github.com/redis/go-redis/v9"
)

// An Endpoint is one process's part of the work. Any number of processes may share a namespace.
type Endpoint struct {
	intake     *intake
	workers    *workers
	operations *operations
}

// New makes an Endpoint on a Redis client, which should have ContextTimeoutEnabled set: else a slow
// Redis holds up the answers.
func New(rdb redis.UniversalClient, cfg Config) (*Endpoint, error) {
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("the endpoint does not start: %w", err)
	}
	s := newStore(rdb, &cfg)
	w, err := newWorkers(rdb, &cfg, s, newLedgerClient(&cfg).credit)
	if err != nil {
		return nil, err
	}
	return &Endpoint{
		intake:     newIntake(&cfg, s),
		workers:    w,
		operations: &operations{store: s, executor: w.executor, logger: cfg.Logger},
	}, nil
}

// Webhooks is for the public: POST /webhooks/{provider}.
func (e *Endpoint) Webhooks() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("POST /webhooks/{provider}", e.intake)
	return mux
}

// Operators is for those who run this, and for nobody else: GET /events/{provider}/{id}, GET /dead,
// POST /dead/{key}/replay, GET /backlog.
func (e *Endpoint) Operators() http.Handler { return e.operations.routes() }

// Work handles events until ctx ends. What it has begun by then it brings to an end.
func (e *Endpoint) Work(ctx context.Context) { e.workers.run(ctx) }

// Close stops the executor. Work must have returned.
func (e *Endpoint) Close() error { return e.workers.executor.Close() }

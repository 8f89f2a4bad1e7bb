package main

import (
	"encoding/json"
	"errors"
	"time"

	"github.com/hibiken/asynq"
	"github.com/idempotent-go/idempotent"
	"github.com/redis/go-redis/v9"
)

const (
	// maxRetry is how often asynq delivers a job again before it archives it. Its default of 25
	// takes three weeks.
	maxRetry = 5

	// taskTimeout is when asynq ends the handler's context. It does not wait for the handler, so
	// the next delivery may come while this one still runs. asynq counts in whole seconds.
	taskTimeout = 10 * time.Second

	// retention is how long asynq keeps a completed task.
	retention = time.Minute

	// retryPause is short, so that nobody waits in front of a demo. A service takes
	// asynq.DefaultRetryDelayFunc in its place.
	retryPause = 100 * time.Millisecond
)

// newTask makes a job of a refund. opts come on top of the usual ones.
func newTask(taskType string, r Refund, opts ...asynq.Option) (*asynq.Task, error) {
	payload, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	usual := []asynq.Option{asynq.MaxRetry(maxRetry), asynq.Timeout(taskTimeout), asynq.Retention(retention)}
	return asynq.NewTask(taskType, payload, append(usual, opts...)...), nil
}

// newServer makes a worker's end of the queue. It shares the Redis client with the executor.
func newServer(rdb redis.UniversalClient, queue string) *asynq.Server {
	return asynq.NewServerFromRedisClient(rdb, asynq.Config{
		Queues:          map[string]int{queue: 1},
		Concurrency:     1, // so that two deliveries at once are two processes, to be watched
		IsFailure:       isFailure,
		RetryDelayFunc:  retryDelay,
		ShutdownTimeout: time.Second,
		LogLevel:        asynq.ErrorLevel,

		// For the demo: they cost Redis a lot of polling.
		TaskCheckInterval:        50 * time.Millisecond,
		DelayedTaskCheckInterval: 100 * time.Millisecond,
	})
}

// isFailure reports whether err costs the job one of its retries. That another delivery of the job
// is at work does not.
func isFailure(err error) bool { return !errors.Is(err, idempotent.ErrInProgress) }

// retryDelay is how long asynq waits before the next delivery.
func retryDelay(_ int, err error, _ *asynq.Task) time.Duration {
	if busy, ok := errors.AsType[*idempotent.InProgressError](err); ok {
		return max(busy.RetryAfter, retryPause)
	}
	return retryPause
}

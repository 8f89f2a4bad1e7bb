package main

import (
	"context"
	"time"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/demo/internal/stage"
	"github.com/redis/go-redis/v9"
)

// A line is a child's line to its parent.
type line struct{ *stage.Desk }

// ready tells the parent that the child is at work, and returns when that is over.
func (l line) ready(url string) error {
	return stage.Serve(l.Desk, func(context.Context, any) ready { return ready{URL: url} })
}

// connect returns a client of the Redis at url, which answers.
func connect(ctx context.Context, url string) (*redis.Client, error) {
	opts, err := redis.ParseURL(url)
	if err != nil {
		return nil, err
	}
	rdb := redis.NewClient(opts)
	if err := rdb.Ping(ctx).Err(); err != nil {
		rdb.Close()
		return nil, err
	}
	return rdb, nil
}

// observe passes on what the executor does: to the parent, which prints it as it happens.
func (l line) observe(_ context.Context, e idempotent.Event) {
	switch e.Kind {
	case idempotent.EventClaimed, idempotent.EventRecorded, idempotent.EventReleased, idempotent.EventInterrupted,
		idempotent.EventWaitStarted, idempotent.EventJoined, idempotent.EventLeaseLost:
		told := &event{Kind: e.Kind, Key: e.Key, Attempt: e.Attempt, At: time.Now()}
		if e.Err != nil {
			told.Error = e.Err.Error()
		}
		l.Tell(message{Event: told})
	}
}

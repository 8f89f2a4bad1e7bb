package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"time"

	"github.com/idempotent-go/idempotent"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
)

// childProcess is a whole child: it does its work until standard input ends, as it does when the
// parent dies.
func childProcess(name string, work func(s setup, up *line, over <-chan struct{}) error) int {
	signal.Ignore(os.Interrupt) // Ctrl-C reaches the whole group: the parent decides what happens
	log.SetFlags(0)
	logging.Disable() // of go-redis: what goes wrong is in the errors
	if err := attend(os.Stdin, os.Stdout, work); err != nil {
		log.Printf("%s: %v", name, err)
		return 1
	}
	return 0
}

func attend(in io.Reader, out io.Writer, work func(s setup, up *line, over <-chan struct{}) error) error {
	var s setup
	if err := json.NewDecoder(in).Decode(&s); err != nil {
		return fmt.Errorf("reading the setup: %w", err)
	}
	over := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, in)
		close(over)
	}()
	return work(s, newLine(out), over)
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
func (l *line) observe(_ context.Context, e idempotent.Event) {
	switch e.Kind {
	case idempotent.EventClaimed, idempotent.EventRecorded, idempotent.EventReleased, idempotent.EventInterrupted,
		idempotent.EventWaitStarted, idempotent.EventJoined, idempotent.EventLeaseLost:
		told := &event{Kind: e.Kind, Key: e.Key, Attempt: e.Attempt, At: time.Now()}
		if e.Err != nil {
			told.Error = e.Err.Error()
		}
		l.send(message{Event: told})
	}
}

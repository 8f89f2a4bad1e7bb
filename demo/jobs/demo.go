package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/hibiken/asynq"
	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/demo/internal/stage"
	"github.com/redis/go-redis/v9"
)

// A demo plays scenes, one after the other.
type demo struct {
	out       *stage.Narrator
	bank      *bank
	fleet     *fleet
	namespace string // of the executors, and the name of the queue

	rdb       *redis.Client
	queue     *asynq.Client
	inspector *asynq.Inspector
	receipts  *idempotent.Executor[Receipt]

	mu     sync.Mutex
	played int
	stage  *set // of the scene that is played
}

// newDemo makes a demo with a namespace and a queue of its own, to keep those apart that share a
// Redis.
func newDemo(ctx context.Context, out *stage.Narrator, b *bank, redisURL string) (*demo, error) {
	rdb, err := connect(ctx, redisURL)
	if err != nil {
		return nil, err
	}
	d := &demo{
		out:       out,
		bank:      b,
		namespace: stage.Namespace("jobs"),
		rdb:       rdb,
		queue:     asynq.NewClientFromRedisClient(rdb),
		inspector: asynq.NewInspectorFromRedisClient(rdb),
	}
	d.receipts, err = newReceipts(rdb, d.namespace)
	if err != nil {
		rdb.Close()
		return nil, err
	}
	return d, nil
}

// close removes the queue, which would not go away by itself, unlike the receipts. It is too late
// to do anything about an error.
func (d *demo) close() {
	ctx, cancel := context.WithTimeout(context.Background(), stopLimit)
	defer cancel()
	defer d.rdb.Close()
	_ = d.receipts.Close()
	_, _ = d.inspector.DeleteAllCompletedTasks(d.namespace) // DeleteQueue leaves those
	_ = d.inspector.DeleteQueue(d.namespace, true)
	var counts []string // and these, for 90 days
	for _, what := range []string{"processed", "failed"} {
		for _, day := range []string{"", day(-24 * time.Hour), day(0)} {
			counts = append(counts, queueKey(d.namespace, what+day))
		}
	}
	_ = d.rdb.Del(ctx, counts...).Err()
}

func day(ago time.Duration) string { return ":" + time.Now().Add(ago).UTC().Format(time.DateOnly) }

// queueKey is asynq's name for a part of a queue.
func queueKey(queue, part string) string { return fmt.Sprintf("asynq:{%s}:%s", queue, part) }

func (d *demo) introduce(redis string) {
	d.out.Print(`idempotent under asynq: a job that is delivered twice has its effect once

   Redis    %s
   bank     %s, pays refunds; asked twice, it pays twice
   workers  %d processes, each with an asynq server: pids %s
   front    %s, a process that tells visitors what came of a refund
`, redis, d.bank.url, len(d.fleet.workers), d.fleet.workers.PIDs(), d.fleet.frontURL)
}

// A play is a scene as it is written.
type play struct {
	title  string
	story  string // what happens, for somebody who sees the library for the first time
	bare   bool   // the refund is done without the library
	manner manner // of the bank
	act    func(ctx context.Context, st *set) error
	judge  func(e *evidence) []stage.Check
}

const row = "   %-50s %-20s %-20s %s\n"

// perform plays one scene and judges it.
func (d *demo) perform(ctx context.Context, p play) ([]stage.Check, error) {
	ctx, cancel := stage.Limit(ctx, sceneLimit)
	defer cancel()
	st := d.set(p)
	d.out.Open(d.played, p.title, p.story)
	if err := p.act(ctx, st); err != nil {
		return nil, err
	}
	checks := p.judge(st.close())
	d.out.Table(row, checks)
	return checks, nil
}

// set makes the set for the next scene, with a refund of its own.
func (d *demo) set(p play) *set {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.played++
	refund := Refund{ID: fmt.Sprintf("refund-%d", d.played), Cents: 4999}
	key := refundKey(refund.ID)
	reference := idempotent.RunInfo{Namespace: d.namespace, Key: key}.DownstreamKey()
	if p.bare {
		reference = refund.ID
	}
	d.stage = &set{demo: d, key: key, account: d.bank.open(reference, p.manner), changed: make(chan struct{})}
	d.stage.refund = refund
	return d.stage
}

// hear takes what a child says to the set.
func (d *demo) hear(number int, m message) {
	d.mu.Lock()
	st := d.stage
	d.mu.Unlock()
	if st == nil {
		return
	}
	who := fmt.Sprintf("worker %d", number)
	if number == 0 {
		who = "front"
	}
	switch {
	case m.Event != nil && m.Event.Key == st.key:
		if text := st.record(number, *m.Event); text != "" {
			d.out.SayAt(m.Event.At, "%s %s", who, text)
		}
	case m.Delivery != nil && m.Delivery.Key == st.key:
		st.deliver(*m.Delivery)
		d.out.SayAt(m.Delivery.At, "%s has run task %s: %s", who, short(m.Delivery.Task), m.Delivery.what())
	}
}

// short is enough of asynq's id to tell tasks apart.
func short(task string) string { return task[:min(8, len(task))] }

// what says what a delivery came to, and where that comes from.
func (d delivery) what() string {
	got := d.Receipt.Number
	if d.Error != "" {
		got = d.Error
	}
	if d.Source == 0 {
		return got
	}
	return fmt.Sprintf("%s (%s)", got, d.Source)
}

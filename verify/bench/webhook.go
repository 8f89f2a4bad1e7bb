package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill-redisstream/pkg/redisstream"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
	"golang.org/x/sys/unix"

	"github.com/idempotent-go/idempotent/webhook"
	"github.com/idempotent-go/idempotent/webhook/webhooktest"
)

const (
	eventSenders = 32
	eventSecret  = "whsec_of_the_benchmark"
)

// eventBody is an event of about 1 KB.
func eventBody(id string) []byte {
	return fmt.Appendf(nil, `{"id":%q,"type":"charge.captured","data":{"object":{"id":"ch_%s"}},"note":%q}`, id, id, strings.Repeat("x", 900))
}

// An intake is one way to make an event durable and queue it.
type intake struct {
	name, does string
	prepare    func(id string) (send func() error, err error)
}

// intakes compares package webhook with queues that applications put events in by hand.
func (e *env) intakes() ([]intake, error) {
	ctx := context.Background()
	client := e.client()
	store, err := webhook.NewRedisStore(client, "bench")
	if err != nil {
		return nil, err
	}
	scheme, err := webhook.Stripe([]string{eventSecret})
	if err != nil {
		return nil, err
	}
	inbox, err := webhook.New(ctx, store, []webhook.Source{{Name: "stripe", Scheme: scheme}}, webhook.NewRouter(),
		webhook.WithUnsafeStore(), webhook.WithBacklog(1<<30))
	if err != nil {
		return nil, err
	}
	tasks := asynq.NewClientFromRedisClient(client)
	publisher, err := redisstream.NewPublisher(redisstream.PublisherConfig{Client: client}, watermill.NopLogger{})
	if err != nil {
		return nil, err
	}
	e.closes = append(e.closes, inbox.Close)
	sign := webhooktest.Stripe(eventSecret)
	return []intake{
		{"XADD, go-redis", "queues", func(id string) (func() error, error) {
			body := eventBody(id)
			return func() error {
				return client.XAdd(ctx, &redis.XAddArgs{Stream: "bench:events", Values: []any{"body", body}}).Err()
			}, nil
		}},
		{"watermill, Redis stream", "queues", func(id string) (func() error, error) {
			body := eventBody(id)
			return func() error { return publisher.Publish("bench:watermill", message.NewMessage(id, body)) }, nil
		}},
		{"asynq, task id and retention", "deduplicates, queues", func(id string) (func() error, error) {
			body := eventBody(id)
			return func() error {
				_, err := tasks.EnqueueContext(ctx, asynq.NewTask("event", body), asynq.TaskID(id), asynq.Retention(day))
				return err
			}, nil
		}},
		{"webhook", "verifies, deduplicates, queues, indexes for the audit", func(id string) (func() error, error) {
			header, body, err := sign(eventBody(id), time.Now())
			if err != nil {
				return nil, err
			}
			return func() error {
				r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/stripe", strings.NewReader(string(body)))
				r.Header = header
				w := httptest.NewRecorder()
				if inbox.ServeHTTP(w, r); w.Code != http.StatusOK {
					return fmt.Errorf("webhook: status %d", w.Code)
				}
				return nil
			}, nil
		}},
	}, nil
}

// An intakeRound is what one round of an intake took.
type intakeRound struct {
	perSecond, goCPU, redisCPU float64 // CPU in ns for an event
	took                       []float64
}

// webhooks takes turns with all intakes.
func (e *env) webhooks() (table, error) {
	all, err := e.intakes()
	if err != nil {
		return table{}, err
	}
	n := max(eventSenders, int(20_000*e.slice/(60*time.Millisecond)))
	rounds := make([][]intakeRound, len(all))
	for range e.rounds/6 + 1 {
		for i := range all {
			r, err := e.intakeRound(&all[i], n)
			if err != nil {
				return table{}, fmt.Errorf("%s: %w", all[i].name, err)
			}
			rounds[i] = append(rounds[i], r)
			if err := e.flush(); err != nil {
				return table{}, err
			}
		}
	}
	out := table{head: []string{"", "what it does", "events a second", "p99", "CPU for an event", "of it Redis"}}
	for i, p := range all {
		var rates, cpu, server, took []float64
		for _, r := range rounds[i] {
			rates, cpu, server = append(rates, r.perSecond), append(cpu, r.goCPU+r.redisCPU), append(server, r.redisCPU)
			took = append(took, r.took...)
		}
		out.add(p.name, p.does, rate(1e9/median(rates)), span(quantile(took, 0.99)), span(median(cpu)), span(median(server)))
	}
	return out, nil
}

// intakeRound sends n new events from many goroutines.
func (e *env) intakeRound(p *intake, n int) (r intakeRound, err error) {
	sends := make([]func() error, n)
	for i := range sends {
		if sends[i], err = p.prepare("evt_" + e.fresh()); err != nil {
			return r, err
		}
	}
	r.took = make([]float64, n)
	runtime.GC()
	goBefore := processCPU()
	redisBefore, err := e.redisCPU()
	if err != nil {
		return r, err
	}
	errs := make([]error, eventSenders)
	began := time.Now()
	var wg sync.WaitGroup
	for s := range eventSenders {
		wg.Go(func() {
			for i := s; i < n && errs[s] == nil; i += eventSenders {
				start := time.Now()
				errs[s] = sends[i]()
				r.took[i] = float64(time.Since(start))
			}
		})
	}
	wg.Wait()
	r.perSecond = float64(n) / time.Since(began).Seconds()
	r.goCPU = float64(processCPU()-goBefore) / float64(n)
	redisAfter, err := e.redisCPU()
	r.redisCPU = (redisAfter - redisBefore) / float64(n)
	return r, errors.Join(append(errs, err)...)
}

// processCPU is the CPU time of this process.
func processCPU() time.Duration {
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &usage); err != nil {
		panic(err) // the kernel refuses only what does not exist
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// redisCPU is the CPU time of the server in ns.
func (e *env) redisCPU() (ns float64, err error) {
	for _, field := range []string{"used_cpu_user", "used_cpu_sys"} {
		seconds, err := e.info("cpu", field)
		if err != nil {
			return 0, err
		}
		ns += seconds * 1e9
	}
	return ns, nil
}

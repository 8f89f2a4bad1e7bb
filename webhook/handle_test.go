package webhook_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/idemtest"
	"github.com/idempotent-go/idempotent/webhook"
)

// handle runs one event through a handler, in fake time, until it is settled.
func handle(t *testing.T, h webhook.Handler, opts ...webhook.HandleOption) (r webhook.Record, took time.Duration, log *syncBuffer) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		router := webhook.NewRouter()
		router.Handle("stripe", "charge.*", h, opts...)
		o := newOffice(t, idemtest.NewRedis(t), router, webhook.WithPoll(time.Second))
		stop := o.work()
		defer stop()
		start := time.Now()
		o.accept("evt_a", "charge.captured", "ch_1")
		for r.State == "" || !r.State.Settled() {
			x := <-o.settled
			r.State = x.State
		}
		took = time.Since(start)
		r = o.get("evt_a")
		log = o.log
	})
	return r, took, log
}

func TestHandlerSucceeds(t *testing.T) {
	var job webhook.Job
	r, _, log := handle(t, func(_ context.Context, j *webhook.Job) error {
		job = *j
		return j.Changed(map[string]string{"order": "1"})
	})
	assert.Equal(t, webhook.Done, r.State)
	assert.JSONEq(t, `{"order":"1"}`, string(r.Changed))
	assert.Equal(t, 1, r.Attempts)
	assert.Equal(t, 1, job.Attempt)
	assert.Zero(t, job.Redrive)
	assert.Equal(t, "evt_a", job.ID)
	assert.Equal(t, "ch_1", job.Object)
	assert.Len(t, job.Reference, 64)
	assert.Equal(t, string(stripeBody("evt_a", "charge.captured", "ch_1", "")), string(job.Body))
	assert.NotEmpty(t, job.Header.Get("Stripe-Signature"))
	var states []webhook.State
	for _, s := range r.Trail {
		states = append(states, s.State)
		assert.NotEmpty(t, s.By)
		assert.NotZero(t, s.At)
	}
	assert.Equal(t, []webhook.State{webhook.Queued, webhook.Running, webhook.Done}, states)
	lines := log.lines(t, "evt_a")
	require.Len(t, lines, 2)
	for _, line := range lines {
		assert.Equal(t, r.Key, line["key"])
		for _, name := range []string{"source", "attempt", "trace_id"} {
			assert.Contains(t, line, name)
		}
	}
}

func TestHandlerErrors(t *testing.T) {
	down := errors.New("the ledger is down")
	for _, c := range []struct {
		name     string
		errs     []error // of each attempt
		opts     []webhook.HandleOption
		state    webhook.State
		cause    webhook.Cause
		attempts int
	}{
		{"retryable, then none", []error{idempotent.Retryable(down), webhook.Retry(down, 0), nil}, nil, webhook.Done, "", 3},
		{"unknown, then none", []error{down, nil}, nil, webhook.Done, "", 2},
		{"permanent", []error{webhook.Permanent(down)}, nil, webhook.Dead, webhook.CausePermanent, 1},
		{"a permanent timeout", []error{webhook.Permanent(context.DeadlineExceeded)}, nil, webhook.Dead, webhook.CausePermanent, 1},
		{"skip", []error{webhook.Skip("nothing to do")}, nil, webhook.Skipped, webhook.CauseSkip, 1},
		{"retryable, to the last attempt", []error{webhook.Retry(down, 0), webhook.Retry(down, 0)}, []webhook.HandleOption{webhook.Attempts(2)}, webhook.Dead, webhook.CauseAttempts, 2},
		{"unknown, to the last attempt", []error{down, down}, []webhook.HandleOption{webhook.Attempts(2)}, webhook.Dead, webhook.CauseAttempts, 2},
		{"unknown, refused", []error{down}, []webhook.HandleOption{webhook.Interrupted(idempotent.Refuse)}, webhook.Dead, webhook.CauseInterrupted, 1},
		{"retryable, not refused", []error{webhook.Retry(down, 0), nil}, []webhook.HandleOption{webhook.Interrupted(idempotent.Refuse)}, webhook.Done, "", 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			var attempts []int
			r, _, log := handle(t, func(_ context.Context, j *webhook.Job) error {
				attempts = append(attempts, j.Attempt)
				return c.errs[len(attempts)-1]
			}, c.opts...)
			assert.Equal(t, c.state, r.State)
			assert.Equal(t, c.cause, r.Cause)
			assert.Equal(t, c.attempts, r.Attempts)
			for i, n := range attempts {
				assert.Equal(t, i+1, n)
			}
			assert.Len(t, attempts, c.attempts)
			if c.state == webhook.Dead {
				assert.NotEmpty(t, r.Reason)
			}
			assert.NotContains(t, log.String(), "ledger", "errors of handlers are not logged")
		})
	}
}

func TestHandlerPanics(t *testing.T) {
	calls := 0
	r, _, log := handle(t, func(context.Context, *webhook.Job) error {
		if calls++; calls == 1 {
			panic("canary")
		}
		return nil
	})
	assert.Equal(t, webhook.Done, r.State)
	assert.Equal(t, 2, r.Attempts)
	assert.Contains(t, log.String(), "handler panicked")
	assert.NotContains(t, log.String(), "canary")
	assert.Contains(t, r.Trail[2].Note, "panic")
}

func TestHandlerTimesOut(t *testing.T) {
	calls := 0
	r, took, _ := handle(t, func(ctx context.Context, _ *webhook.Job) error {
		if calls++; calls == 1 {
			<-ctx.Done()
			return ctx.Err()
		}
		return nil
	}, webhook.Timeout(3*time.Second))
	assert.Equal(t, webhook.Done, r.State)
	assert.Equal(t, 2, r.Attempts)
	assert.Greater(t, took, 3*time.Second)
}

func TestBackoffHasHalfJitter(t *testing.T) {
	waits := map[time.Duration]bool{}
	for range 5 {
		var at []time.Time
		handle(t, func(context.Context, *webhook.Job) error {
			if at = append(at, time.Now()); len(at) < 5 {
				return webhook.Retry(errors.New("down"), 0)
			}
			return nil
		}, webhook.Backoff(8*time.Second, 30*time.Second))
		for i, base := range []time.Duration{8 * time.Second, 16 * time.Second, 30 * time.Second, 30 * time.Second} {
			wait := at[i+1].Sub(at[i])
			assert.GreaterOrEqual(t, wait, base/2)
			assert.LessOrEqual(t, wait, base+time.Second) // and up to a poll
			waits[wait] = true
		}
	}
	assert.Greater(t, len(waits), 10, "the waits differ")
}

func TestRetryAfterWins(t *testing.T) {
	calls := 0
	_, took, _ := handle(t, func(context.Context, *webhook.Job) error {
		if calls++; calls == 1 {
			return webhook.Retry(errors.New("429"), 2*time.Minute)
		}
		return nil
	})
	assert.GreaterOrEqual(t, took, 2*time.Minute)
	assert.LessOrEqual(t, took, 2*time.Minute+time.Second)
}

// While everything fails, the circuit lets one event through at a time. Waiting costs no attempts.
func TestCircuitProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var calls []time.Duration
		down := true
		start := time.Now()
		router := webhook.NewRouter()
		router.Handle("stripe", "*", func(context.Context, *webhook.Job) error {
			mu.Lock()
			defer mu.Unlock()
			calls = append(calls, time.Since(start))
			if down {
				return webhook.Retry(errors.New("down"), 0)
			}
			return nil
		}, webhook.Circuit(5, time.Minute), webhook.Backoff(time.Second, time.Second), webhook.Attempts(20))
		o := newOffice(t, idemtest.NewRedis(t), router, webhook.WithWorkers(1), webhook.WithPoll(time.Second))
		stop := o.work()
		defer stop()
		for i := range 10 {
			o.accept(newID(), "charge.captured", fmt.Sprintf("ch_%d", i))
		}
		time.Sleep(10*time.Minute + 30*time.Second) // of the bubble
		mu.Lock()
		require.Greater(t, len(calls), 5+5, "5 until it opens, then one probe after each pause")
		for i := 5; i < len(calls); i++ {
			assert.GreaterOrEqual(t, calls[i]-calls[i-1], time.Minute)
		}
		down = false
		mu.Unlock()
		for range 10 {
			for x := range o.settled {
				if x.State == webhook.Done {
					break
				}
			}
		}
	})
}

func TestOneHandlerForEachEventWhileManyWork(t *testing.T) {
	var did effects
	var inside atomic.Int64
	router := webhook.NewRouter()
	router.Handle("stripe", "*", func(_ context.Context, j *webhook.Job) error {
		if inside.Add(1) > 2 {
			return webhook.Permanent(errors.New("more than WithWorkers at once"))
		}
		defer inside.Add(-1)
		did.add(j.Reference, j.ID)
		return nil
	})
	rdb := idemtest.NewRedis(t)
	o := newOffice(t, rdb, router, webhook.WithWorkers(2))
	o.work()
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() { o.accept(fmt.Sprintf("evt_many_%d", i%50), "charge.captured", "") }) // each twice
	}
	wg.Wait()
	o.wait(50, webhook.Done)
	for i := range 50 {
		r := o.get(fmt.Sprintf("evt_many_%d", i))
		assert.Equal(t, 2, r.Deliveries)
		assert.Equal(t, webhook.Done, r.State)
	}
	assert.Len(t, did.list(), 50)
}

func TestEventWithoutHandlerIsSkipped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOffice(t, idemtest.NewRedis(t), webhook.NewRouter())
		stop := o.work()
		defer stop()
		o.accept("evt_a", "charge.captured", "ch_1")
		x := <-o.settled
		assert.Equal(t, webhook.Skipped, x.State)
		assert.Equal(t, webhook.CauseNoHandler, x.Cause)
	})
}

func TestLongestPatternWins(t *testing.T) {
	var got []string
	router := webhook.NewRouter()
	for _, pattern := range []string{"*", "charge.*", "charge.captured"} {
		router.Handle("stripe", pattern, func(context.Context, *webhook.Job) error { got = append(got, pattern); return nil })
	}
	synctest.Test(t, func(t *testing.T) {
		o := newOffice(t, idemtest.NewRedis(t), router)
		stop := o.work()
		defer stop()
		for _, typ := range []string{"charge.captured", "charge.refunded", "payout.paid"} {
			o.accept(newID(), typ, "")
			<-o.settled
		}
	})
	assert.Equal(t, []string{"charge.captured", "charge.*", "*"}, got)
}

func TestTypedHandler(t *testing.T) {
	type body struct{ Type string }
	var got body
	r, _, _ := handle(t, webhook.Typed(func(_ context.Context, _ *webhook.Job, b body) error { got = b; return nil }))
	assert.Equal(t, webhook.Done, r.State)
	assert.Equal(t, "charge.captured", got.Type)
	r, _, _ = handle(t, webhook.Typed(func(context.Context, *webhook.Job, []int) error { return nil }))
	assert.Equal(t, webhook.Dead, r.State)
	assert.Equal(t, webhook.CausePermanent, r.Cause)
}

// Anybody can send an unsigned event. Its handler sees what the provider says, once.
func TestUnsignedEventsAreConfirmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		source := webhook.Source{Name: "toss", Scheme: unsigned{}, Confirm: func(_ context.Context, e webhook.Event) (webhook.Event, error) {
			if asked++; asked == 1 {
				return e, errors.New("timeout")
			}
			if e.ID == "forged" {
				return e, webhook.Refuse(webhook.ReasonNotConfirmed, "the provider does not know it")
			}
			e.Body, e.Unsigned = []byte("what the provider says"), false
			return e, nil
		}}
		var bodies []string
		router := webhook.NewRouter()
		router.Handle("toss", "*", func(_ context.Context, j *webhook.Job) error {
			bodies = append(bodies, string(j.Body))
			return nil
		})
		o := newOfficeOf(t, open(t, idemtest.NewRedis(t), namespace()), []webhook.Source{source}, router)
		stop := o.work()
		defer stop()
		send := func(body string) {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "/webhooks/toss", nil)
			require.NoError(t, err)
			r.Body = http.NoBody
			r.Header.Set("X-Id", body)
			require.Equal(t, http.StatusOK, o.send(r).Code)
		}
		send("genuine")
		assert.Equal(t, webhook.CauseUnconfirmed, (<-o.settled).Cause)
		assert.Equal(t, webhook.Done, (<-o.settled).State)
		send("forged")
		x := <-o.settled
		assert.Equal(t, webhook.Dead, x.State)
		assert.Equal(t, webhook.CauseNotConfirmed, x.Cause)
		send("genuine, in other words") // the same id in another body
		assert.Equal(t, webhook.Done, (<-o.settled).State)
		assert.Equal(t, []string{"what the provider says"}, bodies)
	})
}

// unsigned is a scheme that signs nothing.
type unsigned struct{}

func (unsigned) Provider() webhook.Provider {
	return webhook.Provider{Name: "toss", SendsUnsigned: true}
}
func (unsigned) Verify(r *webhook.Request) (webhook.Content, error) {
	body := r.Header.Get("X-Id")
	id := body
	if len(id) > 7 {
		id = id[:7]
	}
	return webhook.Content{Events: []webhook.Event{{ID: id, Type: "payment", Body: []byte(body), Unsigned: true}}}, nil
}

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/hibiken/asynq"
	"github.com/idempotent-go/idempotent"
	"github.com/redis/go-redis/v9"
)

// Evidence is what a scene left behind.
type evidence struct {
	refund     Refund
	runs       []run // executions of fn that were begun
	deliveries []delivery
	recorded   int // outcomes
	released   int // executions that ended with an error that is not recorded
	waiting    int // callers that waited for another one
	books      books
	tasks      []task           // asynq's, in the order in which they were enqueued
	answers    []visit          // what visitors were told by the front
	killed     int              // the number of the worker, 0 if none was
	trace      idempotent.State // what the first visitor left in Redis
}

// A run is one execution of fn.
type run struct{ worker, attempt int }

// A task is what asynq says of one.
type task struct {
	state   asynq.TaskState
	retried int
	lastErr string
	result  Receipt
}

func (t task) String() string {
	switch t.retried {
	case 0:
		return t.state.String()
	case 1:
		return t.state.String() + ", 1 retry"
	}
	return fmt.Sprintf("%s, %d retries", t.state, t.retried)
}

// A visit is what the front told a visitor.
type visit struct {
	status  int
	receipt Receipt
	refused RefusedError
}

// A set is where a scene is played.
type set struct {
	*demo
	key     string
	account *account

	mu      sync.Mutex // guards the evidence that children and visitors add to
	changed chan struct{}
	evidence
}

func (st *set) close() *evidence {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.books = st.bank.read(st.account)
	e := st.evidence
	return &e
}

// add changes the evidence, and wakes those who wait for that.
func (st *set) add(change func(e *evidence)) {
	st.mu.Lock()
	defer st.mu.Unlock()
	change(&st.evidence)
	close(st.changed)
	st.changed = make(chan struct{})
}

// await returns when the evidence holds.
func (st *set) await(ctx context.Context, what string, holds func(e *evidence) bool) error {
	for {
		st.mu.Lock()
		over, changed := holds(&st.evidence), st.changed
		st.mu.Unlock()
		if over {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w", what, context.Cause(ctx))
		}
	}
}

// record keeps what the judge needs of an event, and returns what the audience should know.
func (st *set) record(worker int, ev event) (text string) {
	st.add(func(e *evidence) {
		switch ev.Kind {
		case idempotent.EventClaimed:
			if worker == 0 {
				return // the front's fn does nothing
			}
			e.runs = append(e.runs, run{worker, ev.Attempt})
			text = fmt.Sprintf("owns the key and runs fn, attempt %d", ev.Attempt)
		case idempotent.EventRecorded:
			e.recorded++
			text = "has recorded what came of it"
		case idempotent.EventReleased:
			if worker == 0 {
				return
			}
			e.released++
			text = fmt.Sprintf("does not record %q", ev.Error)
		case idempotent.EventWaitStarted, idempotent.EventJoined:
			e.waiting++
			text = "waits for the owner"
		case idempotent.EventInterrupted:
			text = fmt.Sprintf("finds that attempt %d ended without an outcome", ev.Attempt)
			if ev.Error != "" {
				text = fmt.Sprintf("does not know what attempt %d did: %s", ev.Attempt, ev.Error)
			}
		case idempotent.EventLeaseLost:
			text = "has lost its lease"
		}
	})
	return text
}

func (st *set) deliver(d delivery) {
	st.add(func(e *evidence) { e.deliveries = append(e.deliveries, d) })
}

// enqueue puts the scene's refund into the queue, as another task each time.
func (st *set) enqueue(ctx context.Context, taskType string, opts ...asynq.Option) (id string, err error) {
	t, err := newTask(taskType, st.refund, append(opts, asynq.Queue(st.namespace))...)
	if err != nil {
		return "", err
	}
	info, err := st.queue.EnqueueContext(ctx, t)
	if err != nil {
		return "", fmt.Errorf("enqueuing: %w", err)
	}
	st.out.Say("parent: enqueues the refund, as task %s", short(info.ID))
	return info.ID, nil
}

// asked waits until the bank was asked to pay, and returns by which worker.
func (st *set) asked(ctx context.Context) (worker int, err error) {
	select {
	case worker := <-st.account.asked:
		return worker, nil
	case <-ctx.Done():
		return 0, fmt.Errorf("nobody asked the bank to pay: %w", context.Cause(ctx))
	}
}

// settled waits until asynq is done with the task, and keeps what it says of it. asynq tells nobody
// that it is done, so one has to look.
func (st *set) settled(ctx context.Context, id string) error {
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	var state asynq.TaskState
	for {
		info, err := st.inspector.GetTaskInfo(st.namespace, id)
		switch {
		case err != nil:
			return fmt.Errorf("asking asynq for task %s: %w", short(id), err)
		case info.State == asynq.TaskStateCompleted || info.State == asynq.TaskStateArchived:
			return st.note(ctx, id, info)
		}
		state = info.State
		select {
		case <-look.C:
		case <-ctx.Done():
			return fmt.Errorf("asynq is not done with task %s, state %s: %w", short(id), state, context.Cause(ctx))
		}
	}
}

// note keeps what asynq says of a task, once the worker's word is there as well.
func (st *set) note(ctx context.Context, id string, info *asynq.TaskInfo) error {
	t := task{state: info.State, retried: info.Retried, lastErr: info.LastErr}
	if len(info.Result) > 0 {
		if err := json.Unmarshal(info.Result, &t.result); err != nil {
			return fmt.Errorf("the result of task %s: %w", short(id), err)
		}
	}
	st.out.Say("asynq: task %s is %s", short(id), t)
	st.add(func(e *evidence) { e.tasks = append(e.tasks, t) })
	if info.Type == bareType {
		return nil
	}
	return st.await(ctx, "the worker to tell of task "+short(id), func(e *evidence) bool {
		return slices.ContainsFunc(e.deliveries, func(d delivery) bool { return d.Task == id })
	})
}

// expireLease has asynq believe that the worker of a task died a while ago. asynq leaves a dead
// worker's task alone for 60 s, and looks for such tasks once a minute and when a server starts;
// there is no setting for that. Only the time is faked: it is asynq that delivers the task again.
func (st *set) expireLease(ctx context.Context, id string) error {
	longAgo := redis.Z{Score: float64(time.Now().Add(-time.Hour).Unix()), Member: id}
	changed, err := st.rdb.ZAddArgs(ctx, queueKey(st.namespace, "lease"), redis.ZAddArgs{
		XX: true, Ch: true, Members: []redis.Z{longAgo},
	}).Result()
	if err == nil && changed != 1 {
		err = errors.New("asynq has no lease for it")
	}
	if err != nil {
		return fmt.Errorf("expiring the lease of task %s: %w", short(id), err)
	}
	st.out.Say("parent: pretends that asynq's lease of task %s ran out an hour ago", short(id))
	return nil
}

// visit asks the front what came of the refund.
func (st *set) visit(ctx context.Context, wait time.Duration) error {
	url := fmt.Sprintf("%s/refunds/%s?wait=%s", st.fleet.frontURL, st.refund.ID, wait)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	v := visit{status: resp.StatusCode}
	switch resp.StatusCode {
	case http.StatusOK:
		v.receipt, err = decode[Receipt](resp)
	case http.StatusUnprocessableEntity:
		v.refused, err = decode[RefusedError](resp)
	}
	if err != nil {
		return fmt.Errorf("reading the front's answer: %w", err)
	}
	st.out.Say("front: tells a visitor: %s %s", resp.Status, v.receipt.Number+v.refused.Request)
	st.add(func(e *evidence) { e.answers = append(e.answers, v) })
	return nil
}

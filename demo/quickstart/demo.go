package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/demo/internal/stage"
)

// A demo plays scenes, one after the other.
type demo struct {
	out       *stage.Narrator
	provider  *provider
	fleet     *fleet
	namespace string

	mu     sync.Mutex
	played int
	stage  *set // of the scene that is played
}

// A play is a scene as it is written.
type play struct {
	title  string
	story  string // what happens, for somebody who sees the library for the first time
	manner manner
	act    func(ctx context.Context, st *set) error
	judge  func(e *evidence) []stage.Check
}

// A scene is a play that was played.
type scene struct {
	number int
	title  string
	evidence
	checks []stage.Check // empty if it was not played to its end
}

// Evidence is what a scene left behind.
type evidence struct {
	order   Order
	callers []outcome // what they got that asked at the same moment, and lived
	later   []outcome // what they got that asked when all was over

	otherNow   []outcome // what they got that asked for another amount while fn ran
	otherLater []outcome // what they got that did so when all was over

	killed   int // the number of the worker, 0 if none was
	killedAt time.Time

	books    books
	commands commands // that the living workers sent, without those for the later callers
	runs     []run
	fnEnded  time.Time // the last time that it did
}

// A run is one execution of fn.
type run struct{ worker, attempt int }

// A set is where a scene is played.
type set struct {
	*demo
	account *account
	spent   []commands // before the scene

	mu sync.Mutex // guards what the executors' events tell: runs and fnEnded
	evidence
}

// perform plays one scene and judges it.
func (d *demo) perform(ctx context.Context, p play) (*scene, error) {
	ctx, cancel := stage.Limit(ctx, sceneLimit)
	defer cancel()
	st := d.set(p)
	s := &scene{number: d.played, title: p.title}
	d.out.Open(s.number, s.title, p.story)
	var err error
	if st.spent, err = d.fleet.commands(ctx); err != nil {
		return s, err
	}
	d.out.Restart()
	if err := p.act(ctx, st); err != nil {
		return s, err
	}
	s.evidence = st.close()
	s.checks = p.judge(&s.evidence)
	d.out.Table(row, s.checks)
	d.out.Print("\n   Redis commands: %s\n", list(s.commands))
	return s, nil
}

// set makes the set for the next scene, with an order of its own.
func (d *demo) set(p play) *set {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.played++
	order := Order{ID: fmt.Sprintf("order-%d", d.played), Cents: 4999}
	info := idempotent.RunInfo{Namespace: d.namespace, Key: order.ID}
	d.stage = &set{demo: d, account: d.provider.open(info.DownstreamKey(), p.manner)}
	d.stage.order = order
	return d.stage
}

func (st *set) close() evidence {
	st.books = st.provider.read(st.account)
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.evidence
}

// observe hears of every event of the workers' executors.
func (d *demo) observe(worker int, e event) {
	d.mu.Lock()
	st := d.stage
	d.mu.Unlock()
	if st == nil || e.Key != st.order.ID {
		return
	}
	if text := st.record(worker, e); text != "" {
		d.out.SayAt(e.At, "worker %d %s", worker, text)
	}
}

// record keeps what the judge needs, and returns what the audience should know.
func (st *set) record(worker int, e event) string {
	st.mu.Lock()
	defer st.mu.Unlock()
	switch e.Kind {
	case idempotent.EventClaimed:
		st.runs = append(st.runs, run{worker, e.Attempt})
		return fmt.Sprintf("owns the key and runs fn, attempt %d", e.Attempt)
	case idempotent.EventExecuted:
		if e.At.After(st.fnEnded) {
			st.fnEnded = e.At
		}
		return "has run fn"
	case idempotent.EventReleased:
		return fmt.Sprintf("does not record %q", e.Error)
	case idempotent.EventWaitStarted:
		return "waits for the owner"
	case idempotent.EventInterrupted:
		if e.Error != "" { // its own process says so
			return fmt.Sprintf("does not know what attempt %d has done: %q", e.Attempt, e.Error)
		}
		return fmt.Sprintf("finds that attempt %d ended without an outcome, and takes over", e.Attempt)
	case idempotent.EventLeaseLost:
		return "has lost its lease"
	}
	return ""
}

// pay has n callers in every worker pay for o at once, and returns what they got.
func (st *set) pay(ctx context.Context, o Order, n int) ([]outcome, error) {
	answers, err := st.fleet.Ask(ctx, task{Order: o, Callers: n}, func(w *stage.Worker[event, *answer], a *answer) {
		for _, line := range describe(a.Outcomes) {
			st.out.SayAt(last(a.Outcomes), "worker %d: %s", w.Number, line)
		}
	})
	var got []outcome
	for _, a := range answers {
		if a != nil {
			got = append(got, a.Outcomes...)
		}
	}
	return got, err
}

// measure takes down what the scene has cost so far.
func (st *set) measure(ctx context.Context) error {
	now, err := st.fleet.commands(ctx)
	st.commands = make(commands)
	for i := range now {
		for command, n := range now[i] {
			if since := n - st.spent[i][command]; since > 0 {
				st.commands[command] += since
			}
		}
	}
	return err
}

// asked waits until the provider was asked for money, and returns by which worker.
func (st *set) asked(ctx context.Context) (worker int, err error) {
	select {
	case worker := <-st.account.asked:
		return worker, nil
	case <-ctx.Done():
		return 0, fmt.Errorf("nobody asked the provider for money: %w", context.Cause(ctx))
	}
}

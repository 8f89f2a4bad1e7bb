package load

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/soak/history"
)

// call makes one call for a key.
func (w *worker) call(number int, r *rand.Rand) {
	m := modeOf(w.Seed, w.Topology, number)
	if r.IntN(8) == 0 {
		w.get(keyName(number), history.Ask{Wait: 8 * w.Lease})
		return
	}
	w.run(keyName(number), m, m.ask(r, w.Lease), r)
}

// get asks for the outcome of a key.
func (w *worker) get(key string, ask history.Ask) {
	id := w.id()
	w.rec.Record(history.Event{Kind: history.Invoke, Key: key, Call: id, Op: history.Get, Ask: &ask})
	var report idempotent.Report
	called := time.Now()
	value, err := w.exec.Get(within(context.Background(), id), key, options(&ask, &report)...)
	e := describe(value, err, nil, report.Source)
	e.Took = time.Since(called)
	w.returned(id, key, e, &report)
}

func (w *worker) returned(id, key string, e history.Event, report *idempotent.Report) {
	e.Call, e.Key, e.Attempt = id, key, report.Attempt
	w.rec.Record(e)
}

// run runs fn for a key, or gets what somebody else's came to.
func (w *worker) run(key string, m *mode, ask history.Ask, r *rand.Rand) {
	id := w.id()
	ctx := within(context.Background(), id)
	w.rec.Record(history.Event{Kind: history.Invoke, Key: key, Call: id, Op: history.Run, Ask: &ask})
	if ask.Deadline > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, ask.Deadline)
		defer cancel()
	}
	f := &function{worker: w, id: id, key: key, mode: m, takes: m.takes(r, w.Lease), stubborn: r.IntN(3) == 0}
	f.comes = history.Value
	if r.IntN(100) < m.odds {
		f.comes = m.other
	}
	var report idempotent.Report
	f.called = time.Now()
	value, err := safely(func() (charge, error) { return w.exec.Run(ctx, key, f.run, options(&ask, &report)...) })
	e := describe(value, err, ctx.Err(), report.Source)
	e.Took = time.Since(f.called)
	if ended := f.ended.Load(); ended != nil {
		e.Took = time.Since(*ended)
	}
	w.returned(id, key, e, &report)
}

// safely turns a panic of fn, which reaches the call that ran it, into the error that others get.
func safely(run func() (charge, error)) (value charge, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &idempotent.PanicError{Value: p}
		}
	}()
	return run()
}

// A function is the fn of one call.
type function struct {
	*worker
	id, key  string
	mode     *mode
	takes    time.Duration
	comes    history.Outcome
	stubborn bool // it takes no notice of its context

	called time.Time
	ended  atomic.Pointer[time.Time] // when fn returned
	late   time.Duration             // from its beginning to its being noted
}

func (f *function) run(ctx context.Context) (charge, error) {
	began := time.Now()
	defer func() { ended := time.Now(); f.ended.Store(&ended) }()
	info, _ := idempotent.RunInfoFromContext(ctx)
	running := execution{f.key, info.Attempt}
	f.current.Store(running, f.id)
	defer f.current.CompareAndDelete(running, f.id)
	f.record(history.Event{Kind: history.Begin, Attempt: info.Attempt, Took: began.Sub(f.called)})
	f.late = time.Since(began)
	stop := context.AfterFunc(ctx, func() {
		if errors.Is(context.Cause(ctx), idempotent.ErrLeaseLost) {
			f.record(history.Event{Kind: history.Lost})
		}
	})
	defer stop()
	alive := f.work(ctx)
	if !alive && !f.stubborn {
		f.record(history.Event{Kind: history.End, Outcome: history.Cut, Late: f.late})
		return charge{}, failure(context.Cause(ctx), f.id)
	}
	f.record(history.Event{Kind: history.End, Outcome: f.comes, Alive: ctx.Err() == nil, Late: f.late})
	return f.come()
}

func (f *function) record(e history.Event) {
	e.Key, e.Call = f.key, f.id
	f.rec.Record(e)
}

// work takes its time, and says at each step whether the lease still holds.
func (f *function) work(ctx context.Context) (alive bool) {
	step := f.Lease / 15
	done := ctx.Done()
	if f.stubborn {
		done = nil
	}
	end := time.Now().Add(f.takes)
	if f.Shares { // with others, so that commits meet
		end = end.Truncate(f.Lease / 20).Add(f.Lease / 20)
	}
	for time.Until(end) > 0 {
		select {
		case <-done:
			return false
		case <-time.After(min(step, time.Until(end))):
		}
		if time.Until(end) > 0 {
			f.record(history.Event{Kind: history.Step, Alive: ctx.Err() == nil, Late: f.late})
		}
	}
	return ctx.Err() == nil
}

func (f *function) come() (charge, error) {
	switch f.comes {
	case history.Failed:
		return charge{}, failure(errDeclined, f.id)
	case history.Ignored:
		return charge{}, failure(errBusy, f.id)
	case history.Unknown:
		return charge{}, idempotent.OutcomeUnknown(failure(errBroken, f.id))
	case history.Panic:
		panic(failure(errDeclined, f.id))
	}
	return newCharge(f.id, f.mode.size), nil
}

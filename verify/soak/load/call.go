package load

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/verify/soak/history"
)

// call makes one call for a key.
func (w *worker) call(number int, r *rand.Rand) {
	if r.IntN(8) == 0 {
		w.get(keyName(number), history.Ask{Wait: 8 * w.Lease})
		return
	}
	w.run(w.prepare(number, r))
}

// get asks for the outcome of a key.
func (w *worker) get(key string, ask history.Ask) {
	id := w.id()
	w.invoke(id, key, history.Get, &ask)
	var report idempotent.Report
	called := time.Now()
	by := &caller{id: id}
	value, err := w.exec.Get(within(context.Background(), by), key, options(&ask, &report)...)
	e := describe(value, err, nil, report.Source)
	e.Took = time.Since(called)
	w.returned(by, id, key, e, &report)
}

func (w *worker) invoke(id, key string, op history.Op, ask *history.Ask) {
	w.rec.Record(history.Event{Kind: history.Invoke, Key: key, Call: id, Op: op, Ask: ask})
}

func (w *worker) returned(by *caller, id, key string, e history.Event, report *idempotent.Report) {
	e.Call, e.Key, e.Attempt = id, key, report.Attempt
	_, e.Joined = by.joined.Load(key)
	e.Cached = report.Source == idempotent.Cached && by.id != "" && !e.Joined && !by.asked.Load()
	w.rec.Record(e)
}

// A request is one call that runs fn for a key, or gets what somebody else's came to.
type request struct {
	function
	ask    history.Ask
	report idempotent.Report
}

func (w *worker) prepare(number int, r *rand.Rand) *request {
	m := modeOf(w.Seed, w.Topology, number)
	c := &request{ask: m.ask(r, w.Lease)}
	w.shorten(&c.ask, m, number)
	c.function = function{worker: w, id: w.id(), key: keyName(number), mode: m, takes: m.takes(r, w.Lease), stubborn: r.IntN(3) == 0}
	c.comes = history.Value
	if r.IntN(100) < m.odds {
		c.comes = m.other
	}
	return c
}

func (w *worker) run(c *request) {
	w.invoke(c.id, c.key, history.Run, &c.ask)
	by := &caller{id: c.id}
	ctx, cancel := during(&c.ask, by)
	defer cancel()
	c.called = time.Now()
	value, err := safely(func() (charge, error) { return w.exec.Run(ctx, c.key, c.function.run, options(&c.ask, &c.report)...) })
	c.finish(by, value, err, over(ctx), c.since())
}

// early is how long before its deadline a context counts as over for a timeout of the client, whose own timer
// may fire first.
const early = 50 * time.Millisecond

// over is the error of a context that is over, or is about to be.
func over(ctx context.Context) error {
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= early {
		return context.DeadlineExceeded
	}
	return ctx.Err()
}

// during is the context of calls that are known to begin.
func during(ask *history.Ask, by *caller) (context.Context, context.CancelFunc) {
	ctx := within(context.Background(), by)
	if ask.Deadline > 0 {
		return context.WithTimeout(ctx, ask.Deadline)
	}
	return ctx, func() {}
}

func (c *request) finish(by *caller, value charge, err, over error, took time.Duration) {
	e := describe(value, err, over, c.report.Source)
	e.Took = took
	c.returned(by, c.id, c.key, e, &c.report)
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
	callerIn(ctx).ran.Store(running, f.id)
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

// since is how long ago fn ended or, if this call has not run it, the call began.
func (f *function) since() time.Duration {
	if ended := f.ended.Load(); ended != nil {
		return time.Since(*ended)
	}
	return time.Since(f.called)
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

package check

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/idempotent-go/idempotent/verify/soak/history"
)

// never is the time of what did not happen.
const never = time.Duration(math.MaxInt64)

// A span is a stretch of time, both ends included.
type span struct{ from, to time.Duration }

func (s span) meets(o span) bool { return s.from <= o.to && o.from <= s.to }

// A process is one worker, from its start to its end.
type process struct {
	name, topology string
	killed, exited time.Duration
	clean          bool
	shares         bool   // its commands share pipelines
	caches         bool   // it has a replay cache
	pauses         []span // it did not run: stopped by a signal, or starved
}

// paused is for how long the process did not run in s.
func (p *process) paused(s span) (total time.Duration) {
	at := s.from
	for _, pause := range p.pauses { // in order of their beginnings
		from, to := max(pause.from, at), min(pause.to, s.to)
		if from < to {
			total += to - from
			at = to
		}
	}
	return total
}

// pausedAt reports whether the process did not run at that time, or had only just begun again.
func (p *process) pausedAt(at time.Duration) bool {
	return slices.ContainsFunc(p.pauses, func(s span) bool { return s.from <= at && at <= s.to+jitter })
}

// A request is one call of a method of the executor.
type request struct {
	id       string
	key      *key
	proc     *process
	op       history.Op
	ask      history.Ask
	invoked  time.Duration
	returned time.Duration
	result   history.Event
	ran      *execution
}

// operates reports whether it is an operator's.
func (c *request) operates() bool { return c.op == history.Forget || c.op == history.Resolve }

func (c *request) span() span { return span{c.invoked, c.returned} }

// An execution is one run of fn.
type execution struct {
	call     *request
	attempt  int
	entered  time.Duration // when fn began, if its process was stopped before it could say so
	late     time.Duration
	begin    time.Duration // when the provider knew
	waited   time.Duration // from the call to fn, by the worker's clock
	end      time.Duration
	outcome  history.Outcome
	alive    time.Duration // the last time at which fn's context is known not to have ended
	heard    time.Duration // of the last event
	lost     time.Duration
	fate     history.Kind // Recorded, Released, Abandoned, Unrecorded, or none that is known
	fated    time.Duration
	renewals []time.Duration
}

func (e *execution) String() string {
	return fmt.Sprintf("execution %s (attempt %d)", e.call.id, e.attempt)
}

// diedBefore reports whether the process was killed before t with the execution's fate open.
func (e *execution) diedBefore(t time.Duration) bool { return e.fate == "" && e.call.proc.killed <= t }

// lapsed reports whether the lease may have run out by t without a word of it: while the outcome was
// on its way to Redis, or because the process did not run. The rule on leases that are over too
// early knows whether there was time for that.
func (e *execution) lapsed(t time.Duration) bool {
	return e.end <= t || e.call.proc.pausedAt(t)
}

// given reports whether the execution had ended by t without an outcome to record.
func (e *execution) given(t time.Duration) bool {
	return e.end <= t && !e.outcome.Recordable()
}

// over is when the execution cannot have written to Redis any more.
func (e *execution) over() time.Duration { return min(e.fated, e.call.proc.exited) }

// A key is one operation.
type key struct {
	topology, name string
	calls          []*request
	forgets        []*request
	resolves       []*request
	changes        bool         // it may have several lives, or be resolved
	runs           []*execution // in the order in which they began
}

// An index is a history, sorted out.
type index struct {
	plan   history.Plan
	procs  map[string]*process
	keys   map[string]*key
	order  []*key
	calls  map[string]*request
	faults []*aFault
	losses map[string][]*loss
	stalls []span // of the provider, and of the proxies
	starve []span // of any process that was not stopped
	end    time.Duration
	broken []string // what no campaign writes
}

func newIndex(events []history.Event) *index {
	x := &index{
		procs: make(map[string]*process), keys: make(map[string]*key), calls: make(map[string]*request),
		losses: make(map[string][]*loss),
	}
	for _, e := range events {
		if e.At < x.end {
			x.broken = append(x.broken, fmt.Sprintf("event %d is earlier than the one before it", e.Seq))
		}
		x.end = e.At
		if e.Plan != nil {
			x.plan = *e.Plan
		}
		switch e.Kind {
		case history.Start, history.Kill, history.Exit, history.Stop, history.Cont, history.Stall, history.Clean:
			x.process(e)
		case history.FaultOn, history.FaultOff, history.LossOn, history.LossOff:
			x.fault(e)
		default:
			x.call(e)
		}
	}
	for _, p := range x.procs {
		p.pauses = append(p.pauses, x.stalls...)
		slices.SortFunc(p.pauses, func(a, b span) int { return int(a.from - b.from) })
	}
	for _, c := range x.calls {
		if c.ran != nil {
			c.ran.enter()
		}
	}
	for _, k := range x.order {
		slices.SortStableFunc(k.runs, func(a, b *execution) int { return cmp.Compare(a.entered, b.entered) })
	}
	return x
}

func (x *index) process(e history.Event) {
	if e.Proc == "" {
		x.stalls = append(x.stalls, span{e.At - e.Took, e.At})
		x.starve = append(x.starve, span{e.At - e.Took, e.At})
		return
	}
	p := x.procs[e.Proc]
	if p == nil {
		p = &process{name: e.Proc, topology: e.Topology, killed: never, exited: never}
		x.procs[e.Proc] = p
	}
	switch e.Kind {
	case history.Start:
		p.shares, p.caches = e.Shares, e.Caches
	case history.Kill:
		p.killed = e.At
	case history.Exit:
		p.exited = e.At
	case history.Clean:
		p.clean = true
	case history.Stop:
		p.pauses = append(p.pauses, span{e.At, never})
	case history.Cont:
		if i := slices.IndexFunc(p.pauses, func(s span) bool { return s.to == never }); i >= 0 {
			p.pauses[i].to = e.At
		}
	case history.Stall:
		if s := (span{e.At - e.Took, e.At}); p.paused(s) == 0 {
			x.starve = append(x.starve, s)
		}
		p.pauses = append(p.pauses, span{e.At - e.Took, e.At})
	}
}

func (x *index) call(e history.Event) {
	if e.Kind == history.Invoke {
		x.invoke(e)
		return
	}
	c := x.calls[e.Call]
	if c == nil {
		return // an event that is about no call
	}
	switch e.Kind {
	case history.Return:
		c.returned, c.result = e.At, e
	case history.Begin:
		if c.ran != nil {
			x.broken = append(x.broken, "call "+c.id+" ran fn twice")
			return
		}
		c.ran = &execution{call: c, attempt: e.Attempt, entered: e.At, begin: e.At, waited: e.Took, end: never, alive: e.At, heard: e.At, lost: never, fated: never}
		c.key.runs = append(c.key.runs, c.ran)
	default:
		if c.ran != nil {
			c.ran.note(e)
		}
	}
}

func (x *index) invoke(e history.Event) {
	name := e.Topology + " " + e.Key
	k := x.keys[name]
	if k == nil {
		k = &key{topology: e.Topology, name: e.Key}
		x.keys[name], x.order = k, append(x.order, k)
	}
	p := x.procs[e.Proc]
	if p == nil || x.calls[e.Call] != nil || e.Ask == nil {
		x.broken = append(x.broken, fmt.Sprintf("call %s is by an unknown process, has been seen before, or says nothing of how it was made", e.Call))
		return
	}
	c := &request{id: e.Call, key: k, proc: p, op: e.Op, ask: *e.Ask, invoked: e.At, returned: never}
	x.calls[c.id] = c
	k.changes = k.changes || c.operates() || e.Ask.TTL > 0 || e.Ask.ErrorTTL > 0
	switch e.Op {
	case history.Forget:
		k.forgets = append(k.forgets, c)
	case history.Resolve:
		k.resolves = append(k.resolves, c)
	default:
		k.calls = append(k.calls, c)
	}
}

// enter finds out when fn began. Of the time that it took to say so, that counts in which its
// process did not run, before the provider knew.
func (e *execution) enter() {
	stopped := e.call.proc.paused(span{e.begin - e.late, e.begin})
	e.entered = max(e.begin-min(e.late, stopped), e.call.invoked)
}

func (e *execution) note(ev history.Event) {
	switch ev.Kind {
	case history.Step, history.End:
		e.late = ev.Late
		if ev.Alive {
			e.alive = e.heard
		}
		e.heard = ev.At
		if ev.Kind == history.End {
			e.end, e.outcome = ev.At, ev.Outcome
		}
	case history.Lost:
		e.lost = min(e.lost, ev.At)
	case history.Renewed:
		e.renewals = append(e.renewals, ev.At)
	case history.Recorded, history.Released, history.Abandoned, history.Unrecorded:
		e.fate, e.fated = ev.Kind, ev.At
	}
}

package check_test

import (
	"slices"
	"time"

	"github.com/idempotent-go/idempotent/verify/soak/check"
	"github.com/idempotent-go/idempotent/verify/soak/history"
)

// A story is a history made by hand. Times are milliseconds; the lease is 1000 of them.
type story struct {
	events []history.Event
	calls  map[string]history.Event
}

const (
	topology = "single"
	key      = "k1"
	lease    = 1000
	a, b     = "a.1", "b.1" // workers, of posts a and b
)

func ms(n int) time.Duration { return time.Duration(n) * time.Millisecond }

// newStory has two workers that live from 0 to 90000 and leave nothing behind.
func newStory() *story {
	s := &story{calls: make(map[string]history.Event)}
	s.add(0, history.Event{Kind: history.Planned, Topology: "", Plan: &history.Plan{
		Lease: ms(lease), Command: map[string]time.Duration{topology: ms(1000)}, Prefix: "idempotent:soak:",
	}})
	for _, proc := range []string{a, b} {
		s.add(0, history.Event{Kind: history.Start, Proc: proc})
		s.add(90_000, history.Event{Kind: history.Clean, Proc: proc})
		s.add(90_001, history.Event{Kind: history.Exit, Proc: proc})
	}
	s.add(90_002, history.Event{Kind: history.Audited, Count: 1})
	return s
}

func (s *story) add(at int, e history.Event) {
	e.At = ms(at)
	if e.Kind != history.Planned && e.Topology == "" {
		e.Topology = topology
	}
	s.events = append(s.events, e)
}

// remove takes out the events of a kind.
func (s *story) remove(kind history.Kind, proc string) {
	s.events = slices.DeleteFunc(s.events, func(e history.Event) bool { return e.Kind == kind && e.Proc == proc })
}

// shares says that a worker's commands share pipelines.
func (s *story) shares(proc string) {
	for i, e := range s.events {
		if e.Kind == history.Start && e.Proc == proc {
			s.events[i].Shares = true
		}
	}
}

// keeps says how long the records of all calls so far are kept, and those of errors.
func (s *story) keeps(ttl, errors time.Duration) {
	for i := range s.events {
		if ask := s.events[i].Ask; ask != nil {
			ask.TTL, ask.ErrorTTL = ttl, errors
		}
	}
}

// forgets is a Forget that takes a millisecond.
func (s *story) forgets(at int, id, proc string) {
	s.get(at, id, proc)
	s.events[len(s.events)-1].Op = history.Forget
	s.returns(at+1, id, history.Done, "")
}

// resolves is a Resolve that takes a millisecond.
func (s *story) resolves(at int, id, proc string, result history.Result) {
	s.get(at, id, proc)
	s.events[len(s.events)-1].Op = history.Resolve
	s.returns(at+1, id, result, "")
}

// caches says that a worker has a replay cache, which has answered.
func (s *story) caches(proc string) {
	for i, e := range s.events {
		if e.Kind == history.Start && e.Proc == proc {
			s.events[i].Caches = true
		}
	}
	s.add(89_000, history.Event{Kind: history.Return, Proc: proc, Cached: true})
}

func (s *story) invoke(at int, id, proc string, ask history.Ask) {
	e := history.Event{Proc: proc, Key: key, Call: id}
	s.calls[id] = e
	e.Kind, e.Op, e.Ask = history.Invoke, history.Run, &ask
	if ask.Wait == 0 {
		ask.Wait = ms(8000)
	}
	s.add(at, e)
}

func (s *story) get(at int, id, proc string) {
	s.invoke(at, id, proc, history.Ask{})
	s.events[len(s.events)-1].Op = history.Get
}

// of is an event of a call.
func (s *story) of(at int, id string, kind history.Kind, change ...func(*history.Event)) {
	e := s.calls[id]
	e.Kind = kind
	for _, c := range change {
		c(&e)
	}
	s.add(at, e)
}

func (s *story) begin(at int, id string, attempt int) {
	s.of(at, id, history.Begin, func(e *history.Event) { e.Attempt, e.Took = attempt, ms(at)-s.since(id, history.Invoke) })
}

func (s *story) step(at int, id string) {
	s.of(at, id, history.Step, func(e *history.Event) { e.Alive = true })
}

func (s *story) end(at int, id string, outcome history.Outcome) {
	s.of(at, id, history.End, func(e *history.Event) { e.Outcome = outcome })
}

// returns is the return of a call with a result, which is that of an execution if it is named.
func (s *story) returns(at int, id string, result history.Result, of string) {
	took := ms(at) - s.since(id, history.Invoke)
	if ended := s.since(id, history.End); ended > 0 {
		took = ms(at) - ended
	}
	s.of(at, id, history.Return, func(e *history.Event) { e.Result, e.Of, e.Intact, e.Took = result, of, true, took })
}

// since is the time of a call's event, 0 if there is none.
func (s *story) since(id string, kind history.Kind) time.Duration {
	for _, e := range s.events {
		if e.Call == id && e.Kind == kind {
			return e.At
		}
	}
	return 0
}

// executes is a call that runs fn for 50 ms and is recorded.
func (s *story) executes(at int, id, proc string, attempt int) {
	s.invoke(at, id, proc, history.Ask{})
	s.begin(at+5, id, attempt)
	s.end(at+55, id, history.Value)
	s.of(at+57, id, history.Recorded)
	s.returns(at+58, id, history.GotValue, id)
}

// replays is a call that gets the outcome of another one.
func (s *story) replays(at int, id, proc, of string) {
	s.invoke(at, id, proc, history.Ask{})
	s.returns(at+3, id, history.GotValue, of)
}

// dies is a call whose process is killed while fn runs.
func (s *story) dies(at int, id, proc string, ask history.Ask) {
	s.invoke(at, id, proc, ask)
	s.begin(at+5, id, 1)
	s.kill(at+100, proc)
}

func (s *story) kill(at int, proc string) {
	s.remove(history.Clean, proc)
	s.remove(history.Exit, proc)
	s.add(at, history.Event{Kind: history.Kill, Proc: proc})
	s.add(at+1, history.Event{Kind: history.Exit, Proc: proc})
}

func (s *story) fault(from, to int) {
	s.add(from, history.Event{Kind: history.FaultOn, Fault: "unreachable"})
	s.add(to, history.Event{Kind: history.FaultOff, Fault: "unreachable"})
}

func (s *story) loss(from, to int, acked bool, slots ...history.Range) {
	s.add(from, history.Event{Kind: history.LossOn, Acked: acked, Slots: slots})
	s.add(to, history.Event{Kind: history.LossOff})
}

// broken are the rules that the checker says are broken, each once.
func (s *story) broken() (rules []string, found []check.Violation) {
	slices.SortStableFunc(s.events, func(a, b history.Event) int { return int(a.At - b.At) })
	for i := range s.events {
		s.events[i].Seq = int64(i + 1)
	}
	found = check.History(s.events).Violations
	for _, v := range found {
		if !slices.Contains(rules, v.Rule) {
			rules = append(rules, v.Rule)
		}
	}
	return rules, found
}

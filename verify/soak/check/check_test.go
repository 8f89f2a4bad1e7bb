package check_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent/verify/soak/check"
	"github.com/idempotent-go/idempotent/verify/soak/history"
)

const (
	overlap  = "two executions inside valid leases"
	early    = "taken over before the lease was over"
	again    = "run again without a reason"
	refused  = "run again although it is to be refused"
	attempt  = "not told of an earlier execution"
	outcome  = "not the one recorded outcome"
	anError  = "an error without its reason"
	register = "not linearizable"
	waited   = "waited longer than the bound"
	nothing  = "waited for nothing"
	expiry   = "a key without an expiry"
	left     = "something left over"
	missing  = "history incomplete"
)

// Each of these is what a library with that very fault would leave behind, and is found as that.
func TestPlantedViolationsAreFound(t *testing.T) {
	plantedViolationsAreFound(t, []planted{
		{"two at once", []string{overlap}, func(s *story) {
			s.invoke(0, "1", a, history.Ask{})
			s.begin(5, "1", 1)
			s.of(1400, "1", history.Renewed)
			s.executes(2500, "2", b, 2)
			for at := 100; at < 3000; at += 100 {
				s.step(at, "1")
			}
			s.end(3000, "1", history.Failed)
			s.of(3001, "1", history.Unrecorded)
			s.returns(3002, "1", history.LeaseLost, "1")
		}},
		{"two at once, each with a reason", []string{overlap}, func(s *story) {
			overtaken(s, 3000)
		}},
		{"a dead owner's lease is not waited for", []string{early}, func(s *story) {
			s.dies(0, "1", a, history.Ask{})
			s.executes(900, "2", b, 2)
		}},
		{"a dead owner's renewed lease is not waited for", []string{early}, func(s *story) {
			s.dies(0, "1", a, history.Ask{})
			s.of(340, "1", history.Renewed)
			s.of(680, "1", history.Renewed)
			s.executes(1600, "2", b, 2)
		}},
		{"run again after it was recorded", []string{again, outcome, register}, func(s *story) {
			s.executes(0, "1", a, 1)
			s.executes(5000, "2", b, 2)
		}},
		{"run again while it runs", []string{early, again}, func(s *story) {
			s.invoke(0, "1", a, history.Ask{})
			s.begin(5, "1", 1)
			s.executes(20, "2", b, 2)
			s.end(60, "1", history.Ignored)
			s.of(61, "1", history.Released)
			s.returns(62, "1", history.GotIgnored, "1")
		}},
		{"refused, and run again", []string{refused}, func(s *story) {
			s.dies(0, "1", a, history.Ask{Refuse: true})
			s.executes(2000, "2", b, 2)
		}},
		{"the successor of a dead owner is told that it is the first", []string{attempt}, func(s *story) {
			s.dies(0, "1", a, history.Ask{})
			s.executes(2000, "2", b, 1)
		}},
		{"the successor of an unknown outcome is told that it is the first", []string{attempt}, func(s *story) {
			s.invoke(0, "1", a, history.Ask{})
			s.begin(5, "1", 1)
			s.end(50, "1", history.Unknown)
			s.of(51, "1", history.Abandoned)
			s.returns(52, "1", history.GotUnknown, "1")
			s.executes(100, "2", b, 1)
		}},
		{"two outcomes", []string{outcome, register}, func(s *story) {
			s.invoke(0, "1", a, history.Ask{}) // its owner dies after fn, so its outcome may be recorded
			s.begin(5, "1", 1)
			s.end(50, "1", history.Value)
			s.kill(100, a)
			s.executes(2000, "2", b, 2)
			s.replays(3000, "3", b, "1")
		}},
		{"another's outcome", []string{outcome, register}, func(s *story) {
			s.executes(0, "1", a, 1)
			s.replays(100, "2", b, "elsewhere")
		}},
		{"a changed value", []string{outcome}, func(s *story) {
			s.executes(0, "1", a, 1)
			s.invoke(100, "2", b, history.Ask{})
			s.of(103, "2", history.Return, func(e *history.Event) { e.Result, e.Of = history.GotValue, "1" })
		}},
		{"an outcome for another request", []string{outcome}, func(s *story) {
			s.executes(0, "1", a, 1)
			s.events[len(s.events)-5].Ask.Print = "a"
			s.invoke(100, "2", b, history.Ask{Print: "b"})
			s.returns(103, "2", history.GotValue, "1")
		}},
		{"a lost result", []string{outcome, register}, func(s *story) {
			s.executes(0, "1", a, 1)
			s.get(100, "2", b)
			s.returns(101, "2", history.NotFound, "")
		}},
		{"a result that comes and goes, of an owner that died", []string{register}, func(s *story) {
			s.invoke(0, "1", a, history.Ask{})
			s.begin(5, "1", 1)
			s.end(50, "1", history.Value)
			s.kill(51, a)
			s.replays(100, "2", b, "1")
			s.get(200, "3", b)
			s.returns(201, "3", history.NotFound, "")
		}},
		{"an outcome before fn returned", []string{register}, func(s *story) {
			s.replays(20, "2", b, "1")
			s.executes(0, "1", a, 1)
		}},
		{"refused, then recorded", []string{register}, func(s *story) {
			s.invoke(0, "1", a, history.Ask{Refuse: true})
			s.begin(5, "1", 1)
			s.of(1200, "1", history.Lost)
			s.invoke(1300, "2", b, history.Ask{Refuse: true})
			s.returns(1310, "2", history.Interrupted, "")
			s.end(1400, "1", history.Value)
			s.of(1402, "1", history.Recorded)
			s.returns(1403, "1", history.GotValue, "1")
		}},
		{"an error that no document names", []string{anError}, func(s *story) {
			s.invoke(0, "1", a, history.Ask{})
			s.returns(5, "1", history.Other, "")
		}},
		{"unavailable, with nothing wrong", []string{anError}, func(s *story) {
			s.fault(0, 1000)
			s.invoke(5000, "1", a, history.Ask{})
			s.returns(5005, "1", history.Unavailable, "")
		}},
		{"unavailable, while another worker was stopped", []string{anError}, func(s *story) {
			s.add(100, history.Event{Kind: history.Stop, Proc: b})
			s.add(1000, history.Event{Kind: history.Cont, Proc: b})
			s.add(1001, history.Event{Kind: history.Stall, Proc: b, Took: ms(900)})
			s.invoke(500, "1", a, history.Ask{})
			s.returns(505, "1", history.Unavailable, "")
		}},
		{"unavailable, with something wrong for somebody else", []string{anError}, func(s *story) {
			s.add(0, history.Event{Kind: history.FaultOn, Fault: "unreachable", Proc: "b"})
			s.add(1000, history.Event{Kind: history.FaultOff, Fault: "unreachable", Proc: "b"})
			s.invoke(500, "1", a, history.Ask{})
			s.returns(505, "1", history.Unavailable, "")
		}},
		{"gave up too early", []string{anError}, func(s *story) {
			s.invoke(0, "1", a, history.Ask{Wait: ms(500)})
			s.returns(400, "1", history.InProgress, "")
		}},
		{"reused by nobody", []string{anError}, func(s *story) {
			s.invoke(0, "1", a, history.Ask{Print: "a"})
			s.returns(4, "1", history.KeyReused, "")
		}},
		{"nothing was interrupted", []string{anError}, func(s *story) {
			s.invoke(0, "1", a, history.Ask{Refuse: true})
			s.returns(4, "1", history.Interrupted, "")
		}},
		{"interrupted, while its owner has its lease", []string{anError}, func(s *story) {
			s.get(10, "2", b)
			s.returns(500, "2", history.Interrupted, "")
			s.executes(0, "1", a, 1)
		}},
		{"a lease that was not lost", []string{anError, missing}, func(s *story) {
			s.invoke(0, "1", a, history.Ask{})
			s.begin(5, "1", 1)
			s.end(10, "1", history.Value)
			s.returns(12, "1", history.LeaseLost, "1")
		}},
		{"not recorded, and recorded", []string{anError}, func(s *story) {
			s.executes(0, "1", a, 1)
			s.events[len(s.events)-1].Result = history.NotRecorded
		}},
		{"an ignored error for somebody who did not wait for it", []string{anError}, func(s *story) {
			ignored(s, "1", true)
			s.invoke(200, "2", b, history.Ask{Share: true})
			s.returns(205, "2", history.GotIgnored, "1")
		}},
		{"an ignored error that was not to be shared", []string{anError}, func(s *story) {
			ignored(s, "1", false)
			s.invoke(10, "2", b, history.Ask{})
			s.returns(63, "2", history.GotIgnored, "1")
		}},
		{"a context that had not ended", []string{anError}, func(s *story) {
			s.invoke(0, "1", a, history.Ask{Deadline: ms(300)})
			s.returns(200, "1", history.ContextOver, "")
		}},
		{"waited too long", []string{waited, nothing}, func(s *story) {
			s.invoke(0, "1", a, history.Ask{Wait: ms(500)})
			s.returns(4500, "1", history.InProgress, "")
		}},
		{"waited for longer than its context", []string{waited}, func(s *story) {
			s.invoke(0, "1", a, history.Ask{Deadline: ms(300)})
			s.returns(900, "1", history.ContextOver, "")
		}},
		{"waited for longer than its context and its commands", []string{waited, nothing}, func(s *story) {
			s.shares(a)
			s.add(50, history.Event{Kind: history.Pipelined, Proc: a, Shared: &history.Shared{Claims: 3, Commits: 2}})
			s.invoke(0, "1", a, history.Ask{Deadline: ms(300)})
			s.returns(4000, "1", history.ContextOver, "")
		}},
		{"came back long after the last of its RunMany", []string{waited}, func(s *story) {
			s.invoke(0, "1", a, history.Ask{Wait: ms(500), Many: ms(500)})
			s.returns(7000, "1", history.InProgress, "")
		}},
		{"RunMany runs a key twice", []string{early, again, attempt, outcome, register}, func(s *story) {
			together(s)
			s.begin(6, "2", 1)
			s.end(52, "2", history.Value)
			s.of(53, "2", history.Recorded)
			s.returns(90, "2", history.GotValue, "2")
		}},
		{"RunMany mixes its keys up", []string{outcome, register}, func(s *story) {
			together(s)
			s.returns(90, "2", history.GotValue, "elsewhere")
		}},
		{"never came back", []string{waited}, func(s *story) {
			s.invoke(0, "1", a, history.Ask{})
		}},
		{"took too long to record", []string{waited}, func(s *story) {
			s.invoke(0, "1", a, history.Ask{})
			s.begin(5, "1", 1)
			s.end(10, "1", history.Value)
			s.of(7000, "1", history.Recorded)
			s.returns(7001, "1", history.GotValue, "1")
		}},
		{"waits on when the outcome is there", []string{nothing}, func(s *story) {
			s.invoke(10, "2", b, history.Ask{})
			s.returns(1600, "2", history.GotValue, "1")
			s.executes(0, "1", a, 1)
		}},
		{"waits on when the owner is dead", []string{nothing}, func(s *story) {
			s.invoke(10, "2", b, history.Ask{Wait: ms(2700)})
			s.returns(2720, "2", history.InProgress, "")
			s.dies(0, "1", a, history.Ask{})
		}},
		{"a key for ever", []string{expiry}, func(s *story) {
			s.add(90_005, history.Event{Kind: history.Leftover, Text: check.NoExpiry + "idempotent:soak:k1"})
		}},
		{"a goroutine is left", []string{left}, func(s *story) {
			s.add(89_000, history.Event{Kind: history.Leftover, Proc: a, Text: "found unexpected goroutines"})
		}},
		{"a worker that crashed", []string{missing}, func(s *story) { s.remove(history.Clean, a) }},
		{"a worker that never ended", []string{missing}, func(s *story) { s.remove(history.Exit, a) }},
		{"not audited", []string{missing}, func(s *story) { s.remove(history.Audited, "") }},
		{"pipelines that carried nothing", []string{missing}, func(s *story) { s.shares(a) }},
		{"a fault that was not injected", []string{missing}, func(s *story) {
			s.add(5, history.Event{Kind: history.FaultFail, Fault: "OOM", Text: "no server"})
		}},
	})
}

// A planted violation breaks these rules.
type planted struct {
	name  string
	rules []string
	plant func(s *story)
}

func plantedViolationsAreFound(t *testing.T, all []planted) {
	t.Helper()
	for _, test := range all {
		t.Run(test.name, func(t *testing.T) {
			s := newStory()
			test.plant(s)
			rules, found := s.broken()
			assert.ElementsMatch(t, test.rules, rules, "%v", found)
		})
	}
}

// together are two calls of one RunMany, the first of which runs fn.
func together(s *story) {
	for _, id := range []string{"1", "2"} {
		s.invoke(0, id, a, history.Ask{Many: ms(8000)})
	}
	s.begin(5, "1", 1)
	s.end(50, "1", history.Value)
	s.of(51, "1", history.Recorded)
	s.returns(90, "1", history.GotValue, "1")
}

// overtaken is an owner whose context still lives at the given time, though another one began at
// 2500, when its lease can have been over; it learns of that later.
func overtaken(s *story, until int) {
	s.invoke(0, "1", a, history.Ask{})
	s.begin(5, "1", 1)
	s.executes(2500, "2", b, 2)
	for at := 100; at < until; at += 100 {
		s.step(at, "1")
	}
	s.of(until+10, "1", history.Lost)
	s.end(until+20, "1", history.Cut)
	s.of(until+21, "1", history.Abandoned)
	s.returns(until+22, "1", history.LeaseLost, "1")
}

func ignored(s *story, id string, share bool) {
	s.invoke(0, id, a, history.Ask{Share: share})
	s.begin(5, id, 1)
	s.end(60, id, history.Ignored)
	s.of(61, id, history.Released)
	s.returns(62, id, history.GotIgnored, id)
}

func TestReportIsATable(t *testing.T) {
	s := newStory()
	s.fault(0, 1000)
	s.executes(0, "1", a, 1)
	s.invoke(100, "2", b, history.Ask{})
	s.of(103, "2", history.Return, func(e *history.Event) { e.Result, e.Of, e.Intact, e.Source = history.GotValue, "1", true, "replayed" })
	_, found := s.broken()
	require.Empty(t, found)
	var out bytes.Buffer
	report := check.History(s.events)
	assert.True(t, report.Print(&out))
	for _, line := range []string{"unreachable +1 +1", "calls +2 +2", "executions +1 +1", "replays +1 +1", "keys audited +1 +1"} {
		assert.Regexp(t, line, out.String())
	}
	report.Violations = append(report.Violations, check.Violation{Rule: overlap, Topology: topology, Key: key, Text: "both"})
	out.Reset()
	assert.False(t, report.Print(&out))
	assert.Contains(t, out.String(), overlap+": single, key k1: both")
	assert.Equal(t, time.Second, report.Plan.Lease)
}

package check_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent/internal/slot"
	"github.com/idempotent-go/idempotent/verify/soak/history"
)

// These look like violations, and are none.
func TestWhatIsAllowedIsNoViolation(t *testing.T) {
	slot := slot.Of("idempotent:soak:k1")
	isNoViolation(t, []allowed{
		{"nothing happens", func(*story) {}},
		{"one runs, others replay", func(s *story) {
			s.executes(0, "1", a, 1)
			s.replays(100, "2", b, "1")
			s.invoke(10, "3", b, history.Ask{})
			s.returns(60, "3", history.GotValue, "1")
			s.get(5000, "4", b)
			s.returns(5001, "4", history.GotValue, "1")
		}},
		{"an owner dies and is taken over", func(s *story) {
			s.dies(0, "1", a, history.Ask{})
			s.executes(1010, "2", b, 2)
		}},
		{"an owner is stopped, goes on for a moment, and is refused", func(s *story) {
			s.add(1000, history.Event{Kind: history.Stop, Proc: a})
			s.add(2910, history.Event{Kind: history.Cont, Proc: a})
			overtaken(s, 2990)
		}},
		{"an owner is starved", func(s *story) {
			s.add(2910, history.Event{Kind: history.Stall, Proc: a, Took: ms(1500)})
			overtaken(s, 2990)
		}},
		{"an ignored error frees the key", func(s *story) {
			ignored(s, "1", true)
			s.invoke(10, "2", b, history.Ask{Share: true})
			s.returns(63, "2", history.GotIgnored, "1")
			s.executes(100, "3", b, 1)
		}},
		{"a call comes back with the last of its RunMany", func(s *story) {
			s.executes(0, "1", a, 1)
			s.invoke(100, "2", b, history.Ask{Many: ms(8000), NoWait: true})
			s.returns(7000, "2", history.GotValue, "1")
		}},
		{"a caller's deadline passes while its claim is in a pipeline", func(s *story) {
			s.shares(a)
			s.add(50, history.Event{Kind: history.Pipelined, Proc: a, Shared: &history.Shared{Claims: 3, Commits: 2}})
			s.invoke(0, "1", a, history.Ask{Deadline: ms(300)})
			s.returns(900, "1", history.ContextOver, "")
		}},
		{"a late commit", func(s *story) {
			s.invoke(0, "1", a, history.Ask{})
			s.begin(5, "1", 1)
			s.of(1200, "1", history.Lost)
			s.end(1400, "1", history.Value)
			s.of(1402, "1", history.Recorded)
			s.returns(1403, "1", history.GotValue, "1")
			s.replays(1500, "2", b, "1")
		}},
		{"Get asks while a late commit is on its way", func(s *story) {
			s.invoke(0, "1", a, history.Ask{})
			s.begin(5, "1", 1)
			s.end(50, "1", history.Value)
			s.get(500, "2", b)
			s.returns(1001, "2", history.Interrupted, "")
			s.of(1500, "1", history.Recorded)
			s.returns(1501, "1", history.GotValue, "1")
		}},
		{"a stopped process whose caller's deadline passes as well", func(s *story) {
			s.invoke(0, "1", a, history.Ask{Deadline: ms(1500)})
			s.begin(5, "1", 1)
			s.add(100, history.Event{Kind: history.Stop, Proc: a})
			s.executes(1010, "2", b, 2)
			s.add(2000, history.Event{Kind: history.Cont, Proc: a})
			s.end(2001, "1", history.Cut)
			s.of(2002, "1", history.Abandoned)
			s.returns(2003, "1", history.LeaseLost, "1")
		}},
		{"a process is stopped before it could say that fn began", func(s *story) {
			s.invoke(0, "1", a, history.Ask{})
			s.add(5, history.Event{Kind: history.Stop, Proc: a})
			s.executes(1010, "2", b, 2)
			s.add(2000, history.Event{Kind: history.Cont, Proc: a})
			s.begin(2001, "1", 1)
			s.of(2002, "1", history.Lost)
			s.of(2003, "1", history.End, func(e *history.Event) { e.Outcome, e.Late = history.Cut, ms(1997) })
			s.of(2004, "1", history.Abandoned)
			s.returns(2005, "1", history.LeaseLost, "1")
		}},
		{"an ignored error that Redis is told of late is shared late", func(s *story) {
			s.add(50, history.Event{Kind: history.FaultOn, Fault: "unreachable", Proc: "a"})
			s.add(100, history.Event{Kind: history.FaultOff, Fault: "unreachable", Proc: "a"})
			ignored(s, "1", true)
			s.invoke(200, "2", b, history.Ask{Share: true})
			s.returns(205, "2", history.GotIgnored, "1")
		}},
		{"a process is stopped before it hears that the provider knows that fn began", func(s *story) {
			ignored(s, "0", false)
			s.invoke(10, "1", b, history.Ask{})
			s.begin(70, "1", 1)
			s.add(71, history.Event{Kind: history.Stop, Proc: b})
			s.add(900, history.Event{Kind: history.Cont, Proc: b})
			s.of(901, "1", history.End, func(e *history.Event) { e.Outcome, e.Late = history.Value, ms(831) })
			s.of(902, "1", history.Recorded)
			s.returns(903, "1", history.GotValue, "1")
		}},
		{"a process is stopped after its claim, and refused by another one", func(s *story) {
			s.invoke(0, "1", a, history.Ask{Refuse: true})
			s.add(5, history.Event{Kind: history.Stop, Proc: a})
			s.invoke(1100, "2", b, history.Ask{Refuse: true})
			s.returns(1110, "2", history.Interrupted, "")
			s.add(2000, history.Event{Kind: history.Cont, Proc: a})
			s.returns(2010, "1", history.Interrupted, "")
		}},
		{"refused", func(s *story) {
			s.dies(0, "1", a, history.Ask{Refuse: true})
			s.invoke(1500, "2", b, history.Ask{Refuse: true})
			s.returns(1510, "2", history.Interrupted, "")
		}},
		{"a master is killed that had not replicated the claim", func(s *story) {
			s.invoke(0, "1", a, history.Ask{})
			s.begin(5, "1", 1)
			s.loss(3, 8, false, history.Range{From: slot, To: slot})
			s.executes(100, "2", b, 1)
			s.of(340, "1", history.Lost)
			s.end(350, "1", history.Cut)
			s.of(351, "1", history.Abandoned)
			s.returns(352, "1", history.LeaseLost, "1")
		}},
		{"a master is killed that had not replicated the outcome", func(s *story) {
			s.executes(0, "1", a, 1)
			s.replays(70, "2", b, "1")
			s.loss(50, 80, false)
			s.executes(3000, "3", b, 2)
			s.replays(4000, "4", b, "3")
		}},
		{"a message is lost with its connection", func(s *story) {
			s.add(50, history.Event{Kind: history.FaultOn, Fault: "unreachable", Proc: "b"})
			s.add(60, history.Event{Kind: history.FaultOff, Fault: "unreachable", Proc: "b"})
			s.invoke(10, "2", b, history.Ask{})
			s.returns(1600, "2", history.GotValue, "1")
			s.executes(0, "1", a, 1)
		}},
		{"replicas are starved, as other processes are", func(s *story) {
			s.add(900, history.Event{Kind: history.Stall, Proc: b, Took: ms(200)})
			s.invoke(600, "1", a, history.Ask{})
			s.returns(850, "1", history.Unavailable, "")
		}},
		{"a server is starved, and a caller has enough of waiting for it", func(s *story) {
			s.executes(0, "1", a, 1)
			s.add(5200, history.Event{Kind: history.Stall, Proc: a, Took: ms(200)})
			s.invoke(5000, "2", b, history.Ask{Wait: ms(300)})
			s.returns(5310, "2", history.InProgress, "")
		}},
		{"Redis is away", func(s *story) {
			s.fault(0, 1000)
			s.invoke(500, "1", a, history.Ask{})
			s.returns(1500, "1", history.Unavailable, "")
		}},
		{"a wait of a stopped process", func(s *story) {
			s.invoke(0, "1", a, history.Ask{Wait: ms(500)})
			s.add(100, history.Event{Kind: history.Stop, Proc: a})
			s.add(5000, history.Event{Kind: history.Cont, Proc: a})
			s.returns(5500, "1", history.InProgress, "")
		}},
	})
}

// allowed is what looks like a violation, and is none.
type allowed struct {
	name  string
	write func(s *story)
}

func isNoViolation(t *testing.T, all []allowed) {
	t.Helper()
	for _, test := range all {
		t.Run(test.name, func(t *testing.T) {
			s := newStory()
			test.write(s)
			_, found := s.broken()
			assert.Empty(t, found)
		})
	}
}

// A loss is forgiven to the keys and at the time at which it was possible, and to no others.
func TestLossIsForgivenWhereItWasPossible(t *testing.T) {
	slot := slot.Of("idempotent:soak:k1")
	for name, loss := range map[string]func(s *story){
		"before":              func(s *story) { s.loss(30, 40, false) },
		"after":               func(s *story) { s.loss(70, 80, false) },
		"on another master":   func(s *story) { s.loss(50, 60, false, history.Range{From: slot + 1, To: slot + 100}) },
		"with replica acks":   func(s *story) { s.loss(50, 60, true) },
		"in another topology": func(s *story) { s.add(50, history.Event{Kind: history.LossOn, Topology: "cluster"}) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newStory()
			s.executes(0, "1", a, 1) // recorded at 57
			loss(s)
			s.executes(3000, "2", b, 2)
			rules, found := s.broken()
			require.Contains(t, rules, again, "%v", found)
		})
	}
}

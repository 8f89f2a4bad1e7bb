package check_test

import (
	"fmt"
	"testing"

	"github.com/idempotent-go/idempotent/verify/soak/history"
)

// Keys whose TTL ends, that are forgotten and resolved, and replay caches that hear of it or do not.
func TestPlantedViolationsOfLivesAreFound(t *testing.T) {
	plantedViolationsAreFound(t, []planted{
		{"a replay cache that answered nothing", []string{missing}, func(s *story) {
			s.caches(a)
			s.remove(history.Return, a)
		}},
		{"a replay cache that is stale for too long after a failover", []string{register}, func(s *story) {
			s.caches(b)
			deposed(s, 3100)
		}},
		{"run again before the TTL is over", []string{again, attempt, outcome, register}, func(s *story) {
			s.executes(0, "1", a, 1)
			s.executes(4900, "2", b, 1)
			s.keeps(ms(5000), 0)
		}},
		{"run again before the TTL of a dead execution is over, and not told", []string{attempt}, func(s *story) {
			s.dies(0, "1", a, history.Ask{})
			s.executes(5500, "2", b, 1)
			s.keeps(ms(5000), 0)
		}},
		{"replayed long after the end of the TTL", []string{register}, func(s *story) {
			s.executes(0, "1", a, 1)
			s.replays(10_100, "2", b, "1")
			s.keeps(ms(5000), 0)
		}},
		{"an outcome whose TTL was over, after another one", []string{register}, func(s *story) {
			s.executes(0, "1", a, 1)
			s.executes(5100, "2", a, 1)
			s.replays(5200, "3", b, "1")
			s.keeps(ms(5000), 0)
		}},
		{"an error is run again before its TTL is over", []string{again, attempt}, func(s *story) {
			s.invoke(0, "1", a, history.Ask{})
			s.begin(5, "1", 1)
			s.end(50, "1", history.Failed)
			s.of(51, "1", history.Recorded)
			s.returns(52, "1", history.GotError, "1")
			s.invoke(4900, "2", b, history.Ask{})
			s.begin(4910, "2", 1)
			s.end(5200, "2", history.Failed)
			s.of(5201, "2", history.Recorded)
			s.returns(5202, "2", history.GotError, "2")
			s.keeps(0, ms(5000))
		}},
		{"replayed after it was forgotten", []string{register}, func(s *story) {
			s.executes(0, "1", a, 1)
			s.forgets(100, "f", a)
			s.replays(102, "2", b, "1")
		}},
		{"replayed after it was forgotten while something was wrong", []string{register}, func(s *story) {
			s.fault(0, 200)
			s.executes(0, "1", a, 1)
			s.forgets(100, "f", a)
			s.replays(102, "2", b, "1")
		}},
		{"joined, in the process that had forgotten it", []string{register}, func(s *story) {
			s.executes(0, "1", a, 1)
			s.forgets(100, "f", a)
			s.executes(200, "2", b, 1)
			s.invoke(90, "3", a, history.Ask{})
			s.returns(310, "3", history.GotValue, "1")
			s.replays(300, "4", a, "1")
			s.events[len(s.events)-1].Joined = true
		}},
		{"replayed by a cache that has not heard of a Forget for long", []string{register}, func(s *story) {
			s.caches(b)
			s.executes(0, "1", a, 1)
			s.forgets(100, "f", a)
			s.replays(3102, "2", b, "1")
		}},
		{"replayed by the cache of the process that has forgotten it", []string{register}, func(s *story) {
			s.caches(a)
			s.executes(0, "1", a, 1)
			s.forgets(100, "f", a)
			s.replays(102, "2", a, "1")
		}},
		{"run again before it is forgotten", []string{again, attempt, outcome, register}, func(s *story) {
			s.executes(0, "1", a, 1)
			s.executes(1100, "2", b, 1)
			s.forgets(1200, "f", a)
		}},
		{"run twice after it was forgotten", []string{again, attempt, outcome, register}, func(s *story) {
			s.executes(0, "1", a, 1)
			s.forgets(100, "f", a)
			s.executes(200, "2", b, 1)
			s.executes(1300, "3", a, 1)
		}},
		{"taken over, and recorded all the same", []string{again}, func(s *story) {
			stoppedOwner(s)
		}},
		{"taken over, and recorded all the same, after which its successor was forgotten", []string{again}, func(s *story) {
			stoppedOwner(s)
			s.forgets(2500, "f", b)
		}},
		{"refused, and given all the same, without a Forget between", []string{outcome, register}, func(s *story) {
			s.forgets(20, "f", b)
			s.executes(30, "3", b, 1)
			s.invoke(0, "1", a, history.Ask{})
			s.begin(5, "1", 1)
			s.end(150, "1", history.Value)
			s.of(160, "1", history.Unrecorded)
			s.returns(161, "1", history.LeaseLost, "1")
			s.replays(170, "2", b, "1")
		}},
		{"a forgotten owner keeps its lease", []string{overlap}, func(s *story) {
			s.forgets(1500, "f", a)
			overtaken(s, 4000)
		}},
		{"Get does what only Forget does", []string{outcome, anError}, func(s *story) {
			s.executes(0, "1", a, 1)
			s.get(100, "2", b)
			s.returns(101, "2", history.Done, "")
		}},
		{"resolved, and run", []string{again, register}, func(s *story) {
			s.resolves(0, "r", a, history.Done)
			s.executes(100, "1", b, 1)
		}},
		{"resolved, and refused", []string{outcome, register}, func(s *story) {
			s.dies(0, "1", a, history.Ask{Refuse: true})
			s.resolves(1500, "r", b, history.Done)
			s.invoke(1600, "2", b, history.Ask{Refuse: true})
			s.returns(1605, "2", history.Interrupted, "")
		}},
		{"resolved, and not found", []string{outcome, register}, func(s *story) {
			s.resolves(0, "r", a, history.Done)
			s.get(100, "1", b)
			s.returns(101, "1", history.NotFound, "")
		}},
		{"resolved, and recorded by its owner", []string{register}, func(s *story) {
			s.resolves(30, "r", b, history.Done)
			s.executes(0, "1", a, 1)
			s.replays(100, "2", b, "1")
		}},
		{"resolved, and recorded already", []string{register}, func(s *story) {
			s.executes(0, "1", a, 1)
			s.resolves(100, "r", b, history.Done)
			s.replays(200, "2", b, "1")
		}},
		{"resolved with another value", []string{outcome}, func(s *story) {
			s.resolves(0, "r", a, history.Done)
			s.invoke(100, "1", b, history.Ask{})
			s.of(103, "1", history.Return, func(e *history.Event) { e.Result, e.Of = history.GotValue, "r" })
		}},
		{"recorded already, where nothing is", []string{register}, func(s *story) {
			s.dies(0, "1", a, history.Ask{Refuse: true})
			s.invoke(1500, "2", b, history.Ask{Refuse: true})
			s.returns(1510, "2", history.Interrupted, "")
			s.resolves(1600, "r", b, history.AlreadyRecorded)
			s.invoke(1700, "3", b, history.Ask{Refuse: true})
			s.returns(1710, "3", history.Interrupted, "")
		}},
		{"recorded already, says Run", []string{anError}, func(s *story) {
			s.invoke(0, "1", a, history.Ask{})
			s.returns(1, "1", history.AlreadyRecorded, "")
		}},
		{"a Resolve that is not recorded, with nothing wrong", []string{anError}, func(s *story) {
			s.resolves(0, "r", a, history.NotRecorded)
		}},
	})
}

func TestWhatIsAllowedInLivesIsNoViolation(t *testing.T) {
	isNoViolation(t, []allowed{
		{"run again after the end of the TTL", func(s *story) {
			s.executes(0, "1", a, 1)
			s.replays(5040, "2", b, "1")
			s.get(5060, "3", b)
			s.returns(5061, "3", history.NotFound, "")
			s.executes(5065, "4", b, 1)
			s.replays(5130, "5", a, "4")
			s.keeps(ms(5000), 0)
		}},
		{"run again after the end of the TTL of a dead execution", func(s *story) {
			s.dies(0, "1", a, history.Ask{})
			s.executes(6005, "2", b, 1)
			s.keeps(ms(5000), 0)
		}},
		{"a command that was held back makes an outcome last", func(s *story) {
			s.executes(0, "1", a, 1)
			s.replays(9900, "2", b, "1")
			s.keeps(ms(5000), 0)
		}},
		{"forgotten, and run again", func(s *story) {
			s.executes(0, "1", a, 1)
			s.forgets(100, "f", a)
			s.get(102, "2", b)
			s.returns(103, "2", history.NotFound, "")
			s.executes(104, "3", b, 1)
			s.replays(200, "4", a, "3")
		}},
		{"forgotten while fn runs, which is recorded since nobody else has begun", func(s *story) {
			s.forgets(30, "f", b)
			s.executes(0, "1", a, 1)
			s.replays(100, "2", b, "1")
		}},
		{"forgotten while fn runs, which goes on until its next renewal", func(s *story) {
			s.forgets(2400, "f", b)
			overtaken(s, 3400)
		}},
		{"taken over, and recorded all the same, since its successor was forgotten", func(s *story) {
			stoppedOwner(s)
			s.forgets(1500, "f", b)
		}},
		{"forgotten between a claim and the word that fn begins", func(s *story) {
			s.executes(30, "2", b, 1)
			s.forgets(20, "f", b)
			s.invoke(10, "1", a, history.Ask{})
			s.begin(60, "1", 1)
			s.end(100, "1", history.Value)
			s.of(101, "1", history.Unrecorded)
			s.returns(102, "1", history.LeaseLost, "1")
		}},
		{"recorded without a word of it, forgotten, and refused", func(s *story) {
			s.fault(40, 1000)
			s.invoke(0, "1", a, history.Ask{})
			s.begin(5, "1", 1)
			s.end(50, "1", history.Value)
			s.replays(60, "2", b, "1")
			s.forgets(100, "f", b)
			s.executes(110, "3", b, 1)
			s.of(400, "1", history.Unrecorded)
			s.returns(401, "1", history.LeaseLost, "1")
		}},
		{"recorded without a word of it, forgotten, and recorded once more", func(s *story) {
			s.fault(40, 1000)
			s.invoke(0, "1", a, history.Ask{})
			s.begin(5, "1", 1)
			s.end(50, "1", history.Value)
			s.replays(60, "2", b, "1")
			s.forgets(100, "f", b)
			s.get(110, "3", b)
			s.returns(111, "3", history.NotFound, "")
			s.of(400, "1", history.Recorded)
			s.returns(401, "1", history.GotValue, "1")
			s.replays(500, "4", b, "1")
		}},
		{"a replay cache that has not heard of a Forget", func(s *story) {
			s.caches(b)
			s.executes(0, "1", a, 1)
			s.forgets(100, "f", a)
			s.replays(3100, "2", b, "1")
		}},
		{"joined a call that had asked before it was forgotten", func(s *story) {
			s.executes(0, "1", a, 1)
			s.forgets(100, "f", a)
			s.invoke(90, "2", b, history.Ask{})
			s.returns(110, "2", history.GotValue, "1")
			s.replays(105, "3", b, "1")
			s.events[len(s.events)-1].Joined = true
		}},
		{"a Forget whose reply is lost, and that arrives once more", func(s *story) {
			s.fault(0, 200)
			s.executes(0, "1", a, 1)
			s.get(100, "f", a)
			s.events[len(s.events)-1].Op = history.Forget
			s.returns(400, "f", history.Done, "")
			s.executes(500, "2", b, 1)
			s.executes(2000, "3", b, 1)
		}},
		{"a commit that arrives once more after a Forget", func(s *story) {
			s.fault(0, 80)
			s.invoke(0, "1", a, history.Ask{})
			s.begin(5, "1", 1)
			s.end(55, "1", history.Value)
			s.of(357, "1", history.Recorded)
			s.returns(358, "1", history.GotValue, "1")
			s.forgets(400, "f", a)
			s.replays(2000, "2", b, "1")
		}},
		{"many who waited for a commit that may arrive once more", func(s *story) {
			s.fault(0, 80)
			s.invoke(0, "1", a, history.Ask{})
			s.begin(5, "1", 1)
			for i := range 25 {
				s.invoke(10+i, fmt.Sprint("waits ", i), b, history.Ask{})
			}
			s.end(55, "1", history.Value)
			for i := range 25 {
				s.returns(60+i, fmt.Sprint("waits ", i), history.GotValue, "1")
			}
			s.of(357, "1", history.Recorded)
			s.returns(358, "1", history.GotValue, "1")
			s.forgets(400, "f", a)
			s.replays(2000, "2", b, "1")
		}},
		{"refused, and resolved", func(s *story) {
			s.dies(0, "1", a, history.Ask{Refuse: true})
			s.invoke(1500, "2", b, history.Ask{Refuse: true})
			s.returns(1510, "2", history.Interrupted, "")
			s.resolves(1600, "r", b, history.Done)
			s.replays(1700, "3", b, "r")
		}},
		{"resolved while fn runs", func(s *story) {
			s.invoke(0, "1", a, history.Ask{})
			s.begin(5, "1", 1)
			s.resolves(100, "r", b, history.Done)
			s.invoke(150, "3", a, history.Ask{NoWait: true})
			s.of(151, "3", history.Return, func(e *history.Event) { e.Result, e.Joined = history.InProgress, true })
			s.replays(200, "2", b, "r")
			s.end(250, "1", history.Value)
			s.of(251, "1", history.Unrecorded)
			s.returns(252, "1", history.LeaseLost, "1")
		}},
		{"resolved too late", func(s *story) {
			s.executes(0, "1", a, 1)
			s.resolves(100, "r", b, history.AlreadyRecorded)
			s.replays(200, "2", b, "1")
		}},
		{"resolved, though nobody heard of it", func(s *story) {
			s.fault(0, 400)
			s.resolves(300, "r", b, history.Unavailable)
			s.replays(500, "2", b, "r")
		}},
		{"a replay cache that does not know of a failover yet", func(s *story) {
			s.caches(b)
			deposed(s, 3050)
		}},
	})
}

// deposed is an owner that dies in its commit while its master is replaced. What it may have stored is
// not there any more, fn runs again, and a caching worker returns the first outcome at the given time.
func deposed(s *story, at int) {
	s.invoke(0, "1", a, history.Ask{})
	s.begin(5, "1", 1)
	s.end(50, "1", history.Value)
	s.kill(51, a)
	s.replays(60, "2", b, "1")
	s.loss(40, 80, true)
	s.executes(1100, "3", b, 2)
	s.replays(at, "4", b, "1")
}

// stoppedOwner is an owner that is stopped while fn runs, taken over, and recorded at 2003, when it goes on.
func stoppedOwner(s *story) {
	s.invoke(0, "1", a, history.Ask{})
	s.begin(5, "1", 1)
	s.add(100, history.Event{Kind: history.Stop, Proc: a})
	s.invoke(1100, "2", b, history.Ask{})
	s.begin(1105, "2", 2)
	s.end(1200, "2", history.Unknown)
	s.of(1201, "2", history.Abandoned)
	s.returns(1202, "2", history.GotUnknown, "2")
	s.add(2000, history.Event{Kind: history.Cont, Proc: a})
	s.end(2001, "1", history.Value)
	s.of(2003, "1", history.Recorded)
	s.returns(2004, "1", history.GotValue, "1")
}

package check

import (
	"strings"

	"github.com/idempotent-go/idempotent/verify/soak/history"
)

// OutputBuffer is the fault in which subscribers are cut off for whom more than a little is waiting.
const OutputBuffer = "full output buffer"

// A Tally counts what happened in a topology.
type Tally struct {
	Faults      map[string]int
	Violations  map[string]int // by rule
	Reasons     map[string]int // of ErrUnavailable
	Workers     int
	Keys        int
	Calls       int
	Forgets     int
	Resolves    int
	Already     int // Resolves that found an outcome
	Many        int // of these, in a RunMany
	Executions  int
	Recorded    int
	Released    int
	Unknown     int // executions without an outcome: cut short, OutcomeUnknown, lease lost, killed
	Lives       int // executions of keys whose TTL was over
	Replays     int // calls that got an outcome that was there already
	Waited      int // that another process came to meanwhile
	Joined      int // that another call of the process came to meanwhile
	TakeOvers   int
	Refusals    int // calls that got ErrInterrupted
	Unavailable int
	Stalls      int
	Losses      int
	Unheard     int // subscriptions lost
	CutOff      int // of these, while the output buffer was limited
	Sharing     int // workers whose commands share pipelines
	Shared      history.Shared
	Caching     int // workers with a replay cache
	Cached      int // calls that it answered

	limited bool // it is now
	Audited int
}

func newTally() *Tally {
	return &Tally{Faults: make(map[string]int), Violations: make(map[string]int), Reasons: make(map[string]int)}
}

func tally(events []history.Event) map[string]*Tally {
	all := make(map[string]*Tally)
	keys := make(map[string]bool)
	for _, e := range events {
		if e.Topology == "" {
			continue
		}
		t := all[e.Topology]
		if t == nil {
			t = newTally()
			all[e.Topology] = t
		}
		if e.Kind == history.Invoke && !keys[e.Topology+" "+e.Key] {
			keys[e.Topology+" "+e.Key] = true
			t.Keys++
		}
		t.count(e)
	}
	for _, t := range all {
		t.Unknown = t.Executions - t.Recorded - t.Released
	}
	return all
}

func (t *Tally) count(e history.Event) {
	switch e.Kind {
	case history.Start:
		t.Workers++
		if e.Shares {
			t.Sharing++
		}
		if e.Caches {
			t.Caching++
		}
	case history.Pipelined:
		t.Shared.Claims += e.Shared.Claims
		t.Shared.Commits += e.Shared.Commits
		t.Shared.Unanswered += e.Shared.Unanswered
	case history.FaultOn:
		t.Faults[e.Fault]++
		t.limited = t.limited || e.Fault == OutputBuffer
	case history.Stall:
		t.Stalls++
	case history.LossOn:
		t.Losses++
	case history.Unheard:
		t.Unheard++
		if t.limited {
			t.CutOff++
		}
	case history.FaultOff:
		t.limited = t.limited && e.Fault != OutputBuffer
	case history.Invoke:
		t.called(e)
	case history.Begin:
		t.Executions++
	case history.Recorded:
		t.Recorded++
	case history.Released:
		t.Released++
	case history.TookOver:
		t.TakeOvers++
	case history.Audited:
		t.Audited += e.Count
	case history.Return:
		t.returned(e)
	}
}

func (t *Tally) called(e history.Event) {
	switch {
	case e.Op == history.Forget:
		t.Forgets++
	case e.Op == history.Resolve:
		t.Resolves++
	case e.Ask != nil && e.Ask.Many > 0:
		t.Many++
		t.Calls++
	default:
		t.Calls++
	}
}

func (t *Tally) returned(e history.Event) {
	if e.Cached {
		t.Cached++
	}
	switch e.Source {
	case "replayed":
		t.Replays++
	case "waited":
		t.Waited++
	case "joined":
		t.Joined++
	}
	switch e.Result {
	case history.AlreadyRecorded:
		t.Already++
	case history.Interrupted:
		t.Refusals++
	case history.Unavailable:
		t.Unavailable++
		t.Reasons[reason(e.Text)]++
	}
}

// reasons are what Redis, the client or the library say in an ErrUnavailable.
var reasons = []struct{ text, name string }{
	{"OOM ", "OOM"},
	{"LOADING ", "LOADING"},
	{"READONLY ", "READONLY"},
	{"CLUSTERDOWN ", "CLUSTERDOWN"},
	{"MOVED ", "MOVED, again and again"},
	{"too few replicas", "too few replicas"},
	{"longer than the lease", "slower than the lease"},
	{"refused", "connection refused"},
	{"timeout", "timeout"},
	{"deadline exceeded", "timeout"},
	{"EOF", "connection lost"},
	{"closed", "connection lost"},
	{"reset", "connection lost"},
	{"broken pipe", "connection lost"},
}

func reason(text string) string {
	for _, r := range reasons {
		if strings.Contains(text, r.text) {
			return r.name
		}
	}
	return "others"
}

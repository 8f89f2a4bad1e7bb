package check

import (
	"slices"
	"strings"
	"time"

	"github.com/idempotent-go/idempotent/internal/slot"
	"github.com/idempotent-go/idempotent/verify/soak/history"
)

// An aFault is a fault of a topology, or of what is between it and the workers of one post.
type aFault struct {
	span
	topology, post, name string
}

func (f *aFault) concerns(p *process) bool {
	return f.topology == p.topology && (f.post == "" || strings.HasPrefix(p.name, f.post+"."))
}

// A loss is a time in which there may have been two masters, one of which lost what it took. If acked,
// claims, renewals and commits counted only when all replicas had them, so those are not lost.
type loss struct {
	span
	name  string
	slots []history.Range
	acked bool
}

// fault notes faults and losses. Those of one name in one topology do not overlap.
func (x *index) fault(e history.Event) {
	switch e.Kind {
	case history.FaultOn:
		x.faults = append(x.faults, &aFault{span{e.At, never}, e.Topology, e.Proc, e.Fault})
	case history.FaultOff:
		for _, f := range x.faults {
			if f.to == never && f.topology == e.Topology && f.post == e.Proc && f.name == e.Fault {
				f.to = e.At
			}
		}
	case history.LossOn:
		x.losses[e.Topology] = append(x.losses[e.Topology], &loss{span{e.At - e.Took, never}, e.Text, e.Slots, e.Acked})
	case history.LossOff:
		for _, l := range x.losses[e.Topology] {
			if l.to == never && l.name == e.Text {
				l.to = e.At
			}
		}
	}
}

// faulty reports whether something was wrong in s, or had been shortly before, that concerns the
// process.
func (x *index) faulty(p *process, s span) bool {
	s.from -= afterFault
	return slices.ContainsFunc(x.faults, func(f *aFault) bool { return f.concerns(p) && f.meets(s) })
}

// calmSince is since when, before t, nothing is wrong that concerns the process; t if something is.
func (x *index) calmSince(p *process, t time.Duration) (since time.Duration) {
	for _, f := range x.faults {
		if f.concerns(p) && f.from <= t {
			since = max(since, min(f.to, t)+afterFault)
		}
	}
	return since
}

// mayLose reports whether a write to the key that the library was told of in s may be lost.
func (x *index) mayLose(k *key, s span) bool {
	return slices.ContainsFunc(x.losses[k.topology], func(l *loss) bool {
		return !l.acked && l.meets(s) && l.has(x.plan.Prefix+k.name)
	})
}

// unsteady reports whether there may have been two masters for the key in s: what was written then
// and not acknowledged may be lost, and what was read then may have been the past.
func (x *index) unsteady(k *key, s span) bool {
	return slices.ContainsFunc(x.losses[k.topology], func(l *loss) bool {
		return l.meets(s) && l.has(x.plan.Prefix+k.name)
	})
}

// pastSeen reports whether a call may have seen the past: there may have been two masters, and a replay cache
// keeps what it heard last for a while.
func (x *index) pastSeen(call *request) bool {
	s := call.span()
	if call.proc.caches {
		s.from -= stale
	}
	return x.unsteady(call.key, s)
}

func (l *loss) has(name string) bool {
	slot := slot.Of(name)
	return len(l.slots) == 0 || slices.ContainsFunc(l.slots, func(r history.Range) bool { return r.From <= slot && slot <= r.To })
}

// claimLost reports whether the claim of e may be lost, leaseLost a renewal or the claim, commitLost
// its outcome.
func (x *index) claimLost(e *execution) bool {
	return x.mayLose(e.call.key, span{e.call.invoked, e.begin})
}

func (x *index) leaseLost(e *execution) bool {
	return x.mayLose(e.call.key, span{e.call.invoked, e.over()})
}

func (x *index) commitLost(e *execution) bool {
	written := span{e.end, e.over()}
	return x.mayLose(e.call.key, written) || e.fate != history.Recorded && x.unsteady(e.call.key, written)
}

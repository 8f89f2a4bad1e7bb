package webhook

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A Verdict says what happens to an event, given the state its object is in.
type Verdict uint8

// Verdicts.
const (
	// Apply: the event is next. Its handler runs.
	Apply Verdict = iota + 1
	// Behind: the object is past the event, which is settled as stale.
	Behind
	// Ahead: an event before it has not come yet. It is parked.
	Ahead
	// Conflict: neither state leads to the other. The event is a dead letter.
	Conflict
)

// String returns the verdict's name in lower case.
func (v Verdict) String() string {
	switch v {
	case Apply:
		return "apply"
	case Behind:
		return "behind"
	case Ahead:
		return "ahead"
	case Conflict:
		return "conflict"
	}
	return fmt.Sprintf("Verdict(%d)", uint8(v))
}

// Transitions are the states that an object goes through. Events that lead to these states may come in any order: an
// event is applied, stale or parked depending on whether its state can be reached from the object's state or the other
// way round. If a state can be reached from itself, this does not tell ahead from behind: then Ordered needs
// OrderOptions.Version.
type Transitions[S comparable] struct {
	// Initial is the state of an object of which no event was applied.
	Initial S
	// Next holds the states that directly follow a state.
	Next map[S][]S
}

// reaches reports whether one or more transitions lead from a state to another.
func (t Transitions[S]) reaches(from, to S) bool {
	seen := map[S]bool{}
	for todo := []S{from}; len(todo) > 0; todo = todo[1:] {
		for _, s := range t.Next[todo[0]] {
			if s == to {
				return true
			}
			if !seen[s] {
				seen[s] = true
				todo = append(todo, s)
			}
		}
	}
	return false
}

// Cyclic reports whether a state can be reached from itself.
func (t Transitions[S]) Cyclic() bool {
	for s := range t.Next {
		if t.reaches(s, s) {
			return true
		}
	}
	return false
}

// Decide returns the verdict on an event that leads to a state, for an object in state now. The transitions must not be
// cyclic.
func (t Transitions[S]) Decide(now, to S) Verdict {
	switch {
	case slices.Contains(t.Next[now], to):
		return Apply
	case now == to, t.reaches(to, now):
		return Behind
	case t.reaches(now, to):
		return Ahead
	}
	return Conflict
}

// Missing returns the states that may directly follow now on the way to another state, in the order of Next.
func (t Transitions[S]) Missing(now, to S) (missing []S) {
	for _, s := range t.Next[now] {
		if s != to && t.reaches(s, to) {
			missing = append(missing, s)
		}
	}
	return missing
}

// DefaultParkFor is how long a parked event waits for the one before it.
const DefaultParkFor = time.Hour

// OrderOptions are details of Ordered. The zero value is usable, unless the transitions are cyclic.
type OrderOptions struct {
	// Name separates orders: an object has one state in each. Handlers of one source that order the same objects by the
	// same transitions share a name; the default is "order". The state survives a restart, so keep the name.
	Name string
	// ParkFor is how long an event waits for the one before it, 1 h by default. After that it becomes a dead letter,
	// which says what it waited for. It must be shorter than the retention of events.
	ParkFor time.Duration
	// Version returns the event's place among all events of its object, by the provider's numbering. It is required if
	// the transitions are cyclic: an event is behind if its version is not above that of the last one applied.
	Version func(e Event) int64
	// Refetch, if set, runs instead of the handler when ParkFor has passed: it fetches the object's state from the
	// provider and brings the own state up to date. If it succeeds, the object is in the state that the event leads to.
	Refetch Handler
}

// Ordered applies the events of an object in the order of transitions. to returns the state that an event leads to;
// false means that the event leads to none, and is handled without an order. Ordered events must name their objects.
// The handler of a redriven event that was applied before runs again, whatever state the object is in.
func Ordered[S comparable](t Transitions[S], to func(e Event) (S, bool), o OrderOptions) HandleOption {
	return func(r *route) error {
		o.Name = cmp.Or(o.Name, "order")
		o.ParkFor = cmp.Or(o.ParkFor, DefaultParkFor)
		switch {
		case to == nil:
			return fmt.Errorf("webhook: Ordered: to is nil; allowed: a function")
		case len(t.Next) == 0:
			return fmt.Errorf("webhook: Ordered: there are no transitions; allowed: 1 or more")
		case t.Cyclic() && o.Version == nil:
			return fmt.Errorf("webhook: Ordered: a state can be reached from itself, and Version is nil; allowed: transitions without a cycle, or a Version")
		case o.ParkFor < time.Millisecond:
			return fmt.Errorf("webhook: Ordered: ParkFor is %v; allowed: 1 ms or more", o.ParkFor)
		}
		states, err := t.names()
		if err != nil {
			return err
		}
		r.order = &order{name: o.Name, parkFor: o.ParkFor, refetch: o.Refetch, graph: t.String()}
		r.order.decide = func(e Event, position string) decision { return decide(t, states, to, o.Version, e, position) }
		return nil
	}
}

// names returns the states by their names, as fmt prints them. A stored state is such a name.
func (t Transitions[S]) names() (map[string]S, error) {
	states := map[string]S{}
	add := func(s S) error {
		name := fmt.Sprint(s)
		if other, ok := states[name]; ok && other != s {
			return fmt.Errorf("webhook: Ordered: two states are printed as %q; allowed: each its own name", name)
		}
		states[name] = s
		return nil
	}
	if err := add(t.Initial); err != nil {
		return nil, err
	}
	for from, next := range t.Next {
		for _, s := range append([]S{from}, next...) {
			if err := add(s); err != nil {
				return nil, err
			}
		}
	}
	return states, nil
}

// String lists the transitions, sorted.
func (t Transitions[S]) String() string {
	var edges []string
	for from, next := range t.Next {
		for _, to := range next {
			edges = append(edges, fmt.Sprintf("%v->%v", from, to))
		}
	}
	slices.Sort(edges)
	return fmt.Sprintf("%v: %s", t.Initial, strings.Join(edges, " "))
}

// An order is Ordered without its type.
type order struct {
	name    string
	parkFor time.Duration
	refetch Handler
	graph   string
	decide  func(e Event, position string) decision
}

// A decision is the verdict on an event, and where it moves its object.
type decision struct {
	verdict  Verdict
	unset    bool   // the event leads to no state: apply it without a move
	position string // after the event
	waitsFor string // if ahead
	reason   string // if behind or a conflict
}

// decide decides on an event for an object at a stored position: "version:state", or "" if none was applied.
func decide[S comparable](t Transitions[S], states map[string]S, to func(Event) (S, bool), version func(Event) int64, e Event, position string) decision {
	target, ok := to(e)
	if !ok {
		return decision{verdict: Apply, unset: true}
	}
	if known, ok := states[fmt.Sprint(target)]; !ok || known != target {
		return decision{verdict: Conflict, reason: fmt.Sprintf("the transitions have no state %q, to which the event leads", fmt.Sprint(target))}
	}
	now, last, err := parsePosition(t, states, position)
	if err != nil {
		return decision{verdict: Conflict, reason: err.Error()}
	}
	var v int64
	var verdict Verdict
	if version != nil {
		if v = version(e); v <= last && position != "" {
			return decision{verdict: Behind, reason: fmt.Sprintf("version %d, the object is at %d", v, last)}
		}
		verdict = t.decideNewer(now, target)
	} else {
		verdict = t.Decide(now, target)
	}
	d := decision{verdict: verdict, position: strconv.FormatInt(v, 10) + ":" + fmt.Sprint(target)}
	switch verdict {
	case Behind:
		d.reason = fmt.Sprintf("the event leads to %v, the object is in %v", target, now)
	case Ahead:
		var names []string
		for _, s := range t.Missing(now, target) {
			names = append(names, fmt.Sprint(s))
		}
		d.waitsFor = strings.Join(names, " or ")
	case Conflict:
		d.reason = fmt.Sprintf("no transitions lead from %v to %v or back", now, target)
	}
	return d
}

// decideNewer is Decide for an event that is known to be newer than the object's state: it cannot be behind.
func (t Transitions[S]) decideNewer(now, to S) Verdict {
	switch {
	case slices.Contains(t.Next[now], to):
		return Apply
	case t.reaches(now, to):
		return Ahead
	}
	return Conflict
}

func parsePosition[S comparable](t Transitions[S], states map[string]S, position string) (now S, version int64, err error) {
	if position == "" {
		return t.Initial, 0, nil
	}
	number, name, _ := strings.Cut(position, ":")
	version, _ = strconv.ParseInt(number, 10, 64)
	now, ok := states[name]
	if !ok {
		return now, 0, fmt.Errorf("the transitions have no state %q, in which the object is", name)
	}
	return now, version, nil
}

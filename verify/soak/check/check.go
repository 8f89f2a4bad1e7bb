// Package check decides, from its history alone, whether a campaign kept what the library
// promises.
//
// Times are those of the provider. An execution is known to have held its lease at a time when
// fn saw, after the provider had noted that time and told it so, that its context had not ended.
// That needs no two clocks to agree. The rest is arithmetic with the lease: a lease that was
// renewed k times lasts until at least claim + lease + k/3 leases, because it is renewed a third of
// it after the last time, and Redis counts from later than the owner does.
package check

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/idempotent-go/idempotent/verify/soak/history"
)

const (
	// jitter is how late a process may be that is on its way but has to wait for the processor.
	// Longer is a stall, and workers report that.
	jitter = 100 * time.Millisecond
	// slack is how much later than its bound a call may come back on a busy machine: several goroutines
	// have to be scheduled, and the provider has to be told twice.
	slack = 400 * time.Millisecond
	// afterFault is how long clients may need to find a server again.
	afterFault = 3 * time.Second
	// stale is for how long a replay cache may go on when it hears nothing any more.
	stale = 3 * time.Second
	// silence is after what time without an answer a command may be sent again; clients wait a little longer.
	silence = 250 * time.Millisecond
	// late is how long after it was sent a command may arrive that was held back, and sent again
	// meanwhile.
	late = 5 * time.Second
	// rounding is what Redis's milliseconds can take away from a lease.
	rounding = 2 * time.Millisecond
)

// A Violation is a broken promise.
type Violation struct {
	Rule     string
	Topology string
	Key      string
	Text     string
}

func (v Violation) String() string {
	if v.Key == "" {
		return fmt.Sprintf("%s: %s: %s", v.Rule, v.Topology, v.Text)
	}
	return fmt.Sprintf("%s: %s, key %s: %s", v.Rule, v.Topology, v.Key, v.Text)
}

// A Report is what a history comes to.
type Report struct {
	Plan       history.Plan
	Violations []Violation
	Tallies    map[string]*Tally // by topology
}

// Rules are the names of the rules, in the order in which a report lists them.
var Rules = []string{
	ruleOverlap, ruleEarly, ruleAgain, ruleRefused, ruleAttempt, ruleOutcome, ruleError, ruleRegister, ruleWait, ruleNothing, ruleExpiry, ruleLeft, ruleHistory,
}

const (
	ruleOverlap  = "two executions inside valid leases"
	ruleEarly    = "taken over before the lease was over"
	ruleAgain    = "run again without a reason"
	ruleRefused  = "run again although it is to be refused"
	ruleAttempt  = "not told of an earlier execution"
	ruleOutcome  = "not the one recorded outcome"
	ruleError    = "an error without its reason"
	ruleRegister = "not linearizable"
	ruleWait     = "waited longer than the bound"
	ruleNothing  = "waited for nothing"
	ruleExpiry   = "a key without an expiry"
	ruleLeft     = "something left over"
	ruleHistory  = "history incomplete"
)

// A checker collects what is wrong.
type checker struct {
	*index
	found []Violation
	lives map[string]int // by topology: how often fn ran again because the TTL was over
}

func (c *checker) violated(rule string, k *key, format string, args ...any) {
	c.found = append(c.found, Violation{rule, k.topology, k.name, fmt.Sprintf(format, args...)})
}

// violatedIn is for what is about no key.
func (c *checker) violatedIn(rule, topology, format string, args ...any) {
	c.found = append(c.found, Violation{rule, topology, "", fmt.Sprintf(format, args...)})
}

// History checks a history.
func History(events []history.Event) *Report {
	c := &checker{index: newIndex(events), lives: make(map[string]int)}
	for _, text := range c.broken {
		c.violatedIn(ruleHistory, "", "%s", text)
	}
	for _, k := range c.order {
		c.executions(k)
		c.outcomes(k)
		c.resolved(k)
		for _, call := range slices.Concat(k.calls, k.forgets, k.resolves) {
			c.returned(call)
		}
		c.register(k)
	}
	c.leftovers(events)
	tallies := tally(events)
	for name, t := range tallies {
		t.Lives = c.lives[name]
	}
	c.unused(tallies)
	slices.SortStableFunc(c.found, func(a, b Violation) int {
		return cmp.Compare(slices.Index(Rules, a.Rule), slices.Index(Rules, b.Rule))
	})
	r := &Report{Plan: c.plan, Violations: c.found, Tallies: tallies}
	for _, v := range c.found {
		if r.Tallies[v.Topology] == nil {
			r.Tallies[v.Topology] = newTally()
		}
		r.Tallies[v.Topology].Violations[v.Rule]++
	}
	return r
}

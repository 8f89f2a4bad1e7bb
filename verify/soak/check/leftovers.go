package check

import (
	"maps"
	"slices"
	"strings"

	"github.com/idempotent-go/idempotent/verify/soak/history"
)

// NoExpiry begins the text of a Leftover that is a key without an expiry.
const NoExpiry = "no expiry: "

// unused: where commands were to share pipelines, some did, and where there were replay caches, they
// answered.
func (c *checker) unused(tallies map[string]*Tally) {
	for _, name := range slices.Sorted(maps.Keys(tallies)) {
		if t := tallies[name]; t.Sharing > 0 && t.Shared.Claims+t.Shared.Commits == 0 {
			c.violatedIn(ruleHistory, name, "%d workers had few connections, and no claim or commit shared a pipeline", t.Sharing)
		}
		if t := tallies[name]; t.Caching > 0 && t.Cached == 0 {
			c.violatedIn(ruleHistory, name, "%d workers had a replay cache, and none was of use", t.Caching)
		}
	}
}

// leftovers: nothing is left of the workers, and the history has all of them.
func (c *checker) leftovers(events []history.Event) {
	audited := make(map[string]bool)
	for _, e := range events {
		switch e.Kind {
		case history.Leftover:
			rule, text := ruleLeft, e.Text
			if after, ok := strings.CutPrefix(text, NoExpiry); ok {
				rule, text = ruleExpiry, after
			}
			c.violatedIn(rule, e.Topology, "%s", strings.TrimPrefix(e.Proc+": "+text, ": "))
		case history.Audited:
			audited[e.Topology] = true
		case history.FaultFail:
			c.violatedIn(ruleHistory, e.Topology, "%s could not be injected or healed: %s", e.Fault, e.Text)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.procs)) {
		p := c.procs[name]
		switch {
		case p.exited == never:
			c.violatedIn(ruleHistory, p.topology, "worker %s never ended", name)
		case p.killed == never && !p.clean:
			c.violatedIn(ruleHistory, p.topology, "worker %s ended without being killed, and without having cleaned up", name)
		}
		if !audited[p.topology] {
			c.violatedIn(ruleHistory, p.topology, "it was not audited in the end")
			audited[p.topology] = true
		}
	}
	for _, k := range c.order {
		for _, e := range k.runs {
			if (e.end == never || e.fate == "") && e.call.proc.killed == never {
				c.violated(ruleHistory, k, "%s has no end, and its process was not killed", e)
			}
		}
	}
}

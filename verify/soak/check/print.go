package check

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"
)

// shown is how many violations of one rule are printed.
const shown = 10

// Print writes the report as a table, and reports whether there is no violation.
func (r *Report) Print(out io.Writer) (ok bool) {
	names := slices.Sorted(maps.Keys(r.Tallies))
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	row := func(name string, value func(*Tally) int) {
		sum := 0
		fmt.Fprintf(t, "%s\t", name)
		for _, topology := range names {
			n := value(r.Tallies[topology])
			sum += n
			fmt.Fprintf(t, "%d\t", n)
		}
		fmt.Fprintf(t, "%d\t\n", sum)
	}
	head := func(title string) {
		fmt.Fprintf(t, "\t\n%s\t", title)
		for _, topology := range names {
			fmt.Fprintf(t, "%s\t", topology)
		}
		fmt.Fprint(t, "all\t\n")
	}
	breakdown := func(title string, of func(*Tally) map[string]int) {
		head(title)
		kinds := make(map[string]bool)
		for _, tally := range r.Tallies {
			for kind := range of(tally) {
				kinds[kind] = true
			}
		}
		for _, kind := range slices.Sorted(maps.Keys(kinds)) {
			row(kind, func(t *Tally) int { return of(t)[kind] })
		}
	}
	breakdown("faults", func(t *Tally) map[string]int { return t.Faults })
	head("what happened")
	for _, c := range counts {
		row(c.name, c.of)
	}
	breakdown("ErrUnavailable because of", func(t *Tally) map[string]int { return t.Reasons })
	head("violations")
	for _, rule := range Rules {
		row(rule, func(t *Tally) int { return t.Violations[rule] })
	}
	_ = t.Flush()
	r.list(out)
	return len(r.Violations) == 0
}

var counts = []struct {
	name string
	of   func(*Tally) int
}{
	{"worker processes", func(t *Tally) int { return t.Workers }},
	{"  with few connections", func(t *Tally) int { return t.Sharing }},
	{"  with a replay cache", func(t *Tally) int { return t.Caching }},
	{"claims that shared pipelines", func(t *Tally) int { return t.Shared.Claims }},
	{"commits that shared pipelines", func(t *Tally) int { return t.Shared.Commits }},
	{"  unanswered, of both", func(t *Tally) int { return t.Shared.Unanswered }},
	{"keys", func(t *Tally) int { return t.Keys }},
	{"calls", func(t *Tally) int { return t.Calls }},
	{"  in RunMany", func(t *Tally) int { return t.Many }},
	{"keys forgotten", func(t *Tally) int { return t.Forgets }},
	{"keys resolved", func(t *Tally) int { return t.Resolves }},
	{"  with an outcome already", func(t *Tally) int { return t.Already }},
	{"executions", func(t *Tally) int { return t.Executions }},
	{"  recorded", func(t *Tally) int { return t.Recorded }},
	{"  ignored", func(t *Tally) int { return t.Released }},
	{"  without an outcome", func(t *Tally) int { return t.Unknown }},
	{"  after the end of a TTL", func(t *Tally) int { return t.Lives }},
	{"take-overs", func(t *Tally) int { return t.TakeOvers }},
	{"replays", func(t *Tally) int { return t.Replays }},
	{"  from a replay cache", func(t *Tally) int { return t.Cached }},
	{"waited for another process", func(t *Tally) int { return t.Waited }},
	{"joined in the process", func(t *Tally) int { return t.Joined }},
	{"ErrInterrupted", func(t *Tally) int { return t.Refusals }},
	{"ErrUnavailable", func(t *Tally) int { return t.Unavailable }},
	{"subscriptions lost", func(t *Tally) int { return t.Unheard }},
	{"  while output buffers were small", func(t *Tally) int { return t.CutOff }},
	{"workers starved", func(t *Tally) int { return t.Stalls }},
	{"times a loss was possible", func(t *Tally) int { return t.Losses }},
	{"keys audited", func(t *Tally) int { return t.Audited }},
}

// list writes what is wrong, the first few of each rule.
func (r *Report) list(out io.Writer) {
	if len(r.Violations) == 0 {
		fmt.Fprintln(out, "\nno violation")
		return
	}
	fmt.Fprintf(out, "\n%d violations\n", len(r.Violations))
	seen := make(map[string]int)
	for _, v := range r.Violations {
		if seen[v.Rule]++; seen[v.Rule] <= shown {
			fmt.Fprintln(out, v)
		}
	}
}

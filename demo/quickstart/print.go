package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/idempotent-go/idempotent/demo/internal/redisproc"
	"github.com/idempotent-go/idempotent/demo/internal/stage"
)

func (d *demo) introduce(redis *redisproc.Server) {
	d.out.Print(`idempotent: one execution for each key, whoever asks and however often

   Redis     %s
   provider  %s, takes %s for a charge; asked twice, it charges twice
   workers   %d processes: pids %s

   A caller of Run that gets a result has executed fn, joined a caller in its own process,
   waited for another process, or had the result replayed from Redis.
   Redis commands are counted on the workers' connections. A script is one command; what sets
   up a connection or tests it (HELLO, CLIENT, PING) is left out.
`, redis.Description, d.provider.url, span(providerTakes), len(d.fleet.Fleet), d.fleet.PIDs())
}

const row = "   %-50s %-17s %-17s %s\n"

// conclude prints what has become of it all, and returns the exit status.
func conclude(out *stage.Narrator, scenes []*scene, err error) int {
	var t stage.Tally
	for _, s := range scenes {
		t.Add(s.checks)
	}
	if t.Checks > 0 {
		summarize(out, scenes)
	}
	return out.Conclude(t, err)
}

const line = "   %-36s %7s  %6s  %9s  %8s  %8s  %s\n"

func summarize(out *stage.Narrator, scenes []*scene) {
	out.Print("\nSummary\n\n")
	out.Print(line, "", "", "fn ran", "provider", "Redis", "fn's end", "")
	out.Print(line, "", "", "in", "asked and", "commands", "to last", "checks")
	out.Print(line, "", "callers", "worker", "charged", "sent", "return", "that hold")
	for _, s := range scenes {
		if len(s.checks) == 0 {
			continue
		}
		out.Print(line,
			fmt.Sprintf("%d. %s", s.number, s.title),
			fmt.Sprint(len(s.callers)+len(s.otherNow)),
			s.owners(),
			fmt.Sprintf("%d / %d", s.books.Requests, len(s.books.Charges)),
			fmt.Sprint(total(s.commands)),
			span(s.lag()),
			fmt.Sprintf("%d of %d", len(s.checks)-len(stage.Failing(s.checks)), len(s.checks)))
	}
}

// describe says what callers got and how, in one line for each thing that they got.
func describe(outcomes []outcome) (lines []string) {
	groups := make(map[string]map[string]int)
	for _, o := range outcomes {
		what := o.what()
		if groups[what] == nil {
			groups[what] = make(map[string]int)
		}
		groups[what][o.how()]++
	}
	for _, what := range slices.Sorted(maps.Keys(groups)) {
		how := groups[what]
		lines = append(lines, fmt.Sprintf("%s got %s%s", callersOf(total(how)), what, manners(how)))
	}
	return lines
}

func callersOf(n int) string {
	if n == 1 {
		return "1 caller"
	}
	return fmt.Sprintf("%d callers", n)
}

// what says what a caller got.
func (o outcome) what() string {
	if o.Error != "" {
		return strconv.Quote(o.Error)
	}
	return o.Charge.ID
}

// how says where that came from, in one word; "" if it is no outcome of fn.
func (o outcome) how() string {
	if o.Source == 0 {
		return ""
	}
	return o.Source.String()
}

// manners lists the words of how, with numbers where there are several.
func manners(counts map[string]int) string {
	names := slices.Sorted(maps.Keys(counts))
	if len(names) == 1 && names[0] == "" {
		return ""
	}
	if len(names) > 1 {
		for i, name := range names {
			names[i] = fmt.Sprintf("%d %s", counts[name], name)
		}
	}
	return " (" + strings.Join(names, ", ") + ")"
}

// list prints counts, the largest first.
func list(counts map[string]int) string {
	names := slices.SortedFunc(maps.Keys(counts), func(a, b string) int {
		return cmp.Or(counts[b]-counts[a], strings.Compare(a, b))
	})
	for i, name := range names {
		names[i] = fmt.Sprintf("%d %s", counts[name], name)
	}
	return strings.Join(names, ", ")
}

// span prints a duration; a negative one stands for none.
func span(d time.Duration) string {
	switch {
	case d < 0:
		return "none"
	case d < time.Second:
		return fmt.Sprintf("%.3g ms", float64(d.Microseconds())/1000)
	}
	return fmt.Sprintf("%.3g s", d.Seconds())
}

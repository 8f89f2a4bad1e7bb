package main

import (
	"fmt"
	"math"
	"strings"
	"text/tabwriter"
	"time"
)

// A row is one line of the table of targets. Cells are text, as they are printed; a row without a
// floor or a ratio leaves them empty.
type row struct {
	measure   string
	floor     string
	floorCmds string // Redis commands for an operation of the floor
	this      string
	thisCmds  string
	ratio     string
	spread    string
	target    string
	met       verdict
}

// A verdict says whether a target is met.
type verdict int

const (
	noTarget verdict = iota
	met
	notMet
)

func (v verdict) String() string {
	return [...]string{noTarget: "–", met: "yes", notMet: "**no**"}[v]
}

func judge(ok bool) verdict {
	if ok {
		return met
	}
	return notMet
}

var targetHead = []string{"measure", "floor", "commands", "this", "commands", "ratio", "spread", "target", "met"}

func (r row) cells() []string {
	return []string{r.measure, r.floor, r.floorCmds, r.this, r.thisCmds, r.ratio, r.spread, r.target, r.met.String()}
}

// A table is a head and lines of as many cells.
type table struct {
	head  []string
	lines [][]string
}

func (t *table) add(cells ...string) { t.lines = append(t.lines, cells) }

// markdown is the table as a document has it.
func (t *table) markdown() string {
	var b strings.Builder
	line := func(cells []string) { fmt.Fprintf(&b, "| %s |\n", strings.Join(cells, " | ")) }
	line(t.head)
	fmt.Fprintf(&b, "|%s\n", strings.Repeat("---|", len(t.head)))
	for _, cells := range t.lines {
		line(cells)
	}
	return b.String()
}

// text is the table as a terminal has it.
func (t *table) text() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, cells := range append([][]string{t.head}, t.lines...) {
		plain := strings.NewReplacer("**", "", "`", "").Replace(strings.Join(cells, "\t"))
		fmt.Fprintln(w, plain)
	}
	w.Flush()
	return b.String()
}

// significant is x with as many digits as a reader can use.
func significant(x float64) string {
	switch {
	case math.IsNaN(x):
		return "–"
	case math.Abs(x) >= 100:
		return fmt.Sprintf("%.0f", x)
	case math.Abs(x) >= 10:
		return fmt.Sprintf("%.1f", x)
	}
	return fmt.Sprintf("%.2f", x)
}

// span is a time in nanoseconds with the unit that suits it.
func span(ns float64) string {
	units := []struct {
		name string
		size time.Duration
	}{{"s", time.Second}, {"ms", time.Millisecond}, {"µs", time.Microsecond}}
	for _, u := range units {
		if math.Abs(ns) >= float64(u.size) {
			return significant(ns/float64(u.size)) + " " + u.name
		}
	}
	return significant(ns) + " ns"
}

// rate is operations in a second, from nanoseconds for each.
func rate(ns float64) string {
	perSecond := 1e9 / ns
	if perSecond >= 1e6 {
		return significant(perSecond/1e6) + " M/s"
	}
	return significant(perSecond/1e3) + " k/s"
}

func bytesText(n float64) string {
	switch {
	case n >= 1<<20:
		return significant(n/(1<<20)) + " MiB"
	case n >= 10<<10:
		return significant(n/(1<<10)) + " KiB"
	}
	return fmt.Sprintf("%.0f B", n)
}

func grouped(n int) string {
	s := fmt.Sprint(n)
	for at := len(s) - 3; at > 0; at -= 3 {
		s = s[:at] + "," + s[at:]
	}
	return s
}

// quartiles are the middle half of what was seen.
func quartiles(xs []float64) string {
	return fmt.Sprintf("%.2f–%.2f", quantile(xs, 0.25), quantile(xs, 0.75))
}

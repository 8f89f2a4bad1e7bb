package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// A printer prints what happens. Any goroutine may use it.
type printer struct {
	mu    sync.Mutex
	w     io.Writer
	began time.Time // the scene
}

func newPrinter(w io.Writer) *printer { return &printer{w: w, began: time.Now()} }

// say prints what has just happened.
func (p *printer) say(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintf(p.w, "   %6.3f s  %s\n", time.Since(p.began).Seconds(), fmt.Sprintf(format, args...))
}

func (p *printer) print(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for line := range strings.Lines(fmt.Sprintf(format, args...)) {
		fmt.Fprintln(p.w, strings.TrimRight(line, " \n"))
	}
}

func (p *printer) introduce(redis, stripe string, f *fleet) {
	pids := make([]string, len(f.processes))
	for i, process := range f.processes {
		pids[i] = fmt.Sprint(process.cmd.Process.Pid)
	}
	p.print("idempotent: a customer is charged once\n\n")
	p.print("   Redis    %s\n", redis)
	p.print("   Stripe   %s\n", stripe)
	p.print("   workers  %d processes: pids %s\n", len(pids), strings.Join(pids, ", "))
}

// open begins a scene.
func (p *printer) open(number int, title, story string) {
	p.print("\n%d. %s\n\n", number, heading(title))
	for line := range strings.Lines(story) {
		p.print("   %s\n", strings.TrimSpace(line))
	}
	p.print("\n")
	p.mu.Lock()
	defer p.mu.Unlock()
	p.began = time.Now()
}

func (p *printer) skip(title string) {
	p.print("\nSkipped: %s. It needs the proxy in front of stripe-mock; unset STRIPE_API_KEY to see it.\n", title)
}

func heading(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

const row = "   %-53s %-17s %-16s %s\n"

// table prints the checks of a scene.
func (p *printer) table(checks []check) {
	p.print("\n"+row, "", "expected", "seen", "")
	for _, c := range checks {
		verdict := "ok"
		if !c.ok {
			verdict = "FAILED"
		}
		if seen := strings.Split(c.seen, ", "); len(seen) > 3 { // too many of them
			c.seen = strings.Join(seen[:3], ", ") + ", ..."
		}
		p.print(row, c.what, c.want, c.seen, verdict)
	}
}

// conclude prints what has become of it all, and returns the exit status.
func (p *printer) conclude(t tally, err error) int {
	switch {
	case err != nil:
		p.print("\nFAILED: %v\n", err)
	case t.failed > 0:
		p.print("\nFAILED: %d of %d checks do not hold.\n", t.failed, t.checks)
	case t.checks == 0:
		p.print("\nFAILED: nothing was checked.\n")
	case t.skipped > 0:
		p.print("\nAll %d checks hold; %d scenes were skipped.\n", t.checks, t.skipped)
		return 0
	default:
		p.print("\nAll %d checks hold.\n", t.checks)
		return 0
	}
	return 1
}

// summarize says what callers got and how, in one line for each thing that they got.
func summarize(outcomes []outcome) (lines []string) {
	counts := make(map[string]map[string]int)
	for _, o := range outcomes {
		what := o.what()
		if counts[what] == nil {
			counts[what] = make(map[string]int)
		}
		counts[what][o.how()]++
	}
	for _, what := range slices.Sorted(maps.Keys(counts)) {
		total := 0
		var how []string
		for _, name := range slices.Sorted(maps.Keys(counts[what])) {
			n := counts[what][name]
			total += n
			how = append(how, fmt.Sprintf("%d %s", n, name))
		}
		lines = append(lines, fmt.Sprintf("%d calls got %s (%s)", total, what, strings.Join(how, ", ")))
	}
	return lines
}

// what says what a caller got.
func (o outcome) what() string {
	switch {
	case o.Error == "":
		return o.Charge.Intent
	case o.Stripe != nil:
		return fmt.Sprintf("*stripe.Error %d %s, %s", o.Stripe.Status, o.Stripe.Code, o.Stripe.Request)
	case len(o.Error) > 60:
		return o.Error[:60] + "..."
	}
	return o.Error
}

// how says where that came from.
func (o outcome) how() string {
	if o.Source == 0 {
		return "without an outcome"
	}
	return o.Source.String()
}

package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/idempotent-go/idempotent/examples/internal/redisproc"
)

// settle is how long a line waits for an earlier one that comes later, from another process.
const settle = 20 * time.Millisecond

// A narrator prints what happens, in the order in which it did. Any goroutine may tell it.
type narrator struct {
	mu      sync.Mutex
	w       io.Writer
	began   time.Time // the scene
	pending []saying
}

// A saying is a line to be printed.
type saying struct {
	at   time.Time
	text string
}

func newNarrator(w io.Writer) *narrator { return &narrator{w: w, began: time.Now()} }

// say prints what has just happened.
func (n *narrator) say(format string, args ...any) { n.sayAt(time.Now(), format, args...) }

func (n *narrator) sayAt(at time.Time, format string, args ...any) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.pending = append(n.pending, saying{at, fmt.Sprintf(format, args...)})
	time.AfterFunc(settle, func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.flush(time.Now().Add(-settle))
	})
}

// flush prints what happened until then. The caller holds the mutex.
func (n *narrator) flush(until time.Time) {
	slices.SortStableFunc(n.pending, func(a, b saying) int { return a.at.Compare(b.at) })
	for len(n.pending) > 0 && !n.pending[0].at.After(until) {
		s := n.pending[0]
		n.pending = n.pending[1:]
		fmt.Fprintf(n.w, "   %6.3f s  %s\n", s.at.Sub(n.began).Seconds(), s.text)
	}
}

// print prints after all that was said.
func (n *narrator) print(format string, args ...any) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.flush(time.Now())
	var text strings.Builder
	for line := range strings.Lines(fmt.Sprintf(format, args...)) {
		text.WriteString(strings.TrimRight(line, " \n"))
		text.WriteByte('\n')
	}
	_, _ = io.WriteString(n.w, text.String())
}

func (n *narrator) introduce(redis *redisproc.Server, p *provider, f *fleet) {
	var pids []string
	for _, p := range f.processes {
		pids = append(pids, fmt.Sprint(p.pid()))
	}
	n.print(`idempotent: one execution for each key, whoever asks and however often

   Redis     %s
   provider  %s, takes %s for a charge; asked twice, it charges twice
   workers   %d processes: pids %s

   A caller of Run that gets a result has executed fn, joined a caller in its own process,
   waited for another process, or had the result replayed from Redis.
   Redis commands are counted on the workers' connections. A script is one command; what sets
   up a connection or tests it (HELLO, CLIENT, PING) is left out.
`, redis.Description, p.url, span(providerTakes), len(pids), strings.Join(pids, ", "))
}

// open begins a scene.
func (n *narrator) open(number int, title, story string) {
	n.print("\n%d. %s\n\n", number, heading(title))
	for line := range strings.Lines(story) {
		n.print("   %s\n", strings.TrimSpace(line))
	}
	n.print("\n")
}

// start starts the clock of the scene.
func (n *narrator) start() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.began = time.Now()
}

func heading(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

const row = "   %-50s %-17s %-17s %s\n"

// table prints the checks of a scene.
func (n *narrator) table(s *scene) {
	n.print("\n")
	n.print(row, "", "expected", "seen", "")
	for _, c := range s.checks {
		n.print(row, c.what, c.want, c.seen, verdict(c.ok))
	}
	n.print("\n   Redis commands: %s\n", list(s.commands))
}

func verdict(ok bool) string {
	if ok {
		return "ok"
	}
	return "FAILED"
}

// conclude prints what has become of it all, and returns the exit status.
func (n *narrator) conclude(scenes []*scene, err error) int {
	checks, failed := 0, 0
	for _, s := range scenes {
		checks += len(s.checks)
		failed += s.failed()
	}
	if checks > 0 {
		n.summary(scenes)
	}
	switch {
	case err != nil:
		n.print("\nFAILED: %v\n", err)
	case failed > 0:
		n.print("\nFAILED: %d of %d checks do not hold.\n", failed, checks)
	case checks == 0:
		n.print("\nFAILED: nothing was checked.\n")
	default:
		n.print("\nAll %d checks hold.\n", checks)
		return 0
	}
	return 1
}

const line = "   %-36s %7s  %6s  %9s  %8s  %8s  %s\n"

func (n *narrator) summary(scenes []*scene) {
	n.print("\nSummary\n\n")
	n.print(line, "", "", "fn ran", "provider", "Redis", "fn's end", "")
	n.print(line, "", "", "in", "asked and", "commands", "to last", "checks")
	n.print(line, "", "callers", "worker", "charged", "sent", "return", "that hold")
	for _, s := range scenes {
		if len(s.checks) == 0 {
			continue
		}
		n.print(line,
			fmt.Sprintf("%d. %s", s.number, s.title),
			fmt.Sprint(len(s.callers)+len(s.otherNow)),
			s.owners(),
			fmt.Sprintf("%d / %d", s.books.Requests, len(s.books.Charges)),
			fmt.Sprint(total(s.commands)),
			span(s.lag()),
			fmt.Sprintf("%d of %d", len(s.checks)-s.failed(), len(s.checks)))
	}
}

func (s *scene) failed() (n int) {
	for _, c := range s.checks {
		if !c.ok {
			n++
		}
	}
	return n
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

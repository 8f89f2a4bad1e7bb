package stage

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"
)

// settle is how long a line waits for an earlier one that comes later, from another process.
const settle = 20 * time.Millisecond

// A Narrator prints what happens, in the order in which it did. Any goroutine may tell it.
type Narrator struct {
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

// NewNarrator returns a Narrator that prints to w.
func NewNarrator(w io.Writer) *Narrator { return &Narrator{w: w, began: time.Now()} }

// Say prints what has just happened.
func (n *Narrator) Say(format string, args ...any) { n.SayAt(time.Now(), format, args...) }

// SayAt prints what happened then.
func (n *Narrator) SayAt(at time.Time, format string, args ...any) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.pending = append(n.pending, saying{at, strings.TrimSpace(fmt.Sprintf(format, args...))})
	time.AfterFunc(settle, func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.flush(time.Now().Add(-settle))
	})
}

// flush prints what happened until then. The caller holds the mutex.
func (n *Narrator) flush(until time.Time) {
	slices.SortStableFunc(n.pending, func(a, b saying) int { return a.at.Compare(b.at) })
	for len(n.pending) > 0 && !n.pending[0].at.After(until) {
		s := n.pending[0]
		n.pending = n.pending[1:]
		fmt.Fprintf(n.w, "   %6.3f s  %s\n", s.at.Sub(n.began).Seconds(), s.text)
	}
}

// Print prints after all that was said.
func (n *Narrator) Print(format string, args ...any) {
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

// Open begins a scene, and its clock.
func (n *Narrator) Open(number int, title, story string) {
	n.Print("\n%d. %s\n\n", number, strings.ToUpper(title[:1])+title[1:])
	for line := range strings.Lines(story) {
		n.Print("   %s\n", strings.TrimSpace(line))
	}
	n.Print("\n")
	n.Restart()
}

// Restart sets the clock of the scene to zero.
func (n *Narrator) Restart() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.began = time.Now()
}

// Table prints the checks of a scene. The row is a format with four columns: what was checked, what
// was expected, what was seen, and whether that will do.
func (n *Narrator) Table(row string, checks []Check) {
	n.Print("\n"+row, "", "expected", "seen", "")
	for _, c := range checks {
		verdict := "ok"
		if !c.OK {
			verdict = "FAILED"
		}
		n.Print(row, c.What, c.Want, c.Seen, verdict)
	}
}

// Conclude prints what has become of it all, and returns the exit status.
func (n *Narrator) Conclude(t Tally, err error) int {
	switch {
	case err != nil:
		n.Print("\nFAILED: %v\n", err)
	case t.Failed > 0:
		n.Print("\nFAILED: %d of %d checks do not hold.\n", t.Failed, t.Checks)
	case t.Checks == 0:
		n.Print("\nFAILED: nothing was checked.\n")
	case t.Skipped > 0:
		n.Print("\nAll %d checks hold; %d scenes were skipped.\n", t.Checks, t.Skipped)
		return 0
	default:
		n.Print("\nAll %d checks hold.\n", t.Checks)
		return 0
	}
	return 1
}

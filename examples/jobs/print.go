package main

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
		fmt.Fprintf(n.w, "   %6.3f s  %s\n", s.at.Sub(n.began).Seconds(), strings.TrimSpace(s.text))
	}
}

// print prints after all that was said.
func (n *narrator) print(format string, args ...any) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.flush(time.Now())
	var trimmed strings.Builder
	for text := range strings.Lines(fmt.Sprintf(format, args...)) {
		trimmed.WriteString(strings.TrimRight(text, " \n"))
		trimmed.WriteByte('\n')
	}
	_, _ = io.WriteString(n.w, trimmed.String())
}

// open begins a scene, and its clock.
func (n *narrator) open(number int, title, story string) {
	n.print("\n%d. %s\n\n", number, strings.ToUpper(title[:1])+title[1:])
	for text := range strings.Lines(story) {
		n.print("   %s\n", strings.TrimSpace(text))
	}
	n.print("\n")
	n.mu.Lock()
	defer n.mu.Unlock()
	n.began = time.Now()
}

const row = "   %-50s %-20s %-20s %s\n"

// table prints the checks of a scene.
func (n *narrator) table(s *scene) {
	n.print("\n")
	n.print(row, "", "expected", "seen", "")
	for _, c := range s.checks {
		verdict := "ok"
		if !c.ok {
			verdict = "FAILED"
		}
		n.print(row, c.what, c.want, c.seen, verdict)
	}
}

// conclude prints what has become of it all, and returns the exit status.
func (n *narrator) conclude(scenes []*scene, err error) int {
	checks, failed := 0, 0
	for _, s := range scenes {
		checks += len(s.checks)
		failed += s.failed()
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

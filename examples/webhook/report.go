package main

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// A check is one thing that must hold.
type check struct {
	what, want, seen string
	ok               bool
}

func exactly(what string, want, seen int) check {
	return check{what: what, want: fmt.Sprint(want), seen: fmt.Sprint(seen), ok: want == seen}
}

// between is for what a repeated request may raise.
func between(what string, low, high, seen int) check {
	c := exactly(what, low, seen)
	if high > low {
		c.want, c.ok = fmt.Sprintf("%d to %d", low, high), low <= seen && seen <= high
	}
	return c
}

func same(what, want, seen string) check {
	return check{what: what, want: want, seen: seen, ok: want == seen}
}

// A scene is one that was played.
type scene struct {
	title  string
	checks []check // none if it was not played to its end
}

func (s *scene) failed() (n int) {
	for _, c := range s.checks {
		if !c.ok {
			n++
		}
	}
	return n
}

// A report prints what happens. Only the goroutine that plays the scenes uses it.
type report struct {
	w     io.Writer
	began time.Time
}

func newReport(w io.Writer) *report { return &report{w: w, began: time.Now()} }

func (r *report) print(format string, args ...any) { fmt.Fprintf(r.w, format, args...) }

// open begins a scene.
func (r *report) open(number int, title, story string) {
	r.print("\n%d. %s\n\n", number, strings.ToUpper(title[:1])+title[1:])
	for line := range strings.Lines(story) {
		r.print("   %s\n", strings.TrimSpace(line))
	}
	r.print("\n")
	r.began = time.Now()
}

// say prints what has just happened.
func (r *report) say(format string, args ...any) {
	r.print("   %6.3f s  %s\n", time.Since(r.began).Seconds(), fmt.Sprintf(format, args...))
}

func (r *report) table(s *scene) {
	r.row("", "expected", "seen", "")
	for _, c := range s.checks {
		verdict := "ok"
		if !c.ok {
			verdict = "FAILED"
		}
		r.row(c.what, c.want, c.seen, verdict)
	}
}

func (r *report) row(cells ...any) {
	r.print("%s\n", strings.TrimRight(fmt.Sprintf("   %-54s %-16s %-16s %s", cells...), " "))
}

// conclude prints what has become of it all, and returns the exit status.
func (r *report) conclude(scenes []*scene, err error) int {
	checks, failed := 0, 0
	for _, s := range scenes {
		checks += len(s.checks)
		failed += s.failed()
	}
	switch {
	case err != nil:
		r.print("\nFAILED: %v\n", err)
	case failed > 0:
		r.print("\nFAILED: %d of %d checks do not hold.\n", failed, checks)
	case checks == 0:
		r.print("\nFAILED: nothing was checked.\n")
	default:
		r.print("\nAll %d checks hold.\n", checks)
		return 0
	}
	return 1
}

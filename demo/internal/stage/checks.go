package stage

import (
	"fmt"
	"strings"
)

// A Check is one thing that must hold.
type Check struct {
	What, Want, Seen string
	OK               bool
}

// Exactly compares what was expected with what was seen. The notes go with the latter.
func Exactly[T comparable](what string, want, seen T, notes ...string) Check {
	c := Check{What: what, Want: fmt.Sprint(want), Seen: fmt.Sprint(seen), OK: want == seen}
	if note := strings.Join(notes, ", "); note != "" {
		c.Seen += " (" + note + ")"
	}
	return c
}

// Between wants a number that is neither less than low nor more than high.
func Between(what string, low, high, seen int) Check {
	c := Exactly(what, low, seen)
	if high > low {
		c.Want, c.OK = fmt.Sprintf("%d to %d", low, high), low <= seen && seen <= high
	}
	return c
}

// AtLeast wants a number that is not less than want.
func AtLeast(what string, want, seen int) Check {
	c := Exactly(what, want, seen)
	c.Want, c.OK = fmt.Sprintf("%d or more", want), seen >= want
	return c
}

// Failing returns what does not hold.
func Failing(checks []Check) (what []string) {
	for _, c := range checks {
		if !c.OK {
			what = append(what, c.What)
		}
	}
	return what
}

// Count returns how many fit, and the first one that does.
func Count[T any](all []T, fits func(T) bool) (n int, first T) {
	for _, v := range all {
		if fits(v) {
			if n == 0 {
				first = v
			}
			n++
		}
	}
	return n, first
}

// A Tally is how many checks were made, and how many scenes were skipped.
type Tally struct{ Checks, Failed, Skipped int }

// Add counts the checks of a scene.
func (t *Tally) Add(checks []Check) {
	t.Checks += len(checks)
	t.Failed += len(Failing(checks))
}

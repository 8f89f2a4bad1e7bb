package errtree

import (
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
)

// brokenError panics in every method when it is a nil pointer.
type brokenError struct{ inner error }

func (e *brokenError) Error() string        { return e.inner.Error() }
func (e *brokenError) Unwrap() error        { return e.inner }
func (e *brokenError) Is(target error) bool { return e.inner == target }

type loopError struct{}

func (loopError) Error() string   { return "loop" }
func (l loopError) Unwrap() error { return l }

var (
	errWanted = errors.New("wanted")
	errOther  = errors.New("other")
)

func TestContains(t *testing.T) {
	var broken *brokenError
	for name, test := range map[string]struct {
		err   error
		found bool
	}{
		"nil":                    {nil, false},
		"itself":                 {errWanted, true},
		"wrapped":                {fmt.Errorf("x: %w", errWanted), true},
		"another":                {fmt.Errorf("x: %w", errOther), false},
		"by its Is method":       {&brokenError{errWanted}, true},
		"behind a broken node":   {errors.Join(broken, errWanted), true},
		"in front of one":        {errors.Join(errWanted, broken), true},
		"below a broken node":    {fmt.Errorf("%w", broken), false},
		"in an error that loops": {errors.Join(loopError{}, errOther), false},
		"nil between others":     {fmt.Errorf("%w %w", error(nil), errWanted), true},
	} {
		assert.Equal(t, test.found, Contains(test.err, errOther, errWanted) && !Contains(test.err, errOther), name)
	}
}

func TestWalkStopsWhenToldTo(t *testing.T) {
	seen := 0
	Walk(errors.Join(errOther, errWanted, errOther), func(node error) bool {
		seen++
		return node != errWanted
	})
	assert.Equal(t, 3, seen, "the join, the first and the second")
}

func TestWalkIsBounded(t *testing.T) {
	seen := 0
	Walk(loopError{}, func(error) bool { seen++; return true })
	assert.Equal(t, maxNodes, seen)
}

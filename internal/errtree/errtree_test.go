package errtree_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/idempotent-go/idempotent/internal/errtree"
)

func nodes(err error) (texts []string) {
	errtree.Walk(err, func(node error) bool {
		texts = append(texts, node.Error())
		return true
	})
	return texts
}

func TestWalkVisitsInTheOrderOfErrorsIs(t *testing.T) {
	a, b, c := errors.New("a"), errors.New("b"), errors.New("c")
	assert.Equal(t, []string{"x: a\nb\nc", "a\nb\nc", "a", "b\nc", "b", "c"}, nodes(fmt.Errorf("x: %w", errors.Join(a, errors.Join(b, c)))))
	assert.Empty(t, nodes(nil))
}

func TestWalkStopsWhenToldTo(t *testing.T) {
	count := 0
	errtree.Walk(errors.Join(io.EOF, io.EOF, io.EOF), func(error) bool {
		count++
		return count < 2
	})
	assert.Equal(t, 2, count)
}

// loop wraps itself.
type loop struct{}

func (l loop) Error() string { return "loop" }
func (l loop) Unwrap() error { return l }

// wide wraps itself twice.
type wide struct{}

func (w wide) Error() string   { return "wide" }
func (w wide) Unwrap() []error { return []error{w, w} }

func TestWalkOfAnErrorThatWrapsItselfEnds(t *testing.T) {
	assert.Len(t, nodes(loop{}), 10_000)
	assert.Len(t, nodes(wide{}), 10_000)
}

type panics struct{}

func (panics) Error() string { return "panics" }
func (panics) Unwrap() error { panic("in Unwrap") }

func TestPanicOfAForeignMethodEndsTheWalk(t *testing.T) {
	assert.Equal(t, []string{"panics"}, nodes(panics{}))
}

// uncomparable would panic in ==.
type uncomparable struct{ parts []string }

func (uncomparable) Error() string { return "uncomparable" }

// isEOF says that it is io.EOF.
type isEOF struct{}

func (isEOF) Error() string        { return "isEOF" }
func (isEOF) Is(target error) bool { return target == io.EOF }

func TestMatchesLooksAtOneNode(t *testing.T) {
	for _, test := range []struct {
		node, target error
		want         bool
	}{
		{io.EOF, io.EOF, true},
		{io.EOF, io.ErrUnexpectedEOF, false},
		{isEOF{}, io.EOF, true},
		{isEOF{}, context.Canceled, false},
		{uncomparable{}, uncomparable{}, false},
		{fmt.Errorf("wrapped: %w", io.EOF), io.EOF, false},
	} {
		assert.Equal(t, test.want, errtree.Matches(test.node, test.target), "%v, %v", test.node, test.target)
	}
}

package idempotent

import (
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent/internal/record"
)

type pointerLeaf struct {
	N     int
	Inner error `json:"-"`
}

func (e *pointerLeaf) Error() string { return fmt.Sprintf("pointer %d", e.N) }
func (e *pointerLeaf) Unwrap() error { return e.Inner }

type valueLeaf struct {
	N     int
	Texts [2]string
}

func (e valueLeaf) Error() string { return fmt.Sprintf("value %d", e.N) }

type textLeaf string

func (e textLeaf) Error() string { return "text " + string(e) }

// strangerLeaf is not registered.
type strangerLeaf struct{ N int }

func (e strangerLeaf) Error() string { return fmt.Sprintf("stranger %d", e.N) }

// isLeaf matches a sentinel that it does not wrap.
type isLeaf struct{ target error }

func (e isLeaf) Error() string        { return "alias" }
func (e isLeaf) Is(target error) bool { return target == e.target }

var (
	fuzzSentinels = []error{errors.New("first"), errors.New("second"), errors.New("third")}
	errStranger   = errors.New("not registered")
)

// errorTree builds an error of the bytes: a stack machine, whose instructions push leaves and
// wrap or join what is on the stack.
func errorTree(program []byte) error {
	stack := []error{fuzzSentinels[0]}
	pop := func() error {
		top := stack[len(stack)-1]
		if len(stack) > 1 {
			stack = stack[:len(stack)-1]
		}
		return top
	}
	for pc, op := range program[:min(len(program), 64)] {
		n := int(op) / 16
		var next error
		switch op % 16 {
		case 0, 1:
			next = fuzzSentinels[n%len(fuzzSentinels)]
		case 2:
			next = errStranger
		case 3:
			next = &pointerLeaf{N: pc}
		case 4:
			next = valueLeaf{N: pc, Texts: [2]string{"", fmt.Sprint(n)}}
		case 5:
			next = textLeaf(fmt.Sprint(n))
		case 6:
			next = strangerLeaf{n}
		case 7:
			next = isLeaf{fuzzSentinels[n%len(fuzzSentinels)]}
		case 8:
			next = fmt.Errorf("%d: %w", pc, pop())
		case 9:
			next = fmt.Errorf("%w, after %w", pop(), pop())
		case 10:
			next = &pointerLeaf{N: -pc, Inner: pop()}
		case 11:
			next = Retryable(pop())
		case 12:
			next = fmt.Errorf("%v hides it", pop())
		case 13:
			next = &PanicError{Value: pop(), Stack: []byte("stack")}
		default:
			errs := make([]error, 0, n)
			for range n%4 + 1 {
				errs = append(errs, pop())
			}
			next = errors.Join(errs...)
		}
		stack = append(stack, next)
	}
	return errors.Join(stack[1:]...)
}

// FuzzErrorTree: a replayed error has the text and the matches of the one that was recorded.
func FuzzErrorTree(f *testing.F) {
	f.Add([]byte{0})
	f.Add([]byte{16, 8, 8, 8, 3, 4, 5, 14})
	f.Add([]byte{2, 6, 12, 62})
	f.Add([]byte{3, 10, 10, 4, 9, 11, 13, 63, 7, 23})
	registry := NewErrorRegistry(
		Sentinel("first", fuzzSentinels[0]), Sentinel("second", fuzzSentinels[1]), Sentinel("third", fuzzSentinels[2]),
		ErrorType[*pointerLeaf]("pointer"), ErrorType[valueLeaf]("value"), ErrorType[textLeaf]("text"),
	)
	require.NoError(f, registry.err)
	f.Fuzz(func(t *testing.T, program []byte) {
		first := errorTree(program)
		if first == nil {
			return
		}
		lost := func(code string) { t.Errorf("%q is lost", code) }
		again := registry.decode(&record.Record{Kind: record.KindDone, Outcome: record.OutcomeError, Payload: registry.encode(first, lost)}, lost)
		require.Equal(t, first.Error(), again.Error())
		require.ErrorIs(t, again, ErrReplayed)
		require.NotErrorIs(t, again, errStranger)
		for _, sentinel := range fuzzSentinels {
			require.Equal(t, errors.Is(first, sentinel), errors.Is(again, sentinel), "%v in %q", sentinel, first)
		}
		pointer, found := errors.AsType[*pointerLeaf](first)
		pointerAgain, foundAgain := errors.AsType[*pointerLeaf](again)
		require.Equal(t, found, foundAgain)
		if found {
			require.Equal(t, pointer.N, pointerAgain.N)
		}
		sameLeaf[valueLeaf](t, first, again)
		sameLeaf[textLeaf](t, first, again)
		_, found = errors.AsType[strangerLeaf](again)
		require.False(t, found)
	})
}

func sameLeaf[E error](t *testing.T, first, again error) {
	t.Helper()
	want, found := errors.AsType[E](first)
	got, foundAgain := errors.AsType[E](again)
	require.Equal(t, found, foundAgain, "a %T in %q", want, first)
	require.Equal(t, want, got)
}

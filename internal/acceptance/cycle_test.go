package acceptance

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
)

type node struct {
	Name string
	Next *node
	Any  any
	Map  map[string]*node
	List []*node
	At   time.Time
	next *node `msgpack:"-"` // not encoded, so it may refer to itself
	Keys map[any]string
	Skip *node `json:"-"`
}

func TestValuesThatReferToThemselves(t *testing.T) {
	codec := idempotent.Msgpack[*node]()
	for name, tie := range map[string]func(n *node){
		"pointer":         func(n *node) { n.Next = n },
		"by another":      func(n *node) { n.Next = &node{Next: n} },
		"in an interface": func(n *node) { n.Any = n },
		"in a map":        func(n *node) { n.Map = map[string]*node{"x": n} },
		"in a list":       func(n *node) { n.List = []*node{nil, {Next: n}} },
		"in the key of a map": func(n *node) { n.Keys = map[any]string{n: "x"} },
		"in a struct in an interface": func(n *node) {
			type holder struct{ Held any }
			n.Any = holder{n}
		},
		"a list of itself": func(n *node) {
			list := make([]any, 1)
			list[0] = list
			n.Any = list
		},
		"too deep": func(n *node) {
			for range 100_000 {
				n.Next = &node{}
				n = n.Next
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := &node{}
			tie(n)
			_, err := codec.Encode(n)
			require.ErrorContains(t, err, "refers to itself")
		})
	}

	shared := &node{Name: "shared", At: time.Unix(1, 0)}
	n := &node{Next: shared, List: []*node{shared, shared}, Any: "x", Map: map[string]*node{"x": shared}, next: shared, Skip: shared}
	n.next.next, shared.Skip = n, n
	data, err := codec.Encode(n)
	require.NoError(t, err, "the same thing twice is no cycle")
	again, err := codec.Decode(data)
	require.NoError(t, err)
	assert.Equal(t, "shared", again.List[1].Name)
}

// fn has run, its value cannot be stored, and the process lives to say so.
func TestResultThatRefersToItself(t *testing.T) {
	inFakeTime(t, func(w *world) {
		x, err := idempotent.New[*node](w.client(nil), "default")
		require.NoError(w, err)
		defer x.Close()
		n := &node{Name: "charged"}
		n.Next = n
		got, err := x.Run(w.Context(), "order-1", returning(n, nil))
		require.ErrorIs(w, err, idempotent.ErrNotRecorded)
		require.Same(w, n, got)
		_, err = x.Run(w.Context(), "order-1", forbidden[*node](w))
		require.ErrorIs(w, err, idempotent.ErrValueNotKept)

		n.Next, n.Skip = nil, n
		_, err = x.Run(w.Context(), "order-2", returning(n, nil))
		require.NoError(w, err)
		got, err = x.Run(w.Context(), "order-2", forbidden[*node](w))
		require.NoError(w, err)
		require.Equal(w, &node{Name: "charged"}, got)
	})
}

// Package lifecycle owns who is inside an executor: the calls, and the goroutines they start. It never
// knows what any of them does, and never touches Redis.
package lifecycle

import "context"

// A Group is all that runs in one executor.
type Group struct {
	*gate
	Closing context.Context // ends when Close begins
	end     context.CancelFunc
}

// NewGroup returns an open group.
func NewGroup() *Group {
	g := &Group{gate: newGate()}
	g.Closing, g.end = context.WithCancel(context.Background())
	return g
}

// Close ends admission, and reports whether this was the first call. It does not wait: Drained says
// when the last one has left.
func (g *Group) Close() (first bool) {
	if first = g.shut(); first {
		g.end()
	}
	return first
}

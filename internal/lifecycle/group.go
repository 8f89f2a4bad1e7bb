package lifecycle

import "context"

// A Group is what runs in an executor: the calls, and the work in the background.
type Group struct {
	*gate
	Closing context.Context // ends when close begins
	end     context.CancelFunc
}

// NewGroup returns an open group.
func NewGroup() *Group {
	g := &Group{gate: newGate()}
	g.Closing, g.end = context.WithCancel(context.Background())
	return g
}

// Shut lets nobody in any more, and reports whether it was the first to do so.
func (g *Group) Close() (first bool) {
	if first = g.shut(); first {
		g.end()
	}
	return first
}

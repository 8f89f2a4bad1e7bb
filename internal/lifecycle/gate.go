package lifecycle

import "sync/atomic"

// A gate counts those inside, and once closed lets nobody in but who belongs to somebody inside. It
// is no mutex: thousands who come at once would queue for one.
type gate struct {
	state   atomic.Int64  // gatePerson for each inside, and gateClosed
	Drained chan struct{} // closed when the gate is and everybody has left
}

const (
	gateClosed = 1
	gateUnit   = 2
)

func newGate() *gate { return &gate{Drained: make(chan struct{})} }

// enter counts the caller in, who then must leave. inside says that it belongs to somebody who was
// inside a moment ago.
func (g *gate) Enter(inside bool) bool {
	for {
		s := g.state.Load()
		if s&gateClosed != 0 && (!inside || s == gateClosed) {
			return false
		}
		if g.state.CompareAndSwap(s, s+gateUnit) {
			return true
		}
	}
}

func (g *gate) Leave() {
	if g.state.Add(-gateUnit) == gateClosed {
		close(g.Drained)
	}
}

// run counts a goroutine in. The caller is inside itself.
func (g *gate) Go(f func()) {
	g.state.Add(gateUnit)
	go func() {
		defer g.Leave()
		f()
	}()
}

// close lets nobody in any more, and reports whether it was open.
func (g *gate) shut() (first bool) {
	before := g.state.Or(gateClosed)
	if before == 0 {
		close(g.Drained)
	}
	return before&gateClosed == 0
}

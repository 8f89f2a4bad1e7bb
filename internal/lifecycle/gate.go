package lifecycle

import "sync/atomic"

// A gate counts those inside. Once shut, it admits only work that belongs to a caller inside. It is
// no mutex: thousands of callers that arrive at once would queue for one.
type gate struct {
	state   atomic.Int64  // gateUnit for each inside, plus gateShut
	Drained chan struct{} // closed when the gate is shut and the last one has left
}

const (
	gateShut = 1
	gateUnit = 2
)

func newGate() *gate { return &gate{Drained: make(chan struct{})} }

// Enter counts the caller in and reports whether it was admitted; if so, it must call Leave. inside
// says that the caller belongs to one that was inside a moment ago, as a nested run does.
func (g *gate) Enter(inside bool) bool {
	for {
		s := g.state.Load()
		if s&gateShut != 0 && (!inside || s == gateShut) {
			return false
		}
		if g.state.CompareAndSwap(s, s+gateUnit) {
			return true
		}
	}
}

// Leave counts the caller out.
func (g *gate) Leave() {
	if g.state.Add(-gateUnit) == gateShut {
		close(g.Drained)
	}
}

// Go runs f in a goroutine that counts as inside. The caller must be inside itself, so that Drained
// cannot be closed in between.
func (g *gate) Go(f func()) {
	g.state.Add(gateUnit)
	go func() {
		defer g.Leave()
		f()
	}()
}

// shut ends admission, and reports whether it was open.
func (g *gate) shut() (first bool) {
	before := g.state.Or(gateShut)
	if before == 0 {
		close(g.Drained)
	}
	return before&gateShut == 0
}

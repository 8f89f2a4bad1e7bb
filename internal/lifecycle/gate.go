package lifecycle

import "sync/atomic"

// A gate counts those inside, and once closed lets nobody in but who belongs to somebody inside. It
// is no mutex: thousands who come at once would queue for one.
type Gate struct {
	state atomic.Int64  // gatePerson for each inside, and gateClosed
	Empty chan struct{} // closed when the gate is and everybody has left
}

const (
	gateClosed = 1
	gatePerson = 2
)

func New() *Gate { return &Gate{Empty: make(chan struct{})} }

// enter counts the caller in, who then must leave. inside says that it belongs to somebody who was
// inside a moment ago.
func (g *Gate) Enter(inside bool) bool {
	for {
		s := g.state.Load()
		if s&gateClosed != 0 && (!inside || s == gateClosed) {
			return false
		}
		if g.state.CompareAndSwap(s, s+gatePerson) {
			return true
		}
	}
}

func (g *Gate) Leave() {
	if g.state.Add(-gatePerson) == gateClosed {
		close(g.Empty)
	}
}

// run counts a goroutine in. The caller is inside itself.
func (g *Gate) Run(f func()) {
	g.state.Add(gatePerson)
	go func() {
		defer g.Leave()
		f()
	}()
}

// close lets nobody in any more, and reports whether it was open.
func (g *Gate) Close() (first bool) {
	before := g.state.Or(gateClosed)
	if before == 0 {
		close(g.Empty)
	}
	return before&gateClosed == 0
}

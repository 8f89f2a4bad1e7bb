package load

import (
	"math/rand/v2"
	"time"

	"github.com/idempotent-go/idempotent/verify/soak/history"
)

// A turn is what becomes of a key besides the calls for it. Like its mode, it follows from the seed.
type turn uint8

const (
	ordinary  turn = iota
	brief          // it has a short TTL
	forgotten      // an operator forgets it
	resolved       // an operator resolves it
)

// briefTTL is longer than the network holds anything back, so that a command that was sent twice does not
// arrive when its record has gone.
const briefTTL = 4500 * time.Millisecond

// turn also says how old the key is when an operator comes to it: young enough that calls are still made.
func (w *worker) turn(key int) (t turn, age time.Duration) {
	r := randomFor(w.Seed, w.Topology+" turn", key)
	return modeOf(w.Seed, w.Topology, key).turn(r), w.Lease/4 + upTo(r, 4*w.Lease)
}

func (m *mode) turn(r *rand.Rand) turn {
	switch n := r.IntN(100); {
	case n < 15 && !m.refuse: // nobody says when a key was refused
		return brief
	case 15 <= n && n < 30:
		return forgotten
	case 30 <= n && n < 70 && m.unsettled():
		return resolved
	}
	return ordinary
}

// unsettled reports whether there is often something to resolve: executions that take long, or end without an
// outcome.
func (m *mode) unsettled() bool {
	return m.refuse || m.long || m.leave || m.other == history.Unknown
}

// shorten gives the calls of some keys a short TTL: of errors for a key whose fn fails, else of
// everything.
func (w *worker) shorten(a *history.Ask, m *mode, key int) {
	switch t, _ := w.turn(key); {
	case t != brief:
	case m.other == history.Failed || m.other == history.Panic:
		a.ErrorTTL = briefTTL
	default:
		a.TTL = briefTTL
	}
}

package webhook

import (
	"math/rand/v2"
	"sync"
	"time"
)

// A backoff doubles from first up to limit. Half of each pause is random.
type backoff struct{ first, limit time.Duration }

// after returns the pause after that many failures, 1 or more.
func (b backoff) after(failures int) time.Duration {
	d := b.first
	for i := 1; i < failures && d < b.limit; i++ {
		d *= 2
	}
	d = min(d, b.limit)
	return d/2 + rand.N(d/2+1) //nolint:gosec // chance, no secret
}

// A circuit keeps a handler from running while everything fails. It is open after threshold failures in a row; after the
// pause it lets one event through as a probe. The lock protects the fields below it.
type circuit struct {
	threshold int
	pause     time.Duration

	mu       sync.Mutex
	failures int
	until    time.Time // zero: closed
	probing  bool
}

// allow reports whether the handler may run, as a probe perhaps, and if not, how long to wait.
func (c *circuit) allow(now time.Time) (ok, probe bool, wait time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.until.IsZero():
		return true, false, 0
	case now.Before(c.until):
		return false, false, c.until.Sub(now)
	case c.probing:
		return false, false, c.pause
	}
	c.probing = true
	return true, true, 0
}

// A result is what an execution says about the circuit.
type result uint8

const (
	resultNone result = iota // the handler did not run, or its error says nothing about the next one
	resultSuccess
	resultFailure
)

// record must follow each allow that returned true.
func (c *circuit) record(r result, probe bool, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch r {
	case resultSuccess:
		c.failures, c.until = 0, time.Time{}
	case resultFailure:
		if c.failures++; c.failures >= c.threshold {
			c.until = now.Add(c.pause)
		}
	}
	if probe {
		c.probing = false
	}
}

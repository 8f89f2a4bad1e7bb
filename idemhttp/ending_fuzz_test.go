package idemhttp

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
)

// FuzzEnding: whatever a handler does and whatever an option says, an ending has one of three
// verdicts; a broken one is never recorded nor free, and none of those that say "unknown" is changed.
func FuzzEnding(f *testing.F) {
	f.Add(200, uint8(0), uint8(1))
	f.Add(503, uint8(3), uint8(2))
	f.Add(-1, uint8(255), uint8(9))
	f.Fuzz(func(t *testing.T, status int, bits, option uint8) {
		c := defaultRoute()
		if option > 0 {
			c.shouldRecord = func(Ending) Verdict { return Verdict(option - 1) }
		}
		e := Ending{Status: status, Header: http.Header{}, Flushed: bits&1 != 0, Deadline: bits&2 != 0, wrote: bits&4 != 0,
			stopped: bits&8 != 0, aborted: bits&16 != 0, short: bits&32 != 0, unknown: bits&64 != 0, harmless: bits&128 != 0}
		v := c.judge(&e)
		assert.Contains(t, []Verdict{Record, Free, Unknown}, v)
		switch {
		case e.unknown:
			assert.Equal(t, Unknown, v)
		case e.harmless:
			assert.Equal(t, Free, v)
		case e.aborted || e.short || e.stopped && (!e.wrote || status >= 400):
			assert.Equal(t, Unknown, v)
		case option == 0 && v == Free:
			assert.False(t, e.Flushed)
			assert.Contains(t, []int{425, 429, 503}, status)
		}
	})
}

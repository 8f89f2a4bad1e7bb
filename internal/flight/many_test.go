package flight

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

// A crowd calls a few keys at the same time, in any way there is.
type crowd struct {
	t       *testing.T
	g       Group[string]
	keys    int
	detach  bool
	leaders sync.Map // *Call[string] to *atomic.Int32

	settled, handedOver, left atomic.Int64
}

func (c *crowd) call(random *rand.Rand) {
	key := fmt.Sprint("key ", random.IntN(c.keys))
	if c.detach && random.IntN(8) == 0 {
		c.g.Forget(key)
	}
	m := JoinOptions[string]{Deadline: time.Now().Add(time.Hour)}
	if random.IntN(2) == 0 {
		m.WakeOn = func(string) bool { return true }
	}
	call, f, joined := c.g.Enter(key, m)
	if !joined || c.follow(random, key, &f) {
		c.lead(random, key, call)
	}
}

// follow reports whether f came to lead.
func (c *crowd) follow(random *rand.Rand, key string, f *Follower[string]) bool {
	for {
		var status string
		stage := f.Poll(&status)
		switch {
		case stage == Elected && random.IntN(4) > 0:
			c.handedOver.Add(1)
			f.Lead()
			return true
		case stage == Settled:
			assert.Equal(c.t, "outcome of "+key, status)
			return false
		case stage == Elected || random.IntN(4) == 0:
			c.left.Add(1)
			f.Leave()
			return false
		}
		f.Wait(nil)
	}
}

func (c *crowd) lead(random *rand.Rand, key string, call *Call[string]) {
	count, _ := c.leaders.LoadOrStore(call, new(atomic.Int32))
	assert.EqualValues(c.t, 1, count.(*atomic.Int32).Add(1), "leaders of one call")
	for range random.IntN(3) + 1 {
		call.Publish("running")
		runtime.Gosched() // let others follow
	}
	count.(*atomic.Int32).Add(-1)
	if random.IntN(2) == 0 {
		c.settled.Add(1)
		call.Settle("outcome of " + key)
	} else {
		call.HandOver("")
	}
}

// Many callers of few keys lead, hand over, give up or settle at random. Whoever follows comes to an
// end, with the outcome of its own key, and no call stays behind.
func TestManyCallers(t *testing.T) {
	for _, detach := range []bool{false, true} {
		t.Run(fmt.Sprint("with Detach: ", detach), func(t *testing.T) {
			c := &crowd{t: t, keys: 3, detach: detach}
			var callers sync.WaitGroup
			for seed := range uint64(16) {
				callers.Go(func() {
					random := rand.New(rand.NewPCG(1, seed))
					for range 1000 {
						c.call(random)
					}
				})
			}
			callers.Wait()
			assert.Empty(t, c.g.calls)
			assert.Empty(t, c.g.forgotten)
			assert.Positive(t, c.settled.Load())
			assert.Positive(t, c.handedOver.Load(), "nobody took over: this tested nothing")
			assert.Positive(t, c.left.Load())
		})
	}
}

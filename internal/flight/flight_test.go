package flight

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// enter joins the call for key and checks whether that leads.
func enter(t *testing.T, g *Group[string], key string, wantLeads bool) *Call[string] {
	t.Helper()
	c, leads := g.Enter(key, new(Call[string]))
	require.Equal(t, wantLeads, leads)
	return c
}

// offered reports whether a follower of c may take the lead, and takes it.
func offered(c *Call[string]) bool {
	select {
	case <-c.Lead():
		c.TookLead()
		return true
	default:
		return false
	}
}

func closed(changed <-chan struct{}) bool {
	select {
	case <-changed:
		return true
	default:
		return false
	}
}

func TestFirstLeadsOthersFollow(t *testing.T) {
	var g Group[string]
	leader := enter(t, &g, "key", true)
	for range 3 {
		assert.Same(t, leader, enter(t, &g, "key", false))
	}
	assert.NotSame(t, leader, enter(t, &g, "other", true))
	assert.NotSame(t, leader, enter(t, &g, "", true))
	assert.False(t, offered(leader), "there is a leader")
	assert.Len(t, g.calls, 3)
}

func TestFollowersSeeWhatIsPublished(t *testing.T) {
	var g Group[string]
	leader := enter(t, &g, "key", true)
	follower := enter(t, &g, "key", false)
	status, changed := follower.Watch()
	assert.Empty(t, status)
	assert.False(t, closed(changed))
	_, same := follower.Watch()
	assert.Equal(t, changed, same)

	leader.Publish("asking")
	assert.True(t, closed(changed))
	status, changed = follower.Watch()
	assert.Equal(t, "asking", status)
	assert.False(t, closed(changed))

	leader.Publish("running")
	leader.Publish("still running")
	assert.True(t, closed(changed))
	status, changed = follower.Watch()
	assert.Equal(t, "still running", status)

	late := enter(t, &g, "key", false)
	status, _ = late.Watch()
	assert.Equal(t, "still running", status, "one that comes later sees the latest")

	leader.Settle("done")
	assert.True(t, closed(changed))
	status, changed = follower.Watch()
	assert.Equal(t, "done", status)
	assert.False(t, closed(changed))
	assert.False(t, offered(follower), "a settled call needs no leader")
}

func TestSettledCallIsForgotten(t *testing.T) {
	var g Group[string]
	leader := enter(t, &g, "key", true)
	follower := enter(t, &g, "key", false)
	leader.Settle("done")
	assert.Empty(t, g.calls)
	next := enter(t, &g, "key", true)
	assert.NotSame(t, leader, next)
	follower.Leave()
	assert.Len(t, g.calls, 1, "who leaves the old call leaves the new one alone")
	status, _ := next.Watch()
	assert.Empty(t, status)
	next.Settle("done again")
	assert.Empty(t, g.calls)
}

func TestVacatedCallWithoutFollowersIsForgotten(t *testing.T) {
	var g Group[string]
	enter(t, &g, "key", true).Vacate("")
	assert.Empty(t, g.calls)
	enter(t, &g, "key", true)
}

func TestVacatedCallIsHandedOver(t *testing.T) {
	var g Group[string]
	leader := enter(t, &g, "key", true)
	enter(t, &g, "key", false)
	enter(t, &g, "key", false)
	leader.Publish("running")
	_, changed := leader.Watch()

	leader.Vacate("last known")
	assert.True(t, closed(changed))
	status, changed := leader.Watch()
	assert.Equal(t, "last known", status)
	assert.True(t, offered(leader), "one follower leads")
	assert.True(t, closed(changed))
	status, _ = leader.Watch()
	assert.Empty(t, status, "what the old leader knew does not hold any more")
	assert.False(t, offered(leader), "and no more than one")
	enter(t, &g, "key", false)

	leader.Vacate("")
	assert.True(t, offered(leader))
	leader.Vacate("")
	assert.True(t, offered(leader))
	assert.Len(t, g.calls, 1)
	leader.Vacate("")
	assert.False(t, offered(leader), "nobody follows any more")
	assert.Empty(t, g.calls)
}

func TestOneThatComesBetweenLeadersFollows(t *testing.T) {
	var g Group[string]
	leader := enter(t, &g, "key", true)
	enter(t, &g, "key", false)
	leader.Vacate("")
	assert.Same(t, leader, enter(t, &g, "key", false))
	assert.True(t, offered(leader))
	assert.False(t, offered(leader))
}

// The lead is neither lost nor doubled, in whatever order leader and followers go.
func TestLeavingInEveryOrder(t *testing.T) {
	const followers = 3
	// In each order, step 0 is the leader and the others are followers.
	for _, order := range permutations(followers + 1) {
		for ending, end := range map[string]func(c *Call[string]){
			"settles": func(c *Call[string]) { c.Settle("done") },
			"vacates": func(c *Call[string]) { c.Vacate("") },
		} {
			t.Run(fmt.Sprint(order, ending), func(t *testing.T) {
				var g Group[string]
				c := enter(t, &g, "key", true)
				for range followers {
					enter(t, &g, "key", false)
				}
				led, left := true, 0
				for _, who := range order {
					if who == 0 {
						end(c)
						led = false
					} else {
						c.Leave()
						left++
					}
					gone := !led && (ending == "settles" || left == followers)
					assert.Equal(t, gone, g.calls["key"] == nil, "after %d of %v", who, order)
				}
				assert.False(t, closed(c.Lead()), "nobody is left to lead")
				assert.Empty(t, g.calls)
				enter(t, &g, "key", true)
			})
		}
	}
}

func permutations(n int) (all [][]int) {
	if n == 1 {
		return [][]int{{0}}
	}
	for _, shorter := range permutations(n - 1) {
		for at := range n {
			order := append([]int{}, shorter[:at]...)
			order = append(order, n-1)
			all = append(all, append(order, shorter[at:]...))
		}
	}
	return all
}

// A follower that was offered the lead may be the last one, with others coming and going.
func TestLeaderElectKeepsTheCallAlive(t *testing.T) {
	var g Group[string]
	c := enter(t, &g, "key", true)
	enter(t, &g, "key", false) // will lead
	enter(t, &g, "key", false) // will leave
	c.Vacate("")
	<-c.Lead() // between the two steps of taking the lead
	c.Leave()
	assert.Same(t, c, enter(t, &g, "key", false), "the call goes on")
	c.TookLead()
	c.Leave()
	assert.Len(t, g.calls, 1, "its leader is still there")
	c.Settle("done")
	assert.Empty(t, g.calls)
}

func TestDetachedCallGoesOnForThoseInIt(t *testing.T) {
	var g Group[string]
	old := enter(t, &g, "key", true)
	enter(t, &g, "key", false)
	enter(t, &g, "key", false)
	g.Detach("key")
	g.Detach("key")
	g.Detach("unknown")

	next := enter(t, &g, "key", true)
	assert.NotSame(t, old, next)
	assert.Same(t, next, enter(t, &g, "key", false))
	next.Publish("next")
	status, _ := old.Watch()
	assert.Empty(t, status)

	old.Vacate("")
	assert.False(t, offered(next), "the lead of one call is not that of the other")
	assert.True(t, offered(old))
	old.Settle("old")
	old.Leave()
	assert.Same(t, next, g.calls["key"], "the end of the old call leaves the new one alone")
	status, _ = next.Watch()
	assert.Equal(t, "next", status)
	next.Vacate("")
	assert.True(t, offered(next))
	next.Vacate("")
	assert.Empty(t, g.calls)
}

func TestDetachedCallEndsWithoutTrace(t *testing.T) {
	for name, end := range map[string]func(c *Call[string]){
		"settled":                  func(c *Call[string]) { c.Settle("done"); c.Leave() },
		"vacated, then left":       func(c *Call[string]) { c.Vacate(""); c.Leave() },
		"left, then vacated":       func(c *Call[string]) { c.Leave(); c.Vacate("") },
		"handed over, then vacant": func(c *Call[string]) { c.Vacate(""); <-c.Lead(); c.TookLead(); c.Vacate("") },
	} {
		t.Run(name, func(t *testing.T) {
			var g Group[string]
			old := enter(t, &g, "key", true)
			enter(t, &g, "key", false)
			g.Detach("key")
			assert.Empty(t, g.calls)
			next := enter(t, &g, "key", true)
			end(old)
			assert.Same(t, next, g.calls["key"])
			next.Settle("done")
			assert.Empty(t, g.calls)
		})
	}
}

// Many callers of few keys, each of which leads, hands over, gives up or settles at random. Whoever
// follows comes to an end, and no call stays behind.
func TestManyCallers(t *testing.T) {
	const callers, rounds, keys = 16, 1000, 3
	var g Group[int64]
	var leaders [keys]atomic.Int32
	var settled, handedOver, left atomic.Int64
	var wg sync.WaitGroup
	for caller := range callers {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(caller)))
			for range rounds {
				key := random.IntN(keys)
				call, leads := g.Enter(fmt.Sprint(key), new(Call[int64]))
				for !leads {
					status, changed := call.Watch()
					if status < 0 {
						call.Leave()
						break
					}
					if random.IntN(4) == 0 {
						left.Add(1)
						call.Leave()
						break
					}
					select {
					case <-changed:
					case <-call.Lead():
						call.TookLead()
						handedOver.Add(1)
						leads = true
					}
				}
				if !leads {
					continue
				}
				if n := leaders[key].Add(1); n != 1 {
					t.Errorf("%d callers lead one call", n)
				}
				for range random.IntN(3) + 1 {
					call.Publish(random.Int64N(100) + 1)
					runtime.Gosched() // let others follow
				}
				leaders[key].Add(-1)
				if random.IntN(2) == 0 {
					settled.Add(1)
					call.Settle(-1)
				} else {
					call.Vacate(0)
				}
			}
		})
	}
	wg.Wait()
	assert.Empty(t, g.calls)
	assert.Positive(t, settled.Load())
	assert.Positive(t, handedOver.Load(), "nobody took over: this tested nothing")
	assert.Positive(t, left.Load())
}

// The same with Detach, which makes calls of one key overlap: each has one leader.
func TestManyCallersWithDetach(t *testing.T) {
	const callers, rounds = 16, 1000
	var g Group[int]
	var leaders sync.Map // *Call[int] to *atomic.Int32
	var wg sync.WaitGroup
	for caller := range callers {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(2, uint64(caller)))
			for range rounds {
				if random.IntN(8) == 0 {
					g.Detach("key")
				}
				call, leads := g.Enter("key", new(Call[int]))
				for !leads {
					status, changed := call.Watch()
					if status < 0 {
						call.Leave()
						break
					}
					select {
					case <-changed:
					case <-call.Lead():
						call.TookLead()
						leads = true
					}
				}
				if !leads {
					continue
				}
				count, _ := leaders.LoadOrStore(call, new(atomic.Int32))
				if n := count.(*atomic.Int32).Add(1); n != 1 {
					t.Errorf("%d callers lead one call", n)
				}
				call.Publish(1)
				count.(*atomic.Int32).Add(-1)
				if random.IntN(2) == 0 {
					call.Settle(-1)
				} else {
					call.Vacate(0)
				}
			}
		})
	}
	wg.Wait()
	assert.Empty(t, g.calls)
}

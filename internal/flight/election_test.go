package flight

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestVacatedCallWithoutFollowersIsForgotten(t *testing.T) {
	var g Group[string]
	lead(t, &g, "key").HandOver("")
	assert.Empty(t, g.calls)
	lead(t, &g, "key")
}

func TestVacatedCallIsHandedOver(t *testing.T) {
	var g Group[string]
	c := lead(t, &g, "key")
	first, second := join(t, &g, "key"), joinEagerly(t, &g, "key")
	c.Publish("running")
	assert.True(t, woken(second))
	follows(t, second, "running")

	c.HandOver("last known")
	assert.True(t, woken(second))
	follows(t, second, "last known")
	leads(t, first)
	assert.True(t, woken(second))
	follows(t, second, "") // what the old leader knew does not hold any more
	third := join(t, &g, "key")

	c.HandOver("")
	leads(t, second)
	follows(t, third, "") // no more than one leads
	c.HandOver("")
	leads(t, third)
	assert.Len(t, g.calls, 1)
	c.HandOver("")
	assert.Empty(t, g.calls)
}

func TestLeadGoesToWhoWaitedLongest(t *testing.T) {
	var g Group[string]
	c := lead(t, &g, "key")
	var all []*Follower[string]
	for range 20 {
		all = append(all, join(t, &g, "key"))
	}
	for i, f := range all {
		if i%3 == 0 {
			f.Leave()
		}
	}
	for i, f := range all {
		if i%3 != 0 {
			c.HandOver("")
			leads(t, f)
		}
	}
}

func TestOneThatComesBetweenLeadersFollows(t *testing.T) {
	var g Group[string]
	c := lead(t, &g, "key")
	first := join(t, &g, "key")
	c.HandOver("")
	second := join(t, &g, "key")
	leads(t, first)
	assert.False(t, woken(second))
	follows(t, second, "")
}

// The lead is neither lost nor doubled, in whatever order leader and followers go.
func TestLeavingInEveryOrder(t *testing.T) {
	const followers = 3
	// In each order, step 0 is the leader and the others are followers.
	for _, order := range permutations(followers + 1) {
		for ending, end := range map[string]func(c *Call[string]){
			"settles": func(c *Call[string]) { c.Settle("done") },
			"vacates": func(c *Call[string]) { c.HandOver("") },
		} {
			t.Run(fmt.Sprint(order, ending), func(t *testing.T) {
				var g Group[string]
				c := lead(t, &g, "key")
				all := make([]*Follower[string], followers)
				for i := range all {
					all[i] = join(t, &g, "key")
				}
				led, left := true, 0
				for _, who := range order {
					if who == 0 {
						end(c)
						led = false
					} else {
						all[who-1].Leave()
						left++
					}
					gone := !led && (ending == "settles" || left == followers)
					assert.Equal(t, gone, g.calls["key"] == nil, "after %d of %v", who, order)
				}
				assert.Empty(t, g.calls)
				lead(t, &g, "key")
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

// A follower that is to lead may be the last one, with others coming and going.
func TestLeaderElectKeepsTheCallAlive(t *testing.T) {
	var g Group[string]
	c := lead(t, &g, "key")
	elect, leaving := join(t, &g, "key"), join(t, &g, "key")
	c.HandOver("") // elect does not know yet
	leaving.Leave()
	late := join(t, &g, "key")
	leads(t, elect)
	late.Leave()
	assert.Len(t, g.calls, 1, "its leader is still there")
	c.Settle("done")
	assert.Empty(t, g.calls)
}

func TestLeaderElectThatLeavesHandsOver(t *testing.T) {
	var g Group[string]
	c := lead(t, &g, "key")
	elect, next := join(t, &g, "key"), join(t, &g, "key")
	c.HandOver("")
	elect.Leave()
	leads(t, next)
	c.HandOver("")
	assert.Empty(t, g.calls)
}

func TestDetachedCallGoesOnForThoseInIt(t *testing.T) {
	var g Group[string]
	old := lead(t, &g, "key")
	first, second := join(t, &g, "key"), join(t, &g, "key")
	g.Forget("key")
	g.Forget("key")
	g.Forget("unknown")

	next := lead(t, &g, "key")
	assert.NotSame(t, old, next)
	newer := join(t, &g, "key")
	next.Publish("next")
	follows(t, first, "")
	follows(t, newer, "next")

	old.HandOver("")
	leads(t, first)
	follows(t, newer, "next") // the lead of one call is not that of the other
	old.Settle("old")
	settled(t, second, "old")
	assert.Same(t, next, g.calls["key"], "the end of the old call leaves the new one alone")
	assert.Empty(t, g.forgotten)
	next.HandOver("")
	leads(t, newer)
	next.HandOver("")
	assert.Empty(t, g.calls)
}

func TestDetachedCallEndsWithoutTrace(t *testing.T) {
	for name, end := range map[string]func(c *Call[string], f *Follower[string]){
		"settled":            func(c *Call[string], f *Follower[string]) { c.Settle("done"); f.Leave() },
		"vacated, then left": func(c *Call[string], f *Follower[string]) { c.HandOver(""); f.Leave() },
		"left, then vacated": func(c *Call[string], f *Follower[string]) { f.Leave(); c.HandOver("") },
		"left, then settled": func(c *Call[string], f *Follower[string]) { f.Leave(); c.Settle("done") },
		"handed over, then vacant": func(c *Call[string], f *Follower[string]) {
			c.HandOver("")
			leads(t, f)
			c.HandOver("")
		},
	} {
		t.Run(name, func(t *testing.T) {
			var g Group[string]
			old := lead(t, &g, "key")
			follower := join(t, &g, "key")
			g.Forget("key")
			assert.Empty(t, g.calls)
			next := lead(t, &g, "key")
			end(old, follower)
			assert.Same(t, next, g.calls["key"])
			assert.Empty(t, g.forgotten)
			next.Settle("done")
			assert.Empty(t, g.calls)
		})
	}
}

// A leader may lose the lead, to a lost lease, just before it publishes.
func TestPublishAfterSuccessorSettled(t *testing.T) {
	var g Group[string]
	c := lead(t, &g, "k")
	successor, other := join(t, &g, "k"), join(t, &g, "k")
	c.HandOver("")
	successor.Lead()
	c.Settle("outcome")
	c.Publish("running")
	var status string
	stage := other.Poll(&status)
	assert.Equal(t, Settled, stage)
	assert.Equal(t, "outcome", status)
}

package flight

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// lead begins the call for key.
func lead(t *testing.T, g *Group[string], key string) *Call[string] {
	t.Helper()
	c, _, joined := g.Enter(key, inAnHour())
	require.False(t, joined)
	return c
}

func inAnHour() JoinOptions[string] {
	return JoinOptions[string]{Deadline: time.Now().Add(time.Hour)}
}

// join follows the call for key.
func join(t *testing.T, g *Group[string], key string) *Follower[string] {
	t.Helper()
	return joinAs(t, g, key, inAnHour())
}

// joinEagerly follows the call for key, and wants to know all about it.
func joinEagerly(t *testing.T, g *Group[string], key string) *Follower[string] {
	t.Helper()
	m := inAnHour()
	m.WakeOn = func(string) bool { return true }
	return joinAs(t, g, key, m)
}

func joinAs(t *testing.T, g *Group[string], key string, m JoinOptions[string]) *Follower[string] {
	t.Helper()
	_, f, joined := g.Enter(key, m)
	require.True(t, joined)
	return &f
}

// fillRow lets others follow until the next one is not in a row with those before.
func fillRow(t *testing.T, g *Group[string], key string) {
	t.Helper()
	f := join(t, g, key)
	for f.index < groupSize-1 {
		f = join(t, g, key)
	}
}

// woken reports whether there may be something to see for f.
func woken(f *Follower[string]) bool {
	select {
	case <-f.wake:
		return true
	default:
		return false
	}
}

// follows checks that f still follows, and what it sees.
func follows(t *testing.T, f *Follower[string], want string) {
	t.Helper()
	var status string
	stage := f.Poll(&status)
	require.Equal(t, Following, stage)
	assert.Equal(t, want, status)
}

// settled checks that the call of f is settled.
func settled(t *testing.T, f *Follower[string], want string) {
	t.Helper()
	require.True(t, woken(f))
	var status string
	stage := f.Poll(&status)
	require.Equal(t, Settled, stage)
	assert.Equal(t, want, status)
}

// leads checks that f leads now.
func leads(t *testing.T, f *Follower[string]) {
	t.Helper()
	require.True(t, woken(f))
	stage := f.Poll(new(string))
	require.Equal(t, Elected, stage)
	f.Lead()
}

func TestFirstLeadsOthersFollow(t *testing.T) {
	var g Group[string]
	leader := lead(t, &g, "key")
	for range 3 {
		c, f, joined := g.Enter("key", inAnHour())
		require.True(t, joined)
		assert.Same(t, leader, c)
		follows(t, &f, "")
	}
	assert.NotSame(t, leader, lead(t, &g, "other"))
	assert.NotSame(t, leader, lead(t, &g, ""))
	assert.Len(t, g.calls, 3)
}

func TestFollowersSeeWhatIsPublished(t *testing.T) {
	var g Group[string]
	leader := lead(t, &g, "key")
	patient := join(t, &g, "key")
	fillRow(t, &g, "key")
	eager := joinEagerly(t, &g, "key")
	follows(t, patient, "")
	assert.False(t, woken(eager))

	leader.Publish("asking")
	assert.True(t, woken(eager))
	assert.False(t, woken(patient), "not before there is an outcome")
	follows(t, eager, "asking")
	follows(t, patient, "asking")

	leader.Publish("running")
	leader.Publish("still running")
	assert.True(t, woken(eager))
	follows(t, eager, "still running")
	assert.False(t, woken(eager), "once is enough")
	late := join(t, &g, "key")
	follows(t, late, "still running")

	leader.Settle("done")
	for _, f := range []*Follower[string]{patient, eager, late} {
		settled(t, f, "done")
	}
}

// What a follower does not heed is there when it looks, and does not wake it.
func TestFollowersAreWokenForWhatTheyHeed(t *testing.T) {
	var g Group[string]
	c := lead(t, &g, "key")
	m := inAnHour()
	m.WakeOn = func(status string) bool { return status == "running" }
	f := joinAs(t, &g, "key", m)
	first := join(t, &g, "key")
	c.Publish("asking")
	assert.False(t, woken(f))
	c.Publish("running")
	assert.True(t, woken(f))
	c.Publish("asking")
	follows(t, f, "asking")
	f.Leave()
	c.Publish("running")
	follows(t, first, "running")
	c.Publish("running")
	assert.False(t, woken(first), "for one that has left")
	c.Settle("done")
	settled(t, first, "done")
}

func TestSettledCallIsForgotten(t *testing.T) {
	var g Group[string]
	leader := lead(t, &g, "key")
	follower := join(t, &g, "key")
	leader.Settle("done")
	assert.Empty(t, g.calls)
	next := lead(t, &g, "key")
	assert.NotSame(t, leader, next)
	follower.Leave()
	assert.Len(t, g.calls, 1, "who leaves the old call leaves the new one alone")
	follows(t, join(t, &g, "key"), "")
	next.Settle("done again")
	assert.Empty(t, g.calls)
}

// None is forgotten, whoever has left before or leaves meanwhile.
func TestSettledCallWakesAll(t *testing.T) {
	for _, n := range []int{1, groupSize - 1, groupSize, groupSize + 1, 10 * groupSize} {
		for name, leaves := range map[string]func(i int) bool{
			"all stay":    func(int) bool { return false },
			"some leave":  func(i int) bool { return i%3 == 0 },
			"most leave":  func(i int) bool { return i%7 != 0 },
			"rows leave":  func(i int) bool { return i/groupSize%2 == 0 },
			"first leave": func(i int) bool { return i%groupSize < 2 },
		} {
			t.Run(fmt.Sprint(n, " ", name), func(t *testing.T) {
				var g Group[string]
				leader := lead(t, &g, "key")
				before, meanwhile, staying := []*Follower[string]{}, []*Follower[string]{}, []*Follower[string]{}
				for i := range n {
					f := join(t, &g, "key")
					switch {
					case leaves(i) && i%2 == 0:
						before = append(before, f)
					case leaves(i):
						meanwhile = append(meanwhile, f)
					default:
						staying = append(staying, f)
					}
				}
				for _, f := range before {
					f.Leave()
				}
				leader.Settle("done")
				for _, f := range meanwhile {
					f.Leave()
				}
				for _, f := range staying {
					settled(t, f, "done")
				}
			})
		}
	}
}

// One that is woken for its neighbour has missed nothing, and is woken again.
func TestWokenForANeighbour(t *testing.T) {
	var g Group[string]
	c := lead(t, &g, "key")
	first, second := join(t, &g, "key"), join(t, &g, "key")
	fillRow(t, &g, "key")
	apart := join(t, &g, "key")
	c.HandOver("")
	assert.True(t, woken(second))
	assert.False(t, woken(apart), "in another row")
	follows(t, second, "")
	assert.False(t, woken(second))
	leads(t, first)
	c.HandOver("")
	leads(t, second)
	c.Settle("done")
	settled(t, apart, "done")
}

func TestThoseWhoLeftWakeNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g Group[string]
		c := lead(t, &g, "key")
		stays, eager := join(t, &g, "key"), joinEagerly(t, &g, "key")
		late := joinAs(t, &g, "key", JoinOptions[string]{Deadline: time.Now().Add(time.Second)})
		eager.Leave()
		late.Leave()
		c.Publish("running")
		time.Sleep(2 * time.Second)
		assert.False(t, woken(stays))
		stays.Leave()
		c.HandOver("")
	})
}

// An alarm may go off while the call is being settled.
func TestAlarmOfASettledCall(t *testing.T) {
	var g Group[string]
	c := lead(t, &g, "key")
	f := join(t, &g, "key")
	c.Settle("done")
	c.expire()
	assert.False(t, c.deadline.timer.Stop(), "it is not set again")
	settled(t, f, "done")
}

// Those who have left take no room, however many come and go while one stays.
func TestLineForgetsThoseWhoLeft(t *testing.T) {
	var g Group[string]
	c := lead(t, &g, "key")
	var staying []*Follower[string]
	for i := range 100 * groupSize {
		f := join(t, &g, "key")
		if i%(20*groupSize) == 7 {
			staying = append(staying, f)
		} else {
			f.Leave()
		}
		require.LessOrEqual(t, len(c.queue.groups), 2*len(staying)+1)
	}
	for _, f := range staying {
		c.HandOver("")
		leads(t, f)
	}
	assert.Empty(t, c.queue.groups)
	c.Settle("done")
}

func TestWakeAll(t *testing.T) {
	var g Group[string]
	lead(t, &g, "a")
	lead(t, &g, "b")
	one, two, apart := join(t, &g, "a"), join(t, &g, "b"), join(t, &g, "b")
	g.Forget("b")
	g.WakeAll()
	for _, f := range []*Follower[string]{one, two, apart} {
		assert.True(t, woken(f))
		follows(t, f, "")
	}
}

func TestFollowersAreWokenAtTheirDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g Group[string]
		began := time.Now()
		c := lead(t, &g, "key")
		var all sync.WaitGroup
		// The first one is neither the first to come nor the last.
		for _, wait := range []time.Duration{2 * time.Second, time.Second, time.Second, 3 * time.Second, time.Second + time.Microsecond} {
			all.Go(func() {
				f := joinAs(t, &g, "key", JoinOptions[string]{Deadline: began.Add(wait)})
				for now := time.Now(); now.Before(began.Add(wait)); now = time.Now() {
					assert.False(t, f.Wait(nil))
					f.Poll(new(string))
				}
				assert.Less(t, time.Since(began), wait+2*timerGrain)
				f.Leave()
			})
			synctest.Wait()
		}
		all.Wait()
		assert.Empty(t, c.queue.groups)
		f := joinAs(t, &g, "key", JoinOptions[string]{Deadline: time.Now().Add(time.Second)})
		f.Wait(nil)
		assert.Equal(t, 4*time.Second, time.Since(began).Truncate(10*time.Millisecond), "the alarm is set anew")
		f.Leave()
		c.Settle("")
	})
}

func TestWaitEnds(t *testing.T) {
	var g Group[string]
	c := lead(t, &g, "key")
	f := join(t, &g, "key")
	done := make(chan struct{})
	close(done)
	assert.True(t, f.Wait(done))
	c.HandOver("")
	assert.False(t, f.Wait(make(chan struct{})))
	stage := f.Poll(new(string))
	assert.Equal(t, Elected, stage)
}

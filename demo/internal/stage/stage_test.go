package stage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const (
	roleEcho    = "echo"
	roleSpeaker = "speaker"
)

// TestMain makes the test's binary the processes that it starts.
func TestMain(m *testing.M) {
	switch {
	case len(os.Args) == 2 && os.Args[1] == roleEcho:
		os.Exit(WorkerProcess(roleEcho, echo))
	case len(os.Args) == 2 && os.Args[1] == roleSpeaker:
		fmt.Println("hello")
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// echo answers a task with the setup and the task. One is "hang": that has no answer.
func echo(setup string, d *Desk) error {
	if setup == "broken" {
		return errors.New("as expected")
	}
	return Serve(d, func(ctx context.Context, task string) string {
		d.Tell("got " + task)
		if task == "hang" {
			<-ctx.Done()
		}
		return setup + " " + task
	})
}

type worker = Worker[string, string]

func start(t *testing.T, setup string) (w *worker, heard chan string) {
	t.Helper()
	heard = make(chan string, 10)
	w, err := Start[string, string](roleEcho, 7, setup, func(number int, event string) {
		heard <- fmt.Sprint(number, " ", event)
	})
	require.NoError(t, err)
	t.Cleanup(func() { w.Stop(time.Minute) })
	return w, heard
}

func TestFleet(t *testing.T) {
	one, events := start(t, "one")
	two, _ := start(t, "two")
	fleet := Fleet[string, string]{one, two}
	for _, task := range []string{"a", "b"} {
		heard := make(chan string, 2)
		answers, err := fleet.Ask(t.Context(), task, func(_ *worker, answer string) { heard <- answer })
		require.NoError(t, err)
		assert.Equal(t, []string{"one " + task, "two " + task}, answers)
		assert.ElementsMatch(t, answers, []string{<-heard, <-heard})
		assert.Equal(t, "7 got "+task, <-events)
	}
	assert.Equal(t, fmt.Sprintf("%d, %d", one.PID(), two.PID()), fleet.PIDs())
	fleet.Stop(time.Minute)
	assert.False(t, one.Killed())
	_, err := fleet.Ask(t.Context(), "c", nil)
	require.ErrorIs(t, err, ErrGone)
}

// One that was killed has no answer, and that is no error.
func TestFleetWithOneKilled(t *testing.T) {
	one, events := start(t, "one")
	two, _ := start(t, "two")
	fleet := Fleet[string, string]{one, two}
	asking := InBackground(func() (string, error) { return one.Ask(t.Context(), "hang") })
	assert.Equal(t, "7 got hang", <-events)
	one.Kill()
	_, err := asking()
	require.ErrorIs(t, err, ErrGone)
	answers, err := fleet.Ask(t.Context(), "a", nil)
	require.NoError(t, err)
	assert.Equal(t, []string{"", "two a"}, answers)
}

func TestAskDoesNotHang(t *testing.T) {
	w, events := start(t, "one")
	ctx, cancel := context.WithCancel(t.Context())
	asking := InBackground(func() (string, error) { return w.Ask(ctx, "hang") })
	assert.Equal(t, "7 got hang", <-events)
	cancel()
	_, err := asking()
	require.EqualError(t, err, "echo 7 has not answered: context canceled")
	broken, _ := start(t, "broken")
	_, err = broken.Ask(t.Context(), "a")
	require.ErrorIs(t, err, ErrGone)
}

func TestSpeaker(t *testing.T) {
	cmd, err := Self(roleSpeaker)
	require.NoError(t, err)
	c, said, err := StartSpeaker(cmd)
	require.NoError(t, err)
	assert.Equal(t, "hello", <-said)
	<-c.Gone
	_, more := <-said
	assert.False(t, more)
	c.Stop(time.Minute)
}

func TestChecks(t *testing.T) {
	assert.Equal(t, Check{"a", "1", "2 (b, c)", false}, Exactly("a", 1, 2, "b", "c"))
	assert.Equal(t, Check{"a", "x", "x", true}, Exactly("a", "x", "x", ""))
	assert.Equal(t, Check{"a", "1 or more", "1", true}, AtLeast("a", 1, 1))
	assert.Equal(t, Check{"a", "1 or more", "0", false}, AtLeast("a", 1, 0))
	assert.Equal(t, Check{"a", "1", "1", true}, Between("a", 1, 1, 1))
	assert.Equal(t, Check{"a", "1", "2", false}, Between("a", 1, 1, 2))
	assert.Equal(t, Check{"a", "1 to 3", "3", true}, Between("a", 1, 3, 3))
	for _, seen := range []int{0, 4} {
		assert.Equal(t, Check{"a", "1 to 3", fmt.Sprint(seen), false}, Between("a", 1, 3, seen))
	}
	n, first := Count([]int{1, 2, 3, 4}, func(n int) bool { return n%2 == 0 })
	assert.Equal(t, []int{2, 2}, []int{n, first})
}

func TestConclusions(t *testing.T) {
	var good, bad Tally
	good.Add([]Check{Exactly("a", 1, 1), Exactly("b", 1, 1)})
	bad.Add([]Check{Exactly("a", 1, 1)})
	bad.Add([]Check{Exactly("a", 1, 1), Exactly("b", 1, 2)})
	for _, tt := range []struct {
		Tally
		err    error
		status int
		text   string
	}{
		{good, nil, 0, "All 2 checks hold."},
		{Tally{Checks: 3, Skipped: 2}, nil, 0, "All 3 checks hold; 2 scenes were skipped."},
		{bad, nil, 1, "FAILED: 1 of 3 checks do not hold."},
		{Tally{}, nil, 1, "FAILED: nothing was checked."},
		{Tally{Skipped: 7}, nil, 1, "FAILED: nothing was checked."},
		{good, errors.New("hung"), 1, "FAILED: hung"},
		{bad, errors.New("hung"), 1, "FAILED: hung"},
	} {
		var out strings.Builder
		assert.Equal(t, tt.status, NewNarrator(&out).Conclude(tt.Tally, tt.err))
		assert.Equal(t, fmt.Sprintf("\n%s\n", tt.text), out.String())
	}
}

func TestNarratorPrintsInOrder(t *testing.T) {
	var out strings.Builder
	n := NewNarrator(&out)
	n.Open(3, "a title", "A story,\n  in two lines.")
	began := n.began
	n.SayAt(began.Add(2*time.Second), "second")
	n.SayAt(began.Add(time.Second), "first ")
	n.mu.Lock()
	n.flush(began.Add(time.Minute))
	n.mu.Unlock()
	n.Table("%-3s %-8s %-4s %s\n", []Check{Exactly("a", 1, 1), Exactly("b", 1, 2)})
	assert.Equal(t, `
3. A title

   A story,
   in two lines.

    1.000 s  first
    2.000 s  second

    expected seen
a   1        1    ok
b   1        2    FAILED
`, out.String())
}

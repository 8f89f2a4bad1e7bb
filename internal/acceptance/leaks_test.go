package acceptance

import (
	"context"
	"fmt"
	"runtime/pprof"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"go.uber.org/goleak"
)

// What may be left when a test ends.
var (
	// go-redis dials once a second after failures, and notices only then that it was closed.
	stillDialing  = goleak.IgnoreAnyFunction("github.com/redis/go-redis/v9/internal/pool.(*ConnPool).tryDial")
	stillDraining = goleak.IgnoreAnyFunction("github.com/idempotent-go/idempotent/internal/redistest.drain")
)

// leavesNothing fails a test that leaves a goroutine behind. Tests run in parallel, so it tells their
// goroutines apart by a profiler label, which goroutines inherit. Those of timers have none:
// TestMain looks for them when all tests are over.
func leavesNothing(t *testing.T) {
	t.Helper()
	test := fmt.Sprint(t.Name(), " ", worlds.Add(1))
	pprof.SetGoroutineLabels(pprof.WithLabels(context.Background(), pprof.Labels(testLabel, test)))
	t.Cleanup(func() {
		pprof.SetGoroutineLabels(context.Background()) // cleanups run on the test's own goroutine
		var left []string
		assert.Eventually(t, func() bool {
			left = goroutinesOf(test)
			return len(left) == 0
		}, 5*time.Second, 20*time.Millisecond)
		assert.Empty(t, left, "goroutines that are left")
	})
}

const testLabel = "test"

// goroutinesOf returns the stacks of a test's goroutines.
func goroutinesOf(test string) (stacks []string) {
	var profile strings.Builder
	_ = pprof.Lookup("goroutine").WriteTo(&profile, 1)
	label := fmt.Sprintf("# labels: {%q:%q}", testLabel, test)
	for stack := range strings.SplitSeq(profile.String(), "\n\n") {
		switch {
		case !strings.Contains(stack, label):
		case strings.Contains(stack, "pool.(*ConnPool).tryDial"), strings.Contains(stack, "redistest.drain"):
		default:
			stacks = append(stacks, stack)
		}
	}
	return stacks
}

func TestGoroutinesThatAreLeftAreFound(t *testing.T) {
	const name = "a test that leaves one"
	end, begun := make(chan struct{}), make(chan struct{})
	pprof.Do(t.Context(), pprof.Labels(testLabel, name), func(context.Context) {
		go func() {
			close(begun)
			<-end
		}()
	})
	<-begun
	left := goroutinesOf(name)
	close(end)
	assert.Len(t, left, 1)
	assert.Contains(t, strings.Join(left, ""), "TestGoroutinesThatAreLeftAreFound")
	assert.Empty(t, goroutinesOf("another test"))
}

// The race detector allocates, too.

//go:build !race

package acceptance

import (
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/internal/redistest"
)

// Without an observer and a tracer, nothing is allocated for them. go-redis reads each reply of a connection into the
// same memory, so the counts are exact.
func TestSilentCallsAllocateNothingMore(t *testing.T) {
	onRealRedisAt(t, redistest.URL(t), func(w *world) { // alone: the counts are those of the process
		x, err := idempotent.New[string](w.client(nil), w.namespace)
		require.NoError(w, err)
		defer x.Close()
		run := func(key string) {
			_, err := x.Run(w.Context(), key, charged)
			require.NoError(w, err)
		}
		run("order-1") // connects, and loads the scripts
		assert.LessOrEqual(w, testing.AllocsPerRun(200, func() { run("order-1") }), 13.0, "a replay")
		keys, n := make([]string, 201), -1
		for i := range keys {
			keys[i] = "first-" + strconv.Itoa(i)
		}
		assert.LessOrEqual(w, testing.AllocsPerRun(200, func() { n++; run(keys[n]) }), 36.0, "a first run")

		cached := w.caching()
		silent, err := idempotent.New[string](cached.client, w.namespace+"-silent", idempotent.WithReplayCache(10))
		require.NoError(w, err)
		defer silent.Close()
		hit := func() {
			_, err := silent.Run(w.Context(), "order-1", charged)
			require.NoError(w, err)
		}
		require.Eventually(w, func() bool { return cached.commands(hit) == 0 }, time.Minute, 10*time.Millisecond, "the cache is in use")
		assert.Zero(w, testing.AllocsPerRun(200, hit), "a hit of the replay cache")
	})
}

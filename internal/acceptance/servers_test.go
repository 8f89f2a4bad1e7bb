package acceptance

import (
	"context"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/internal/behaviour"
	"github.com/idempotent-go/idempotent/internal/redistest"
)

// staysUp keeps the keys of a Ring where they are.
func staysUp(context.Context, *redis.Client) bool { return true }

// ejects takes servers for dead once they are killed, which New cannot foresee.
func ejects(servers ...*redistest.Server) func(context.Context, *redis.Client) bool {
	return func(_ context.Context, shard *redis.Client) bool {
		for _, s := range servers {
			if s.Addr() == shard.Options().Addr {
				return s.Alive()
			}
		}
		return true
	}
}

func newRing(t *testing.T, addrs map[string]string, alive func(context.Context, *redis.Client) bool) *redis.Ring {
	t.Helper()
	r := redis.NewRing(&redis.RingOptions{Addrs: addrs, HeartbeatFn: alive, HeartbeatFrequency: 5 * time.Millisecond})
	t.Cleanup(func() { _ = r.Close() })
	return r
}

func TestRing(t *testing.T) {
	t.Parallel()
	addrs := map[string]string{"one": redistest.Start(t).Addr(), "two": redistest.Start(t).Addr(), "three": redistest.Start(t).Addr()}
	behaviour.Run(t, newRing(t, addrs, staysUp), newRing(t, addrs, staysUp))
}

// A Ring gives the keys of a shard it takes for dead to the others, where nobody knows what runs
// or is done.
func TestRingThatMovesKeys(t *testing.T) {
	addrs := map[string]string{"one": "127.0.0.1:1", "two": "127.0.0.1:2"}
	type wrapped struct{ *redis.Ring }
	for name, client := range map[string]redis.UniversalClient{
		"by default": newRing(t, addrs, nil),
		"wrapped":    wrapped{newRing(t, addrs, nil)},
		"by its own heartbeat": newRing(t, addrs, func(ctx context.Context, shard *redis.Client) bool {
			return shard.Ping(ctx).Err() == nil
		}),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := idempotent.New[string](client, "default")
			require.ErrorIs(t, err, idempotent.ErrInvalidOption)
			assert.ErrorContains(t, err, "HeartbeatFn")
		})
	}
	_, err := idempotent.New[string](newRing(t, addrs, staysUp), "default")
	require.NoError(t, err)
}

// While a shard is away, its operations are unavailable, and those of the others go on.
func TestRingShardDown(t *testing.T) {
	t.Parallel()
	one, two := redistest.Start(t), redistest.Start(t)
	beats := make(chan string)
	ring := newRing(t, map[string]string{"one": one.Addr(), "two": two.Addr()}, func(ctx context.Context, shard *redis.Client) bool {
		select {
		case beats <- shard.Options().Addr:
		default:
		}
		return true
	})
	x, err := idempotent.New[string](ring, "default")
	require.NoError(t, err)
	t.Cleanup(func() { _ = x.Close() })
	runs := make(map[string]int)
	run := func(key string) error {
		_, err := x.Run(t.Context(), key, func(context.Context) (string, error) {
			runs[key]++
			return "charged", nil
		})
		return err
	}
	keyOn := func(server *redistest.Server) string {
		for i := 0; ; i++ {
			key := idempotent.HashKey("order", string(rune('a'+i)))
			shard, err := ring.GetShardClientForKey("idempotent:default:" + key)
			require.NoError(t, err)
			if shard.Options().Addr == server.Addr() {
				return key
			}
		}
	}
	lost, kept := keyOn(one), keyOn(two)
	require.NoError(t, run(lost))
	one.Kill()
	for n := 0; n < 10; { // more than it takes a Ring to move keys
		if <-beats == one.Addr() {
			n++
		}
	}
	require.ErrorIs(t, run(lost), idempotent.ErrUnavailable)
	require.NoError(t, run(kept))
	assert.Equal(t, map[string]int{lost: 1, kept: 1}, runs)
}

var duplex = map[string]*redis.AutoPipelineOptions{"half duplex": {}, "full duplex": {FullDuplex: true}}

func TestAutoPipeliner(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	for name, options := range duplex {
		t.Run(name, func(t *testing.T) {
			pipeliner := func() *redis.AutoPipeliner {
				p, err := server.Client(t).AutoPipelineWithOptions(options)
				require.NoError(t, err)
				t.Cleanup(func() { _ = p.Close() })
				return p
			}
			behaviour.Run(t, pipeliner(), pipeliner())
		})
	}
}

// One that defers returns before a command was sent: how that went is in the command alone.
func TestDeferringAutoPipeliner(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	client := server.Client(t)
	pipeliner, err := client.AsyncAutoPipeline()
	require.NoError(t, err)
	defer pipeliner.Close()
	x, err := idempotent.New[string](pipeliner, "ns")
	require.NoError(t, err)
	defer x.Close()

	t.Run("a commit that fails", func(t *testing.T) { // the script is not loaded
		_, err := x.Run(t.Context(), "commit", func(context.Context) (string, error) { return "v", nil })
		require.NoError(t, err)
		status, err := x.Peek(t.Context(), "commit")
		require.NoError(t, err)
		assert.Equal(t, idempotent.StateSucceeded, status.State)
	})
	t.Run("a claim that fails", func(t *testing.T) {
		require.NoError(t, client.ConfigSet(t.Context(), "maxmemory", "1").Err())
		_, err := x.Run(t.Context(), "claim", func(context.Context) (string, error) { panic("nobody owns this") })
		require.ErrorIs(t, err, idempotent.ErrUnavailable)
	})
}

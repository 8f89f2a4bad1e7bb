package acceptance

import (
	"context"
	"errors"
	"net"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/internal/redistest"
)

// A pipelineHook does what it is told to before each pipeline with commands of ours.
type pipelineHook struct {
	before func(cmds []redis.Cmder) error
}

func (pipelineHook) DialHook(next redis.DialHook) redis.DialHook          { return next }
func (pipelineHook) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

func (h pipelineHook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if ours(cmds[0]) {
			if err := h.before(cmds); err != nil {
				return err
			}
		}
		return next(ctx, cmds)
	}
}

func TestHookRefusesPipeline(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t).Client(t)
	client.AddHook(pipelineHook{func([]redis.Cmder) error { return errors.New("circuit open") }})
	x, err := idempotent.New[string](client, "ns")
	require.NoError(t, err)
	defer x.Close()
	for _, out := range x.RunMany(t.Context(), numbered(3, func(int) (string, error) { panic("nobody owns this") })) {
		require.ErrorIs(t, out.Err, idempotent.ErrUnavailable)
		require.ErrorContains(t, out.Err, "circuit open")
	}
}

func TestHookRefusesAcknowledgedClaim(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t).Client(t)
	client.AddHook(pipelineHook{func([]redis.Cmder) error { return errors.New("circuit open") }})
	x, err := idempotent.New[string](client, "default", idempotent.WithReplicaAck(1, time.Second))
	require.NoError(t, err)
	defer x.Close()
	_, err = x.Run(t.Context(), "k", func(context.Context) (string, error) { panic("nobody owns this") })
	require.ErrorIs(t, err, idempotent.ErrUnavailable)
}

// The first nine pipelines, more than there are at once, end the goroutines that send them.
func TestHookExitsPipeline(t *testing.T) {
	t.Parallel()
	options, err := redis.ParseURL(redistest.Start(t).URL())
	require.NoError(t, err)
	options.PoolSize = 1
	client := redis.NewClient(options)
	defer client.Close()
	var sent atomic.Int64
	client.AddHook(pipelineHook{func([]redis.Cmder) error {
		if sent.Add(1) < 10 {
			runtime.Goexit()
		}
		return nil
	}})
	x, err := idempotent.New[string](client, "ns")
	require.NoError(t, err)
	defer x.Close()
	run := func(key int) error {
		_, err := x.Run(t.Context(), strconv.Itoa(key), func(context.Context) (string, error) { return "v", nil })
		return err
	}
	var all sync.WaitGroup
	for i := 0; sent.Load() < 10; i++ {
		if i%200 == 0 {
			all.Wait() // each has an answer
		}
		all.Go(func() {
			if err := run(i); err != nil {
				assert.ErrorIs(t, err, idempotent.ErrUnavailable)
			}
		})
	}
	all.Wait()
	require.NoError(t, run(-1))
}

// A keeper keeps the commands that it sees, for a log that is written later.
type keeper struct{ kept []redis.Cmder }

func (*keeper) DialHook(next redis.DialHook) redis.DialHook { return next }
func (*keeper) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (k *keeper) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if cmd.Name() == "set" {
			k.kept = append(k.kept, cmd)
		}
		return next(ctx, cmd)
	}
}

func TestHookKeepsCommands(t *testing.T) {
	inFakeTime(t, func(w *world) {
		x := w.executor()
		k := &keeper{}
		x.client.AddHook(k)
		for range 3 {
			for _, key := range []string{"a", "b"} {
				_, err := x.Run(w.Context(), key, func(context.Context) (string, error) { return "v", nil })
				require.NoError(w, err)
			}
		}
		require.Len(w, k.kept, 6)
		for i, cmd := range k.kept {
			assert.Contains(w, cmd.Args(), "idempotent:test:"+[]string{"a", "b"}[i%2])
		}
	})
}

// A server that cannot be reached, and takes its time to say so: Run's context ends the wait for a
// connection, whatever a command shares that connection with.
func TestContextEndsWaitForConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := redis.NewClient(&redis.Options{PoolSize: 4, Addr: "127.0.0.1:1", Dialer: func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}})
		x, err := idempotent.New[string](client, "default")
		require.NoError(t, err)
		var all sync.WaitGroup
		began := time.Now()
		for i := range 100 {
			all.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
				defer cancel()
				_, err := x.Run(ctx, strconv.Itoa(i), func(context.Context) (string, error) { panic("nobody owns this") })
				assert.ErrorIs(t, err, context.DeadlineExceeded)
			})
		}
		all.Wait()
		assert.Equal(t, 200*time.Millisecond, time.Since(began))
		require.NoError(t, x.Close())
		require.NoError(t, client.Close())
		time.Sleep(time.Minute) // of the bubble: go-redis goes on dialing until it notices
	})
}

package release

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent/internal/store"
)

const linger = 30 * time.Second

// A server answers pipelines in place of Redis.
type fakeServer struct {
	mu        sync.Mutex
	pipelines []int           // how many releases each had
	down      error           // of every pipeline
	exits     bool            // its hook ends the goroutine
	refused   map[string]bool // keys
	released  map[string]int
}

func (f *fakeServer) DialHook(next redis.DialHook) redis.DialHook          { return next }
func (f *fakeServer) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

func (f *fakeServer) ProcessPipelineHook(redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(_ context.Context, cmds []redis.Cmder) error {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.pipelines = append(f.pipelines, len(cmds))
		switch {
		case f.exits:
			runtime.Goexit()
		case f.down != nil:
			return f.down
		}
		for _, cmd := range cmds {
			f.answer(cmd.(*redis.Cmd)) //nolint:errcheck,forcetypeassert // releases are scripts
		}
		return nil
	}
}

func (f *fakeServer) answer(cmd *redis.Cmd) {
	key, _ := cmd.Args()[3].(string)
	if f.refused[key] {
		cmd.SetErr(errors.New("WRONGTYPE Operation against a key holding the wrong kind of value"))
		return
	}
	f.released[key]++
	cmd.SetVal(int64(1))
}

func (f *fakeServer) change(to func(*fakeServer)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	to(f)
}

func inFakeTime(t *testing.T, test func(t *testing.T, f *fakeServer, q *Queue)) {
	synctest.Test(t, func(t *testing.T) {
		client := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1", Dialer: func(context.Context, string, string) (net.Conn, error) {
			return nil, errors.New("the fake server needs no connection")
		}})
		defer func() { _ = client.Close() }()
		f := &fakeServer{released: make(map[string]int), refused: make(map[string]bool)}
		client.AddHook(f)
		q := New(store.New(client, 0, store.Ack{}), linger, slog.New(slog.DiscardHandler))
		defer func() {
			f.change(func(f *fakeServer) { f.exits = false })
			q.Close(context.Background())
		}()
		test(t, f, q)
	})
}

// left is how many releases are not settled.
func (q *Queue) left() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.pending
}

func add(q *Queue, n int, doubtful bool) {
	for i := range n {
		q.Add(store.Release{Name: fmt.Sprint("key-", i), Message: []byte{store.MessageRead}}, doubtful)
	}
}

func TestABurstSharesPipelines(t *testing.T) {
	inFakeTime(t, func(t *testing.T, f *fakeServer, q *Queue) {
		f.change(func(*fakeServer) { add(q, 2000, false) }) // it answers once all are queued
		time.Sleep(time.Second)
		synctest.Wait()
		assert.Len(t, f.released, 2000)
		assert.LessOrEqual(t, len(f.pipelines), 1+2000/batchLimit)
		assert.Zero(t, q.left())
	})
}

// A server that fails gets one pipeline for each try, however many releases wait for it.
func TestReleasesWaitTogetherForAServerThatFails(t *testing.T) {
	inFakeTime(t, func(t *testing.T, f *fakeServer, q *Queue) {
		f.down = errors.New("connection refused")
		add(q, 2000, true)
		time.Sleep(time.Minute)
		f.change(func(f *fakeServer) {
			assert.Greater(t, len(f.pipelines), 40, "tried for as long as the process lives")
			assert.Less(t, len(f.pipelines), 100, "about one each second")
			f.down, f.pipelines = nil, nil
		})
		time.Sleep(2 * time.Second)
		synctest.Wait()
		assert.Len(t, f.released, 2000)
	})
}

func TestAKeyThatIsRefusedHoldsUpNoOther(t *testing.T) {
	inFakeTime(t, func(t *testing.T, f *fakeServer, q *Queue) {
		f.refused["key-0"] = true
		add(q, 3, false)
		time.Sleep(time.Minute)
		synctest.Wait()
		f.change(func(f *fakeServer) {
			assert.Equal(t, map[string]int{"key-1": 1, "key-2": 1}, f.released)
			assert.InDelta(t, 60, len(f.pipelines), 20, "tried once each second")
			clear(f.refused)
		})
		time.Sleep(2 * time.Second)
		synctest.Wait()
		assert.Len(t, f.released, 3)
		assert.Zero(t, q.left())
	})
}

// A claim of unknown fate may arrive after its release: the release is repeated for one lease.
func TestADoubtfulClaimIsReleasedForOneLease(t *testing.T) {
	inFakeTime(t, func(t *testing.T, f *fakeServer, q *Queue) {
		add(q, 1, true)
		time.Sleep(linger - time.Second)
		synctest.Wait()
		require.Equal(t, 1, q.left())
		time.Sleep(2 * time.Second)
		synctest.Wait()
		assert.Zero(t, q.left())
		assert.InDelta(t, 12, f.released["key-0"], 4, "pauses double")
	})
}

func TestAHookThatExitsLosesNoRelease(t *testing.T) {
	inFakeTime(t, func(t *testing.T, f *fakeServer, q *Queue) {
		f.exits = true
		add(q, 2, false)
		time.Sleep(time.Second)
		f.change(func(f *fakeServer) { f.exits = false })
		time.Sleep(2 * time.Second)
		synctest.Wait()
		assert.Len(t, f.released, 2)
	})
}

func TestCloseSendsEachOnceMore(t *testing.T) {
	inFakeTime(t, func(t *testing.T, f *fakeServer, q *Queue) {
		f.down = errors.New("connection refused")
		add(q, 700, false)
		time.Sleep(10 * time.Second)
		f.change(func(f *fakeServer) { f.down = nil })
		q.Close(t.Context())
		assert.Len(t, f.released, 700)
	})
}

func TestCloseEndsWithItsContext(t *testing.T) {
	inFakeTime(t, func(t *testing.T, f *fakeServer, q *Queue) {
		f.down = errors.New("connection refused")
		add(q, 1, false)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		q.Close(ctx)
		assert.Empty(t, f.released)
	})
}

func TestFull(t *testing.T) {
	inFakeTime(t, func(t *testing.T, f *fakeServer, q *Queue) {
		f.down = errors.New("connection refused")
		add(q, Limit-1, false)
		assert.False(t, q.Full())
		add(q, 1, false)
		assert.True(t, q.Full())
		f.change(func(f *fakeServer) { f.down = nil })
		time.Sleep(10 * time.Second)
		synctest.Wait()
		assert.False(t, q.Full())
		assert.Len(t, f.released, Limit-1)
	})
}

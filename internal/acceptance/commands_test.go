package acceptance

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/internal/redistest"
)

// What things cost, in Redis commands. INFO commandstats counts what clients send, and what
// scripts call as well; the latter are the commands that our scripts are known to call.

var (
	commitCalls = map[string]int{"getrange": 1, "set": 1, "publish": 1}
	readCalls   = map[string]int{"getrange": 1, "get": 1, "pttl": 1}
)

// sent takes what scripts called off the counts.
func sent(counts map[string]int, byScripts ...map[string]int) map[string]int {
	left := maps.Clone(counts)
	for _, calls := range byScripts {
		for name, n := range calls {
			left[name] -= n
		}
	}
	maps.DeleteFunc(left, func(_ string, n int) bool { return n == 0 })
	return left
}

func total(counts map[string]int) (n int) {
	for c := range maps.Values(counts) {
		n += c
	}
	return n
}

// counted is a world on a server of the test's own, whose scripts are loaded.
func counted(t *testing.T, test func(w *world, server *redistest.Server)) {
	t.Helper()
	server := redistest.Start(t)
	onRealRedisAt(t, server.URL(), func(w *world) {
		w.lease = time.Minute
		warm, other := w.executor(), w.executor()
		p := w.provider()
		first := warm.start(w.Context(), "warm", p.charge)
		<-p.started
		second := other.start(w.Context(), "warm", p.charge)
		other.waits(w)
		p.answer("", nil)
		first.returned(w, "")
		second.returned(w, "")
		test(w, server)
	})
}

func TestCommandsOfAFirstRun(t *testing.T) {
	counted(t, func(w *world, server *redistest.Server) {
		x := w.executor()
		p := w.provider()
		p.answer("charged", nil)
		counts := server.Commands(w, func() { x.start(w.Context(), "order-1", p.charge).returned(w, "charged") })
		assert.Equal(w, map[string]int{"set": 1, "evalsha": 1}, sent(counts, commitCalls))
	})
}

func TestCommandsOfAReplay(t *testing.T) {
	counted(t, func(w *world, server *redistest.Server) {
		x := w.executor()
		p := w.provider()
		p.answer("charged", nil)
		x.start(w.Context(), "order-1", p.charge).returned(w, "charged")
		counts := server.Commands(w, func() { x.start(w.Context(), "order-1", p.charge).returned(w, "charged") })
		assert.Equal(w, map[string]int{"set": 1}, sent(counts))
	})
}

func TestCommandsOfOwnerAndWaiterInTwoProcesses(t *testing.T) {
	counted(t, func(w *world, server *redistest.Server) {
		owner, other := w.executor(), w.executor()
		p := w.provider()
		counts := server.Commands(w, func() {
			first := owner.start(w.Context(), "order-1", p.charge)
			<-p.started
			second := other.start(w.Context(), "order-1", p.charge)
			other.waits(w)
			p.answer("charged", nil)
			first.returned(w, "charged")
			second.returned(w, "charged")
			require.NoError(w, other.Close()) // it has unsubscribed, if it does
		})
		total := total(sent(counts, commitCalls, readCalls))
		assert.LessOrEqual(w, total, 7, "%v", counts)
		assert.GreaterOrEqual(w, total, 5, "%v", counts)
	})
}

func TestCommandsOfAThousandCallersInOneProcess(t *testing.T) {
	counted(t, func(w *world, server *redistest.Server) {
		x := w.executor()
		p := w.provider()
		counts := server.Commands(w, func() {
			calls := []*call{x.start(w.Context(), "order-1", p.charge)}
			<-p.started
			for range 999 {
				calls = append(calls, x.start(w.Context(), "order-1", p.charge))
			}
			x.Wait(w, idempotent.EventJoined, 999)
			p.answer("charged", nil)
			for _, c := range calls {
				c.returned(w, "charged")
			}
		})
		assert.Equal(w, map[string]int{"set": 1, "evalsha": 1}, sent(counts, commitCalls))
	})
}

func TestOneSubscriptionConnectionForManyKeys(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	onRealRedisAt(t, server.URL(), func(w *world) {
		w.lease = time.Minute
		owner, other := w.executor(), w.executor()
		p := w.provider()
		const keys = 200
		var calls []*call
		for i := range keys {
			calls = append(calls, owner.start(w.Context(), idempotent.HashKey(string(rune(i))), p.charge))
		}
		for range keys {
			<-p.started
		}
		for i := range keys {
			calls = append(calls, other.start(w.Context(), idempotent.HashKey(string(rune(i))), p.charge))
		}
		for range keys {
			<-other.looked
		}
		ctx := context.Background()
		channels, err := other.client.PubSubChannels(ctx, "*").Result()
		require.NoError(w, err)
		assert.Len(w, channels, keys)
		clients, err := other.client.Do(ctx, "client", "list", "type", "pubsub").Text()
		require.NoError(w, err)
		assert.Len(w, strings.Split(strings.TrimSpace(clients), "\n"), 1)
		for range keys {
			p.answer("charged", nil)
		}
		for _, c := range calls {
			c.returned(w, "charged")
		}
		require.Eventually(w, func() bool { // the server has no event for it
			channels, err := other.client.PubSubChannels(ctx, "*").Result()
			return err == nil && len(channels) == 0
		}, time.Minute, time.Millisecond, "channels are dropped when nobody waits")
	})
}

// Everything that is stored has an expiry, whatever became of it.
func TestEveryKeyExpires(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	onRealRedisAt(t, server.URL(), func(w *world) {
		x := w.executor(idempotent.WithShouldIgnoreError(idempotent.IsRetryable))
		p := w.provider()
		p.answer("charged", nil)
		x.start(w.Context(), "value", p.charge).returned(w, "charged")
		p.answer("", assert.AnError)
		x.start(w.Context(), "error", p.charge).wait(w)
		p.answer("", errBusy)
		x.start(w.Context(), "ignored", p.charge).wait(w)
		require.NoError(w, resolve(x, w.Context(), "resolved", "settled"))
		ctx, cancel := context.WithCancel(w.Context())
		c := x.start(ctx, "abandoned", p.chargeOrLeave)
		for range 4 {
			<-p.started
		}
		cancel()
		c.wait(w)
		running := x.start(w.Context(), "running", p.charge)
		<-p.started
		keys, err := x.client.Keys(w.Context(), "*").Result()
		require.NoError(w, err)
		assert.Len(w, keys, 5)
		for _, key := range keys {
			ttl, err := x.client.PTTL(w.Context(), key).Result()
			require.NoError(w, err)
			assert.Positive(w, ttl, key)
		}
		p.answer("charged", nil)
		running.returned(w, "charged")
	})
}

// A comparison saves the server's CPU, and wakes waiters one round trip later than the script does: a
// commit tries it only where fn was so short that there is hardly a waiter.
func TestOnlyAShortFnCommitsByComparison(t *testing.T) {
	inFakeTime(t, func(w *world) {
		x := w.executor()
		var compared atomic.Int64
		x.client.AddHook(rewriting{change: func(cmd redis.Cmder) {
			if slices.Contains(cmd.Args(), any("ifeq")) {
				compared.Add(1)
			}
		}})
		run := func(key string, takes time.Duration) {
			x.start(w.Context(), key, func(context.Context) (string, error) {
				time.Sleep(takes)
				return "charged", nil
			}).returned(w, "charged")
		}
		const enough = 150 // commits, for an executor to ask the server for SET with IFEQ
		for i := range enough {
			run(fmt.Sprint("order-", i), 2*time.Millisecond)
		}
		require.Zero(w, compared.Load())
		run("order", 0)
		require.Zero(w, compared.Load(), "the first short one counts towards those")
		for i := range enough {
			run(fmt.Sprint("short-", i), 0)
		}
		require.EqualValues(w, 1, compared.Load(), "the server has no IFEQ")
	})
}

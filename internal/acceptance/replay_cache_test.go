package acceptance

import (
	"context"
	"errors"
	"log/slog"
	"strings"
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

const (
	cacheInUse   = "idempotent: replay cache in use"
	cacheEmptied = "idempotent: replay cache emptied and bypassed until its channel is restored"

	// longestStale is how long the documentation says that a forgotten outcome can be replayed.
	longestStale = 3 * time.Second
)

// A logWatch is a log to wait on.
type logWatch struct{ messages chan string }

func newLogWatch() *logWatch { return &logWatch{messages: make(chan string, 10_000)} }

func (l *logWatch) Enabled(context.Context, slog.Level) bool { return true }
func (l *logWatch) WithAttrs([]slog.Attr) slog.Handler       { return l }
func (l *logWatch) WithGroup(string) slog.Handler            { return l }

func (l *logWatch) Handle(_ context.Context, r slog.Record) error {
	l.messages <- r.Message
	return nil
}

// await returns when message has been logged once more.
func (l *logWatch) await(tb testing.TB, message string) {
	tb.Helper()
	enough := time.After(time.Minute)
	for {
		select {
		case m := <-l.messages:
			if m == message {
				return
			}
		case <-enough:
			tb.Fatalf("%q was not logged in a minute", message)
		}
	}
}

// asked counts what a client sends, but for the proofs of its cache and what sets up connections.
type asked struct {
	refuse
	n *atomic.Int64
}

func (a asked) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if name := cmd.Name(); name != "publish" && name != "hello" && name != "client" {
			a.n.Add(1)
		}
		return next(ctx, cmd)
	}
}

// A cachingExecutor has a cache in use.
type cachingExecutor struct {
	*executor
	log  *logWatch
	sent atomic.Int64
}

func (w *world) caching(opts ...idempotent.Option) *cachingExecutor {
	w.Helper()
	x := &cachingExecutor{log: newLogWatch()}
	x.executor = w.executor(append([]idempotent.Option{
		idempotent.WithReplayCache(100), idempotent.WithLogger(slog.New(x.log)),
	}, opts...)...)
	x.client.AddHook(asked{n: &x.sent})
	_, err := x.Get(w.Context(), "unknown") // the first call that asks Redis starts the cache
	require.ErrorIs(w, err, idempotent.ErrNotFound)
	x.log.await(w, cacheInUse)
	_, err = x.Run(w.Context(), "warm", charged) // loads the scripts
	require.NoError(w, err)
	return x
}

// commands is how many commands the client sends while do runs.
func (x *cachingExecutor) commands(do func()) int64 {
	before := x.sent.Load()
	do()
	return x.sent.Load() - before
}

// replays runs a key that is done.
func (x *executor) replays(w *world, key, value string, opts ...idempotent.RunOption) idempotent.Report {
	w.Helper()
	c := x.start(w.Context(), key, func(context.Context) (string, error) {
		return "", errors.New("fn ran")
	}, opts...)
	c.returned(w, value)
	require.Contains(w, []idempotent.Source{idempotent.Replayed, idempotent.Cached}, c.report.Source)
	return c.report
}

func TestReplayCacheAnswersWithoutRedis(t *testing.T) {
	everywhere(t, func(w *world) {
		x, other := w.caching(), w.executor()
		p := w.provider()
		p.answer("charged", nil)
		p.answer("", errors.New("declined"))
		first := x.start(w.Context(), "order-1", p.charge)
		first.returned(w, "charged")
		require.EqualError(w, x.start(w.Context(), "order-2", p.charge).wait(w).err, "declined")
		recorded := other.replays(w, "order-1", "charged")
		recorded.Source = idempotent.Cached
		assert.Zero(w, x.commands(func() {
			for range 5 {
				assert.Equal(w, recorded, x.replays(w, "order-1", "charged"), "but for its source, as from Redis")
				value, err := x.Get(w.Context(), "order-1")
				require.NoError(w, err)
				assert.Equal(w, "charged", value)
				failed := x.start(w.Context(), "order-2", p.charge).wait(w)
				require.ErrorIs(w, failed.err, idempotent.ErrReplayed)
				require.EqualError(w, failed.err, "declined")
			}
		}))
		assert.Equal(w, 15, x.Count(idempotent.EventReplayed))
		event := x.Wait(w, idempotent.EventReplayed, 15)
		event.Age = 0
		assert.Equal(w, idempotent.Event{
			Kind: idempotent.EventReplayed, Namespace: w.namespace, Key: "order-2", Attempt: 1, Source: idempotent.Cached, TTL: idempotent.DefaultTTL,
		}, event)
		assert.Equal(w, 2, p.count())
	})
}

func TestReplayCacheKeepsWhatItReads(t *testing.T) {
	everywhere(t, func(w *world) {
		x, owner := w.caching(), w.executor()
		p := w.provider()
		for _, key := range []string{"run", "got"} {
			p.answer("charged", nil)
			owner.start(w.Context(), key, p.charge).returned(w, "charged")
		}
		recorded := owner.replays(w, "run", "charged")
		assert.EqualValues(w, 1, x.commands(func() { assert.Equal(w, recorded, x.replays(w, "run", "charged")) }))
		recorded.Source = idempotent.Cached
		assert.EqualValues(w, 1, x.commands(func() { _, _ = x.Get(w.Context(), "got") }))
		assert.Zero(w, x.commands(func() {
			assert.Equal(w, recorded, x.replays(w, "run", "charged"))
			x.replays(w, "got", "charged")
		}))
	})
}

// Scripts aside, a first run costs two commands, and a hit none, as Redis counts them.
func TestCommandsOfAReplayCache(t *testing.T) {
	counted(t, func(w *world, server *redistest.Server) {
		x := w.caching()
		p := w.provider()
		p.answer("charged", nil)
		proofs := func(counts map[string]int) map[string]int {
			delete(counts, "publish") // with what scripts publish
			return counts
		}
		assert.Equal(w, map[string]int{"evalsha": 2}, proofs(sent(server.Commands(w, func() {
			x.start(w.Context(), "order-1", p.charge).returned(w, "charged")
		}), commitCalls, map[string]int{"get": 1, "set": 1})))
		assert.Empty(w, proofs(server.Commands(w, func() {
			for range 100 {
				x.replays(w, "order-1", "charged")
			}
		})))
	})
}

func TestReplayCacheOfForgottenKeys(t *testing.T) {
	everywhere(t, func(w *world) {
		x, other := w.caching(), w.caching()
		p := w.provider()
		for _, value := range []string{"1", "2", "3"} {
			p.answer(value, nil)
			x.start(w.Context(), "order-1", p.charge).returned(w, value)
			other.replays(w, "order-1", value)
			other.replays(w, "order-1", value)
			require.NoError(w, x.Forget(w.Context(), "order-1"))
			_, err := x.Get(w.Context(), "order-1")
			require.ErrorIs(w, err, idempotent.ErrNotFound, "it forgot it itself")
			w.hears(other, "order-1")
		}
		p.answer("4", nil)
		other.start(w.Context(), "order-1", p.charge).returned(w, "4")
	})
}

// hears returns when x does not know a key any more.
func (w *world) hears(x *cachingExecutor, key string) {
	w.Helper()
	w.settled()
	gone := func() bool {
		_, err := x.Get(w.Context(), key)
		return errors.Is(err, idempotent.ErrNotFound)
	}
	if !w.real {
		require.True(w, gone(), "at once")
		return
	}
	require.Eventually(w, gone, time.Minute, time.Millisecond)
}

// Redis lost the record, an operator settles the key by hand: those who know the old outcome
// are told.
func TestReplayCacheOfResolvedKeys(t *testing.T) {
	everywhere(t, func(w *world) {
		x, other := w.caching(), w.caching()
		p := w.provider()
		p.answer("charged", nil)
		x.start(w.Context(), "order-1", p.charge).returned(w, "charged")
		other.replays(w, "order-1", "charged")
		require.NoError(w, x.client.Del(w.Context(), w.name("order-1")).Err())
		x.replays(w, "order-1", "charged")
		require.NoError(w, resolve(x, w.Context(), "order-1", "settled"))
		x.replays(w, "order-1", "settled")
		w.settled()
		settled := func() bool {
			value, err := other.Get(w.Context(), "order-1")
			return err == nil && value == "settled"
		}
		require.Eventually(w, settled, time.Minute, time.Millisecond)
	})
}

func TestReplayCacheOfUnfinishedKeys(t *testing.T) {
	everywhere(t, func(w *world) {
		x := w.caching(idempotent.WithInterrupted(idempotent.Refuse))
		p := w.provider()
		p.answer("", idempotent.OutcomeUnknown(errors.New("connection reset")))
		x.start(w.Context(), "order-1", p.charge).wait(w)
		for range 3 { // taken over and refused, read, read again
			assert.Positive(w, x.commands(func() {
				_, err := x.Run(w.Context(), "order-1", p.charge)
				require.ErrorIs(w, err, idempotent.ErrInterrupted)
			}), "interrupted")
		}
		running := x.start(w.Context(), "order-2", p.charge)
		<-p.started
		<-p.started
		for range 2 {
			_, err := x.Get(w.Context(), "order-2", idempotent.WithNoWait())
			require.ErrorIs(w, err, idempotent.ErrInProgress)
		}
		p.answer("charged", nil)
		running.returned(w, "charged")
		x.replays(w, "order-2", "charged")

		ignored := idempotent.WithShouldIgnoreError(func(error) bool { return true })
		for i := range 2 {
			p.answer("", errBusy)
			c := x.start(w.Context(), "order-3", p.charge, ignored, idempotent.WithIgnoredErrors(idempotent.ShareWithWaiters)).wait(w)
			require.ErrorIs(w, c.err, errBusy)
			assert.Equal(w, 3+i, p.count(), "an ignored error is not kept")
		}
	})
}

func TestReplayCacheChecksFingerprints(t *testing.T) {
	everywhere(t, func(w *world) {
		x := w.caching()
		p := w.provider()
		ten, twenty := idempotent.WithFingerprint([]byte("10")), idempotent.WithFingerprint([]byte("20"))
		p.answer("charged", nil)
		x.start(w.Context(), "order-1", p.charge, ten).returned(w, "charged")
		assert.Zero(w, x.commands(func() {
			x.replays(w, "order-1", "charged", ten)
			x.replays(w, "order-1", "charged")
			c := x.start(w.Context(), "order-1", p.charge, twenty).wait(w)
			require.ErrorIs(w, c.err, idempotent.ErrKeyReused)
			assert.Zero(w, c.report.Source)
		}))
	})
}

func TestReplayCacheSharesNoMemory(t *testing.T) {
	inFakeTime(t, func(w *world) {
		log := newLogWatch()
		x, err := idempotent.New[[]byte](w.client(nil), "default", idempotent.WithCodec(idempotent.Raw[[]byte]()),
			idempotent.WithReplayCache(1), idempotent.WithLogger(slog.New(log)))
		require.NoError(w, err)
		defer x.Close()
		run := func() []byte {
			value, err := x.Run(w.Context(), "order-1", func(context.Context) ([]byte, error) { return []byte("charged"), nil })
			require.NoError(w, err)
			require.Equal(w, "charged", string(value))
			return value
		}
		run()
		log.await(w, cacheInUse)
		require.NoError(w, x.Forget(w.Context(), "order-1"))
		for range 3 { // executed, and replayed
			clear(run())
		}
	})
}

func TestReplayCacheCallsHooks(t *testing.T) {
	inFakeTime(t, func(w *world) {
		x := w.caching(idempotent.WithHooks(idempotent.Hooks[string]{
			OnSuccessReplay: func(_ context.Context, key, value string) string { return key + ": " + value },
			OnErrorReplay:   func(_ context.Context, key string, err error) error { return errors.New(key + ": " + err.Error()) },
		}))
		p := w.provider()
		p.answer("charged", nil)
		p.answer("", errors.New("declined"))
		x.start(w.Context(), "order-1", p.charge).wait(w)
		x.start(w.Context(), "order-2", p.charge).wait(w)
		assert.Zero(w, x.commands(func() {
			x.replays(w, "order-1", "order-1: charged")
			require.EqualError(w, x.start(w.Context(), "order-2", p.charge).wait(w).err, "order-2: declined")
		}))
	})
}

// What comes before a replay comes before one from the cache: the context, the key that runs
// itself, Close.
func TestReplayCacheHoldsToTheRules(t *testing.T) {
	everywhere(t, func(w *world) {
		x := w.caching()
		p := w.provider()
		p.answer("charged", nil)
		x.start(w.Context(), "order-1", p.charge).returned(w, "charged")
		ended, cancel := context.WithCancel(w.Context())
		cancel()
		_, err := x.Run(ended, "order-1", p.charge)
		require.ErrorIs(w, err, context.Canceled)
		var closed <-chan error
		nested, err := x.Run(w.Context(), "order-2", func(ctx context.Context) (string, error) {
			closed = x.closing()
			for errors.Is(err, context.Canceled) || errors.Is(err, idempotent.ErrNotFound) { // until it has begun
				_, err = x.Get(w.Context(), "unknown")
			}
			return x.Run(ctx, "order-1", p.charge)
		})
		require.NoError(w, err)
		assert.Equal(w, "charged", nested, "a run nested in fn goes on while Close waits")
		require.NoError(w, <-closed)
		_, err = x.Run(w.Context(), "order-1", p.charge)
		require.ErrorIs(w, err, idempotent.ErrClosed)
		_, err = x.Get(w.Context(), "order-1")
		require.ErrorIs(w, err, idempotent.ErrClosed)
	})
}

func TestReplayCacheEndsWithTheRecord(t *testing.T) {
	inFakeTime(t, func(w *world) {
		x, other := w.caching(), w.caching()
		p := w.provider()
		p.answer("charged", nil)
		p.answer("", errors.New("declined"))
		ttl := []idempotent.RunOption{idempotent.WithTTL(time.Hour), idempotent.WithErrorTTL(time.Minute)}
		x.start(w.Context(), "order-1", p.charge, ttl...).returned(w, "charged")
		x.start(w.Context(), "order-2", p.charge, ttl...).wait(w)
		began := time.Now()
		at := func(d time.Duration) { time.Sleep(time.Until(began.Add(d))) }
		get := func(key string) { _, _ = x.Get(w.Context(), key) }
		assert.Zero(w, x.commands(func() { get("order-1"); get("order-2") }))

		at(time.Minute - 50*time.Millisecond) // a thousandth is left to the clocks
		assert.EqualValues(w, 1, x.commands(func() { get("order-2") }), "an error has a life of its own")
		assert.Zero(w, x.commands(func() { get("order-1") }))

		at(30 * time.Minute)
		other.replays(w, "order-1", "charged") // with half an hour to live
		at(time.Hour - 3*time.Second)
		assert.EqualValues(w, 1, x.commands(func() { get("order-1") }), "it ends a little before the record")
		assert.Zero(w, other.commands(func() { other.replays(w, "order-1", "charged") }), "half the time, half the tolerance")
		at(time.Hour - time.Second)
		assert.EqualValues(w, 1, other.commands(func() { other.replays(w, "order-1", "charged") }))
		at(time.Hour + time.Millisecond)
		for _, reader := range []*cachingExecutor{x, other} {
			_, err := reader.Get(w.Context(), "order-1")
			require.ErrorIs(w, err, idempotent.ErrNotFound)
		}
	})
}

func TestReplayCacheIsBounded(t *testing.T) {
	everywhere(t, func(w *world) {
		x := w.caching()
		fill := func(n int) {
			for i := range n {
				value := string(rune('a' + i%26))
				_, err := x.Run(w.Context(), idempotent.HashKey(string(rune(i))), func(context.Context) (string, error) { return value, nil })
				require.NoError(w, err)
			}
		}
		fill(300)
		misses := x.commands(func() { fill(300) })
		assert.GreaterOrEqual(w, misses, int64(200), "100 entries")

		large := strings.Repeat("x", 64<<10)
		p := w.provider()
		p.answer(large, nil)
		x.start(w.Context(), "large", p.charge).returned(w, large)
		assert.EqualValues(w, 2, x.commands(func() {
			x.replays(w, "large", large)
			x.replays(w, "large", large)
		}), "too large to keep")
	})
}

// Without the option, nothing is kept and nobody listens.
func TestNoReplayCache(t *testing.T) {
	inFakeTime(t, func(w *world) {
		x := w.executor()
		p := w.provider()
		p.answer("charged", nil)
		x.start(w.Context(), "order-1", p.charge).returned(w, "charged")
		x.replays(w, "order-1", "charged")
		synctest.Wait()
		channels, err := x.client.PubSubChannels(w.Context(), "*").Result()
		require.NoError(w, err)
		assert.Empty(w, channels)
	})
}

// Hits of a type that assignment copies are decoded once. Of others each caller has its own.
func TestReplayCacheDecodesWhatIsNotCopied(t *testing.T) {
	everywhere(t, func(w *world) {
		texts, n := countDecodings(idempotent.Msgpack[string]())
		x := w.caching(idempotent.WithCodec[string](texts))
		_, err := x.Run(w.Context(), "order-1", returning("charged", nil))
		require.NoError(w, err)
		before := n.Load()
		for range 5 {
			x.replays(w, "order-1", "charged")
		}
		assert.EqualValues(w, 1, n.Load()-before)

		lists, n := countDecodings(idempotent.Msgpack[[]string]())
		log := newLogWatch()
		y := executorIn[[]string](w, x.client, w.namespace+"-lists", idempotent.WithCodec[[]string](lists),
			idempotent.WithReplayCache(100), idempotent.WithLogger(slog.New(log)))
		run := func() []string {
			v, err := y.Run(w.Context(), "order-1", returning([]string{"charged"}, nil))
			require.NoError(w, err)
			return v
		}
		run()
		log.await(w, cacheInUse)
		run()
		before = n.Load()
		for range 5 {
			assert.Zero(w, x.commands(func() {
				v := run()
				assert.Equal(w, []string{"charged"}, v)
				v[0] = "changed"
			}))
		}
		assert.EqualValues(w, 5, n.Load()-before)
	})
}

func countDecodings[T any](c idempotent.Codec[T]) (idempotent.Codec[T], *atomic.Int64) {
	n := new(atomic.Int64)
	return codecOf[T]{encode: c.Encode, decode: func(data []byte) (T, error) {
		n.Add(1)
		return c.Decode(data)
	}}, n
}

package acceptance

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/idemtest"
	"github.com/idempotent-go/idempotent/internal/redistest"
)

// Values of every size come back as they were, to those who waited and to those who come later.
// One that a message carries although the server cuts off subscribers that are so far behind comes
// back as well.
func TestValuesOfEverySize(t *testing.T) {
	server := redistest.Start(t)
	const readLimit, messageLimit = idempotent.DefaultMessageLimit, 1 << 30
	for name, c := range map[string]struct{ size, limit int }{
		"nothing": {0, readLimit}, "10 MB": {10e6, readLimit}, "10 MB in a message": {10e6, messageLimit},
		"64 MB": {64e6, readLimit}, "64 MB in a message": {64e6, messageLimit},
	} {
		t.Run(name, func(t *testing.T) {
			onRealRedisAt(t, server.URL(), func(w *world) {
				w.lease = 2 * time.Minute // which no wait is to last for
				w.options.ReadTimeout, w.options.WriteTimeout = time.Minute, time.Minute
				owner, other := w.executor(idempotent.WithMessageLimit(c.limit)), w.executor()
				value := strings.Repeat("0123456789abcdef", c.size/16)
				p := w.provider()
				first := owner.start(w.Context(), "order-1", p.charge)
				<-p.started
				waiting := other.start(w.Context(), "order-1", forbidden[string](w))
				other.waits(w)
				p.answer(value, nil)
				later := func() *call { return other.start(w.Context(), "order-1", forbidden[string](w)).wait(w) }
				for _, c := range []*call{first.wait(w), waiting.wait(w), later()} {
					require.NoError(w, c.err)
					require.True(w, c.value == value, "%d bytes instead of %d, or others", len(c.value), len(value)) //nolint:testifylint // values of megabytes are no message
				}
				require.Equal(w, idempotent.Waited, waiting.report.Source)
				require.Zero(w, owner.Count(idempotent.EventCommitRetried))
				require.NoError(w, other.Forget(w.Context(), "order-1"))
			})
		})
	}
}

type withChan struct {
	Card string
	C    chan int
}

type withFunc struct {
	Card string
	F    func()
}

type withItself struct {
	Card string
	Self *withItself
}

// fn ran, and msgpack cannot encode what it returned: the caller has the value, and every other caller
// gets ErrValueNotKept, until Resolve.
func TestValuesThatMsgpackCannotEncode(t *testing.T) {
	onRealRedis(t, func(w *world) {
		around := &withItself{Card: secret}
		around.Self = around
		text := func(v string) string { return v }
		cannotEncode(w, "channel", withChan{secret, make(chan int)}, idempotent.Msgpack[withChan](), func(v withChan) string { return v.Card })
		cannotEncode(w, "function", &withFunc{secret, func() {}}, idempotent.Msgpack[*withFunc](), func(v *withFunc) string { return v.Card })
		cannotEncode(w, "cycle", around, idempotent.Msgpack[*withItself](), func(v *withItself) string { return v.Self.Card })
		cannotEncode(w, "cycle in an interface", any(around), idempotent.Msgpack[any](), func(v any) string { return v.(*withItself).Self.Card })
		cannotEncode(w, "complex number", []any{secret, complex(1, 2)}, idempotent.Msgpack[[]any](), func(v []any) string { return v[0].(string) })
		cannotEncode(w, "codec that fails", secret, codecOf[string]{encode: func(v string) ([]byte, error) { return nil, errors.New(v) }}, text)
		cannotEncode(w, "codec that panics", secret, codecOf[string]{encode: func(v string) ([]byte, error) { panic(v) }}, text)
	})
}

func cannotEncode[T any](w *world, name string, value T, codec idempotent.Codec[T], card func(T) string) {
	w.Helper()
	ctx := w.Context()
	executor := func() *idempotent.Executor[T] {
		said, logger := lockedLog()
		events := &idemtest.Recorder{}
		e, err := idempotent.New[T](w.client(nil), w.namespace, idempotent.WithLease(w.lease),
			idempotent.WithObserver(events), idempotent.WithCodec(codec), idempotent.WithUncheckedType(), logger)
		require.NoError(w, err)
		w.Cleanup(func() {
			_ = e.Close()
			keepSecret(w, said, events.Events())
		})
		return e
	}
	a, b := executor(), executor()
	attempts := make(chan int, 10)
	fn := func(ctx context.Context) (T, error) {
		info, _ := idempotent.RunInfoFromContext(ctx)
		attempts <- info.Attempt
		return value, nil
	}
	got, err := a.Run(ctx, name, fn)
	require.ErrorIs(w, err, idempotent.ErrNotRecorded, name)
	require.Equal(w, secret, card(got), name)
	keepSecret(w, err)
	require.Equal(w, 1, <-attempts)

	_, err = b.Get(ctx, name)
	require.ErrorIs(w, err, idempotent.ErrValueNotKept, name)
	err = resolve(b, ctx, name, value)
	require.Error(w, err, name)
	keepSecret(w, err)
	for _, policy := range []idempotent.InterruptedPolicy{idempotent.Rerun, idempotent.Refuse} {
		for _, x := range []*idempotent.Executor[T]{a, b} {
			_, err = x.Run(ctx, name, fn, idempotent.WithInterrupted(policy))
			require.ErrorIs(w, err, idempotent.ErrValueNotKept, name)
			keepSecret(w, err)
		}
	}
	status, err := b.Peek(ctx, name)
	require.NoError(w, err)
	require.Equal(w, idempotent.StateValueNotKept, status.State, name)
	require.Empty(w, attempts, name)
}

// Keys of every length and with every byte are told apart, and come back from Redis as they were.
func TestKeysOfEveryLengthAndByte(t *testing.T) {
	onRealRedis(t, func(w *world) {
		x, other := w.executor(), w.executor()
		var keys []string
		for n := 1; n <= idempotent.MaxKeySize; n++ {
			keys = append(keys, strings.Repeat("k", n))
		}
		for b := range 256 {
			one := string([]byte{byte(b)})
			if one != "k" {
				keys = append(keys, one)
			}
			keys = append(keys, "order"+one, one+"order", "or"+one+"der", one+one+one)
		}
		fresh := make(map[string]bool)
		for _, key := range keys {
			_, known := fresh[key]
			fresh[key] = !known
		}
		for key := range fresh {
			x.start(w.Context(), key, returning(key, nil)).returned(w, key)
		}
		for key := range fresh {
			other.start(w.Context(), key, forbidden[string](w)).returned(w, key)
			for len(other.looked) > 0 {
				<-other.looked
			}
		}
		for _, key := range []string{"", strings.Repeat("k", idempotent.MaxKeySize+1), strings.Repeat("k", 1<<20)} {
			for op, do := range operations(w, x) {
				require.ErrorIs(w, do(w.Context(), key), idempotent.ErrInvalidKey, op)
			}
			require.ErrorIs(w, x.Forget(w.Context(), key), idempotent.ErrInvalidKey)
		}
	})
}

// A hundred thousand operations: each runs once, each is stored, each will expire.
func TestHundredThousandKeys(t *testing.T) {
	const keys = 100_000
	server := redistest.Start(t)
	client := server.Client(t)
	pipeliner, err := client.AutoPipeline()
	require.NoError(t, err)
	defer pipeliner.Close()
	x, err := idempotent.New[int](pipeliner, "default", idempotent.WithTTL(time.Hour))
	require.NoError(t, err)
	defer x.Close()
	var runs, wrong atomic.Int64
	sweep := func(fn func(i int) func(context.Context) (int, error), every int) {
		var callers sync.WaitGroup
		next := make(chan int)
		for range 256 {
			callers.Go(func() {
				for i := range next {
					got, err := x.Run(t.Context(), fmt.Sprintf("order-%d", i), fn(i))
					if err != nil || got != i {
						wrong.Add(1)
					}
				}
			})
		}
		for i := 0; i < keys; i += every {
			next <- i
		}
		close(next)
		callers.Wait()
	}
	sweep(func(i int) func(context.Context) (int, error) {
		return func(context.Context) (int, error) { runs.Add(1); return i, nil }
	}, 1)
	require.EqualValues(t, keys, runs.Load())
	sweep(func(int) func(context.Context) (int, error) { return forbidden[int](t) }, 50)
	require.Zero(t, wrong.Load())
	info, err := client.Info(t.Context(), "keyspace").Result()
	require.NoError(t, err)
	assert.Contains(t, info, fmt.Sprintf("db0:keys=%d,expires=%d,", keys, keys))
}

// The largest string that Redis can hold is not a record, and everybody is told so. Who only reads
// gets no more than its first bytes; the claim, which is a plain SET, gets it all.
func TestLargestStringUnderTheName(t *testing.T) {
	server := redistest.Start(t)
	onRealRedisAt(t, server.URL(), func(w *world) {
		w.options.ReadTimeout = time.Minute
		x := w.confidant()
		const largest = 512 << 20
		require.NoError(w, x.client.SetRange(w.Context(), w.name("order-1"), largest-1, "x").Err())
		do := operations(w, x.executor)
		for _, op := range []string{"Get", "Peek", "Resolve"} {
			before := w.sent(x.client)
			require.ErrorIs(w, do[op](w.Context(), "order-1"), idempotent.ErrCorruptRecord, op)
			require.Less(w, w.sent(x.client)-before, 1<<20, "bytes that the server sent for %s", op)
		}
		require.ErrorIs(w, do["Run"](w.Context(), "order-1"), idempotent.ErrCorruptRecord)
		require.EqualValues(w, largest, x.client.StrLen(w.Context(), w.name("order-1")).Val())
		require.NoError(w, x.Forget(w.Context(), "order-1"))
		x.start(w.Context(), "order-1", returning("charged", nil)).returned(w, "charged")
	})
}

// sent is how many bytes the server has sent to all its clients.
func (w *world) sent(client *redis.Client) int {
	w.Helper()
	info, err := client.InfoMap(w.Context(), "stats").Result()
	require.NoError(w, err)
	n, err := strconv.Atoi(info["Stats"]["total_net_output_bytes"])
	require.NoError(w, err)
	return n
}

// fn succeeded and its value cannot be encoded: neither callers that joined nor later ones run it again.
func TestValueThatCannotBeEncoded(t *testing.T) {
	everywhere(t, func(w *world) {
		x, err := idempotent.New[chan int](w.client(nil), w.namespace, idempotent.WithLease(w.lease), idempotent.WithUncheckedType())
		require.NoError(w, err)
		defer x.Close()
		gate, runs := make(chan struct{}), make(chan int, 100)
		made := make(chan int, 1)
		fn := func(ctx context.Context) (chan int, error) {
			info, _ := idempotent.RunInfoFromContext(ctx)
			runs <- info.Attempt
			<-gate
			return made, nil
		}
		type outcome struct {
			value chan int
			err   error
		}
		outcomes := make(chan outcome)
		for range 10 {
			go func() {
				v, err := x.Run(w.Context(), "order-1", fn)
				outcomes <- outcome{v, err}
			}()
		}
		require.Equal(w, 1, <-runs)
		w.settled()
		close(gate)
		values := 0
		for range 10 {
			if o := <-outcomes; o.value != nil {
				require.ErrorIs(w, o.err, idempotent.ErrNotRecorded)
				values++
			} else {
				require.ErrorIs(w, o.err, idempotent.ErrValueNotKept)
			}
		}
		assert.Equal(w, 1, values, "the caller that ran fn has the value")
		_, err = x.Run(w.Context(), "order-1", fn)
		require.ErrorIs(w, err, idempotent.ErrValueNotKept)
		assert.Empty(w, runs)
	})
}

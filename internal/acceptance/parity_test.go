package acceptance

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/idemtest"
)

// The tests called TestParity go with docs/migrating.md: each shows what has become of one part of
// the npm package idempotency-redis 1.5.

// new IdempotentExecutor(redis, {namespace})
func TestParityNamespace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := idemtest.NewRedis(t)
		for _, namespace := range []string{"payments", "refunds"} {
			v, err := executorIn[string](t, rdb, namespace).Run(t.Context(), "order-42", returning(namespace, nil))
			require.NoError(t, err)
			assert.Equal(t, namespace, v)
		}
		v, err := executorIn[string](t, rdb, "payments").Run(t.Context(), "order-42", forbidden[string](t))
		require.NoError(t, err)
		assert.Equal(t, "payments", v)
	})
}

// new IdempotentExecutor(redis, {ttlMs})
func TestParityTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := executorOn[int](t, idemtest.NewRedis(t), idempotent.WithTTL(time.Minute), idempotent.WithErrorTTL(time.Second))
		runs := 0
		fn := func(context.Context) (int, error) { runs++; return runs, nil }
		for _, want := range []int{1, 1, 2} {
			v, err := e.Run(t.Context(), "key", fn)
			require.NoError(t, err)
			assert.Equal(t, want, v)
			<-time.After(30 * time.Second)
		}
		_, err := e.Run(t.Context(), "failed", returning(0, errDeclined))
		require.ErrorIs(t, err, errDeclined)
		<-time.After(time.Second)
		v, err := e.Run(t.Context(), "failed", returning(1, nil))
		require.NoError(t, err)
		assert.Equal(t, 1, v)
	})
}

// Without ttlMs, results stay for ever there. Here everything has an end.
func TestParityNothingStaysForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := idemtest.NewRedis(t)
		e := executorOn[int](t, rdb)
		_, err := e.Run(t.Context(), "key", func(context.Context) (int, error) {
			assert.Equal(t, idempotent.DefaultTTL+idempotent.DefaultLease, rdb.PTTL(t.Context(), "idempotent:default:key").Val(), "while it runs")
			return 1, nil
		})
		require.NoError(t, err)
		_, err = e.Run(t.Context(), "failed", returning(0, errDeclined))
		require.ErrorIs(t, err, errDeclined)
		for _, key := range []string{"key", "failed"} {
			assert.Equal(t, idempotent.DefaultTTL, rdb.PTTL(t.Context(), "idempotent:default:"+key).Val(), key)
		}
		<-time.After(idempotent.DefaultTTL)
		assert.Zero(t, rdb.DBSize(t.Context()).Val())
	})
}

// executor.run(key, action)
func TestParityRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := idemtest.NewRedis(t)
		processes := []*idempotent.Executor[string]{executorOn[string](t, rdb), executorOn[string](t, rdb)}
		var mu sync.Mutex
		runs := 0
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				v, err := processes[i%2].Run(t.Context(), "key", func(context.Context) (string, error) {
					mu.Lock()
					runs++
					mu.Unlock()
					<-time.After(15 * time.Second) // longer than the lease
					return "charged", nil
				})
				assert.NoError(t, err)
				assert.Equal(t, "charged", v)
			})
		}
		wg.Wait()
		assert.Equal(t, 1, runs)
	})
}

// run(key, action, {timeout}): how long callers wait for somebody else, 60 s if not given.
func TestParityTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := idemtest.NewRedis(t)
		other := executorOn[string](t, rdb)
		_, err := executorOn[string](t, rdb).Run(t.Context(), "key", func(context.Context) (string, error) {
			for want, opts := range map[time.Duration][]idempotent.RunOption{
				time.Minute:     nil,
				5 * time.Second: {idempotent.WithWaitTimeout(5 * time.Second)},
				0:               {idempotent.WithNoWait()},
			} {
				began := time.Now()
				_, err := other.Run(t.Context(), "key", forbidden[string](t), opts...)
				require.ErrorIs(t, err, idempotent.ErrInProgress)
				assert.Equal(t, want, time.Since(began))
			}
			return "", nil
		})
		require.NoError(t, err)
	})
}

// run(key, action, {valueSerializer})
func TestParityValueSerializer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := idemtest.NewRedis(t)
		codecs := map[string]idempotent.Option{
			"msgpack": idempotent.WithCodec(idempotent.Msgpack[receipt]()),
			"JSON":    idempotent.WithCodec(idempotent.JSON[receipt]()),
			"own": idempotent.WithCodec[receipt](codecOf[receipt]{
				encode: func(v receipt) ([]byte, error) { return []byte(v.ID), nil },
				decode: func(data []byte) (receipt, error) { return receipt{ID: string(data)}, nil },
			}),
		}
		for name, codec := range codecs {
			want := fullReceipt
			if name == "own" {
				want = receipt{ID: "r-1"} // all it carries
			}
			first, err := executorOn[receipt](t, rdb, codec).Run(t.Context(), name, returning(fullReceipt, nil))
			require.NoError(t, err)
			assert.Equal(t, fullReceipt, first, name)
			again, err := executorOn[receipt](t, rdb, codec).Run(t.Context(), name, forbidden[receipt](t))
			require.NoError(t, err)
			assert.Equal(t, want, again, name)
		}
	})
}

// onActionSuccess, onActionError, onSuccessReplay, onErrorReplay: each may change what its caller
// gets. What is recorded does not change.
func TestParityCallbacks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := idemtest.NewRedis(t)
		var calls []string
		onValue := func(name string) func(context.Context, string, []byte) []byte {
			return func(_ context.Context, key string, v []byte) []byte {
				calls = append(calls, fmt.Sprintf("%s %s %s", name, key, v))
				copy(v, "CHANGED") // in place, too
				return append(v, name...)
			}
		}
		onError := func(name string) func(context.Context, string, error) error {
			return func(_ context.Context, key string, err error) error {
				calls = append(calls, fmt.Sprintf("%s %s %v", name, key, err))
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		registry := idempotent.WithErrors(knownErrors())
		e := executorOn[[]byte](t, rdb, registry, idempotent.WithHooks(idempotent.Hooks[[]byte]{
			OnActionSuccess: onValue("onActionSuccess"),
			OnActionError:   onError("onActionError"),
			OnSuccessReplay: onValue("onSuccessReplay"),
			OnErrorReplay:   onError("onErrorReplay"),
		}))
		for _, want := range []string{"onActionSuccess", "onSuccessReplay", "onSuccessReplay"} {
			v, err := e.Run(t.Context(), "good", returning([]byte("charged"), nil))
			require.NoError(t, err)
			assert.Equal(t, "CHANGED"+want, string(v))
		}
		for _, want := range []string{"onActionError", "onErrorReplay", "onErrorReplay"} {
			_, err := e.Run(t.Context(), "bad", returning[[]byte](nil, errDeclined))
			assert.EqualError(t, err, want+": card declined")
			assert.ErrorIs(t, err, errDeclined)
		}
		assert.Equal(t, []string{
			"onActionSuccess good charged", "onSuccessReplay good charged", "onSuccessReplay good charged",
			"onActionError bad card declined", "onErrorReplay bad card declined", "onErrorReplay bad card declined",
		}, calls)

		plain := executorOn[[]byte](t, rdb, registry)
		v, err := plain.Run(t.Context(), "good", forbidden[[]byte](t))
		require.NoError(t, err)
		assert.Equal(t, "charged", string(v))
		_, err = plain.Run(t.Context(), "bad", forbidden[[]byte](t))
		assert.EqualError(t, err, "card declined")
	})
}

// undefined, null, 0 and the empty string: each is replayed as itself.
func TestParityEmptyValues(t *testing.T) {
	replays(t, "undefined", struct{}{})
	replays(t, "null", (*receipt)(nil))
	replays(t, "null as any", any(nil))
	replays(t, "zero", 0)
	replays(t, "false", false)
	replays(t, "empty string", "")
	replays(t, "empty string, JSON", "", idempotent.WithCodec(idempotent.JSON[string]()))
	replays(t, "empty string, raw", "", idempotent.WithCodec(idempotent.Raw[string]()))
	replays(t, "empty string in any", any(""))
}

// There, key b:c in namespace a is key c in namespace a:b. Here the second one does not exist.
func TestParityKeysDoNotCollide(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := idemtest.NewRedis(t)
		_, err := idempotent.New[string](rdb, "a:b")
		require.ErrorIs(t, err, idempotent.ErrInvalidOption)
		for _, pair := range [][2]string{{"a", "b:c"}, {"a.b", "c"}, {"a", "c"}, {"b", "c"}} {
			v, err := executorIn[string](t, rdb, pair[0]).Run(t.Context(), pair[1], returning(pair[0]+" "+pair[1], nil))
			require.NoError(t, err)
			assert.Equal(t, pair[0]+" "+pair[1], v)
		}
	})
}

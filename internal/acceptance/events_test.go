package acceptance

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
)

func redisNowhere(t testing.TB) *redis.Client {
	client := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1", MaxRetries: -1})
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// last returns the only EventReturned since the one before.
func (x *executor) last(w *world, n int) idempotent.Event {
	w.Helper()
	e := x.Wait(w, idempotent.EventReturned, n)
	require.Equal(w, n, x.Count(idempotent.EventReturned), "one event for each call")
	return e
}

func TestEveryEndingIsOneEvent(t *testing.T) {
	everywhere(t, func(w *world) {
		x := w.executor(idempotent.WithInterrupted(idempotent.Refuse))
		ctx := w.Context()
		ended, cancel := context.WithCancel(ctx)
		cancel()
		declined := errors.New("declined")
		run := func(ctx context.Context, key string, fn func(context.Context) (string, error), opts ...idempotent.RunOption) func() error {
			return func() error { _, err := x.Run(ctx, key, fn, opts...); return err }
		}
		fail := func(context.Context) (string, error) { return "", declined }
		unknown := func(context.Context) (string, error) { return "", idempotent.OutcomeUnknown(declined) }
		a, b := idempotent.WithFingerprint([]byte("a")), idempotent.WithFingerprint([]byte("b"))
		require.NoError(w, x.client.Set(ctx, w.name("corrupt"), "no record", 0).Err())
		w.laterRunning(x, "running", time.Hour)
		w.laterRunning(x, "dead", 0)
		for i, c := range []struct {
			do     func() error
			source idempotent.Source
			err    error
		}{
			{run(ctx, "order-1", charged, a), idempotent.Executed, nil},
			{run(ctx, "order-1", charged, a), idempotent.Replayed, nil},
			{run(ctx, "order-1", charged, b), 0, idempotent.ErrKeyReused},
			{run(ctx, "order-2", fail), idempotent.Executed, declined},
			{run(ctx, "order-2", fail), idempotent.Replayed, idempotent.ErrReplayed},
			{run(ctx, "order-3", unknown), idempotent.Executed, declined},
			{run(ctx, "dead", charged), 0, idempotent.ErrInterrupted},
			{run(ctx, "running", charged, idempotent.WithNoWait()), 0, idempotent.ErrInProgress},
			{run(ctx, "corrupt", charged), 0, idempotent.ErrCorruptRecord},
			{run(ended, "order-4", charged), 0, context.Canceled},
			{run(ctx, "", charged), 0, idempotent.ErrInvalidKey},
			{run(ctx, "order-4", charged, idempotent.WithTTL(-1)), 0, idempotent.ErrInvalidOption},
			{run(ctx, "order-4", nil), 0, idempotent.ErrInvalidOption},
			{run(nil, "order-4", charged), 0, idempotent.ErrInvalidOption}, //nolint:staticcheck // a mistake of a caller's
			{func() error { _, err := x.Get(ctx, "order-1"); return err }, idempotent.Replayed, nil},
			{func() error { _, err := x.Get(ctx, "order-4"); return err }, 0, idempotent.ErrNotFound},
			{func() error {
				return x.RunMany(ctx, []idempotent.BatchCall[string]{{Key: "order-5", Fn: charged}})[0].Err
			}, idempotent.Executed, nil},
			{func() error { x.wire.sever(); return run(ctx, "order-4", charged)() }, 0, idempotent.ErrUnavailable},
			{func() error { x.wire.mend(); _ = x.Close(); return run(ctx, "order-4", charged)() }, 0, idempotent.ErrClosed},
		} {
			err := c.do()
			e := x.last(w, i+1)
			assert.Equal(w, err, e.Err, "%d", i)
			assert.Equal(w, c.source, e.Source, "%d: %v", i, err)
			if c.err == nil {
				require.NoError(w, err, "%d", i)
			} else {
				require.ErrorIs(w, err, c.err, "%d", i)
			}
		}
	})
}

func TestReturnedSaysHowOldTheOutcomeIs(t *testing.T) {
	inFakeTime(t, func(w *world) {
		x := w.executor()
		_, err := x.Run(w.Context(), "order-1", charged)
		require.NoError(w, err)
		assert.Zero(w, x.last(w, 1).Age, "of its own execution")
		time.Sleep(time.Hour)
		_, err = x.Run(w.Context(), "order-1", charged, idempotent.WithTTL(2*time.Hour))
		require.NoError(w, err)
		e := x.last(w, 2)
		assert.Equal(w, time.Hour, e.Age)
		assert.Equal(w, 2*time.Hour, e.TTL)
		assert.Equal(w, time.Hour, x.Events(idempotent.EventReplayed)[0].Age)
	})
}

func TestJoinsEnd(t *testing.T) {
	inFakeTime(t, func(w *world) {
		x := w.executor()
		p := w.provider()
		first := x.start(w.Context(), "order-1", p.charge)
		<-p.started
		second := x.start(w.Context(), "order-1", p.charge)
		x.Wait(w, idempotent.EventJoined, 1)
		ctx, cancel := context.WithCancel(w.Context())
		third := x.start(ctx, "order-1", p.charge)
		x.Wait(w, idempotent.EventJoined, 2)
		time.Sleep(time.Second)
		cancel()
		third.wait(w)
		left := x.Wait(w, idempotent.EventJoinEnded, 1)
		require.ErrorIs(w, left.Err, context.Canceled)
		assert.Equal(w, time.Second, left.Duration)
		p.answer("charged", nil)
		first.returned(w, "charged")
		second.returned(w, "charged")
		assert.NoError(w, x.Wait(w, idempotent.EventJoinEnded, 2).Err)
		assert.Equal(w, idempotent.Joined, x.Events(idempotent.EventReplayed)[0].Source)
	})
}

func TestRenewalsSayWhatWasLeftOfTheLease(t *testing.T) {
	inFakeTime(t, func(w *world) {
		s := newSpans()
		x := w.executor(idempotent.WithTracer(s))
		p := w.provider()
		c := x.start(w.Context(), "order-1", p.charge)
		<-p.started
		renewed := x.Wait(w, idempotent.EventRenewed, 1)
		assert.Equal(w, w.lease, renewed.Lease)
		assert.InDelta(w, w.lease*2/3, renewed.Left, float64(w.lease/10))
		x.wire.sever()
		failed := x.Wait(w, idempotent.EventRenewalFailed, 1)
		assert.Error(w, failed.Err)
		assert.Less(w, failed.Left, renewed.Left+time.Second)
		lost := x.Wait(w, idempotent.EventLeaseLost, 1)
		require.ErrorIs(w, lost.Err, idempotent.ErrLeaseLost)
		for _, kind := range []idempotent.EventKind{idempotent.EventRenewed, idempotent.EventRenewalFailed, idempotent.EventLeaseLost} {
			assert.Equal(w, byte(2), s.events[kind][0], "%v has fn's context", kind)
		}
		x.wire.mend()
		p.answer("charged", nil)
		c.wait(w)
	})
}

func TestForgetAndResolveSayWhoAsked(t *testing.T) {
	everywhere(t, func(w *world) {
		x := w.executor(idempotent.WithOwner("host-a:1"))
		alice := idempotent.ContextWithActor(w.Context(), "alice")
		_, err := x.Resolve(alice, "order-1", "charged")
		require.ErrorIs(w, err, idempotent.ErrNotFound)
		_, err = x.Resolve(w.Context(), "order-1", "charged", idempotent.WithAbsent())
		require.NoError(w, err)
		require.NoError(w, x.Forget(alice, "order-1"))
		require.Error(w, x.Forget(nil, "order-1")) //nolint:staticcheck // a mistake of a caller's

		resolved, forgotten := x.Events(idempotent.EventResolved), x.Events(idempotent.EventForgotten)
		require.Len(w, resolved, 2)
		require.Len(w, forgotten, 2)
		assert.Equal(w, "alice", resolved[0].Actor)
		require.ErrorIs(w, resolved[0].Err, idempotent.ErrNotFound)
		assert.Equal(w, "host-a:1", resolved[1].Actor, "the process, unless the context names another actor")
		require.NoError(w, resolved[1].Err)
		assert.Equal(w, "alice", forgotten[0].Actor)
		assert.Equal(w, "order-1", forgotten[0].Key)
		assert.ErrorIs(w, forgotten[1].Err, idempotent.ErrInvalidOption)
	})
}

func TestCachedOutcomesHaveTheirOwnSource(t *testing.T) {
	onRealRedis(t, func(w *world) {
		x := w.caching()
		_, err := x.Run(w.Context(), "order-1", charged)
		require.NoError(w, err)
		before := x.Count(idempotent.EventReturned)
		assert.Zero(w, x.commands(func() { assert.Equal(w, idempotent.Cached, x.replays(w, "order-1", "charged").Source) }))
		assert.Equal(w, idempotent.Cached, x.last(w, before+1).Source)
	})
}

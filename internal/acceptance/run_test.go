package acceptance

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/idemtest"
)

func TestOneExecutionForManyCallersInManyProcesses(t *testing.T) {
	everywhere(t, func(w *world) {
		p := w.provider()
		var calls []*call
		for range 5 {
			x := w.executor()
			for range 20 {
				calls = append(calls, x.start(w.Context(), "order-1", p.charge))
			}
		}
		<-p.started
		w.settled()
		p.answer("charged", nil)
		sources := make(map[idempotent.Source]int)
		for _, c := range calls {
			c.returned(w, "charged")
			sources[c.report.Source]++
			assert.Equal(w, 1, c.report.Attempt)
			assert.False(w, c.report.RecordedAt.IsZero())
		}
		assert.Equal(w, 1, p.count())
		assert.Equal(w, 1, sources[idempotent.Executed])
		if !w.real { // in the real world some may come late
			assert.Equal(w, 19, sources[idempotent.Joined])
			assert.Equal(w, 80, sources[idempotent.Waited])
		}
	})
}

func TestRetryReplays(t *testing.T) {
	everywhere(t, func(w *world) {
		p := w.provider()
		p.answer("charged", nil)
		w.executor().start(w.Context(), "order-1", p.charge).returned(w, "charged")

		later := w.executor().start(w.Context(), "order-1", p.charge)
		later.returned(w, "charged")
		assert.Equal(w, idempotent.Replayed, later.report.Source)
		assert.Equal(w, 1, p.count())
	})
}

func TestErrorIsRecordedAndReplayed(t *testing.T) {
	declined := errors.New("card declined")
	registry := idempotent.NewErrorRegistry(idempotent.Sentinel("declined", declined))
	everywhere(t, func(w *world) {
		p := w.provider()
		p.answer("", declined)
		first := w.executor(idempotent.WithErrors(registry)).start(w.Context(), "order-1", p.charge).wait(w)
		require.Same(w, declined, first.err)
		require.NotErrorIs(w, first.err, idempotent.ErrReplayed)

		for range 2 {
			again := w.executor(idempotent.WithErrors(registry)).start(w.Context(), "order-1", p.charge).wait(w)
			require.ErrorIs(w, again.err, declined)
			require.ErrorIs(w, again.err, idempotent.ErrReplayed)
			require.Equal(w, "card declined", again.err.Error())
			assert.Equal(w, idempotent.Replayed, again.report.Source)
		}
		assert.Equal(w, 1, p.count())
	})
}

func TestResultsExpire(t *testing.T) {
	inFakeTime(t, func(w *world) {
		x := w.executor(idempotent.WithTTL(24*time.Hour), idempotent.WithErrorTTL(time.Hour))
		p := w.provider()
		run := func(key string) { _, _ = x.Run(w.Context(), key, p.charge) }
		p.answer("charged", nil)
		p.answer("", errors.New("declined"))
		run("good")
		run("bad")
		time.Sleep(time.Hour - time.Second)
		run("good")
		run("bad")
		require.Equal(w, 2, p.count(), "within the TTLs")
		time.Sleep(2 * time.Second)
		p.answer("charged after all", nil)
		run("good")
		run("bad")
		require.Equal(w, 3, p.count(), "the error is forgotten, the value is not")
		time.Sleep(23 * time.Hour)
		p.answer("charged again", nil)
		run("good")
		require.Equal(w, 4, p.count(), "both are forgotten")
	})
}

func TestWaiterGetsOutcomeAboveMessageLimit(t *testing.T) {
	large := strings.Repeat("x", 100<<10)
	everywhere(t, func(w *world) {
		for key, option := range map[string]idempotent.Option{
			"never": idempotent.WithMessageLimit(0), "small": idempotent.WithMessageLimit(idempotent.DefaultMessageLimit),
		} {
			p := w.provider()
			owner, other := w.executor(option), w.executor(option)
			first := owner.start(w.Context(), key, p.charge)
			<-p.started
			second := other.start(w.Context(), key, p.charge)
			other.Wait(w, idempotent.EventWaitStarted, 1)
			w.settled()
			p.answer(large, nil)
			first.returned(w, large)
			second.returned(w, large)
			assert.Equal(w, 1, p.count())
		}
	})
}

func TestOtherKeysAreNotBlocked(t *testing.T) {
	everywhere(t, func(w *world) {
		p, q := w.provider(), w.provider()
		x := w.executor()
		slow := x.start(w.Context(), "slow", p.charge)
		<-p.started
		follower := x.start(w.Context(), "slow", p.charge)
		x.Wait(w, idempotent.EventJoined, 1)
		q.answer("quick", nil)
		x.start(w.Context(), "quick", q.charge).returned(w, "quick")
		p.answer("slow", nil)
		slow.returned(w, "slow")
		follower.returned(w, "slow")
	})
}

func TestNamespacesAndKeysNeverMeet(t *testing.T) {
	inFakeTime(t, func(w *world) {
		a := w.executorIn("a", w.client(nil))
		ab := w.executorIn("a.b", w.client(nil))
		p := w.provider()
		p.answer("one", nil)
		p.answer("two", nil)
		p.answer("three", nil)
		a.start(w.Context(), "b:c", p.charge).returned(w, "one")
		ab.start(w.Context(), "c", p.charge).returned(w, "two")
		a.start(w.Context(), "b", p.charge).returned(w, "three")
		assert.Equal(w, 3, p.count())
	})
}

func TestWaitTimeout(t *testing.T) {
	everywhere(t, func(w *world) {
		p := w.provider()
		owner, other := w.executor(), w.executor()
		first := owner.start(w.Context(), "order-1", p.charge)
		<-p.started
		short := idempotent.WithWaitTimeout(w.lease / 4)
		for name, x := range map[string]*executor{"same process": owner, "other process": other} {
			c := x.start(w.Context(), "order-1", p.charge, short).wait(w)
			var busy *idempotent.InProgressError
			require.ErrorIs(w, c.err, idempotent.ErrInProgress, name)
			require.ErrorAs(w, c.err, &busy, name)
			assert.Positive(w, busy.RetryAfter, name)
			assert.LessOrEqual(w, busy.RetryAfter, w.lease, name)
			assert.Zero(w, c.report, name)
		}
		p.answer("charged", nil)
		first.returned(w, "charged")
		assert.Equal(w, 1, p.count())
	})
}

func TestNoWait(t *testing.T) {
	everywhere(t, func(w *world) {
		p := w.provider()
		owner, other := w.executor(), w.executor()
		first := owner.start(w.Context(), "order-1", p.charge)
		<-p.started
		for name, x := range map[string]*executor{"same process": owner, "other process": other} {
			_, err := x.Run(w.Context(), "order-1", p.charge, idempotent.WithNoWait())
			var busy *idempotent.InProgressError
			require.ErrorAs(w, err, &busy, name)
			assert.Positive(w, busy.RetryAfter, name)
			assert.LessOrEqual(w, busy.RetryAfter, w.lease, name)
		}
		assert.Zero(w, other.Count(idempotent.EventWaitStarted))
		p.answer("charged", nil)
		first.returned(w, "charged")
		other.start(w.Context(), "order-1", p.charge, idempotent.WithNoWait()).returned(w, "charged")
	})
}

// Many callers that do not wait ask at once for what is finished: each gets it, none is told that
// somebody is at it.
func TestNoWaitReplaysWhileOthersAsk(t *testing.T) {
	everywhere(t, func(w *world) {
		x := w.executor()
		p := w.provider()
		p.answer("charged", nil)
		x.start(w.Context(), "order-1", p.charge).returned(w, "charged")
		var calls []*call
		for range 200 {
			calls = append(calls, x.start(w.Context(), "order-1", p.charge, idempotent.WithNoWait()))
		}
		for _, c := range calls {
			c.returned(w, "charged")
		}
	})
}

func TestFingerprint(t *testing.T) {
	ten, twenty := idempotent.WithFingerprint([]byte("amount=10")), idempotent.WithFingerprint([]byte("amount=20"))
	long := idempotent.WithFingerprint([]byte(strings.Repeat("amount=10", 100)))
	everywhere(t, func(w *world) {
		p := w.provider()
		owner, other := w.executor(), w.executor()
		first := owner.start(w.Context(), "order-1", p.charge, ten)
		<-p.started
		check := func(when string) {
			for name, x := range map[string]*executor{"same process": owner, "other process": other} {
				for _, option := range []idempotent.RunOption{twenty, long} {
					c := x.start(w.Context(), "order-1", p.charge, option).wait(w)
					require.ErrorIs(w, c.err, idempotent.ErrKeyReused, "%s, %s", name, when)
				}
			}
		}
		check("in flight")
		waiting := other.start(w.Context(), "order-1", p.charge, ten)
		other.Wait(w, idempotent.EventWaitStarted, 1)
		check("in flight and waited for")
		p.answer("charged", nil)
		first.returned(w, "charged")
		waiting.returned(w, "charged")
		check("afterwards")
		owner.start(w.Context(), "order-1", p.charge, ten).returned(w, "charged")
		other.start(w.Context(), "order-1", p.charge).returned(w, "charged") // without one: matches
		assert.Equal(w, 1, p.count())
	})
}

func TestRunInsideItsOwnFn(t *testing.T) {
	everywhere(t, func(w *world) {
		x := w.executor()
		other, err := idempotent.New[int](x.client, w.namespace)
		require.NoError(w, err)
		defer other.Close()
		var leaked context.Context
		v, err := x.Run(w.Context(), "outer", func(ctx context.Context) (string, error) {
			leaked = ctx
			return x.Run(ctx, "inner", func(ctx context.Context) (string, error) {
				info, ok := idempotent.RunInfoFromContext(ctx)
				assert.True(w, ok)
				assert.Equal(w, "inner", info.Key)
				for _, key := range []string{"inner", "outer"} {
					_, err := x.Run(ctx, key, func(context.Context) (string, error) { panic("not reached") })
					assert.ErrorIs(w, err, idempotent.ErrInProgress)
					_, err = other.Run(ctx, key, func(context.Context) (int, error) { panic("not reached") })
					assert.ErrorIs(w, err, idempotent.ErrInProgress, "another executor with the same names")
				}
				return "done", nil
			})
		})
		require.NoError(w, err)
		require.Equal(w, "done", v)

		// A context that outlives its fn does not keep the key busy.
		v, err = x.Run(context.WithoutCancel(leaked), "outer", func(context.Context) (string, error) { panic("not reached") })
		require.NoError(w, err)
		require.Equal(w, "done", v)
	})
}

func TestCallersShareNoMemory(t *testing.T) {
	everywhere(t, func(w *world) {
		type charge struct {
			Lines map[string]string
			Raw   []byte
		}
		x, err := idempotent.New[*charge](w.client(nil), w.namespace)
		require.NoError(w, err)
		defer x.Close()
		raw, err := idempotent.New[[]byte](w.client(nil), w.namespace, idempotent.WithCodec(idempotent.Raw[[]byte]()))
		require.NoError(w, err)
		defer raw.Close()
		gate := make(chan struct{})
		var callers sync.WaitGroup
		for range 20 {
			callers.Go(func() {
				c, err := x.Run(w.Context(), "order-1", func(context.Context) (*charge, error) {
					<-gate
					return &charge{Lines: map[string]string{"a": "1"}, Raw: []byte("raw")}, nil
				})
				if assert.NoError(w, err) {
					assert.Equal(w, &charge{Lines: map[string]string{"a": "1"}, Raw: []byte("raw")}, c)
					c.Lines["a"], c.Raw[0] = "changed", 'R' // the race detector watches
				}
				b, err := raw.Run(w.Context(), "order-2", func(context.Context) ([]byte, error) { return []byte("raw"), nil })
				if assert.NoError(w, err) {
					assert.Equal(w, "raw", string(b))
					b[0] = 'R'
				}
			})
		}
		w.settled()
		close(gate)
		callers.Wait()
	})
}

func TestBadCalls(t *testing.T) {
	inFakeTime(t, func(w *world) {
		x := w.executor()
		p := w.provider()
		_, err := x.Run(w.Context(), "key", nil)
		require.ErrorIs(w, err, idempotent.ErrInvalidOption)
		require.ErrorContains(w, err, "fn is nil")
		_, err = x.Run(nil, "key", p.charge) //nolint:staticcheck // the point of the test
		require.ErrorIs(w, err, idempotent.ErrInvalidOption)
		for _, key := range []string{"", strings.Repeat("k", idempotent.MaxKeySize+1)} {
			_, err = x.Run(w.Context(), key, p.charge)
			require.ErrorIs(w, err, idempotent.ErrInvalidKey)
			_, err = x.Peek(w.Context(), key)
			require.ErrorIs(w, err, idempotent.ErrInvalidKey)
			require.ErrorIs(w, x.Forget(w.Context(), key), idempotent.ErrInvalidKey)
			require.ErrorIs(w, resolve(x, w.Context(), key, ""), idempotent.ErrInvalidKey)
		}
		assert.Zero(w, p.count())
	})
}

func TestObserverThatPanicsChangesNothing(t *testing.T) {
	inFakeTime(t, func(w *world) {
		x := w.executor(idempotent.WithObserver(idempotent.ObserverFunc(func(context.Context, idempotent.Event) { panic("observer") })))
		p := w.provider()
		p.answer("charged", nil)
		x.start(w.Context(), "order-1", p.charge).returned(w, "charged")
		x.start(w.Context(), "order-1", p.charge).returned(w, "charged")
		assert.Equal(w, 1, p.count())
	})
}

func TestEventsOfARun(t *testing.T) {
	inFakeTime(t, func(w *world) {
		x := w.executor()
		p := w.provider()
		p.answer("charged", nil)
		x.start(w.Context(), "order-1", p.charge).returned(w, "charged")
		x.start(w.Context(), "order-1", p.charge).returned(w, "charged")
		var kinds []idempotent.EventKind
		for _, e := range x.Events() {
			kinds = append(kinds, e.Kind)
			assert.Equal(w, "order-1", e.Key)
			assert.Equal(w, w.namespace, e.Namespace)
			assert.Equal(w, 1, e.Attempt)
		}
		assert.Equal(w, []idempotent.EventKind{
			idempotent.EventClaimed, idempotent.EventExecuted, idempotent.EventRecorded, idempotent.EventReturned,
			idempotent.EventReplayed, idempotent.EventReturned,
		}, kinds)
		assert.Positive(w, x.Events(idempotent.EventRecorded)[0].Size)
	})
}

var _ idempotent.Observer = (*idemtest.Recorder)(nil)

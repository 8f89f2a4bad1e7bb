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
	"github.com/idempotent-go/idempotent/internal/redistest"
)

// The server executes a command and its reply is lost: go-redis sends the command again.

func TestLostReplyOfTheClaim(t *testing.T) {
	everywhere(t, func(w *world) {
		x := w.executor()
		p := w.provider()
		p.answer("charged", nil)
		x.wire.loseReplyTo("px")
		began := time.Now()
		x.start(w.Context(), "order-1", p.charge).returned(w, "charged")
		require.Equal(w, 1, x.wire.repliesLost())
		assert.Equal(w, 1, p.count())
		assert.Equal(w, 1, p.last().Attempt)
		assert.Less(w, time.Since(began), w.lease, "it did not wait for itself")
		assert.Zero(w, x.Count(idempotent.EventWaitStarted))
	})
}

func TestLostReplyOfTheCommit(t *testing.T) {
	everywhere(t, func(w *world) {
		x := w.executor()
		warm := w.provider()
		warm.answer("warm", nil)
		x.start(w.Context(), "warm", warm.charge).returned(w, "warm") // the script is loaded

		p := w.provider()
		c := x.start(w.Context(), "order-1", p.charge)
		<-p.started
		x.wire.loseReplyTo("evalsha")
		p.answer("charged", nil)
		c.returned(w, "charged")
		require.Equal(w, 1, x.wire.repliesLost())
		assert.False(w, c.report.RecordedAt.IsZero())
		x.start(w.Context(), "order-1", p.charge).returned(w, "charged")
		assert.Equal(w, 1, p.count())
	})
}

func TestLostReplyOfTheTakeOver(t *testing.T) {
	everywhere(t, func(w *world) {
		dead, other := w.executor(), w.executor()
		p, q := w.provider(), w.provider()
		for _, key := range []string{"warm", "order-1"} { // the first loads the script
			first := dead.start(w.Context(), key, p.charge)
			<-p.started
			dead.wire.sever()
			second := other.start(w.Context(), key, q.charge)
			<-q.started
			dead.wire.mend()
			if key == "order-1" {
				assert.Equal(w, 2, q.last().Attempt)
			}
			p.answer("", assert.AnError)
			q.answer("charged", nil)
			second.returned(w, "charged")
			first.wait(w)
			dead.reconnects(w)
			other.wire.loseReplyTo("evalsha")
		}
		assert.Equal(w, 2, q.count())
	})
}

// The reply is lost for good: the claim may be there. It is freed in the background instead of
// blocking the key for a lease.
func TestClaimOfUnknownFateIsFreed(t *testing.T) {
	everywhere(t, func(w *world) {
		options := w.options
		options.MaxRetries = -1
		w.options = options
		x, other := w.executor(), w.executor()
		p := w.provider()
		x.wire.loseReplyTo("px")
		c := x.start(w.Context(), "order-1", p.charge).wait(w)
		require.ErrorIs(w, c.err, idempotent.ErrUnavailable)
		require.Zero(w, p.count())

		p.answer("charged", nil)
		began := time.Now()
		other.start(w.Context(), "order-1", p.charge).returned(w, "charged")
		assert.Equal(w, 1, p.last().Attempt)
		assert.Less(w, time.Since(began), w.lease)
	})
}

func TestUnavailable(t *testing.T) {
	everywhere(t, func(w *world) {
		x := w.executor()
		p := w.provider()
		x.wire.sever()
		_, err := x.Run(w.Context(), "order-1", p.charge)
		require.ErrorIs(w, err, idempotent.ErrUnavailable)
		require.ErrorIs(w, err, errCut, "the cause is kept")
		_, err = x.Peek(w.Context(), "order-1")
		require.ErrorIs(w, err, idempotent.ErrUnavailable)
		require.ErrorIs(w, x.Forget(w.Context(), "order-1"), idempotent.ErrUnavailable)
		require.ErrorIs(w, resolve(x, w.Context(), "order-1", "v"), idempotent.ErrUnavailable)
		assert.Zero(w, p.count())
	})
}

// Everybody who asked together learns together that Redis is away, not one after another.
func TestUnavailableIsSharedInTheProcess(t *testing.T) {
	inFakeTime(t, func(w *world) {
		x := w.executor()
		x.wire.sever()
		p := w.provider()
		began := time.Now()
		var calls []*call
		for range 100 {
			calls = append(calls, x.start(w.Context(), "order-1", p.charge))
		}
		for _, c := range calls {
			require.ErrorIs(w, c.wait(w).err, idempotent.ErrUnavailable)
		}
		assert.Less(w, time.Since(began), 20*time.Second)
	})
}

func TestCommitIsRetriedAfterTheCallerLeft(t *testing.T) {
	everywhere(t, func(w *world) {
		x := w.executor(idempotent.WithLease(10 * time.Second))
		p := w.provider()
		ctx, cancel := context.WithCancel(w.Context())
		c := x.start(ctx, "order-1", p.charge)
		<-p.started
		x.wire.sever()
		cancel()
		p.answer("charged", nil)
		x.Wait(w, idempotent.EventCommitRetried, 2)
		x.wire.mend()
		c.returned(w, "charged")
		w.executor().start(w.Context(), "order-1", p.charge).returned(w, "charged")
		assert.Equal(w, 1, p.count())
	})
}

func TestNotRecorded(t *testing.T) {
	inFakeTime(t, func(w *world) {
		owner, other := w.executor(), w.executor()
		p := w.provider()
		began := time.Now()
		first := owner.start(w.Context(), "order-1", p.charge)
		<-p.started
		joined := owner.start(w.Context(), "order-1", p.charge)
		owner.Wait(w, idempotent.EventJoined, 1)
		owner.wire.sever()
		p.answer("charged", nil)
		for _, c := range []*call{first, joined} {
			c.wait(w)
			require.ErrorIs(w, c.err, idempotent.ErrNotRecorded)
			require.ErrorIs(w, c.err, errCut)
			require.Equal(w, "charged", c.value, "the value is not lost")
			require.True(w, c.report.RecordedAt.IsZero())
		}
		assert.Less(w, time.Since(began), time.Minute, "bounded")
		assert.Equal(w, 1, p.count())

		p.answer("charged again", nil)
		c := other.start(w.Context(), "order-1", p.charge)
		c.returned(w, "charged again")
		assert.Equal(w, 2, c.report.Attempt, "the next one is told")
	})
}

func TestWaiterOutlastsAnOutage(t *testing.T) {
	everywhere(t, func(w *world) {
		owner, other := w.executor(), w.executor()
		p := w.provider()
		first := owner.start(w.Context(), "order-1", p.charge)
		<-p.started
		waiting := other.start(w.Context(), "order-1", p.charge)
		other.waits(w)
		other.wire.sever()
		p.answer("charged", nil)
		first.returned(w, "charged")
		other.wire.mend()
		waiting.returned(w, "charged")
		assert.Equal(w, 1, p.count())
	})
}

// refuse makes commands fail as a server does that does not know them, quoting their arguments.
type refuse struct{ names map[string]error }

func (refuse) DialHook(next redis.DialHook) redis.DialHook { return next }

func (r refuse) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if err := r.names[cmd.Name()]; err != nil {
			if raw, ok := cmd.(*redis.RawCmd); ok {
				raw.SetVal([]byte("-" + err.Error() + "\r\n"))
				return nil
			}
			cmd.SetErr(err)
			return err
		}
		return next(ctx, cmd)
	}
}

func (refuse) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// Servers before Redis 7.0 refuse NX together with GET; a script does the same.
func TestClaimOnOldServers(t *testing.T) {
	everywhere(t, func(w *world) {
		x, other := w.executor(), w.executor()
		syntax := refuse{map[string]error{"set": errors.New("ERR syntax error")}}
		x.client.AddHook(syntax)
		other.client.AddHook(syntax)
		p := w.provider()
		first := x.start(w.Context(), "order-1", p.charge)
		<-p.started
		waiting := other.start(w.Context(), "order-1", p.charge)
		other.waits(w)
		p.answer("charged", nil)
		first.returned(w, "charged")
		waiting.returned(w, "charged")
		other.start(w.Context(), "order-1", p.charge).returned(w, "charged")
		assert.Equal(w, 1, p.count())
	})
}

// Redis quotes the arguments of a command it does not know. They hold the payload.
func TestErrorsQuoteNoPayload(t *testing.T) {
	inFakeTime(t, func(w *world) {
		x := w.executor()
		quoting := errors.New("ERR unknown command 'evalsha', with args beginning with: 'secret-4242'")
		x.client.AddHook(refuse{map[string]error{"evalsha": quoting}})
		p := w.provider()
		p.answer("secret-4242", nil)
		c := x.start(w.Context(), "order-1", p.charge).wait(w)
		require.ErrorIs(w, c.err, idempotent.ErrNotRecorded)
		require.ErrorIs(w, c.err, quoting)
		require.NotContains(w, c.err.Error(), "secret-4242")
		require.ErrorContains(w, c.err, "unknown command")
	})
}

// slow delays the replies to SET beyond the lease.
type slow struct {
	refuse
	delay time.Duration
}

func (s slow) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		if cmd.Name() == "set" {
			time.Sleep(s.delay)
		}
		return err
	}
}

// The claim's reply takes nearly as long as the lease: fn must not begin on what is left of it.
func TestClaimAnsweredLate(t *testing.T) {
	inFakeTime(t, func(w *world) {
		x := w.executor()
		x.client.AddHook(slow{delay: w.lease - time.Millisecond})
		_, err := x.Run(w.Context(), "order-1", func(ctx context.Context) (string, error) {
			status, err := x.Peek(ctx, "order-1")
			assert.NoError(w, err)
			assert.Equal(w, w.lease, status.LeaseLeft)
			return "charged", nil
		})
		require.NoError(w, err)
	})
	inFakeTime(t, func(w *world) {
		x := w.executor()
		x.client.AddHook(slow{delay: 3 * w.lease})
		p := w.provider()
		p.answer("charged", nil)
		x.start(w.Context(), "order-1", p.charge).returned(w, "charged") // nobody took over meanwhile
	})
}

// hanging never answers a script.
type hanging struct{ refuse }

func (h hanging) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if cmd.Name() == "evalsha" {
			time.Sleep(time.Hour)
		}
		return next(ctx, cmd)
	}
}

// Redis is full and evicts nothing: what is recorded is still replayed, and fn does not run when
// its claim cannot be stored.
func TestRedisIsFull(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "--maxmemory-policy", "noeviction")
	onRealRedisAt(t, server.URL(), func(w *world) {
		x := w.executor()
		p := w.provider()
		p.answer("charged", nil)
		x.start(w.Context(), "order-1", p.charge).returned(w, "charged")
		require.NoError(w, x.client.ConfigSet(w.Context(), "maxmemory", "1").Err())
		x.start(w.Context(), "order-1", p.charge).returned(w, "charged")
		_, err := x.Run(w.Context(), "order-2", p.charge)
		require.ErrorIs(w, err, idempotent.ErrUnavailable)
		require.ErrorContains(w, err, "OOM")
		assert.Equal(w, 1, p.count())
	})
}

package acceptance

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/internal/redistest"
)

// A replyHook changes what the client makes of a command that the server has executed.
type replyHook struct {
	refuse
	change func(cmd redis.Cmder) error
}

func (a replyHook) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		if err != nil && !errors.Is(err, redis.Nil) {
			return err
		}
		if changed := a.change(cmd); changed != nil {
			cmd.SetErr(changed)
			return changed
		}
		return err
	}
}

// serverError is an error that Redis itself answers.
type serverError string

func (e serverError) Error() string { return string(e) }

func (serverError) RedisError() {}

func isTakeOver(cmd redis.Cmder) bool {
	return (cmd.Name() == "evalsha" || cmd.Name() == "eval") && len(cmd.Args()) == 12
}

// The server executes a take-over, its reply is lost, and the repetitions by go-redis are
// answered with an error. The waiter must not think later that its claim is fresh.
func TestTakeOverOfUnknownFate(t *testing.T) {
	everywhere(t, func(w *world) {
		dead, other, third := w.executor(), w.executor(), w.executor()
		failed := false
		other.client.AddHook(replyHook{change: func(cmd redis.Cmder) error {
			if failed || !isTakeOver(cmd) {
				return nil
			}
			failed = true
			return serverError("LOADING Redis is loading the dataset in memory")
		}})
		p, q := w.provider(), w.provider()
		first := dead.start(w.Context(), "order-1", p.charge)
		<-p.started
		waiting := other.start(w.Context(), "order-1", q.charge)
		other.waits(w)
		dead.wire.sever()
		<-q.started
		assert.True(w, failed)
		assert.Equal(w, 2, q.last().Attempt, "fn never began under the take-over whose reply was lost")
		s, err := third.Peek(w.Context(), "order-1")
		require.NoError(w, err)
		assert.Equal(w, idempotent.StateRunning, s.State)
		assert.Greater(w, s.LeaseLeft, w.lease/2)
		q.answer("charged", nil)
		waiting.returned(w, "charged")
		dead.wire.mend()
		p.answer("charged", nil)
		first.wait(w)
		assert.Equal(w, 1, q.count())
	})
}

// A claim is executed and its reply lost, and Redis is full when go-redis repeats it. The caller
// must neither wait for itself nor take itself over.
func TestClaimOfUnknownFateOnAFullRedis(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "--maxmemory-policy", "noeviction")
	onRealRedisAt(t, server.URL(), func(w *world) {
		admin := server.Client(w)
		x, other := w.executor(), w.executor()
		warm := w.provider()
		warm.answer("warm", nil)
		x.start(w.Context(), "warm", warm.charge).returned(w, "warm")

		p := w.provider()
		x.wire.onLost = func() { assert.NoError(w, admin.ConfigSet(context.Background(), "maxmemory", "1").Err()) }
		x.wire.loseReplyTo("px")
		c := x.start(w.Context(), "order-1", p.charge).wait(w)
		require.Equal(w, 1, x.wire.repliesLost())
		require.ErrorIs(w, c.err, idempotent.ErrUnavailable)
		require.Zero(w, p.count())
		require.NoError(w, admin.ConfigSet(w.Context(), "maxmemory", "0").Err())
		p.answer("charged", nil)
		other.start(w.Context(), "order-1", p.charge).returned(w, "charged")
		assert.Equal(w, 1, p.last().Attempt)
	})
}

// An execution with a fingerprint was interrupted, and a caller without one takes over without
// ever knowing it: the fingerprint stays.
func TestFingerprintOutlivesATakeOverOfUnknownFate(t *testing.T) {
	everywhere(t, func(w *world) {
		x, other, third := w.executor(), w.executor(), w.executor()
		p := w.provider()
		p.answer("", idempotent.OutcomeUnknown(errors.New("connection reset")))
		x.start(w.Context(), "order-1", p.charge, idempotent.WithFingerprint([]byte("10"))).wait(w)
		other.client.AddHook(replyHook{change: func(cmd redis.Cmder) error {
			if isTakeOver(cmd) {
				return serverError("LOADING Redis is loading the dataset in memory")
			}
			return nil
		}})
		_, err := other.Run(w.Context(), "order-1", p.charge, idempotent.WithNoWait())
		require.ErrorIs(w, err, idempotent.ErrUnavailable)
		_, err = third.Run(w.Context(), "order-1", p.charge, idempotent.WithFingerprint([]byte("20")))
		require.ErrorIs(w, err, idempotent.ErrKeyReused)
		_, err = third.Get(w.Context(), "order-1", idempotent.WithFingerprint([]byte("20")))
		require.ErrorIs(w, err, idempotent.ErrKeyReused)
		assert.Equal(w, 1, p.count())
	})
}

// claims collects the tokens that claims are sent with.
type claims struct {
	mu     sync.Mutex
	tokens []string
}

func (*claims) DialHook(next redis.DialHook) redis.DialHook { return next }

func (c *claims) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if cmd.Name() == "set" {
			c.mu.Lock()
			c.tokens = append(c.tokens, string(cmd.Args()[2].([]byte)[2:18]))
			c.mu.Unlock()
		}
		return next(ctx, cmd)
	}
}

func (*claims) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// The client may have sent the first claim twice, and one of the two may still be in flight.
func TestEachClaimHasItsOwnToken(t *testing.T) {
	everywhere(t, func(w *world) {
		owner, other := w.executor(idempotent.WithShouldIgnoreError(idempotent.IsRetryable)), w.executor()
		c := &claims{}
		other.client.AddHook(c)
		p := w.provider()
		first := owner.start(w.Context(), "order-1", p.charge)
		<-p.started
		second := other.start(w.Context(), "order-1", p.charge)
		other.waits(w)
		p.answer("", idempotent.Retryable(errors.New("busy")))
		first.wait(w)
		p.answer("charged", nil)
		second.returned(w, "charged")
		require.Len(w, c.tokens, 2)
		assert.NotEqual(w, c.tokens[0], c.tokens[1])
	})
}

package store

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent/internal/record"
)

// comparisons gives a server SET with IFEQ, which the servers of most tests lack, and counts it.
type comparisons struct {
	client    *redis.Client
	sent      atomic.Int32
	missing   bool // the server keeps refusing it
	loseReply bool // it is executed, and its reply is lost
}

var errReplyLost = errors.New("the reply is lost")

const setIfEqual = `if redis.call('GET', KEYS[1]) ~= ARGV[2] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[3])
return 1`

func (c *comparisons) DialHook(next redis.DialHook) redis.DialHook { return next }

func (c *comparisons) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (c *comparisons) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		args := cmd.Args()
		if len(args) < 5 || args[0] != "set" || args[3] != "ifeq" {
			return next(ctx, cmd)
		}
		c.sent.Add(1)
		if c.missing {
			return next(ctx, cmd)
		}
		set, err := c.client.Eval(ctx, setIfEqual, []string{args[1].(string)}, args[2], args[4], args[6]).Int()
		switch {
		case err == nil && c.loseReply:
			err = errReplyLost
		case err == nil && set == 0:
			err = redis.Nil
		case err == nil:
			cmd.(*redis.StatusCmd).SetVal("OK")
		}
		cmd.SetErr(err)
		return err
	}
}

// A commitScene is an operation that is owned, a Store that compares, and a waiter.
type commitScene struct {
	*Store
	server   *comparisons
	name     string
	commit   *Commit
	messages *redis.PubSub
}

func newCommitScene(t *testing.T) *commitScene {
	t.Helper()
	client := memoryClient(t)
	sc := &commitScene{Store: New(client, 1<<10, Ack{}), server: &comparisons{client: client}, name: record.Name("default", "order-1")}
	client.AddHook(sc.server)
	sc.compare.commits.Store(compareAfter)
	token := record.NewToken()
	running := record.Record{Kind: record.KindRunning, Token: token, Attempt: 1, At: time.Now(), Lease: time.Minute, Retention: time.Hour}
	done := record.Record{Kind: record.KindDone, Token: token, Attempt: 1, At: time.Now(), Outcome: record.OutcomeValue, Payload: []byte("paid")}
	sc.commit = &Commit{Name: sc.name, Running: running.Encode(), Done: done.Encode(), TTL: time.Hour}
	require.NoError(t, client.Set(t.Context(), sc.name, sc.commit.Running, time.Hour).Err())
	sc.messages = client.Subscribe(t.Context(), sc.name)
	t.Cleanup(func() { _ = sc.messages.Close() })
	_, err := sc.messages.Receive(t.Context()) // the confirmation
	require.NoError(t, err)
	return sc
}

// published returns what the waiters were sent, after everything that is sent later has been.
func (sc *commitScene) published(t *testing.T) (messages []string) {
	t.Helper()
	sc.Close()
	require.NoError(t, sc.Client.Publish(t.Context(), sc.name, "end").Err())
	for {
		m, err := sc.messages.ReceiveMessage(t.Context())
		require.NoError(t, err)
		if m.Payload == "end" {
			return messages
		}
		messages = append(messages, m.Payload)
	}
}

func (sc *commitScene) stored(t *testing.T) string {
	t.Helper()
	there, err := sc.Client.Get(t.Context(), sc.name).Result()
	require.NoError(t, err)
	return there
}

func TestCommitByComparison(t *testing.T) {
	t.Run("the owner's record is replaced, and then published", func(t *testing.T) {
		sc := newCommitScene(t)
		stored, err := sc.Commit(t.Context(), nil, sc.commit)
		require.NoError(t, err)
		assert.True(t, stored)
		assert.Equal(t, string(sc.commit.Done), sc.stored(t))
		assert.Equal(t, []string{string(sc.commit.Done)}, sc.published(t))
		assert.EqualValues(t, 1, sc.server.sent.Load())
	})
	t.Run("a large record is not the message", func(t *testing.T) {
		sc := newCommitScene(t)
		sc.MessageLimit = 10
		_, err := sc.Commit(t.Context(), nil, sc.commit)
		require.NoError(t, err)
		assert.Equal(t, []string{"G"}, sc.published(t))
	})
	t.Run("the outcome of an owner that was overtaken reaches nobody", func(t *testing.T) {
		sc := newCommitScene(t)
		other := record.Record{Kind: record.KindRunning, Token: record.NewToken(), Attempt: 2, At: time.Now(), Lease: time.Minute, Retention: time.Hour}
		require.NoError(t, sc.Client.Set(t.Context(), sc.name, other.Encode(), time.Hour).Err())
		stored, err := sc.Commit(t.Context(), nil, sc.commit)
		require.NoError(t, err)
		assert.False(t, stored)
		assert.Equal(t, string(other.Encode()), sc.stored(t))
		assert.Empty(t, sc.published(t))
	})
	t.Run("a lost reply is answered by the script, and published", func(t *testing.T) {
		sc := newCommitScene(t)
		sc.server.loseReply = true
		stored, err := sc.Commit(t.Context(), nil, sc.commit)
		require.NoError(t, err)
		assert.True(t, stored)
		assert.Equal(t, string(sc.commit.Done), sc.stored(t))
		assert.Equal(t, []string{string(sc.commit.Done)}, sc.published(t))
	})
	t.Run("an expired record is stored by the script", func(t *testing.T) {
		sc := newCommitScene(t)
		require.NoError(t, sc.Client.Del(t.Context(), sc.name).Err())
		stored, err := sc.Commit(t.Context(), nil, sc.commit)
		require.NoError(t, err)
		assert.True(t, stored)
		assert.Equal(t, string(sc.commit.Done), sc.stored(t))
		assert.Contains(t, sc.published(t), string(sc.commit.Done))
	})
	t.Run("a server that refuses it is asked once", func(t *testing.T) {
		sc := newCommitScene(t)
		sc.server.missing = true
		for range 3 {
			stored, err := sc.Commit(t.Context(), nil, sc.commit)
			require.NoError(t, err)
			assert.True(t, stored)
		}
		assert.EqualValues(t, 1, sc.server.sent.Load())
	})
	t.Run("it begins after a hundred commits", func(t *testing.T) {
		sc := newCommitScene(t)
		sc.compare.commits.Store(0)
		for range compareAfter - 1 {
			_, err := sc.Commit(t.Context(), nil, sc.commit)
			require.NoError(t, err)
		}
		assert.Zero(t, sc.server.sent.Load())
		_, err := sc.Commit(t.Context(), nil, sc.commit)
		require.NoError(t, err)
		assert.EqualValues(t, 1, sc.server.sent.Load())
	})
}

package pipeline

import (
	"context"
	"errors"
	"net"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
)

// A server counts what a client sends, and answers when it is let.
type server struct {
	alone   chan redis.Cmder
	sent    chan int // the number of commands of each pipeline
	answers chan error
	behave  func(cmds []redis.Cmder) error // instead of an answer
}

func newServer() *server {
	return &server{alone: make(chan redis.Cmder, 100), sent: make(chan int, 100), answers: make(chan error)}
}

func (s *server) DialHook(redis.DialHook) redis.DialHook {
	return func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("no network") }
}

func (s *server) ProcessHook(redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		s.alone <- cmd
		return s.answer(ctx, []redis.Cmder{cmd})
	}
}

func (s *server) ProcessPipelineHook(redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		s.sent <- len(cmds)
		if s.behave != nil {
			return s.behave(cmds)
		}
		return s.answer(ctx, cmds)
	}
}

func (s *server) answer(ctx context.Context, cmds []redis.Cmder) error {
	select {
	case err := <-s.answers:
		for _, cmd := range cmds {
			cmd.SetErr(err)
			if c, ok := cmd.(*redis.Cmd); ok {
				c.SetVal("OK")
			}
		}
		return err
	case <-ctx.Done():
		for _, cmd := range cmds {
			cmd.SetErr(ctx.Err())
		}
		return ctx.Err()
	}
}

// A crowd is a Batcher in fake time, and the callers in it.
type crowd struct {
	*Batcher
	*server
	callers sync.WaitGroup
}

func inFakeTime(t *testing.T, limit int, test func(t *testing.T, c *crowd)) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		client := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1", MaxRetries: -1})
		client.AddHook(s)
		c := &crowd{Batcher: NewBatcher(context.Background(), client, limit), server: s}
		test(t, c)
		c.callers.Wait()
		c.Wait()
		assert.NoError(t, client.Close())
		assert.Zero(t, c.Batcher.alone)
		assert.Zero(t, c.pipelines)
		assert.Zero(t, c.late)
	})
}

// call sends n commands of so many bytes; each error goes to the channel.
func (c *crowd) call(ctx context.Context, n, bytes int) <-chan error {
	errs := make(chan error, n)
	for range n {
		c.callers.Go(func() { errs <- c.Process(ctx, redis.NewCmd(ctx, "set", "name", make([]byte, bytes))) })
	}
	synctest.Wait()
	return errs
}

func TestFewCommandsGoAlone(t *testing.T) {
	inFakeTime(t, 2, func(t *testing.T, c *crowd) {
		errs := c.call(t.Context(), 2, 10)
		assert.Len(t, c.server.alone, 2)
		c.answers <- nil
		c.answers <- errors.New("refused")
		assert.ElementsMatch(t, []error{nil, errors.New("refused")}, []error{<-errs, <-errs})
		assert.Empty(t, c.sent)
	})
}

func TestCommandsThatArriveMeanwhileShareTheNextPipeline(t *testing.T) {
	inFakeTime(t, 0, func(t *testing.T, c *crowd) {
		first := c.call(t.Context(), 1, 10)
		assert.Equal(t, 1, <-c.sent)
		others := c.call(t.Context(), 60, 10)
		assert.Empty(t, c.sent, "one pipeline at a time")
		c.answers <- nil
		assert.NoError(t, <-first)
		assert.Equal(t, 60, <-c.sent)
		c.answers <- nil
		for range 60 {
			assert.NoError(t, <-others)
		}
	})
}

func TestPipelinesAreBounded(t *testing.T) {
	queue := func(n, size int) (queue []*ticket) {
		for range n {
			queue = append(queue, &ticket{cmd: redis.NewCmd(t.Context(), "set", "name", make([]byte, size))})
		}
		return queue
	}
	for name, test := range map[string]struct{ queued, size, want int }{
		"nothing":        {0, 0, 0},
		"small ones":     {20, 100, 20},
		"very many":      {3000, 10, MaxCommands},
		"large commands": {200, 60 << 10, 18}, // the one that crosses 1 MiB is the last
	} {
		assert.Equal(t, test.want, fitting(queue(test.queued, test.size)), name)
	}
}

// A server that refuses a large command closes the connection: nobody else may be on it.
func TestLargeCommandSharesNoPipeline(t *testing.T) {
	inFakeTime(t, 0, func(t *testing.T, c *crowd) {
		large := c.call(t.Context(), 1, sharedSize+1)
		small := c.call(t.Context(), 1, sharedSize)
		assert.Len(t, c.server.alone, 1)
		assert.Equal(t, 1, <-c.sent)
		c.answers <- nil
		c.answers <- nil
		assert.NoError(t, <-large)
		assert.NoError(t, <-small)
	})
}

func TestLatePipelineHoldsUpNoOther(t *testing.T) {
	inFakeTime(t, 0, func(t *testing.T, c *crowd) {
		for i := range maxPipelines + 1 {
			c.call(t.Context(), 1, 10)
			if i < maxPipelines {
				assert.Equal(t, 1, <-c.sent)
			}
			time.Sleep(lateAfter)
			synctest.Wait()
		}
		assert.Empty(t, c.sent, "%d are in flight", maxPipelines)
		c.answers <- nil
		assert.Equal(t, 1, <-c.sent)
		for range maxPipelines {
			c.answers <- nil
		}
	})
}

func TestCallerThatLeavesTheQueueIsSkipped(t *testing.T) {
	inFakeTime(t, 0, func(t *testing.T, c *crowd) {
		first := c.call(t.Context(), 1, 10)
		<-c.sent
		ctx, cancel := context.WithCancel(t.Context())
		left := c.call(ctx, 2, 10)
		stays := c.call(t.Context(), 1, 10)
		cancel()
		assert.ErrorIs(t, <-left, context.Canceled)
		assert.ErrorIs(t, <-left, context.Canceled)
		c.answers <- nil
		assert.NoError(t, <-first)
		assert.Equal(t, 1, <-c.sent)
		c.answers <- nil
		assert.NoError(t, <-stays)
	})
}

func TestCallerThatLeavesLateGetsTheReply(t *testing.T) {
	inFakeTime(t, 0, func(t *testing.T, c *crowd) {
		ctx, cancel := context.WithCancel(t.Context())
		first := c.call(t.Context(), 1, 10)
		<-c.sent
		leaves, stays := c.call(ctx, 1, 10), c.call(t.Context(), 1, 10)
		c.answers <- nil
		assert.NoError(t, <-first)
		assert.Equal(t, 2, <-c.sent)
		cancel()
		synctest.Wait()
		assert.Empty(t, leaves, "it was sent: whether it was executed is only in the reply")
		c.answers <- nil
		assert.NoError(t, <-leaves)
		assert.NoError(t, <-stays)
	})
}

func TestPipelineThatNobodyWaitsForIsCancelled(t *testing.T) {
	inFakeTime(t, 0, func(t *testing.T, c *crowd) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		first := c.call(ctx, 1, 10)
		<-c.sent
		time.Sleep(time.Second)
		assert.ErrorIs(t, <-first, context.DeadlineExceeded, "its own error")
	})
}

func TestHooksThatSendNothing(t *testing.T) {
	refused := errors.New("breaker open")
	for name, test := range map[string]struct {
		behave func([]redis.Cmder) error
		want   string
	}{
		"returns an error": {func([]redis.Cmder) error { return refused }, "breaker open"},
		"panics":           {func([]redis.Cmder) error { panic("hook") }, "panic: hook"},
		"exits":            {func([]redis.Cmder) error { runtime.Goexit(); return nil }, ErrHookExited.Error()},
	} {
		t.Run(name, func(t *testing.T) {
			inFakeTime(t, 0, func(t *testing.T, c *crowd) {
				c.behave = test.behave
				assert.EqualError(t, <-c.call(t.Context(), 1, 10), test.want)
			})
		})
	}
}

func TestReplyError(t *testing.T) {
	ctx, down := t.Context(), errors.New("down")
	answered, failed := redis.NewCmd(ctx, "get"), redis.NewCmd(ctx, "get")
	answered.SetVal("v")
	failed.SetErr(redis.Nil)
	raw := redis.NewRawCmd(ctx, "get")
	assert.NoError(t, ReplyError(answered, down))
	assert.Equal(t, redis.Nil, ReplyError(failed, down))
	assert.Equal(t, down, ReplyError(redis.NewCmd(ctx, "get"), down))
	assert.Equal(t, down, ReplyError(raw, down))
}

// Commands that queue behind a pipeline are sent when that is late, without another one to come.
func TestQueueIsSentWhenThePipelineBeforeItIsLate(t *testing.T) {
	inFakeTime(t, 0, func(t *testing.T, c *crowd) {
		c.call(t.Context(), 1, 10)
		assert.Equal(t, 1, <-c.sent)
		c.call(t.Context(), 3, 10)
		assert.Empty(t, c.sent)
		time.Sleep(lateAfter)
		synctest.Wait()
		assert.Equal(t, 3, <-c.sent)
		c.answers <- nil
		c.answers <- nil
	})
}

package load

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/redis/go-redis/v9"
)

// A caller is what a context says of the calls that it is for.
type caller struct {
	id  string   // of the call, "" if there are many
	ran sync.Map // execution → the call whose fn it was

	joined sync.Map    // keys for which another call of this process was waited for
	asked  atomic.Bool // a command was sent
}

type callerKey struct{}

func within(ctx context.Context, c *caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// callerIn is the caller of a context, one that nobody knows if it has none.
func callerIn(ctx context.Context) *caller {
	if c, ok := ctx.Value(callerKey{}).(*caller); ok {
		return c
	}
	return new(caller)
}

// call is the call that what the executor says of an execution is about.
func (c *caller) call(of execution) string {
	if ran, ok := c.ran.Load(of); ok {
		return ran.(string)
	}
	return c.id
}

// askers are a client's hook that notes which calls send commands.
type askers struct{}

func (askers) DialHook(next redis.DialHook) redis.DialHook { return next }

func (askers) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		callerIn(ctx).asked.Store(true)
		return next(ctx, cmd)
	}
}

func (askers) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		callerIn(ctx).asked.Store(true)
		return next(ctx, cmds)
	}
}

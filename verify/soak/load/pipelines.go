package load

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/redis/go-redis/v9"

	"github.com/idempotent-go/idempotent/verify/soak/history"
)

// pipelines are a client's hook that counts the claims and commits that travel with others.
type pipelines struct {
	mu     sync.Mutex
	shared history.Shared
}

// take returns what was counted since it was last called.
func (p *pipelines) take() history.Shared {
	p.mu.Lock()
	defer p.mu.Unlock()
	shared := p.shared
	p.shared = history.Shared{}
	return shared
}

func (*pipelines) DialHook(next redis.DialHook) redis.DialHook { return next }

func (*pipelines) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

func (p *pipelines) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		err := next(ctx, cmds)
		if len(cmds) > 1 {
			p.count(cmds)
		}
		return err
	}
}

// count leaves out what never travels alone: renewals, and what replicas have to acknowledge.
func (p *pipelines) count(cmds []redis.Cmder) {
	if slices.ContainsFunc(cmds, func(cmd redis.Cmder) bool { return cmd.Name() == "wait" }) {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, cmd := range cmds {
		switch {
		case cmd.Name() == "set":
			p.shared.Claims++
		case slices.Contains(cmd.Args(), any("PUBLISH")):
			p.shared.Commits++
		default:
			continue
		}
		if err := cmd.Err(); err != nil && !answered(err) {
			p.shared.Unanswered++
		}
	}
}

func answered(err error) bool {
	_, ok := errors.AsType[redis.Error](err)
	return ok
}

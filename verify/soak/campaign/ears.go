package campaign

import (
	"context"
	"sync"

	"github.com/idempotent-go/idempotent/verify/soak/history"
)

// ears hear when workers are idle or gone.
type ears struct {
	mu      sync.Mutex
	heard   map[string]bool
	changed chan struct{}
}

func newEars() *ears {
	return &ears{heard: make(map[string]bool), changed: make(chan struct{})}
}

func (e *ears) hear(ev history.Event) {
	if ev.Kind != history.Idle && ev.Kind != history.Exit {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.heard[ev.Proc+" "+string(ev.Kind)] = true
	close(e.changed)
	e.changed = make(chan struct{})
}

// wait returns when the event has come.
func (e *ears) wait(ctx context.Context, proc string, kind history.Kind) error {
	for {
		e.mu.Lock()
		heard, changed := e.heard[proc+" "+string(kind)], e.changed
		e.mu.Unlock()
		if heard {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

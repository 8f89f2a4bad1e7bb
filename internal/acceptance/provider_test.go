package acceptance

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
)

// A call is one Run in a goroutine of its own.
type call struct {
	done   chan struct{}
	value  string
	err    error
	report idempotent.Report
}

func (x *executor) start(ctx context.Context, key string, fn func(context.Context) (string, error), opts ...idempotent.RunOption) *call {
	c := &call{done: make(chan struct{})}
	go func() {
		defer close(c.done)
		c.value, c.err = x.Run(ctx, key, fn, append(opts, idempotent.WithReport(&c.report))...)
	}()
	return c
}

func (c *call) wait(t testing.TB) *call {
	t.Helper()
	select {
	case <-c.done:
	case <-time.After(time.Minute):
		t.Fatal("Run did not return in a minute")
	}
	return c
}

func (c *call) returned(t testing.TB, value string) {
	t.Helper()
	c.wait(t)
	require.NoError(t, c.err)
	require.Equal(t, value, c.value)
}

// A provider is a fake payment provider: it counts its calls and answers when told to.
type provider struct {
	mu      sync.Mutex
	calls   []idempotent.RunInfo
	started chan struct{} // one for each call
	answers chan answer
	over    <-chan struct{}
}

type answer struct {
	value string
	err   error
}

func (w *world) provider() *provider {
	return &provider{started: make(chan struct{}, 5000), answers: make(chan answer, 5000), over: w.over}
}

// charge is a fn. It waits for an answer whatever becomes of its context.
func (p *provider) charge(ctx context.Context) (string, error) {
	return p.chargeOrLeave(context.WithoutCancel(ctx))
}

// chargeOrLeave is a fn that gives up when its context ends.
func (p *provider) chargeOrLeave(ctx context.Context) (string, error) {
	info, _ := idempotent.RunInfoFromContext(ctx)
	p.mu.Lock()
	p.calls = append(p.calls, info)
	p.mu.Unlock()
	p.started <- struct{}{}
	select {
	case a := <-p.answers:
		return a.value, a.err
	case <-ctx.Done():
		return "", fmt.Errorf("charge: %w", ctx.Err())
	case <-p.over:
		return "", nil
	}
}

func (p *provider) answer(value string, err error) { p.answers <- answer{value, err} }

func (p *provider) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.calls)
}

func (p *provider) last() idempotent.RunInfo {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.calls[len(p.calls)-1]
}

// charged is a fn that always succeeds.
func charged(context.Context) (string, error) { return "charged", nil }

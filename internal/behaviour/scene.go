package behaviour

import (
	"context"
	"crypto/rand"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/idemtest"
)

const (
	lease      = 5 * time.Minute         // who is not notified waits longer than a test
	shortLease = 1500 * time.Millisecond // that a busy machine does not lose
	ttl        = 10 * time.Minute
	patient    = time.Minute // longer than anything takes
)

func newNamespace() string { return "behaviour/" + rand.Text() }

// A scene is one test: executors as different processes have them, in a namespace of their own.
type scene struct {
	*testing.T
	one, two  redis.UniversalClient
	namespace string
}

// An executor is a process of its own, as far as Redis can tell.
type executor struct {
	*idempotent.Executor[string]
	*idemtest.Recorder
}

// pair returns two executors, one on each client.
func (s *scene) pair(opts ...idempotent.Option) (owner, other *executor) {
	s.Helper()
	return s.executor(s.one, opts...), s.executor(s.two, opts...)
}

func (s *scene) executor(client redis.UniversalClient, opts ...idempotent.Option) *executor {
	s.Helper()
	x := &executor{Recorder: &idemtest.Recorder{}}
	opts = append([]idempotent.Option{
		idempotent.WithLease(lease),
		idempotent.WithTTL(ttl),
		idempotent.WithObserver(x.Recorder),
	}, opts...)
	var err error
	x.Executor, err = idempotent.New[string](client, s.namespace, opts...)
	require.NoError(s, err)
	s.Cleanup(func() { _ = x.Close() })
	return x
}

// withoutRenewals returns an executor whose leases end: its renewals never arrive. Everything else does.
func (s *scene) withoutRenewals(opts ...idempotent.Option) *executor {
	s.Helper()
	closed := redis.NewClient(&redis.Options{})
	require.NoError(s, closed.Close())
	opts = append([]idempotent.Option{idempotent.WithLease(shortLease)}, opts...)
	client := s.one
	if _, ok := client.(*redis.AutoPipeliner); ok { // wrapped, it would hide that it is over a Cluster client
		client = s.two
	}
	return s.executor(withoutRenewals(client, closed), opts...)
}

// unrenewed is a client through which no renewal goes: these are what an executor pipelines.
type unrenewed struct {
	redis.UniversalClient
	closed *redis.Client
}

func (u unrenewed) Pipeline() redis.Pipeliner { return u.closed.Pipeline() }

// What an executor recognises clients of several servers by.
type (
	cluster interface {
		MasterForKey(ctx context.Context, key string) (*redis.Client, error)
		ForEachMaster(ctx context.Context, do func(context.Context, *redis.Client) error) error
		ReloadState(ctx context.Context)
	}
	ring interface {
		GetShardClientForKey(key string) (*redis.Client, error)
		Options() *redis.RingOptions
	}
)

func withoutRenewals(client redis.UniversalClient, closed *redis.Client) redis.UniversalClient {
	u := unrenewed{UniversalClient: client, closed: closed}
	switch c := client.(type) {
	case cluster:
		return struct {
			unrenewed
			cluster
		}{u, c}
	case ring:
		return struct {
			unrenewed
			ring
		}{u, c}
	}
	return u
}

// A call is one Run or Get in a goroutine of its own.
type call struct {
	done     chan struct{}
	value    string
	err      error
	panicked any
	report   idempotent.Report
}

type action func(ctx context.Context) (string, error)

func (x *executor) start(ctx context.Context, key string, fn action, opts ...idempotent.RunOption) *call {
	c := &call{done: make(chan struct{})}
	opts = append(opts, idempotent.WithReport(&c.report))
	return c.run(func() (string, error) { return x.Run(ctx, key, fn, opts...) })
}

func (x *executor) startGet(ctx context.Context, key string) *call {
	c := &call{done: make(chan struct{})}
	return c.run(func() (string, error) { return x.Get(ctx, key, idempotent.WithReport(&c.report)) })
}

func (c *call) run(f func() (string, error)) *call {
	go func() {
		defer close(c.done)
		defer func() { c.panicked = recover() }()
		c.value, c.err = f()
	}()
	return c
}

// await receives from a channel, and fails the test if nothing comes.
func await[V any](t testing.TB, c <-chan V, what string) (v V) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(patient):
		t.Fatalf("%s: not within %v", what, patient)
	}
	return v
}

func (c *call) wait(t testing.TB) *call {
	t.Helper()
	await(t, c.done, "return of a call")
	return c
}

// got checks what a call came to, whoever ran fn for it.
func (c *call) got(t testing.TB, value string) {
	t.Helper()
	c.wait(t)
	require.NoError(t, c.err)
	require.Nil(t, c.panicked)
	if value != c.value { // large ones are not to be printed
		require.Equal(t, brief(value), brief(c.value))
		t.Fatalf("another value of %d bytes", len(value))
	}
}

// returned checks what a call came to, and who ran fn for it.
func (c *call) returned(t testing.TB, value string, source idempotent.Source, attempt int) {
	t.Helper()
	c.got(t, value)
	require.Equal(t, source, c.report.Source)
	require.Equal(t, attempt, c.report.Attempt)
	require.False(t, c.report.RecordedAt.IsZero())
}

func brief(value string) string {
	if len(value) <= 300 {
		return fmt.Sprintf("%q", value)
	}
	return fmt.Sprintf("%q... of %d bytes", value[:20], len(value))
}

// failed checks that a call ran nothing and came to nothing but err.
func (c *call) failed(t testing.TB, err error) {
	t.Helper()
	c.wait(t)
	require.Nil(t, c.panicked)
	require.ErrorIs(t, c.err, err)
	require.Empty(t, c.value)
	require.Zero(t, c.report.Source)
	require.Zero(t, c.report.Attempt)
	require.Zero(t, c.report.RecordedAt)
}

// failedWith checks the error of a call that ran fn.
func (c *call) failedWith(t testing.TB, err error) {
	t.Helper()
	c.wait(t)
	require.Nil(t, c.panicked)
	require.ErrorIs(t, c.err, err)
}

// A provider is a fake payment provider: it answers when told to.
type provider struct {
	t       testing.TB
	calls   atomic.Int64
	started chan idempotent.RunInfo // one for each call
	answers chan answer
}

type answer struct {
	value string
	err   error
}

func (s *scene) provider() *provider {
	return &provider{t: s, started: make(chan idempotent.RunInfo, 1000), answers: make(chan answer, 1000)}
}

// charge is a function to run. It waits for its answer whatever becomes of its context.
func (p *provider) charge(ctx context.Context) (string, error) {
	return p.chargeOrLeave(context.WithoutCancel(ctx))
}

// chargeOrLeave is a function to run that gives up when its context ends.
func (p *provider) chargeOrLeave(ctx context.Context) (string, error) {
	p.calls.Add(1)
	info, _ := idempotent.RunInfoFromContext(ctx)
	p.started <- info
	select {
	case a := <-p.answers:
		return a.value, a.err
	case <-ctx.Done():
		return "", context.Cause(ctx)
	case <-p.t.Context().Done(): // the test has failed
		return "", p.t.Context().Err()
	}
}

// begun waits for the next call to begin, and checks its attempt number.
func (p *provider) begun(attempt int) {
	p.t.Helper()
	require.Equal(p.t, attempt, await(p.t, p.started, "start of fn").Attempt)
}

func (p *provider) answer(value string, err error) { p.answers <- answer{value, err} }

// called checks how often fn ran, all in all.
func (p *provider) called(n int64) {
	p.t.Helper()
	require.Equal(p.t, n, p.calls.Load(), "executions")
}

// looked returns when x, which waits for another process, knows where that stands: one that does
// not wait is answered with what the waiting one found out.
func (x *executor) looked(s *scene, key string) {
	s.Helper()
	x.Wait(s, idempotent.EventWaitStarted, 1)
	_, err := x.Run(s.Context(), key, s.mustNotRun, idempotent.WithNoWait())
	busy := new(idempotent.InProgressError)
	require.ErrorAs(s, err, &busy)
	require.Positive(s, busy.RetryAfter)
}

func (s *scene) mustNotRun(context.Context) (string, error) {
	s.Error("fn ran")
	return "", nil
}

// settle settles a key, also one under which nothing is stored.
func settle[T any](x interface {
	Resolve(ctx context.Context, key string, value T, opts ...idempotent.RunOption) (idempotent.Status, error)
}, ctx context.Context, key string, value T, opts ...idempotent.RunOption) error { //nolint:revive // the context is Resolve's
	_, err := x.Resolve(ctx, key, value, append(opts, idempotent.WithAbsent())...)
	return err
}

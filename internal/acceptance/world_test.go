package acceptance

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/idemtest"
	"github.com/idempotent-go/idempotent/internal/redistest"
)

func TestMain(m *testing.M) {
	redis.SetLogger(quiet{}) // dials that fail are part of the tests
	if os.Getenv(workerEnv) != "" {
		workerMain()
		return
	}
	flag.Parse()
	if !isSet("test.parallel") {
		_ = flag.Set("test.parallel", "8") // they wait for servers and leases, not for a core
	}
	code := m.Run()
	redistest.Cleanup()
	if err := goleak.Find(stillDialing, stillDraining); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, "after the last test:", err)
		code = 1
	}
	os.Exit(code)
}

func isSet(name string) (found bool) {
	flag.Visit(func(f *flag.Flag) { found = found || f.Name == name })
	return found
}

// A world is where a behaviour is tested: in fake time on an in-memory server, or on a real one.
// Executors made in it have a client each, as those of different processes have.
type world struct {
	*testing.T
	real      bool
	lease     time.Duration
	namespace string
	servers   servers
	dial      func(ctx context.Context) (net.Conn, error)
	options   redis.Options
	memory    *idemtest.Redis // nil in the real world
	over      chan struct{}   // closed when the test is: providers answer then
	overOnce  sync.Once
}

var worlds atomic.Int64

// everywhere runs a behaviour in both worlds. Tests that call it run in parallel.
func everywhere(t *testing.T, test func(w *world)) {
	t.Helper()
	t.Parallel()
	t.Run("fake time", func(t *testing.T) { inFakeTime(t, test) })
	t.Run("real Redis", func(t *testing.T) { onRealRedisAt(t, redistest.URL(t), test) })
}

func inFakeTime(t *testing.T, test func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		memory := idemtest.NewRedis(t)
		test(&world{
			T:         t,
			lease:     10 * time.Second,
			over:      make(chan struct{}),
			namespace: "test",
			memory:    memory,
			options:   *memory.Options(),
			dial: func(ctx context.Context) (net.Conn, error) {
				return memory.Options().Dialer(ctx, "", "")
			},
		})
	})
}

// onRealRedis runs a behaviour on the server that tests share, in parallel with other tests.
func onRealRedis(t *testing.T, test func(w *world)) {
	t.Helper()
	t.Parallel()
	onRealRedisAt(t, redistest.URL(t), test)
}

func onRealRedisAt(t *testing.T, url string, test func(w *world)) {
	t.Helper()
	leavesNothing(t)
	options, err := redis.ParseURL(url)
	require.NoError(t, err)
	var d net.Dialer
	test(&world{
		T:         t,
		real:      true,
		lease:     1500 * time.Millisecond, // a busy machine must not lose it
		over:      make(chan struct{}),
		namespace: fmt.Sprintf("test-%d-%d", os.Getpid(), worlds.Add(1)),
		servers:   servers{URL: url},
		options:   *options,
		dial:      func(ctx context.Context) (net.Conn, error) { return d.DialContext(ctx, "tcp", options.Addr) },
	})
}

// client returns a client of its own, whose connections go through wire if that is not nil.
func (w *world) client(wire *wire) *redis.Client {
	w.Helper()
	options := w.options
	options.DialerRetries = 1
	options.Dialer = func(ctx context.Context, _, _ string) (net.Conn, error) {
		conn, err := w.dial(ctx)
		if err != nil || wire == nil {
			return conn, err
		}
		return wire.attach(conn)
	}
	c := redis.NewClient(&options)
	w.Cleanup(func() {
		_ = c.Close()
		if !w.real {
			time.Sleep(2 * time.Second) // go-redis dials once a second after failures, until it notices
		}
	})
	return c
}

type executor struct {
	*idempotent.Executor[string]
	*idemtest.Recorder
	wire   *wire
	client *redis.Client
	looked chan struct{} // one for each read of record and TTL
}

// executor makes one as another process would have it.
func (w *world) executor(opts ...idempotent.Option) *executor {
	w.Helper()
	wire := &wire{}
	client := w.client(wire)
	x := w.executorOn(client, opts...)
	x.wire, x.client = wire, client
	return x
}

// executorOn makes one on a client of any kind.
func (w *world) executorOn(client redis.UniversalClient, opts ...idempotent.Option) *executor {
	w.Helper()
	return w.executorIn(w.namespace, client, opts...)
}

func (w *world) executorIn(namespace string, client redis.UniversalClient, opts ...idempotent.Option) *executor {
	w.Helper()
	x := &executor{Recorder: &idemtest.Recorder{}, looked: make(chan struct{}, 1000)}
	client.AddHook(looks{done: x.looked})
	opts = append([]idempotent.Option{
		idempotent.WithLease(w.lease),
		idempotent.WithObserver(x.Recorder),
	}, opts...)
	var err error
	x.Executor, err = idempotent.New[string](client, namespace, opts...)
	require.NoError(w, err)
	w.Cleanup(func() {
		w.overOnce.Do(func() { close(w.over) })
		_ = x.Close()
	})
	return x
}

// name is the Redis name of a key.
func (w *world) name(key string) string { return "idempotent:" + w.namespace + ":" + key }

// settled returns when no goroutine of the bubble has anything to do; the real world has no such
// moment, and tests that call this must be right without it.
func (w *world) settled() {
	if !w.real {
		synctest.Wait()
	}
}

// waits returns when x waits for another process, its subscription stands, and it has read since.
func (x *executor) waits(w *world) {
	w.Helper()
	x.Wait(w, idempotent.EventWaitStarted, 1)
	if !w.real {
		synctest.Wait()
		return
	}
	<-x.looked
}

// reconnects returns when the client dials again: after many failures, go-redis does so once a second.
func (x *executor) reconnects(w *world) {
	w.Helper()
	require.Eventually(w, func() bool { return x.client.Ping(w.Context()).Err() == nil }, time.Minute, 10*time.Millisecond)
}

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

// A wire is the network between one client and the server. By default it works.
type wire struct {
	mu       sync.Mutex
	cut      bool
	conns    map[*wiredConn]struct{}
	loseNext string // the reply to the next command that contains this is lost, with its connection
	lost     int
	onLost   func() // called before the connection of a lost reply ends
	deaf     bool   // subscriptions are refused
}

var errCut = fmt.Errorf("the wire is cut")

type wiredConn struct {
	net.Conn
	wire   *wire
	losing atomic.Bool // the next reply is lost, and the connection with it
	dead   atomic.Bool
	subs   atomic.Bool // this is a subscription
	mute   atomic.Bool // what comes is dropped
	closed chan struct{}
	once   sync.Once
}

func (w *wire) attach(conn net.Conn) (net.Conn, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cut {
		_ = conn.Close()
		return nil, &net.OpError{Op: "dial", Err: errCut}
	}
	c := &wiredConn{Conn: conn, wire: w, closed: make(chan struct{})}
	if w.conns == nil {
		w.conns = make(map[*wiredConn]struct{})
	}
	w.conns[c] = struct{}{}
	return c, nil
}

// sever ends all connections and refuses new ones.
func (w *wire) sever() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = true
	for c := range w.conns {
		_ = c.Conn.Close()
	}
	w.conns = nil
}

func (w *wire) mend() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = false
}

// loseReplyTo lets the server execute the next command that contains text, and drops the reply.
func (w *wire) loseReplyTo(text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.loseNext = text
}

// refuseSubscriptions ends the subscriptions and refuses new ones.
func (w *wire) refuseSubscriptions() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.deaf = true
	for c := range w.conns {
		if c.subs.Load() {
			_ = c.Conn.Close()
		}
	}
}

// muteSubscriptions lets nothing come through the subscriptions that stand.
func (w *wire) muteSubscriptions() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for c := range w.conns {
		if c.subs.Load() {
			c.mute.Store(true)
		}
	}
}

func (w *wire) repliesLost() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.lost
}

func (c *wiredConn) Write(b []byte) (int, error) {
	c.wire.mu.Lock()
	if c.wire.loseNext != "" && strings.Contains(string(b), c.wire.loseNext) {
		c.wire.loseNext = ""
		c.losing.Store(true)
	}
	deaf := c.wire.deaf
	c.wire.mu.Unlock()
	if strings.Contains(string(b), "subscribe") {
		c.subs.Store(true)
		if deaf {
			_ = c.Conn.Close()
			return 0, io.EOF
		}
	}
	return c.Conn.Write(b)
}

func (c *wiredConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

func (c *wiredConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if c.losing.CompareAndSwap(true, false) {
		c.wire.mu.Lock()
		c.wire.lost++
		onLost := c.wire.onLost
		c.wire.mu.Unlock()
		if onLost != nil {
			onLost()
		}
		c.dead.Store(true)
		_ = c.Conn.Close()
	}
	if c.dead.Load() {
		return 0, io.EOF
	}
	if c.mute.Load() {
		<-c.closed
		return 0, io.EOF
	}
	return n, err
}

type quiet struct{}

func (quiet) Printf(context.Context, string, ...any) {}

// looks tells of each read of a record and its TTL.
type looks struct {
	refuse
	done chan struct{}
}

func (l looks) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		if script, ok := cmd.(*redis.Cmd); ok && err == nil {
			if reply, ok := script.Val().([]any); ok && len(reply) == 2 {
				select {
				case l.done <- struct{}{}:
				default: // nobody asks for so many
				}
			}
		}
		return err
	}
}

// charged is a fn that always succeeds.
func charged(context.Context) (string, error) { return "charged", nil }

// resolve settles a key, also one under which nothing is stored.
func resolve[T any](x interface {
	Resolve(ctx context.Context, key string, value T, opts ...idempotent.RunOption) (idempotent.Status, error)
}, ctx context.Context, key string, value T, opts ...idempotent.RunOption) error { //nolint:revive // the context is Resolve's
	_, err := x.Resolve(ctx, key, value, append(opts, idempotent.WithAbsent())...)
	return err
}

package idemhttp_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/idemhttp"
	"github.com/idempotent-go/idempotent/internal/redistest"
)

// The test binary runs itself as the server of these tests. It says where it listens and what its
// handler does on its standard output, and lets a handler answer when told on its standard input.

const serverEnv = "IDEMHTTP_TEST_SERVER"

type serverOrder struct {
	URL       string // of Redis
	Namespace string
	Lease     time.Duration
	Refuse    bool
	Trouble   bool // with a timeout inside, and without waiting for orders
}

func serverMain() {
	if err := serveProcess(os.Getenv(serverEnv)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func serveProcess(text string) error {
	var order serverOrder
	if err := json.Unmarshal([]byte(text), &order); err != nil {
		return err
	}
	options, err := redis.ParseURL(order.URL)
	if err != nil {
		return err
	}
	rdb := redis.NewClient(options)
	defer rdb.Close()
	policy := idempotent.Rerun
	if order.Refuse {
		policy = idempotent.Refuse
	}
	mw, err := idemhttp.New(rdb, order.Namespace, idemhttp.SingleTenant, idemhttp.WithLease(order.Lease), idemhttp.WithInterrupted(policy))
	if err != nil {
		return err
	}
	in := bufio.NewReader(os.Stdin)
	if order.Trouble {
		server := httptest.NewServer(mw.Wrap(troubled(rdb, order.Namespace)))
		fmt.Println(server.URL)
		select {}
	}
	server := httptest.NewServer(mw.Wrap(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		// The side effect: money is taken.
		charges, err := rdb.Incr(context.Background(), order.Namespace+"-charges").Result()
		if err != nil {
			panic(err)
		}
		fmt.Printf("running attempt %d\n", attempt(r))
		_, _ = in.ReadString('\n')
		rw.WriteHeader(http.StatusCreated)
		fmt.Fprintf(rw, "charge %d by attempt %d", charges, attempt(r))
	})))
	fmt.Println(server.URL)
	select {} // until it is killed
}

// A process is such a server, seen from the test.
type process struct {
	url string
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func startServer(t *testing.T, order serverOrder) *process {
	t.Helper()
	text, err := json.Marshal(order)
	require.NoError(t, err)
	p := &process{cmd: exec.Command(os.Args[0])}
	p.cmd.Env = append(os.Environ(), serverEnv+"="+string(text))
	p.cmd.Stderr = os.Stderr
	p.in, err = p.cmd.StdinPipe()
	require.NoError(t, err)
	out, err := p.cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, p.cmd.Start())
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
	})
	p.out = bufio.NewReader(out)
	p.url = p.line(t)
	return p
}

func (p *process) line(t *testing.T) string {
	t.Helper()
	line, err := p.out.ReadString('\n')
	require.NoError(t, err)
	return strings.TrimSpace(line)
}

// finish lets one handler answer.
func (p *process) finish(t *testing.T) {
	t.Helper()
	_, err := io.WriteString(p.in, "go on\n")
	require.NoError(t, err)
}

func order(t *testing.T, lease time.Duration) serverOrder {
	t.Helper()
	return serverOrder{URL: redistest.URL(t), Namespace: fmt.Sprintf("http-%d-%s", os.Getpid(), t.Name()[4:]), Lease: lease}
}

func charges(t *testing.T, o serverOrder) int {
	t.Helper()
	options, err := redis.ParseURL(o.URL)
	require.NoError(t, err)
	rdb := redis.NewClient(options)
	defer rdb.Close()
	n, err := rdb.Get(t.Context(), o.Namespace+"-charges").Int()
	require.NoError(t, err)
	return n
}

// roundRobin is a proxy that gives its requests to one server after the other.
func roundRobin(t *testing.T, servers ...*process) *httptest.Server {
	t.Helper()
	var next atomic.Uint32
	var targets []*url.URL
	for _, p := range servers {
		u, err := url.Parse(p.url)
		require.NoError(t, err)
		targets = append(targets, u)
	}
	proxy := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(targets[int(next.Add(1))%len(targets)]) },
		Transport: &http.Transport{MaxIdleConnsPerHost: 200},
		ErrorLog:  log.New(io.Discard, "", 0), // servers that are killed are part of the tests
	})
	t.Cleanup(proxy.Close)
	return proxy
}

func TestTwoServersBehindAProxy(t *testing.T) {
	const callers = 200
	o := order(t, 10*time.Second)
	a, b := startServer(t, o), startServer(t, o)
	proxy := roundRobin(t, a, b)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: callers}}
	defer client.CloseIdleConnections()
	answers := make([]answer, callers)
	start := make(chan struct{})
	var all sync.WaitGroup
	for i := range answers {
		all.Go(func() {
			<-start
			answers[i] = do(t, client, request{key: "one-charge", body: `{"amount":42}`}.build(t, proxy.URL))
		})
	}
	a.finish(t) // whichever runs the handler
	b.finish(t)
	close(start)
	all.Wait()
	replayed := 0
	for _, got := range answers {
		assert.Equal(t, http.StatusCreated, got.StatusCode)
		assert.Equal(t, "charge 1 by attempt 1", got.body)
		if got.replayed() {
			replayed++
		}
	}
	assert.Equal(t, callers-1, replayed)
	assert.Equal(t, 1, charges(t, o))
}

// killed starts a request whose server dies after the side effect and before the answer, and
// returns another server.
func killed(t *testing.T, o serverOrder) *process {
	t.Helper()
	a, b := startServer(t, o), startServer(t, o)
	lost := make(chan error, 1)
	r := request{key: "k", body: "x"}.build(t, a.url)
	go func() {
		_, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(r)
		lost <- err
	}()
	require.Equal(t, "running attempt 1", a.line(t))
	require.NoError(t, a.cmd.Process.Signal(syscall.SIGKILL))
	require.Error(t, within(t, lost))
	return b
}

func TestServerKilledRerun(t *testing.T) {
	o := order(t, 300*time.Millisecond)
	b := killed(t, o)
	b.finish(t)
	got := do(t, http.DefaultClient, request{key: "k", body: "x"}.build(t, b.url))
	assert.Equal(t, "running attempt 2", b.line(t))
	assert.Equal(t, http.StatusCreated, got.StatusCode)
	assert.Equal(t, "charge 2 by attempt 2", got.body, "the handler is told, so that it can ask the provider")
	assert.False(t, got.replayed())
}

func TestServerKilledRefuse(t *testing.T) {
	o := order(t, 300*time.Millisecond)
	o.Refuse = true
	b := killed(t, o)
	for range 2 {
		got := do(t, http.DefaultClient, request{key: "k", body: "x"}.build(t, b.url))
		got.problem(t, http.StatusInternalServerError, idemhttp.TypeInterrupted)
		assert.Empty(t, got.Header.Get("Retry-After"), "a retry does not help")
	}
	assert.Equal(t, 1, charges(t, o))
}

// Our transport rides out the death of a server by itself.
func TestTransportSurvivesAKilledServer(t *testing.T) {
	o := order(t, 300*time.Millisecond)
	a, b := startServer(t, o), startServer(t, o)
	proxy := roundRobin(t, b, a) // a gets the first request
	rt, err := idemhttp.NewTransport(nil, idemhttp.WithBackoff(10*time.Millisecond, 100*time.Millisecond), idemhttp.WithMaxAttempts(100))
	require.NoError(t, err)
	answers := make(chan answer, 1)
	go func() {
		answers <- do(t, &http.Client{Transport: rt}, request{body: "x"}.build(t, proxy.URL)) //nolint:testifylint // the wait for answers fails as well
	}()
	require.Equal(t, "running attempt 1", a.line(t))
	require.NoError(t, a.cmd.Process.Signal(syscall.SIGKILL))
	b.finish(t)
	got := within(t, answers)
	assert.Equal(t, http.StatusCreated, got.StatusCode)
	assert.Equal(t, "charge 2 by attempt 2", got.body)
	assert.Equal(t, 2, charges(t, o))
}

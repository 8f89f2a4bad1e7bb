package webhook_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent/internal/redistest"
	"github.com/idempotent-go/idempotent/webhook"
	"github.com/idempotent-go/idempotent/webhook/webhooktest"
)

// A child of a test is this binary again, with these in its environment.
const (
	childRedis  = "WEBHOOK_TEST_REDIS"  // URL
	childLedger = "WEBHOOK_TEST_LEDGER" // URL, of a child that receives and handles events
	childPauses = "WEBHOOK_TEST_PAUSES" // of a child that redrives: it stops in the middle of its second page
)

func TestMain(m *testing.M) {
	if os.Getenv(childRedis) != "" {
		role := child
		if os.Getenv(childLedger) == "" {
			role = redriver
		}
		if err := role(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// child receives and handles events until it is killed. It prints its address.
func child() error {
	opts, err := redis.ParseURL(os.Getenv(childRedis))
	if err != nil {
		return err
	}
	scheme, err := webhook.Stripe([]string{secret})
	if err != nil {
		return err
	}
	store, err := webhook.NewRedisStore(redis.NewClient(opts), "kills")
	if err != nil {
		return err
	}
	ledger := os.Getenv(childLedger)
	router := webhook.NewRouter()
	router.Handle("stripe", "*", func(ctx context.Context, j *webhook.Job) error { return credit(ctx, ledger, j) },
		webhook.Backoff(50*time.Millisecond, time.Second), webhook.Attempts(50), webhook.Timeout(5*time.Second), webhook.Circuit(1000, time.Second))
	in, err := webhook.New(context.Background(), store, []webhook.Source{{Name: "stripe", Scheme: scheme}}, router,
		webhook.WithLease(time.Second), webhook.WithPoll(20*time.Millisecond), webhook.WithBacklog(1<<20))
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	go func() { _ = in.Work(context.Background()) }()
	server := &http.Server{Handler: in, ReadHeaderTimeout: time.Second}
	return server.Serve(l)
}

// credit asks a ledger that does not know duplicates for an effect: again only after asking whether it took place.
func credit(ctx context.Context, ledger string, j *webhook.Job) error {
	do := func(method string) (int, error) {
		r, err := http.NewRequestWithContext(ctx, method, ledger+"/?reference="+url.QueryEscape(j.Reference), nil)
		if err != nil {
			return 0, err
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			return 0, err // the effect is unknown
		}
		defer resp.Body.Close()
		_, err = io.Copy(io.Discard, resp.Body)
		return resp.StatusCode, err
	}
	if j.Attempt > 1 {
		switch status, err := do("GET"); {
		case err != nil:
			return err
		case status == http.StatusOK:
			return nil
		}
	}
	status, err := do("POST")
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("status %d", status)
	}
	return err
}

// A ledger counts effects by reference.
func ledger(t *testing.T) (url string, did *effects) {
	did = &effects{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		reference := r.URL.Query().Get("reference")
		switch {
		case r.Method == http.MethodPost:
			did.add(reference, "")
		case did.times(reference) == 0:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	t.Cleanup(server.Close)
	return server.URL, did
}

// A crew is some children, of which one may be killed and replaced at any time.
type crew struct {
	t     *testing.T
	env   []string
	mu    sync.Mutex
	cmds  []*exec.Cmd
	addrs []string
}

func (c *crew) start(i int) {
	c.t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), c.env...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	require.NoError(c.t, err)
	require.NoError(c.t, cmd.Start())
	addr, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(c.t, err)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cmds[i], c.addrs[i] = cmd, strings.TrimSpace(addr)
}

func (c *crew) kill(i int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = c.cmds[i].Process.Kill()
	_ = c.cmds[i].Wait()
}

func (c *crew) addr(n int) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.addrs[n%len(c.addrs)]
}

// Intake and workers are killed 20 times during 10,000 posts, and Redis twice. Whatever was answered with 2xx reaches a
// final state; what was not is delivered again, as a provider does. Each effect takes place once.
func TestKillsLoseAndDoubleNothing(t *testing.T) {
	posts, kills := 10_000, 20
	if testing.Short() {
		posts, kills = 1000, 4
	}
	server := redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
	at, did := ledger(t)
	c := &crew{t: t, env: []string{childRedis + "=" + server.URL(), childLedger + "=" + at}, cmds: make([]*exec.Cmd, 2), addrs: make([]string, 2)}
	for i := range c.cmds {
		c.start(i)
		t.Cleanup(func() { c.kill(i) })
	}
	var sent, refused atomic.Int64
	due := make(chan int, kills+1) // a kill
	client := &http.Client{Timeout: 5 * time.Second}
	var senders sync.WaitGroup
	next := make(chan int)
	for range 8 {
		senders.Go(func() {
			for i := range next {
				for try := 0; !deliver(t, client, c.addr(i+try), i); try++ { // until it is accepted
					refused.Add(1)
					time.Sleep(time.Duration(min(try, 20)) * time.Millisecond) // as a provider backs off
				}
				if n := int(sent.Add(1)); n%(posts/kills) == 0 {
					due <- n / (posts / kills)
				}
			}
		})
	}
	go func() {
		for i := range posts {
			next <- i
		}
		close(next)
		senders.Wait()
		close(due)
	}()
	for n := range due {
		if n == kills/3 || n == kills*2/3 {
			server.Kill()
			require.NoError(t, server.Run())
		}
		c.kill(n % len(c.cmds))
		c.start(n % len(c.cmds))
	}
	store := open(t, server.Client(t), "kills")
	settled(t, store, time.Minute)
	for i := range posts {
		r, err := store.Get(t.Context(), webhook.Lookup{Source: "stripe", ID: fmt.Sprintf("evt_kill_%d", i)})
		require.NoError(t, err)
		require.Equal(t, webhook.Done, r.State, "%s: %s", r.ID, r.Reason)
		require.Equal(t, 1, did.times(reference(r)), "effects of %s; trail %+v", r.ID, r.Trail)
	}
	assert.Positive(t, refused.Load(), "kills were noticed")
	t.Logf("%d posts, %d kills of processes, 2 of Redis, %d requests without a 2xx", posts, kills, refused.Load())
}

// deliver reports whether an event was answered with 2xx.
func deliver(t *testing.T, client *http.Client, addr string, i int) bool {
	body := stripeBody(fmt.Sprintf("evt_kill_%d", i), "charge.captured", fmt.Sprintf("ch_%d", i%1000), "")
	header, _, err := webhooktest.Stripe(secret)(body, time.Now())
	if err != nil {
		t.Error(err)
		return true
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+addr+"/stripe", bytes.NewReader(body))
	if err != nil {
		t.Error(err)
		return true
	}
	r.Header = header
	resp, err := client.Do(r)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// settled returns when the store holds no unsettled event.
func settled(t *testing.T, store webhook.Store, within time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	for {
		b, err := store.Backlog(ctx)
		if err == nil && b.Unsettled() == 0 {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatal(errors.Join(err, fmt.Errorf("after %v, events are unsettled: %+v", within, b)))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

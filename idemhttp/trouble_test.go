package idemhttp_test

import (
	"context"
	"fmt"
	"hash/fnv"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent/idemhttp"
)

// troubled is a handler with a timeout inside. A provider outside counts the effects of each key, by
// what the handler knew: an attempt above 1 was told that an earlier one may have had its effect.
func troubled(provider redis.UniversalClient, namespace string) http.Handler {
	pay := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		key := r.Header.Get(idemhttp.KeyHeader)
		kind := "told"
		if attempt(r) == 1 {
			kind = "first"
		}
		// As a real one, the provider does not know the context of the request.
		if err := provider.HIncrBy(context.Background(), namespace+"-"+kind, key, 1).Err(); err != nil {
			panic(err)
		}
		sum := fnv.New32a()
		_, _ = io.WriteString(sum, key)
		if attempt(r) == 1 && sum.Sum32()%3 == 0 {
			<-r.Context().Done() // too slow: the timeout answers
		}
		rw.WriteHeader(http.StatusCreated)
	})
	return http.TimeoutHandler(pay, 20*time.Millisecond, "too slow")
}

// A switchboard is a proxy whose servers come and go, and which cuts some of its answers off.
type switchboard struct {
	*httptest.Server
	mu      sync.Mutex
	servers []*url.URL
	n       atomic.Int64
}

func newSwitchboard(t *testing.T) *switchboard {
	t.Helper()
	s := &switchboard{}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			s.mu.Lock()
			defer s.mu.Unlock()
			r.SetURL(s.servers[int(s.n.Add(1))%len(s.servers)])
		},
		Transport:    &http.Transport{MaxIdleConnsPerHost: 100, ResponseHeaderTimeout: 500 * time.Millisecond},
		ErrorLog:     log.New(io.Discard, "", 0),
		ErrorHandler: func(rw http.ResponseWriter, _ *http.Request, _ error) { rw.WriteHeader(http.StatusBadGateway) },
		ModifyResponse: func(*http.Response) error {
			if s.n.Load()%7 == 0 {
				panic(http.ErrAbortHandler) // the client never sees it
			}
			return nil
		},
	}
	s.Server = httptest.NewServer(proxy)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	t.Cleanup(s.Close)
	return s
}

func (s *switchboard) connect(t *testing.T, servers ...*process) {
	t.Helper()
	var urls []*url.URL
	for _, p := range servers {
		u, err := url.Parse(p.url)
		require.NoError(t, err)
		urls = append(urls, u)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.servers = urls
}

// Two processes behind a proxy, with the timeout inside, are killed, stopped and cut off, while clients
// retry. No handler runs twice without having been told that the first time may have had its effect.
func TestServersInTrouble(t *testing.T) {
	const rounds, clients = 4, 30
	o := order(t, 300*time.Millisecond)
	o.Trouble = true
	a, b := startServer(t, o), startServer(t, o)
	board := newSwitchboard(t)
	board.connect(t, a, b)
	rt, err := idemhttp.NewTransport(&http.Transport{MaxIdleConnsPerHost: clients},
		idemhttp.WithBackoff(20*time.Millisecond, 200*time.Millisecond), idemhttp.WithMaxAttempts(1000))
	require.NoError(t, err)
	client := &http.Client{Transport: rt}
	defer client.CloseIdleConnections()
	for round := range rounds {
		done := make(chan bool, clients)
		for i := range clients {
			r := request{key: fmt.Sprintf("%d-%d", round, i), body: "x"}.build(t, board.URL)
			go func() {
				got := do(t, client, r) //nolint:testifylint // a failure ends the wait for done by its timeout
				assert.Equal(t, http.StatusCreated, got.StatusCode, got.body)
				done <- true
			}()
		}
		within(t, done) // some are through, others in the middle
		require.NoError(t, b.cmd.Process.Signal(syscall.SIGSTOP))
		require.NoError(t, a.cmd.Process.Signal(syscall.SIGKILL))
		next := startServer(t, o)
		board.connect(t, next, b)
		for range clients / 2 { // by the new one, over the heads of the others
			within(t, done)
		}
		require.NoError(t, b.cmd.Process.Signal(syscall.SIGCONT))
		for range clients - 1 - clients/2 {
			within(t, done)
		}
		a, b = b, next
	}
	options, err := redis.ParseURL(o.URL)
	require.NoError(t, err)
	rdb := redis.NewClient(options)
	defer rdb.Close()
	first, err := rdb.HGetAll(t.Context(), o.Namespace+"-first").Result()
	require.NoError(t, err)
	told, err := rdb.HLen(t.Context(), o.Namespace+"-told").Result()
	require.NoError(t, err)
	assert.Greater(t, told, int64(rounds), "there was trouble")
	assert.Greater(t, len(first), rounds*clients*3/4)
	for key, n := range first {
		assert.Equal(t, "1", n, "effects of %s by handlers that were told of none before", strings.TrimSpace(key))
	}
	t.Logf("%d keys, %d of them with a handler that was told of an earlier attempt", len(first), told)
}

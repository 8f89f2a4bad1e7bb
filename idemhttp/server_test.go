package idemhttp_test

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/idemhttp"
	"github.com/idempotent-go/idempotent/idemtest"
	"github.com/idempotent-go/idempotent/internal/redistest"
)

func TestMain(m *testing.M) {
	logging.Disable() // dials that fail are part of the tests
	if os.Getenv(serverEnv) != "" {
		serverMain()
		return
	}
	flag.Parse()
	parallel := flag.Lookup("test.parallel")
	if parallel.Value.String() == parallel.DefValue {
		_ = parallel.Value.Set("8") // tests wait for servers, not for a core
	}
	code := m.Run()
	redistest.Cleanup()
	os.Exit(code)
}

// A world is a server with a guarded handler, on a Redis in memory.
type world struct {
	*testing.T
	redis  *idemtest.Redis
	events *idemtest.Recorder
	mw     *idemhttp.Middleware
	server *httptest.Server
	runs   atomic.Int32 // of the handler
	log    *lines       // of net/http
}

// serve starts a server whose handler counts its runs and then does what handle does.
func serve(t *testing.T, handle http.HandlerFunc, opts ...idemhttp.Option) *world {
	t.Helper()
	return serveOn(t, idemtest.NewRedis(t), handle, opts...)
}

func serveOn(t *testing.T, rdb *idemtest.Redis, handle http.HandlerFunc, opts ...idemhttp.Option) *world {
	t.Helper()
	w := &world{T: t, redis: rdb, events: &idemtest.Recorder{}, log: &lines{}}
	opts = append([]idemhttp.Option{idemhttp.WithObserver(w.events)}, opts...)
	w.mw = middleware(t, rdb, opts...)
	w.server = httptest.NewUnstartedServer(w.mw.Wrap(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.runs.Add(1)
		handle(rw, r)
	})))
	w.server.Config.ErrorLog = log.New(w.log, "", 0)
	w.server.Start()
	t.Cleanup(w.server.Close)
	return w
}

func middleware(t testing.TB, rdb redis.UniversalClient, opts ...idemhttp.Option) *idemhttp.Middleware {
	t.Helper()
	mw, err := idemhttp.New(rdb, "http", callers, opts...)
	require.NoError(t, err)
	t.Cleanup(func() { _ = mw.Close() })
	return mw
}

// callers tells callers apart by their Authorization field; those without one are one caller.
func callers(r *http.Request) (string, error) { return "caller " + r.Header.Get("Authorization"), nil }

func created(rw http.ResponseWriter, r *http.Request) {
	rw.Header().Set("Content-Type", "application/json")
	rw.WriteHeader(http.StatusCreated)
	_, _ = io.WriteString(rw, `{"id":"ch_1"}`)
}

// A request is one to send; it is a POST of an empty body to / unless said otherwise.
type request struct {
	method string
	path   string
	key    string
	header http.Header
	body   string
}

func (q request) build(t testing.TB, base string) *http.Request {
	t.Helper()
	method := q.method
	if method == "" {
		method = http.MethodPost
	}
	r, err := http.NewRequestWithContext(context.Background(), method, base+"/"+strings.TrimPrefix(q.path, "/"), strings.NewReader(q.body))
	require.NoError(t, err)
	maps.Copy(r.Header, q.header)
	if q.key != "" {
		r.Header.Set(idemhttp.KeyHeader, q.key)
	}
	return r
}

// An answer is a response that has been read.
type answer struct {
	*http.Response
	body string
}

func (w *world) send(q request) answer {
	w.Helper()
	return do(w.T, w.server.Client(), q.build(w, w.server.URL))
}

func (w *world) post(key, body string) answer {
	w.Helper()
	return w.send(request{key: key, body: body})
}

func do(t testing.TB, client *http.Client, r *http.Request) answer {
	t.Helper()
	res, err := client.Do(r)
	require.NoError(t, err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return answer{res, string(body)}
}

// own leaves the fields of the handler in h.
func own(h http.Header) {
	for _, name := range []string{"Date", idemhttp.KeyHeader, idemhttp.ReplayedHeader, idemhttp.ExpiresHeader} {
		h.Del(name)
	}
}

func (a answer) replayed() bool { return a.Header.Get(idemhttp.ReplayedHeader) == "true" }

// problem checks that the answer is one, of this type and status.
func (a answer) problem(t testing.TB, status int, problemType string) idemhttp.Problem {
	t.Helper()
	var p idemhttp.Problem
	require.Equal(t, status, a.StatusCode, a.body)
	require.Equal(t, "application/problem+json", a.Header.Get("Content-Type"))
	require.NoError(t, json.Unmarshal([]byte(a.body), &p), a.body)
	assert.Equal(t, problemType, p.Type)
	assert.Equal(t, status, p.Status)
	assert.NotEmpty(t, p.Title)
	assert.NotEmpty(t, p.Detail)
	assert.False(t, a.replayed(), "a problem is no replay")
	return p
}

// async sends a request in a goroutine of its own.
func (w *world) async(q request) <-chan answer {
	w.Helper()
	r := q.build(w, w.server.URL)
	answers := make(chan answer, 1)
	go func() {
		defer close(answers)
		res, err := w.server.Client().Do(r)
		if err != nil {
			return // the receiver sees the closed channel
		}
		defer res.Body.Close()
		body, _ := io.ReadAll(res.Body)
		answers <- answer{res, string(body)}
	}()
	return answers
}

// within receives from a channel, or fails the test after a minute.
func within[T any](t testing.TB, c <-chan T) T {
	t.Helper()
	select {
	case v, ok := <-c:
		require.True(t, ok, "it ended without an answer")
		return v
	case <-time.After(time.Minute):
		t.Fatal("nothing happened in a minute")
		panic("unreachable")
	}
}

// stored lists what is in Redis.
func (w *world) stored() []string {
	w.Helper()
	keys, err := w.redis.Keys(context.Background(), "*").Result()
	require.NoError(w, err)
	return keys
}

func (w *world) ran(times int) {
	w.Helper()
	assert.EqualValues(w, times, w.runs.Load(), "runs of the handler")
}

// lines is a log that a test can wait on.
type lines struct{ text atomic.Pointer[bytes.Buffer] }

func (l *lines) Write(b []byte) (int, error) {
	for {
		old := l.text.Load()
		next := &bytes.Buffer{}
		if old != nil {
			next.Write(old.Bytes())
		}
		next.Write(b)
		if l.text.CompareAndSwap(old, next) {
			return len(b), nil
		}
	}
}

func (l *lines) String() string {
	if b := l.text.Load(); b != nil {
		return b.String()
	}
	return ""
}

// attempt is the number of the execution that a handler is.
func attempt(r *http.Request) int {
	info, _ := idempotent.RunInfoFromContext(r.Context())
	return info.Attempt
}

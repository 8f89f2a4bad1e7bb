// Package examples_test runs each example as its README says and checks what it prints.
package examples_test

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/stripe/stripe-go/v85/webhook"
	"github.com/stripe/stripe-mock/embedded"
	"github.com/stripe/stripe-mock/server"

	"github.com/idempotent-go/idempotent/internal/redistest"
)

// limit is how long an example may take, so that a test fails instead of hanging.
const limit = time.Minute

var programs string // the directory of the built examples

func TestMain(m *testing.M) { os.Exit(buildAndRun(m)) }

func buildAndRun(m *testing.M) int {
	var err error
	if programs, err = os.MkdirTemp("", "examples"); err != nil {
		panic(err)
	}
	defer os.RemoveAll(programs)
	if out, err := exec.Command("go", "build", "-o", programs+"/", "./...").CombinedOutput(); err != nil {
		panic(string(out))
	}
	return m.Run()
}

// onEachRedis runs a test on a Redis in memory and on a real one, each new and empty.
func onEachRedis(t *testing.T, test func(t *testing.T, url string)) {
	t.Run("in memory", func(t *testing.T) {
		inMemory := miniredis.RunT(t)
		inMemory.ClockTTL(true)
		test(t, "redis://"+inMemory.Addr())
	})
	t.Run("redis-server", func(t *testing.T) { test(t, redistest.Start(t).URL()) })
}

// start starts an example, with further variables, and returns the lines that it prints. It is
// interrupted when the test ends.
func start(t *testing.T, name, redisURL string, env ...string) (lines *bufio.Scanner) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	cmd := exec.CommandContext(ctx, filepath.Join(programs, name))
	cmd.Env = append(os.Environ(), append(env, "REDIS_URL="+redisURL)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_, _ = io.Copy(io.Discard, out)
		_ = cmd.Wait()
		cancel()
	})
	return bufio.NewScanner(out)
}

// run runs an example to its end and returns what it prints.
func run(t *testing.T, name, redisURL string, env ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(programs, name))
	cmd.Env = append(os.Environ(), append(env, "REDIS_URL="+redisURL)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	require.NoError(t, err)
	return string(out)
}

func next(t *testing.T, lines *bufio.Scanner) string {
	t.Helper()
	require.True(t, lines.Scan(), "the example ended: %v", lines.Err())
	return lines.Text()
}

// listening returns the URL of an example that serves.
func listening(t *testing.T, lines *bufio.Scanner) string {
	t.Helper()
	addr, found := strings.CutPrefix(next(t, lines), "listening on ")
	require.True(t, found)
	return "http://" + addr
}

// An example is short enough to be read and copied.
func TestExamplesAreShort(t *testing.T) {
	for name, lines := range map[string]int{"quickstart": 40, "payments": 120, "jobs": 100, "webhook": 120, "http": 100, "httpclient": 40} {
		program, err := os.ReadFile(filepath.Join(name, "main.go"))
		require.NoError(t, err)
		assert.LessOrEqual(t, strings.Count(string(program), "\n"), lines, "lines of %s", name)
		readme, err := os.ReadFile(filepath.Join(name, "README.md"))
		require.NoError(t, err)
		assert.LessOrEqual(t, len(strings.Fields(string(readme))), 200, "words in the README of %s", name)
	}
}

func TestQuickstart(t *testing.T) {
	onEachRedis(t, func(t *testing.T, url string) {
		assert.Equal(t, "calling the payment provider\nch_1 4999 <nil>\nch_1 4999 <nil>\nch_1 4999 <nil>\n", run(t, "quickstart", url))
		assert.Equal(t, "ch_1 4999 <nil>\nch_1 4999 <nil>\nch_1 4999 <nil>\n", run(t, "quickstart", url), "another process gets the recorded charge")
	})
}

func TestHTTPClient(t *testing.T) {
	assert.Regexp(t, `^request 1, key (".+")\nrequest 2, key (".+")\n200 OK paid <nil>\n$`, run(t, "httpclient", ""))
	lines := strings.Split(run(t, "httpclient", ""), "\n")
	assert.Equal(t, strings.TrimPrefix(lines[0], "request 1"), strings.TrimPrefix(lines[1], "request 2"), "the key")
}

// stripeMock is Stripe's own mock server. It counts the requests that would have taken money.
type stripeMock struct {
	*httptest.Server
	mu   sync.Mutex
	keys []string
}

func startStripeMock(t *testing.T) *stripeMock {
	t.Helper()
	spec, err := server.LoadSpec(embedded.OpenAPISpec, "")
	require.NoError(t, err)
	fixtures, err := server.LoadFixtures(embedded.OpenAPIFixtures, "")
	require.NoError(t, err)
	stub, err := server.NewStubServer(fixtures, spec, false, false)
	require.NoError(t, err)
	m := &stripeMock{}
	m.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			m.mu.Lock()
			m.keys = append(m.keys, r.Header.Get("Idempotency-Key"))
			m.mu.Unlock()
		}
		stub.HandleRequest(w, r)
	}))
	t.Cleanup(m.Close)
	return m
}

func TestPayments(t *testing.T) {
	mock := startStripeMock(t)
	onEachRedis(t, func(t *testing.T, url string) {
		mock.keys = nil
		out := run(t, "payments", url, "STRIPE_URL="+mock.URL, "STRIPE_API_KEY=sk_test_123", "STRIPE_CUSTOMER=cus_123")
		lines := strings.Split(strings.TrimSpace(out), "\n")
		require.Len(t, lines, 4, out)
		assert.Equal(t, "asking Stripe for 4999 cents of order-42", lines[0])
		assert.Regexp(t, `^\{pi_\w+ \w+\} <nil>$`, lines[1])
		assert.Equal(t, []string{lines[1], lines[1]}, lines[2:])
		require.Len(t, mock.keys, 1, "requests that take money")
		assert.Regexp(t, `^[0-9a-f]{32,}`, mock.keys[0])
	})
}

func TestJobs(t *testing.T) {
	onEachRedis(t, func(t *testing.T, url string) {
		lines := start(t, "jobs", url)
		assert.Equal(t, "refunding 4999 cents", next(t, lines))
		assert.Regexp(t, `^delivered: receipt-1 (executed|joined|replayed) <nil>$`, next(t, lines))
		assert.Regexp(t, `^delivered: receipt-1 (executed|joined|replayed) <nil>$`, next(t, lines))
	})
}

// send sends a request and returns the status and the body.
func send(t *testing.T, url, body string, header ...string) (int, string, http.Header) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	require.NoError(t, err)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, string(answer), resp.Header
}

func TestHTTP(t *testing.T) {
	onEachRedis(t, func(t *testing.T, redisURL string) {
		lines := start(t, "http", redisURL, "ADDR=127.0.0.1:0")
		url := listening(t, lines) + "/payments"
		status, body, header := send(t, url, `{"amount": 42}`, "Idempotency-Key", "order-42")
		assert.Equal(t, http.StatusCreated, status)
		assert.Equal(t, `{"id":"pay_1","amount":42}`+"\n", body)
		assert.Equal(t, "false", header.Get("Idempotent-Replayed"))
		assert.Equal(t, "paying 42 as pay_1", next(t, lines))

		status, again, header := send(t, url, `{"amount": 42}`, "Idempotency-Key", "order-42")
		assert.Equal(t, http.StatusCreated, status)
		assert.Equal(t, body, again)
		assert.Equal(t, "true", header.Get("Idempotent-Replayed"))
		status, _, _ = send(t, url, `{"amount": 43}`, "Idempotency-Key", "order-42")
		assert.Equal(t, http.StatusUnprocessableEntity, status, "another amount under the same key")
		status, _, _ = send(t, url, `{"amount": 42}`)
		assert.Equal(t, http.StatusBadRequest, status, "no key")

		_, body, _ = send(t, url, `{"amount": 7}`, "Idempotency-Key", "order-43")
		assert.Equal(t, `{"id":"pay_2","amount":7}`+"\n", body)
		assert.Equal(t, "paying 7 as pay_2", next(t, lines), "order-42 was paid once")
	})
}

const webhookSecret = "whsec_of_this_test"

// event is an event of Stripe's with its signature.
func event(id, order string) (body, signature string) {
	body = `{"id": "` + id + `", "object": "event", "type": "payment_intent.succeeded", "data": {"object": {"amount": 4999, "metadata": {"order": "` + order + `"}}}}`
	return body, webhook.GenerateTestSignedPayload(&webhook.UnsignedPayload{Payload: []byte(body), Secret: webhookSecret}).Header
}

func TestWebhook(t *testing.T) {
	onEachRedis(t, func(t *testing.T, redisURL string) {
		lines := start(t, "webhook", redisURL, "ADDR=127.0.0.1:0", "STRIPE_WEBHOOK_SECRET="+webhookSecret)
		url := listening(t, lines) + "/webhooks/stripe"
		body, signature := event("evt_1", "order-42")
		status, _, _ := send(t, url, body)
		assert.Equal(t, http.StatusBadRequest, status, "no signature")
		for range 3 {
			status, _, _ = send(t, url, body, "Stripe-Signature", signature)
			assert.Equal(t, http.StatusOK, status)
		}
		assert.Equal(t, "crediting 4999 cents to order-42", next(t, lines))
		body, signature = event("evt_2", "order-43")
		status, _, _ = send(t, url, body, "Stripe-Signature", signature)
		assert.Equal(t, http.StatusOK, status)
		assert.Equal(t, "crediting 4999 cents to order-43", next(t, lines), "evt_1 had its effect once")
	})
}

func TestWebhookNeedsASecret(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), filepath.Join(programs, "webhook"))
	cmd.Env = append(os.Environ(), "STRIPE_WEBHOOK_SECRET=", "REDIS_URL=redis://"+miniredis.RunT(t).Addr())
	out, err := cmd.CombinedOutput()
	require.Error(t, err)
	assert.Contains(t, string(out), "secret 1 of 1 is empty")
}

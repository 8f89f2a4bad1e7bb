// Package browser_test sends requests with an Idempotency-Key from a browser: fetch in Chromium, with
// CORS between two origins.
package browser_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/idemhttp"
	"github.com/idempotent-go/idempotent/idemtest"
)

// allow is what a CORS middleware does. It goes around the one for keys, so that replays and problems
// have its fields.
func allow(origin string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Access-Control-Allow-Origin", origin)
		h.Set("Access-Control-Expose-Headers", "Idempotent-Replayed, Idempotent-Expires, Idempotency-Key, Retry-After")
		h.Add("Vary", "Origin")
		if r.Method == http.MethodOptions {
			h.Set("Access-Control-Allow-Methods", "POST")
			h.Set("Access-Control-Allow-Headers", "Idempotency-Key, Content-Type")
			w.WriteHeader(http.StatusNoContent)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// An api is a payments API on an origin of its own, and the origin of its page.
type api struct {
	url, page string
	runs      atomic.Int32
	running   chan bool
	finish    chan bool
	events    *idemtest.Recorder
}

func serve(t *testing.T) *api {
	t.Helper()
	a := &api{running: make(chan bool, 10), finish: make(chan bool), events: &idemtest.Recorder{}}
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, "<!doctype html><title>pay</title>")
	}))
	t.Cleanup(page.Close)
	mw, err := idemhttp.New(idemtest.NewRedis(t), "browser", idemhttp.SingleTenant, idemhttp.WithRequiredKey(), idemhttp.WithObserver(a.events))
	require.NoError(t, err)
	t.Cleanup(func() { _ = mw.Close() })
	server := httptest.NewServer(allow(page.URL, mw.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := a.runs.Add(1)
		if r.URL.Path == "/slow" {
			a.running <- true
			<-a.finish
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		fmt.Fprintf(w, `{"id":"pay_%d"}`, n)
	}))))
	t.Cleanup(server.Close)
	a.url, a.page = server.URL, page.URL
	return a
}

// chromium opens the page.
func chromium(t *testing.T, a *api) context.Context {
	t.Helper()
	path := os.Getenv("CHROMIUM")
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if found, err := exec.LookPath(name); path == "" && err == nil {
			path = found
		}
	}
	require.NotEmpty(t, path, "needs Chromium: run scripts/ensure-chromium, or set CHROMIUM")
	opts := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.Flag("no-proxy-server", true))
	allocator, cancel := chromedp.NewExecAllocator(t.Context(), opts...)
	t.Cleanup(cancel)
	ctx, cancel := chromedp.NewContext(allocator)
	t.Cleanup(cancel)
	ctx, cancel = context.WithTimeout(ctx, 90*time.Second)
	t.Cleanup(cancel)
	_, err := chromedp.Run(ctx, chromedp.Navigate(a.page))
	require.NoError(t, err)
	return ctx
}

// An answer is what the page sees of a response.
type answer struct {
	Status   int    `json:"status"`
	Replayed string `json:"replayed"`
	Key      string `json:"key"`
	Expires  string `json:"expires"`
	Body     string `json:"body"`
	Error    string `json:"error"`
}

// run evaluates a function of the page that sends requests.
func run(t *testing.T, ctx context.Context, a *api, script string) answer {
	t.Helper()
	const helper = `
const send = async (path, key, options = {}) => {
	try {
		const res = await fetch(%q + path, {method: "POST", headers: {"Idempotency-Key": key, "Content-Type": "application/json"}, body: '{"amount":42}', ...options});
		return {status: res.status, replayed: res.headers.get("Idempotent-Replayed") ?? "", key: res.headers.get("Idempotency-Key") ?? "",
			expires: res.headers.get("Idempotent-Expires") ?? "", body: await res.text(), error: ""};
	} catch (e) { return {error: e.name}; }
};
(async () => { %s })()`
	got, err := chromedp.Run(ctx, chromedp.Evaluate[answer](fmt.Sprintf("{"+helper+"}", a.url, script), chromedp.EvalAwaitPromise))
	assert.NoError(t, err)
	return got
}

func TestFetch(t *testing.T) {
	a := serve(t)
	ctx := chromium(t, a)
	first := run(t, ctx, a, `return send("/pay", "order-42")`)
	assert.Equal(t, answer{Status: http.StatusCreated, Replayed: "false", Key: "order-42", Body: `{"id":"pay_1"}`}, first)
	again := run(t, ctx, a, `return send("/pay", '"order-42"')`)
	assert.Equal(t, "true", again.Replayed)
	assert.NotEmpty(t, again.Expires)
	assert.Equal(t, first.Body, again.Body)
	reused := run(t, ctx, a, `return send("/pay", "order-42", {body: '{"amount":43}'})`)
	assert.Equal(t, http.StatusUnprocessableEntity, reused.Status, "a problem has the fields of CORS, too")
	assert.Contains(t, reused.Body, idemhttp.TypeKeyReused)
	assert.EqualValues(t, 1, a.runs.Load())
}

// A page that gives up, and sends the request again.
func TestAbortAndRetry(t *testing.T) {
	a := serve(t)
	ctx := chromium(t, a)
	aborted := make(chan answer, 1)
	go func() {
		aborted <- run(t, ctx, a, `window.giveUp = new AbortController(); return send("/slow", "k", {signal: window.giveUp.signal})`)
	}()
	<-a.running
	_, err := chromedp.Run(ctx, chromedp.Evaluate[bool](`window.giveUp.abort(); true`))
	require.NoError(t, err)
	assert.Equal(t, "AbortError", (<-aborted).Error)
	close(a.finish)
	a.events.Wait(t, idempotent.EventRecorded, 1)
	again := run(t, ctx, a, `return send("/slow", "k")`)
	assert.Equal(t, "true", again.Replayed)
	assert.Equal(t, `{"id":"pay_1"}`, again.Body)
	assert.EqualValues(t, 1, a.runs.Load())
}

// A double click: both get the one payment.
func TestDoubleClick(t *testing.T) {
	a := serve(t)
	close(a.finish)
	ctx := chromium(t, a)
	got := run(t, ctx, a, `const [x, y] = await Promise.all([send("/slow", "k"), send("/slow", "k")]);
		return {...x, body: x.body + y.body, replayed: [x.replayed, y.replayed].sort().join()};`)
	assert.Equal(t, `{"id":"pay_1"}{"id":"pay_1"}`, got.Body)
	assert.Equal(t, "false,true", got.Replayed)
	assert.EqualValues(t, 1, a.runs.Load())
}

package webhook_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent/webhook"
	"github.com/idempotent-go/idempotent/webhook/webhooktest"
)

const secret = "whsec_test_0123456789abcdef"

// A receipts is what a provider's server did: effects, by reference.
type effects struct {
	mu    sync.Mutex
	calls []string
	did   map[string]int
}

func (e *effects) add(reference, what string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.did == nil {
		e.did = map[string]int{}
	}
	e.did[reference]++
	e.calls = append(e.calls, what)
}

func (e *effects) list() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]string(nil), e.calls...)
}

func (e *effects) times(reference string) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.did[reference]
}

// An office is an inbox under test, with a channel for each settled event.
type office struct {
	*webhook.Inbox
	t       *testing.T
	store   webhook.Store
	log     *syncBuffer
	settled chan webhook.Observation
	seen    *observations
	server  http.Handler
}

// A syncBuffer is a log that may be read while it is written.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(b)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// lines returns the log lines of an event.
func (s *syncBuffer) lines(t *testing.T, id string) (lines []map[string]any) {
	for line := range strings.Lines(s.String()) {
		var fields map[string]any
		require.NoError(t, json.Unmarshal([]byte(line), &fields))
		if fields["event_id"] == id {
			lines = append(lines, fields)
		}
	}
	return lines
}

type observations struct {
	mu  sync.Mutex
	all []webhook.Observation
}

func (o *observations) of(kind webhook.ObservationKind) (list []webhook.Observation) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, x := range o.all {
		if x.Kind == kind {
			list = append(list, x)
		}
	}
	return list
}

func stripeSource(t testing.TB) webhook.Source {
	t.Helper()
	scheme, err := webhook.Stripe([]string{secret})
	require.NoError(t, err)
	return webhook.Source{Name: "stripe", Scheme: scheme}
}

// newOffice returns an inbox whose workers do not run.
func newOffice(t *testing.T, client redis.UniversalClient, router *webhook.Router, opts ...webhook.Option) *office {
	t.Helper()
	return newOfficeOf(t, open(t, client, namespace()), []webhook.Source{stripeSource(t)}, router, opts...)
}

func newOfficeOf(t *testing.T, store webhook.Store, sources []webhook.Source, router *webhook.Router, opts ...webhook.Option) *office {
	t.Helper()
	o := &office{t: t, store: store, log: &syncBuffer{}, settled: make(chan webhook.Observation, 1<<14), seen: &observations{}}
	opts = append([]webhook.Option{
		webhook.WithUnsafeStore(),
		webhook.WithPoll(10 * time.Millisecond),
		webhook.WithLogger(slog.New(slog.NewJSONHandler(o.log, nil))),
		webhook.WithObserver(webhook.ObserverFunc(func(_ context.Context, x webhook.Observation) {
			o.seen.mu.Lock()
			o.seen.all = append(o.seen.all, x)
			o.seen.mu.Unlock()
			if x.Kind == webhook.ObservedSettled {
				o.settled <- x
			}
		})),
	}, opts...)
	var err error
	o.Inbox, err = webhook.New(t.Context(), store, sources, router, opts...)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, o.Close()) })
	mux := http.NewServeMux()
	mux.Handle("/webhooks/{source}", o.Inbox)
	o.server = mux
	return o
}

// work runs the workers until the test ends, or the returned function is called.
func (o *office) work() (stop func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(o.t.Context()))
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := o.Work(ctx); err != nil {
			o.t.Error(err)
		}
	})
	stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	o.t.Cleanup(stop)
	return stop
}

// wait returns when n events were settled in one of the states, each time that this happened.
func (o *office) wait(n int, states ...webhook.State) (list []webhook.Observation) {
	o.t.Helper()
	deadline := time.After(time.Minute)
	for len(list) < n {
		select {
		case x := <-o.settled:
			for _, s := range states {
				if x.State == s {
					list = append(list, x)
				}
			}
		case <-deadline:
			o.t.Fatalf("%d of %d events were settled as %v within a minute; log:\n%s", len(list), n, states, o.log)
		}
	}
	return list
}

func stripeBody(id, typ, object, note string) []byte {
	return fmt.Appendf(nil, `{"id":%q,"type":%q,"created":1795824816,"data":{"object":{"id":%q}},"note":%q}`, id, typ, object, note)
}

// post delivers a body to the source "stripe" and returns the response.
func (o *office) post(body []byte, change ...func(*http.Request)) *httptest.ResponseRecorder {
	o.t.Helper()
	return o.send(webhooktest.Stripe(secret).Request(o.t, "/webhooks/stripe", body, time.Now()), change...)
}

func (o *office) send(r *http.Request, change ...func(*http.Request)) *httptest.ResponseRecorder {
	for _, c := range change {
		c(r)
	}
	w := httptest.NewRecorder()
	o.server.ServeHTTP(w, r)
	return w
}

// accept delivers an event and expects a 200.
func (o *office) accept(id, typ, object string) {
	o.t.Helper()
	w := o.post(stripeBody(id, typ, object, ""))
	require.Equal(o.t, http.StatusOK, w.Code, o.log)
}

func (o *office) get(id string) webhook.Record {
	o.t.Helper()
	r, err := o.Get(o.t.Context(), "stripe", id)
	require.NoError(o.t, err)
	return r
}

var ids atomic.Int64

func newID() string { return fmt.Sprintf("evt_%d", ids.Add(1)) }

func webhookRequest(t *testing.T, body []byte) *http.Request {
	t.Helper()
	return webhooktest.Stripe(secret).Request(t, "/webhooks/stripe", body, time.Now())
}

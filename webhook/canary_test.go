package webhook_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent/internal/redistest"
	"github.com/idempotent-go/idempotent/webhook"
	"github.com/idempotent-go/idempotent/webhook/webhooktest"
)

// A quotingStore fails now and then with an error that quotes the payload, as a server does that has no scripts.
type quotingStore struct {
	webhook.Store
	mu    sync.Mutex
	calls int
}

func (s *quotingStore) Accept(ctx context.Context, a webhook.Arrival) (int, error) {
	s.mu.Lock()
	s.calls++
	fails := s.calls%10 == 0
	s.mu.Unlock()
	if fails {
		return 0, fmt.Errorf("ERR unknown command 'EVALSHA', with args beginning with: '%s' %v", a.Payload.Body, a.Payload.Header)
	}
	return s.Store.Accept(ctx, a)
}

// canaries are parts of a body, of headers and of the secret.
var canaries = []string{"canary-body", "canary-header", "canary-cookie", secret, strings.TrimPrefix(secret, "whsec_")}

// noisy returns a handler whose errors and panics quote the payload.
func noisy(_ context.Context, j *webhook.Job) error {
	quoted := fmt.Sprint(string(j.Body), j.Header)
	switch len(j.ID) % 2 * int(j.ID[len(j.ID)-1]) % 5 {
	case 1:
		return webhook.Permanent(errors.New(quoted))
	case 2:
		panic(quoted)
	case 3:
		return errors.New(quoted)
	}
	return nil
}

// 1,000 events, of which many fail and some are refused, leave at least two log lines each, by which each is found. Neither
// the log nor an observation nor an error holds a part of a body, a header or a secret.
func TestLogsFindEachEventAndHoldNoPayload(t *testing.T) {
	const events = 1000
	server := redistest.Start(t)
	router := webhook.NewRouter()
	opts := []webhook.HandleOption{webhook.Attempts(2), webhook.Backoff(time.Millisecond, time.Millisecond), webhook.Circuit(1<<20, time.Second)}
	router.Handle("stripe", "noisy.*", noisy, opts...)
	router.Handle("stripe", "typed", webhook.Typed(func(context.Context, *webhook.Job, []int) error { return nil }))
	router.Handle("stripe", "skipped", func(context.Context, *webhook.Job) error { return webhook.Skip("nothing to do") })
	store := &quotingStore{Store: open(t, server.Client(t), namespace())}
	o := newOfficeOf(t, store, []webhook.Source{stripeSource(t)}, router)
	o.work()
	types := []string{"noisy.event", "noisy.event", "noisy.event", "typed", "skipped", "without a handler"}
	canary := func(r *http.Request) {
		r.Header.Set("X-Note", "canary-header")
		r.Header.Set("Authorization", "Bearer canary-header")
		r.Header.Set("Cookie", "canary-cookie")
	}
	var ids []string
	for i := range events {
		id := fmt.Sprintf("evt_log_%d", i)
		ids = append(ids, id)
		body := stripeBody(id, types[i%len(types)], fmt.Sprintf("ch_%d", i), "canary-body")
		for o.post(body, canary).Code != http.StatusOK { // delivered again until the store accepts it
			continue
		}
	}
	for range 10 {
		body := stripeBody(newID(), "noisy.event", "ch_1", "canary-body")
		require.Equal(t, http.StatusBadRequest, o.send(webhooktest.Stripe("another secret").Request(t, "/webhooks/stripe", body, time.Now()), canary).Code)
		require.Equal(t, http.StatusBadRequest, o.send(webhooktest.Stripe(secret).Request(t, "/webhooks/stripe", []byte(`["canary-body"]`), time.Now()), canary).Code)
	}
	settled(t, store, time.Minute)
	lines := map[any]int{}
	for line := range strings.Lines(o.log.String()) {
		var fields map[string]any
		require.NoError(t, json.Unmarshal([]byte(line), &fields))
		if fields["event_id"] == nil { // not about an event
			continue
		}
		lines[fields["event_id"]]++
		for _, name := range []string{"source", "key", "attempt", "trace_id"} {
			require.Contains(t, fields, name)
		}
	}
	for _, id := range ids {
		require.GreaterOrEqual(t, lines[id], 2, "log lines of %s", id)
	}
	kinds := []webhook.ObservationKind{
		webhook.ObservedAccepted, webhook.ObservedRefused, webhook.ObservedUnavailable, webhook.ObservedStarted, webhook.ObservedSettled,
	}
	var observed strings.Builder
	for _, kind := range kinds {
		seen := o.seen.of(kind)
		require.NotEmpty(t, seen, kind)
		for _, x := range seen {
			fmt.Fprintf(&observed, "%+v\n", x)
		}
	}
	_, err := o.Get(t.Context(), "stripe", "unknown")
	for _, c := range canaries {
		assert.NotContains(t, o.log.String(), c, "log")
		assert.NotContains(t, observed.String(), c, "observations")
		assert.NotContains(t, err.Error(), c)
	}
}

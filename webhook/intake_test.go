package webhook_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent/idemtest"
	"github.com/idempotent-go/idempotent/internal/redistest"
	"github.com/idempotent-go/idempotent/webhook"
	"github.com/idempotent-go/idempotent/webhook/webhooktest"
)

func TestIntakeStoresThenAnswers(t *testing.T) {
	o := newOffice(t, idemtest.NewRedis(t), webhook.NewRouter())
	const trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	w := o.post(stripeBody("evt_a", "charge.captured", "ch_1", ""), func(r *http.Request) {
		r.Header.Set("Traceparent", trace)
		r.Header.Set("Authorization", "Bearer canary")
		r.Header.Add("X-Two", "1")
		r.Header.Add("X-Two", "2")
		r.RemoteAddr = "192.0.2.7:1234"
	})
	require.Equal(t, http.StatusOK, w.Code)
	require.Empty(t, w.Body.String())
	r := o.get("evt_a")
	assert.Equal(t, webhook.Queued, r.State)
	assert.Equal(t, "ch_1", r.Object)
	assert.Equal(t, "charge.captured", r.Type)
	assert.Equal(t, "192.0.2.7", r.Receipts[0].Peer)
	assert.Equal(t, trace, r.TraceParent)
	assert.Equal(t, "4bf92f3577b34da6a3ce929d0e0e4736", r.Trail[0].TraceID)
	assert.Equal(t, []string{"1", "2"}, r.Payload.Header.Values("X-Two"))
	assert.Regexp(t, "^sha256:[0-9a-f]{12}$", r.Payload.Header.Get("Authorization"))
	assert.NotEmpty(t, r.Payload.Header.Get("Stripe-Signature"))
	lines := o.log.lines(t, "evt_a")
	require.Len(t, lines, 1)
	assert.Equal(t, "stripe", lines[0]["source"])
	assert.Equal(t, r.Key, lines[0]["key"])
	assert.Equal(t, "4bf92f3577b34da6a3ce929d0e0e4736", lines[0]["trace_id"])
	assert.NotContains(t, o.log.String(), "canary")
}

func TestIntakeRefuses(t *testing.T) {
	o := newOffice(t, idemtest.NewRedis(t), webhook.NewRouter())
	body := stripeBody("evt_a", "charge.captured", "ch_1", "canary-body")
	sign := func(secret string, at time.Time) *http.Request {
		return webhooktest.Stripe(secret).Request(t, "/webhooks/stripe", body, at)
	}
	forged := sign("whsec_another", time.Now())
	forged.Header.Set("X-Canary", "canary-header")
	for _, c := range []struct {
		name    string
		request *http.Request
		status  int
		reason  webhook.Reason
	}{
		{"a wrong secret", forged, http.StatusBadRequest, webhook.ReasonMismatch},
		{"an old signature", sign(secret, time.Now().Add(-6*time.Minute)), http.StatusBadRequest, webhook.ReasonTooOld},
		{"a signature of next year", sign(secret, time.Now().Add(365*24*time.Hour)), http.StatusBadRequest, webhook.ReasonTooNew},
		{"no signature", httptest.NewRequestWithContext(t.Context(), "POST", "/webhooks/stripe", strings.NewReader("{}")), http.StatusBadRequest, webhook.ReasonNoSignature},
		{"no event", webhooktest.Stripe(secret).Request(t, "/webhooks/stripe", []byte("[]"), time.Now()), http.StatusBadRequest, webhook.ReasonBadBody},
		{"an unknown source", httptest.NewRequestWithContext(t.Context(), "POST", "/webhooks/nobody", strings.NewReader("{}")), http.StatusNotFound, ""},
		{"another method", httptest.NewRequestWithContext(t.Context(), "GET", "/webhooks/stripe", nil), http.StatusMethodNotAllowed, ""},
	} {
		w := o.send(c.request)
		assert.Equal(t, c.status, w.Code, c.name)
		assert.Equal(t, http.StatusText(c.status)+"\n", w.Body.String(), c.name)
		if last, _ := o.Refusals(); c.reason != "" {
			assert.Equal(t, c.reason, last[0].Reason, c.name)
			assert.NotContains(t, last[0].Detail, "canary")
		}
	}
	_, count := o.Refusals()
	assert.Equal(t, map[string]map[webhook.Reason]int64{"stripe": {
		webhook.ReasonMismatch: 1, webhook.ReasonTooOld: 1, webhook.ReasonTooNew: 1, webhook.ReasonNoSignature: 1, webhook.ReasonBadBody: 1,
	}}, count)
	b, err := o.Backlog(t.Context())
	require.NoError(t, err)
	assert.Zero(t, b.Unsettled(), "nothing was stored")
	for _, canary := range []string{"canary", secret, "whsec"} {
		assert.NotContains(t, o.log.String(), canary)
	}
}

func TestRefusalsAreARing(t *testing.T) {
	o := newOffice(t, idemtest.NewRedis(t), webhook.NewRouter())
	for i := range 130 {
		r := httptest.NewRequestWithContext(t.Context(), "POST", "/webhooks/stripe", strings.NewReader("{}"))
		r.Header.Set("X-Number", strconv.Itoa(i))
		o.send(r)
	}
	last, count := o.Refusals()
	require.Len(t, last, 100)
	for i, x := range last {
		assert.Equal(t, strconv.Itoa(129-i), x.Header.Get("X-Number"))
	}
	assert.Equal(t, int64(130), count["stripe"][webhook.ReasonNoSignature])
}

func TestBodyLimits(t *testing.T) {
	source := stripeSource(t)
	source.MaxBody = 300
	store := open(t, idemtest.NewRedis(t), namespace())
	o := newOfficeOf(t, store, []webhook.Source{source}, webhook.NewRouter(), webhook.WithBodyMemory(250))
	padded := func(size int) []byte {
		body := stripeBody(newID(), "charge.captured", "ch_1", "")
		return append(body, strings.Repeat(" ", size-len(body))...)
	}
	assert.Equal(t, http.StatusOK, o.post(padded(250)).Code)
	assert.Equal(t, http.StatusOK, o.post(padded(250)).Code, "the bytes of the first body were released")
	w := o.post(padded(251))
	assert.Equal(t, http.StatusServiceUnavailable, w.Code)
	assert.NotEmpty(t, w.Header().Get("Retry-After"))
	assert.Equal(t, http.StatusOK, o.post(padded(250)).Code, "the bytes of a refused body were released")
	o = newOfficeOf(t, store, []webhook.Source{source}, webhook.NewRouter())
	assert.Equal(t, http.StatusOK, o.post(padded(300)).Code)
	assert.Equal(t, http.StatusRequestEntityTooLarge, o.post(padded(301)).Code)
	broken := httptest.NewRequestWithContext(t.Context(), "POST", "/webhooks/stripe", iotest.ErrReader(errors.New("canary")))
	assert.Equal(t, http.StatusBadRequest, o.send(broken).Code)
	assert.NotContains(t, o.log.String(), "canary")
}

func TestSlowBodyIsGivenUp(t *testing.T) {
	o := newOffice(t, idemtest.NewRedis(t), webhook.NewRouter(), webhook.WithReadTimeout(50*time.Millisecond))
	server := httptest.NewServer(o.server)
	t.Cleanup(server.Close)
	slow, feed := io.Pipe()
	t.Cleanup(func() { _ = feed.Close() })
	go func() { _, _ = feed.Write([]byte("{")) }() // and no more
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+"/webhooks/stripe", slow)
	require.NoError(t, err)
	resp, err := server.Client().Do(r)
	require.NoError(t, err)
	defer resp.Body.Close()
	assert.Equal(t, http.StatusRequestTimeout, resp.StatusCode)
}

func TestFullBacklogIsAnsweredWith503(t *testing.T) {
	store := open(t, idemtest.NewRedis(t), namespace(), webhook.WithLanes(1))
	o := newOfficeOf(t, store, []webhook.Source{stripeSource(t)}, webhook.NewRouter(), webhook.WithBacklog(2))
	o.accept("evt_a", "charge.captured", "ch_1")
	o.accept("evt_b", "charge.captured", "ch_1")
	w := o.post(stripeBody("evt_c", "charge.captured", "ch_1", ""))
	assert.Equal(t, http.StatusServiceUnavailable, w.Code)
	assert.Equal(t, "30", w.Header().Get("Retry-After"))
	o.accept("evt_b", "charge.captured", "ch_1") // a known one
	_, err := o.Get(t.Context(), "stripe", "evt_c")
	assert.ErrorIs(t, err, webhook.ErrNotFound)
	assert.Len(t, o.seen.of(webhook.ObservedUnavailable), 1)
}

// GitHub never delivers again, so its events have room when those of others have none.
func TestProvidersThatNeverRedeliverAreRefusedLast(t *testing.T) {
	scheme, err := webhook.GitHub([]string{secret})
	require.NoError(t, err)
	store := open(t, idemtest.NewRedis(t), namespace(), webhook.WithLanes(1))
	o := newOfficeOf(t, store, []webhook.Source{stripeSource(t), {Name: "github", Scheme: scheme}}, webhook.NewRouter(), webhook.WithBacklog(1))
	o.accept("evt_a", "charge.captured", "ch_1")
	assert.Equal(t, http.StatusServiceUnavailable, o.post(stripeBody("evt_b", "charge.captured", "ch_1", "")).Code)
	push := func(delivery string) int {
		r := webhooktest.GitHub("push", delivery, secret).Request(t, "/webhooks/github", []byte(`{"ref":"main"}`), time.Now())
		return o.send(r).Code
	}
	for i := range 3 {
		assert.Equal(t, http.StatusOK, push(fmt.Sprintf("delivery-%d", i)))
	}
	assert.Equal(t, http.StatusServiceUnavailable, push("delivery-4"))
}

// A stalled store, which ignores its context. In fake time, an answer takes exactly as long as allowed.
type stalledStore struct {
	webhook.Store
	until chan struct{}
}

func (s stalledStore) Accept(ctx context.Context, a webhook.Arrival) (int, error) {
	<-s.until
	return s.Store.Accept(context.WithoutCancel(ctx), a)
}

func TestStalledStoreIsAnsweredExactlyInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const within = 100 * time.Millisecond
		store := stalledStore{open(t, idemtest.NewRedis(t), namespace()), make(chan struct{})}
		o := newOfficeOf(t, store, []webhook.Source{stripeSource(t)}, webhook.NewRouter(), webhook.WithAnswerWithin(within))
		for range 3 {
			start := time.Now()
			w := o.post(stripeBody("evt_a", "charge.captured", "ch_1", ""))
			assert.Equal(t, http.StatusServiceUnavailable, w.Code)
			assert.Equal(t, "5", w.Header().Get("Retry-After"))
			assert.Equal(t, within, time.Since(start))
		}
		close(store.until)
		synctest.Wait()
		o.accept("evt_a", "charge.captured", "ch_1")
		assert.Equal(t, 4, o.get("evt_a").Deliveries, "stored after the answer, as one event")
	})
}

func TestStalledRedisIsAnsweredInTime(t *testing.T) {
	t.Parallel() // it mostly waits
	const within = 100 * time.Millisecond
	server := redistest.Start(t, "--appendonly", "yes")
	o := newOffice(t, server.Client(t), webhook.NewRouter(), webhook.WithAnswerWithin(within))
	o.accept("evt_a", "charge.captured", "ch_1")
	admin := server.Client(t)
	const stall = 10 * time.Second
	require.NoError(t, admin.Do(t.Context(), "CLIENT", "PAUSE", stall.Milliseconds(), "ALL").Err())
	stalled := time.Now()
	var sent []string
	var durations []time.Duration
	for time.Since(stalled) < stall-time.Second {
		id := newID()
		body := stripeBody(id, "charge.captured", "ch_1", "")
		request := webhooktest.Stripe(secret).Request(t, "/webhooks/stripe", body, time.Now())
		start := time.Now()
		w := o.send(request)
		took := time.Since(start)
		require.Equal(t, http.StatusServiceUnavailable, w.Code)
		require.NotEmpty(t, w.Header().Get("Retry-After"))
		durations = append(durations, took)
		sent = append(sent, id)
	}
	require.Greater(t, len(sent), 10)
	slices.Sort(durations) // the median: other programs may hold up a single one
	require.LessOrEqual(t, durations[len(durations)/2], within+20*time.Millisecond)
	require.Eventually(t, func() bool { // the pause is over
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		return admin.Ping(ctx).Err() == nil
	}, time.Minute, 10*time.Millisecond)
	for _, id := range sent { // the provider delivers again
		o.accept(id, "charge.captured", "ch_1")
	}
	r := webhook.NewRouter()
	var did effects
	r.Handle("stripe", "*", func(_ context.Context, j *webhook.Job) error { did.add(j.ID, j.ID); return nil })
	other := newOfficeOf(t, o.store, []webhook.Source{stripeSource(t)}, r)
	other.work()
	other.wait(len(sent)+1, webhook.Done)
	for _, id := range append(sent, "evt_a") {
		assert.Equal(t, 1, did.times(id), id)
	}
	b, err := other.Backlog(t.Context())
	require.NoError(t, err)
	assert.Zero(t, b.Unsettled(), "nothing is left over")
}

func TestBytesAreKeptAsTheyCame(t *testing.T) {
	const bodies = 10_000
	server := redistest.Start(t)
	o := newOffice(t, server.Client(t), webhook.NewRouter(), webhook.WithBacklog(1<<20))
	random := rand.New(rand.NewPCG(1, 2))
	for i := range bodies {
		id := "evt_bytes_" + strconv.Itoa(i)
		noise := make([]byte, random.IntN(400))
		for j := range noise { // any bytes but those that end a JSON string
			for noise[j] = byte(random.UintN(256)); noise[j] < 0x20 || noise[j] == '"' || noise[j] == '\\'; {
				noise[j] = byte(random.UintN(256))
			}
		}
		body := stripeBody(id, "charge.captured", "", "")
		body = append(body[:len(body)-2], append(noise, `" } `+"\r\n"...)...)
		want := map[string][]string{}
		w := o.post(body, func(r *http.Request) {
			for range random.IntN(4) {
				name := http.CanonicalHeaderKey(fmt.Sprintf("X-%d", random.IntN(5)))
				r.Header[name] = append(r.Header[name], string(noise[:random.IntN(len(noise)+1)]))
			}
			want = maps.Clone(r.Header)
		})
		require.Equal(t, http.StatusOK, w.Code)
		r := o.get(id)
		require.Equal(t, sha256.Sum256(body), sha256.Sum256(r.Payload.Body))
		require.True(t, maps.EqualFunc(want, r.Payload.Header, slices.Equal), "headers of %s", id)
	}
}

func TestDuplicateOfASettledEventIsCheap(t *testing.T) {
	server := redistest.Start(t)
	r := webhook.NewRouter()
	r.Handle("stripe", "*", func(context.Context, *webhook.Job) error { return nil })
	o := newOffice(t, server.Client(t), r)
	stop := o.work()
	o.accept("evt_a", "charge.captured", "ch_1")
	o.wait(1, webhook.Done)
	stop()
	commands := server.Commands(t, func() { o.accept("evt_a", "charge.captured", "ch_1") })
	total := 0
	for _, n := range commands {
		total += n
	}
	assert.LessOrEqual(t, total, 6, "%v", commands)
	assert.Equal(t, 2, o.get("evt_a").Deliveries)
	assert.Equal(t, webhook.Done, o.get("evt_a").State)
}

func TestAcceptDropsWhatNobodyWants(t *testing.T) {
	source := stripeSource(t)
	source.Accept = func(e webhook.Event) bool { return e.Type != "noise" }
	o := newOfficeOf(t, open(t, idemtest.NewRedis(t), namespace()), []webhook.Source{source}, webhook.NewRouter())
	o.accept("evt_a", "noise", "ch_1")
	_, err := o.Get(t.Context(), "stripe", "evt_a")
	require.ErrorIs(t, err, webhook.ErrNotFound)
	assert.Len(t, o.seen.of(webhook.ObservedDropped), 1)
}

func TestKeysJoinEvents(t *testing.T) {
	body := func(id, typ string, version int) []byte {
		return fmt.Appendf(nil, `{"id":%q,"type":%q,"data":{"object":{"id":"ch_1"}},"version":%d}`, id, typ, version)
	}
	for _, c := range []struct {
		name   string
		key    webhook.KeyFunc
		second []byte
		joined bool
	}{
		{"ByID, another id", webhook.ByID, body("evt_2", "paid", 1), false},
		{"ByID, the same id", webhook.ByID, body("evt_1", "paid", 1), true},
		{"ByChange, another id", webhook.ByChange, body("evt_2", "paid", 1), true},
		{"ByChange, another version", webhook.ByChange, body("evt_2", "paid", 2), false},
		{"ByChange, another type", webhook.ByChange, body("evt_2", "refunded", 1), false},
		{"ByObject, another version", webhook.ByObject, body("evt_2", "paid", 2), true},
		{"ByObject, another type", webhook.ByObject, body("evt_2", "refunded", 2), false},
		{"a function", func(string, webhook.Event) (string, error) { return "always", nil }, body("evt_2", "refunded", 2), true},
	} {
		source := stripeSource(t)
		source.Key = c.key
		source.Describe = func(e *webhook.Event) error {
			e.Version = int64(e.Body[len(e.Body)-2] - '0')
			return nil
		}
		o := newOfficeOf(t, open(t, idemtest.NewRedis(t), namespace()), []webhook.Source{source}, webhook.NewRouter())
		require.Equal(t, http.StatusOK, o.post(body("evt_1", "paid", 1)).Code)
		require.Equal(t, http.StatusOK, o.post(c.second).Code)
		b, err := o.Backlog(t.Context())
		require.NoError(t, err)
		assert.Equal(t, c.joined, b.Queued == 1, c.name)
	}
}

package endpoint

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"github.com/stripe/stripe-go/v85/webhook"
)

const secret = "whsec_of_this_test"

func testConfig() Config {
	cfg := Defaults()
	cfg.Providers = []Provider{
		{Name: "stripe", Secret: secret, Key: ByEventID},
		{Name: "bank", Secret: "another secret, for the bank", Key: ByChange},
	}
	cfg.LedgerURL = "http://127.0.0.1:0"
	cfg.AnswerWithin = time.Minute // not what is tested: a busy machine is no failure
	cfg.Attempts = 3
	cfg.Stale = 0
	cfg.Wake = time.Millisecond
	cfg.Backoff = Backoff{Base: time.Hour, Limit: time.Hour} // nothing is due by itself
	return cfg
}

// A rig is an endpoint without its processes: the test takes each step.
type rig struct {
	t       *testing.T
	server  *miniredis.Miniredis
	rdb     *redis.Client
	cfg     Config
	store   *store
	workers *workers
	intake  http.Handler
	admin   http.Handler
	calls   []task // of the handler
}

// newRig makes a rig whose handler is handle.
func newRig(t *testing.T, handle func(ctx context.Context, call int, t task) (Change, error), change ...func(*Config)) *rig {
	t.Helper()
	r := &rig{t: t, server: miniredis.RunT(t), cfg: testConfig()}
	for _, f := range change {
		f(&r.cfg)
	}
	r.rdb = redis.NewClient(&redis.Options{Addr: r.server.Addr(), ContextTimeoutEnabled: true, MaxRetries: -1})
	t.Cleanup(func() { r.rdb.Close() })
	r.store = newStore(r.rdb, &r.cfg)
	var err error
	r.workers, err = newWorkers(r.rdb, &r.cfg, r.store, func(ctx context.Context, t task) (Change, error) {
		r.calls = append(r.calls, t)
		return handle(ctx, len(r.calls), t)
	})
	require.NoError(t, err)
	t.Cleanup(func() { r.workers.executor.Close() })
	e := &Endpoint{
		intake:     newIntake(&r.cfg, r.store),
		workers:    r.workers,
		operations: &operations{store: r.store, executor: r.workers.executor, logger: r.cfg.Logger},
	}
	r.intake, r.admin = e.Webhooks(), e.Operators()
	return r
}

// succeeds is a handler.
func succeeds(_ context.Context, _ int, t task) (Change, error) {
	return Change{Order: t.Data.Object.ID, Cents: t.Data.Object.Amount, Credit: "cr_1"}, nil
}

func event(id string) string {
	return `{"id":"` + id + `","object":"event","type":"payment.succeeded","data":{"object":{"id":"order","amount":7}}}`
}

func signed(body string, at time.Time) (header string) {
	return webhook.GenerateTestSignedPayload(&webhook.UnsignedPayload{Payload: []byte(body), Secret: secret, Timestamp: at}).Header
}

func (r *rig) post(path, body, signature string) *httptest.ResponseRecorder {
	req := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
	req.Header.Set(signatureHeader, signature)
	w := httptest.NewRecorder()
	r.intake.ServeHTTP(w, req)
	return w
}

// deliver delivers a genuine event, which must be accepted.
func (r *rig) deliver(id string) {
	r.t.Helper()
	w := r.post("/webhooks/stripe", event(id), signed(event(id), time.Now()))
	require.Equal(r.t, http.StatusOK, w.Code, w.Body)
}

// take takes an entry off the queue, which must have one.
func (r *rig) take() entry {
	r.t.Helper()
	for range 2 { // the first time makes the group
		e, ok, err := r.store.next(r.t.Context())
		require.NoError(r.t, err)
		if ok {
			return e
		}
	}
	require.Fail(r.t, "the queue is empty")
	return entry{}
}

// step handles one entry.
func (r *rig) step() {
	r.t.Helper()
	r.workers.work(r.t.Context(), r.take())
}

func (r *rig) again() {
	r.t.Helper()
	require.NoError(r.t, r.store.again(r.t.Context(), 0))
}

// makeDue lets the time of all retries come.
func (r *rig) makeDue() {
	r.t.Helper()
	keys, err := r.rdb.ZRange(r.t.Context(), r.store.retries(), 0, -1).Result()
	require.NoError(r.t, err)
	for _, key := range keys {
		require.NoError(r.t, r.rdb.ZAdd(r.t.Context(), r.store.retries(), redis.Z{Score: 1, Member: key}).Err())
	}
	r.again()
}

func (r *rig) get(path string, into any) (status int) {
	r.t.Helper()
	w := httptest.NewRecorder()
	r.admin.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	if w.Code == http.StatusOK {
		require.NoError(r.t, json.Unmarshal(w.Body.Bytes(), into))
	}
	return w.Code
}

// ask asks about a Stripe event, which must be known.
func (r *rig) ask(id string) (a Answer) {
	r.t.Helper()
	require.Equal(r.t, http.StatusOK, r.get("/events/stripe/"+id, &a))
	return a
}

func (r *rig) backlog() (b Backlog) {
	r.t.Helper()
	require.Equal(r.t, http.StatusOK, r.get("/backlog", &b))
	return b
}

func (r *rig) deadLetters() (letters []DeadLetter) {
	r.t.Helper()
	require.Equal(r.t, http.StatusOK, r.get("/dead", &letters))
	return letters
}

func (r *rig) replay(key string) (status int) {
	w := httptest.NewRecorder()
	r.admin.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/dead/"+key+"/replay", nil))
	return w.Code
}

// requireExpiries: nothing is stored for ever.
func (r *rig) requireExpiries() {
	r.t.Helper()
	for _, key := range r.server.Keys() {
		require.Positive(r.t, r.server.TTL(key), key)
	}
}

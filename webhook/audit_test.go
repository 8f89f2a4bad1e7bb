package webhook_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent/idemtest"
	"github.com/idempotent-go/idempotent/internal/redistest"
	"github.com/idempotent-go/idempotent/webhook"
)

// deadLetters returns an inbox with n dead letters of as many objects, whose handler succeeds after fix is called.
func deadLetters(t *testing.T, o func(*webhook.Router) *office, n int) (in *office, did *effects, fix func()) {
	t.Helper()
	did = &effects{}
	var fixed atomic.Bool
	router := webhook.NewRouter()
	router.Handle("stripe", "*", func(_ context.Context, j *webhook.Job) error {
		if !fixed.Load() {
			return webhook.Permanent(errors.New("unknown order"))
		}
		did.add(j.Reference, j.ID)
		return nil
	})
	in = o(router)
	in.work()
	for i := range n {
		in.accept(fmt.Sprintf("evt_dead_%d", i), "charge.captured", fmt.Sprintf("ch_%d", i))
		in.wait(1, webhook.Dead)
	}
	return in, did, func() { fixed.Store(true) }
}

// Dead letters are outside of the backlog: twice its limit of them closes nothing. The control is an unsettled event.
func TestDeadLettersCloseNothing(t *testing.T) {
	const limit = 10
	o, _, _ := deadLetters(t, func(r *webhook.Router) *office {
		store := open(t, idemtest.NewRedis(t), namespace(), webhook.WithLanes(1))
		return newOfficeOf(t, store, []webhook.Source{stripeSource(t)}, r, webhook.WithBacklog(limit))
	}, 2*limit)
	b, err := o.Backlog(t.Context())
	require.NoError(t, err)
	assert.Equal(t, int64(2*limit), b.Dead)
	assert.Zero(t, b.Unsettled())
	o.accept("evt_new", "charge.captured", "ch_1")
}

func TestDeadLettersAreGrouped(t *testing.T) {
	router := webhook.NewRouter()
	router.Handle("stripe", "charge.*", func(context.Context, *webhook.Job) error { return webhook.Permanent(errors.New("unknown order")) })
	router.Handle("stripe", "payout.*", func(context.Context, *webhook.Job) error { return errors.New("timeout") }, webhook.Attempts(1))
	o := newOffice(t, idemtest.NewRedis(t), router)
	o.work()
	for i, typ := range []string{"charge.captured", "charge.captured", "charge.refunded", "payout.paid"} {
		o.accept(fmt.Sprintf("evt_%s_%d", typ, i), typ, "")
	}
	o.wait(4, webhook.Dead)
	groups, err := o.DeadLetters(t.Context(), webhook.Filter{})
	require.NoError(t, err)
	require.Len(t, groups, 3)
	assert.Equal(t, "charge.captured", groups[0].Type)
	assert.Equal(t, 2, groups[0].Count)
	assert.Equal(t, webhook.CausePermanent, groups[0].Cause)
	assert.Equal(t, "unknown order", groups[0].Example)
	assert.Equal(t, webhook.CauseAttempts, groups[2].Cause)
	groups, err = o.DeadLetters(t.Context(), webhook.Filter{Cause: webhook.CauseAttempts})
	require.NoError(t, err)
	assert.Len(t, groups, 1)
}

func TestRedriveOfWhatSucceededWrongly(t *testing.T) {
	var jobs []webhook.Job
	var mu sync.Mutex
	router := webhook.NewRouter()
	router.Handle("stripe", "payment.*", func(_ context.Context, j *webhook.Job) error {
		mu.Lock()
		defer mu.Unlock()
		jobs = append(jobs, *j)
		return j.Changed(len(jobs))
	}, webhook.Ordered(payment(), toState, webhook.OrderOptions{}))
	o := newOffice(t, idemtest.NewRedis(t), router)
	o.work()
	o.accept("evt_a", "payment.authorized", "pay_1")
	o.accept("evt_b", "payment.captured", "pay_1")
	o.wait(2, webhook.Done)
	got, err := o.Redrive(t.Context(), webhook.Filter{Source: "stripe", Object: "pay_1", Type: "payment.authorized", States: []webhook.State{webhook.Done}},
		webhook.RedriveOptions{Name: "after the bug", By: "operator"})
	require.NoError(t, err)
	assert.Equal(t, webhook.Redriven{Found: 1, Queued: 1}, got)
	o.wait(1, webhook.Done) // though the object is past it
	mu.Lock()
	defer mu.Unlock()
	require.Len(t, jobs, 3)
	assert.Equal(t, 2, jobs[2].Attempt)
	assert.Equal(t, 1, jobs[2].Redrive)
	assert.Equal(t, jobs[0].Reference, jobs[2].Reference)
	r := o.get("evt_a")
	assert.Equal(t, "3", string(r.Changed))
	assert.Equal(t, "operator", r.Trail[3].By)
	assert.Equal(t, "redrive after the bug", r.Trail[3].Note)

	_, err = o.Redrive(t.Context(), webhook.Filter{States: []webhook.State{webhook.Queued}}, webhook.RedriveOptions{Name: "a"})
	require.ErrorContains(t, err, `state "queued"; allowed: settled states`)
	_, err = o.Redrive(t.Context(), webhook.Filter{}, webhook.RedriveOptions{})
	require.ErrorContains(t, err, "name of 0 bytes")
}

func TestErase(t *testing.T) {
	o, _, _ := deadLetters(t, func(r *webhook.Router) *office { return newOffice(t, idemtest.NewRedis(t), r) }, 3)
	n, err := o.Erase(t.Context(), webhook.Filter{Source: "stripe", Object: "ch_1"}, "operator")
	require.NoError(t, err)
	assert.Equal(t, 1, n)
	r := o.get("evt_dead_1")
	assert.Nil(t, r.Payload)
	assert.True(t, r.Erased)
	assert.Equal(t, "unknown order", r.Reason)
	assert.NotNil(t, o.get("evt_dead_2").Payload)
}

func TestFindEndsWithTheLoop(t *testing.T) {
	o, _, _ := deadLetters(t, func(r *webhook.Router) *office { return newOffice(t, idemtest.NewRedis(t), r) }, 3)
	n := 0
	for r, err := range o.Find(t.Context(), webhook.Filter{}) {
		require.NoError(t, err)
		require.NotEmpty(t, r.Key)
		if n++; n == 2 {
			break
		}
	}
	assert.Equal(t, 2, n)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, err := range o.Find(ctx, webhook.Filter{}) {
		require.ErrorIs(t, err, context.Canceled)
		n++
	}
	assert.Equal(t, 3, n, "one error")
}

func TestSealedPayloads(t *testing.T) {
	oldKey, newKey := []byte(strings.Repeat("o", 32)), []byte(strings.Repeat("n", 16))
	rdb := idemtest.NewRedis(t)
	store := open(t, rdb, namespace())
	seal, err := webhook.AESGCM(oldKey)
	require.NoError(t, err)
	var bodies []string
	router := webhook.NewRouter()
	router.Handle("stripe", "*", func(_ context.Context, j *webhook.Job) error {
		bodies = append(bodies, string(j.Body)+j.Header.Get("X-Canary"))
		return nil
	})
	o := newOfficeOf(t, store, []webhook.Source{stripeSource(t)}, router, webhook.WithSeal(seal))
	body := stripeBody("evt_a", "charge.captured", "ch_1", "canary-body")
	r := webhookRequest(t, body)
	r.Header.Set("X-Canary", "canary-header")
	require.Equal(t, 200, o.send(r).Code)
	var dump strings.Builder
	for _, key := range rdb.Keys(t.Context(), "*").Val() {
		if rdb.Type(t.Context(), key).Val() == "hash" {
			fmt.Fprint(&dump, rdb.HGetAll(t.Context(), key).Val())
		}
	}
	assert.Contains(t, dump.String(), "evt_a")
	assert.NotContains(t, dump.String(), "canary")
	rotated, err := webhook.AESGCM(newKey, oldKey)
	require.NoError(t, err)
	o = newOfficeOf(t, store, []webhook.Source{stripeSource(t)}, router, webhook.WithSeal(rotated))
	o.work()
	o.wait(1, webhook.Done)
	assert.Equal(t, []string{string(body) + "canary-header"}, bodies)
	assert.Equal(t, string(body), string(o.get("evt_a").Payload.Body))
	wrong, err := webhook.AESGCM(newKey)
	require.NoError(t, err)
	o = newOfficeOf(t, store, []webhook.Source{stripeSource(t)}, router, webhook.WithSeal(wrong))
	_, err = o.Get(t.Context(), "stripe", "evt_a")
	require.ErrorContains(t, err, "cannot be opened")
	_, err = webhook.AESGCM([]byte("short"))
	require.ErrorContains(t, err, "key 0 has 5 bytes")
}

// No key is without an expiry, whatever happened to its events.
func TestEveryKeyExpires(t *testing.T) {
	server := redistest.Start(t)
	client := server.Client(t)
	router := webhook.NewRouter()
	router.Handle("stripe", "payment.*", func(_ context.Context, j *webhook.Job) error {
		if j.Object == "pay_2" {
			return webhook.Permanent(errors.New("unknown order"))
		}
		return nil
	}, webhook.Ordered(payment(), toState, webhook.OrderOptions{}))
	o := newOffice(t, client, router)
	stop := o.work()
	o.accept(newID(), "payment.captured", "pay_1")
	o.wait(1, webhook.Parked)
	o.accept(newID(), "payment.authorized", "pay_1")
	o.accept(newID(), "payment.authorized", "pay_2")
	o.accept(newID(), "other", "")
	o.wait(4, webhook.Done, webhook.Dead, webhook.Skipped)
	_, err := o.Redrive(t.Context(), webhook.Filter{}, webhook.RedriveOptions{Name: "again"})
	require.NoError(t, err)
	o.wait(1, webhook.Dead)
	stop()
	o.accept(newID(), "payment.captured", "pay_9")
	keys := client.Keys(t.Context(), "*").Val()
	assert.Greater(t, len(keys), 20)
	for _, key := range keys {
		assert.Positive(t, client.PTTL(t.Context(), key).Val(), key)
	}
}

// A key that is delivered under several ids is found by each of them.
func TestEventIsFoundByEachOfItsIDs(t *testing.T) {
	source := stripeSource(t)
	source.Key = webhook.ByObject
	o := newOfficeOf(t, open(t, idemtest.NewRedis(t), namespace()), []webhook.Source{source}, webhook.NewRouter())
	for _, id := range []string{"evt_1", "evt_2", "evt_3"} {
		o.accept(id, "charge.captured", "ch_1")
	}
	for _, id := range []string{"evt_1", "evt_2", "evt_3"} {
		r := o.get(id)
		assert.Equal(t, "evt_1", r.ID)
		assert.Equal(t, 3, r.Deliveries)
	}
}

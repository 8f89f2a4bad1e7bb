package webhook_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent/idemtest"
	"github.com/idempotent-go/idempotent/internal/redistest"
	"github.com/idempotent-go/idempotent/webhook"
)

// payment is the life of a payment in these tests.
func payment() webhook.Transitions[string] {
	return webhook.Transitions[string]{Initial: "new", Next: map[string][]string{
		"new": {"authorized"}, "authorized": {"captured", "voided"}, "captured": {"refunded"},
	}}
}

// toState returns the state that "payment.state" leads to.
func toState(e webhook.Event) (string, bool) {
	state, ok := strings.CutPrefix(e.Type, "payment.")
	return state, ok && state != "updated"
}

func TestDecide(t *testing.T) {
	p := payment()
	for _, c := range []struct {
		now, to string
		want    webhook.Verdict
	}{
		{"new", "authorized", webhook.Apply},
		{"new", "captured", webhook.Ahead},
		{"new", "refunded", webhook.Ahead},
		{"captured", "authorized", webhook.Behind},
		{"captured", "captured", webhook.Behind},
		{"voided", "captured", webhook.Conflict},
		{"refunded", "voided", webhook.Conflict},
	} {
		assert.Equal(t, c.want, p.Decide(c.now, c.to), "%s, %s", c.now, c.to)
	}
	assert.Equal(t, []string{"authorized"}, p.Missing("new", "refunded"))
	assert.False(t, p.Cyclic())
	assert.True(t, subscription().Cyclic())
}

func permutations(list []string) (all [][]string) {
	if len(list) < 2 {
		return [][]string{append([]string(nil), list...)}
	}
	for i := range list {
		rest := append(append([]string(nil), list[:i]...), list[i+1:]...)
		for _, p := range permutations(rest) {
			all = append(all, append([]string{list[i]}, p...))
		}
	}
	return all
}

// Three events, each under two ids, in all of their 720 orders. Parking ends right in all of them; rejecting what is no valid
// transition, the control, does not.
func TestEveryOrderEndsRight(t *testing.T) {
	server := redistest.Start(t)
	var did effects
	router := webhook.NewRouter()
	router.Handle("stripe", "payment.*", func(_ context.Context, j *webhook.Job) error {
		did.add(j.Object+" "+j.Type, "")
		return nil
	}, webhook.Ordered(payment(), toState, webhook.OrderOptions{}))
	o := newOffice(t, server.Client(t), router, webhook.WithBacklog(1<<20))
	o.work()
	events := []string{"authorized", "captured", "refunded"}
	orders := permutations([]string{"authorized 1", "captured 1", "refunded 1", "authorized 2", "captured 2", "refunded 2"})
	require.Len(t, orders, 720)
	control := 0
	for i, order := range orders {
		now := "new"
		for n, e := range order {
			state, _, _ := strings.Cut(e, " ")
			if payment().Decide(now, state) == webhook.Apply {
				now = state
			}
			o.accept(fmt.Sprintf("evt_%d_%d", i, n), "payment."+state, fmt.Sprintf("pay_%d", i))
		}
		if now == "refunded" {
			control++
		}
	}
	assert.Less(t, control, len(orders), "the control does not end right in all orders")
	o.wait(len(orders)*6, webhook.Done, webhook.Stale)
	for i := range orders {
		for _, e := range events {
			require.Equal(t, 1, did.times(fmt.Sprintf("pay_%d payment.%s", i, e)), "%v", orders[i])
		}
	}
	b, err := o.Backlog(t.Context())
	require.NoError(t, err)
	assert.Zero(t, b.Unsettled(), "nothing is left parked")
	assert.Zero(t, b.Dead)
	t.Logf("parking ends right in %d of %d orders, rejecting in %d", len(orders), len(orders), control)
}

func TestMissingPredecessorIsNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		router := webhook.NewRouter()
		router.Handle("stripe", "payment.*", func(context.Context, *webhook.Job) error { return nil },
			webhook.Ordered(payment(), toState, webhook.OrderOptions{ParkFor: 10 * time.Minute}))
		o := newOffice(t, idemtest.NewRedis(t), router, webhook.WithPoll(10*time.Second))
		defer o.work()()
		o.accept("evt_a", "payment.captured", "pay_1")
		assert.Equal(t, webhook.Parked, (<-o.settled).State)
		assert.Equal(t, "authorized", o.get("evt_a").WaitsFor)
		start := time.Now()
		x := <-o.settled
		assert.Equal(t, webhook.Dead, x.State)
		assert.Equal(t, webhook.CauseMissing, x.Cause)
		assert.InDelta(t, 10*time.Minute, time.Since(start), float64(11*time.Second))
		assert.Equal(t, "waited 10m0s for authorized", o.get("evt_a").Reason)
		// When it comes after all, a redrive applies the event.
		o.accept("evt_b", "payment.authorized", "pay_1")
		assert.Equal(t, webhook.Done, (<-o.settled).State)
		_, err := o.Redrive(t.Context(), webhook.Filter{}, webhook.RedriveOptions{Name: "late"})
		require.NoError(t, err)
		assert.Equal(t, webhook.Done, (<-o.settled).State)
	})
}

func TestRefetchReplacesTheMissingEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var refetched, handled []string
		router := webhook.NewRouter()
		router.Handle("stripe", "payment.*", func(_ context.Context, j *webhook.Job) error {
			handled = append(handled, j.Type)
			return nil
		}, webhook.Ordered(payment(), toState, webhook.OrderOptions{
			ParkFor: time.Minute,
			Refetch: func(_ context.Context, j *webhook.Job) error { refetched = append(refetched, j.Type); return nil },
		}))
		o := newOffice(t, idemtest.NewRedis(t), router, webhook.WithPoll(time.Second))
		defer o.work()()
		o.accept("evt_a", "payment.captured", "pay_1")
		assert.Equal(t, webhook.Parked, (<-o.settled).State)
		assert.Equal(t, webhook.Done, (<-o.settled).State)
		o.accept("evt_b", "payment.authorized", "pay_1") // too late
		assert.Equal(t, webhook.Stale, (<-o.settled).State)
		o.accept("evt_c", "payment.refunded", "pay_1")
		assert.Equal(t, webhook.Done, (<-o.settled).State)
		assert.Equal(t, []string{"payment.captured"}, refetched)
		assert.Equal(t, []string{"payment.refunded"}, handled)
	})
}

func TestConflictsAndEventsWithoutAState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		router := webhook.NewRouter()
		router.Handle("stripe", "payment.*", func(context.Context, *webhook.Job) error { return nil },
			webhook.Ordered(payment(), toState, webhook.OrderOptions{}))
		o := newOffice(t, idemtest.NewRedis(t), router, webhook.WithPoll(time.Second))
		defer o.work()()
		for _, c := range []struct {
			typ, object string
			want        webhook.State
			cause       webhook.Cause
		}{
			{"payment.updated", "pay_1", webhook.Done, ""},
			{"payment.authorized", "pay_1", webhook.Done, ""},
			{"payment.voided", "pay_1", webhook.Done, ""},
			{"payment.updated", "pay_1", webhook.Done, ""},
			{"payment.captured", "pay_1", webhook.Dead, webhook.CauseConflict},
			{"payment.authorized", "pay_1", webhook.Stale, webhook.CauseBehind},
			{"payment.unknown", "pay_1", webhook.Dead, webhook.CauseConflict},
			{"payment.authorized", "", webhook.Dead, webhook.CauseConflict},
		} {
			o.accept(newID(), c.typ, c.object)
			x := <-o.settled
			assert.Equal(t, c.want, x.State, c.typ)
			assert.Equal(t, c.cause, x.Cause, c.typ)
		}
	})
}

// subscription comes back to a state.
func subscription() webhook.Transitions[string] {
	return webhook.Transitions[string]{Initial: "new", Next: map[string][]string{
		"new": {"active"}, "active": {"past_due"}, "past_due": {"active", "canceled"},
	}}
}

func TestCyclicTransitionsNeedVersions(t *testing.T) {
	router := webhook.NewRouter()
	router.Handle("stripe", "payment.*", func(context.Context, *webhook.Job) error { return nil },
		webhook.Ordered(subscription(), toState, webhook.OrderOptions{}))
	_, err := webhook.New(t.Context(), open(t, idemtest.NewRedis(t), namespace()), []webhook.Source{stripeSource(t)}, router)
	require.ErrorContains(t, err, "a state can be reached from itself, and Version is nil")

	synctest.Test(t, func(t *testing.T) {
		var applied []int64
		router := webhook.NewRouter()
		router.Handle("stripe", "payment.*", func(_ context.Context, j *webhook.Job) error { applied = append(applied, j.Version); return nil },
			webhook.Ordered(subscription(), toState, webhook.OrderOptions{Version: func(e webhook.Event) int64 { return e.Version }}))
		source := stripeSource(t)
		version := int64(0)
		source.Describe = func(e *webhook.Event) error { e.Version = version; return nil }
		o := newOfficeOf(t, open(t, idemtest.NewRedis(t), namespace()), []webhook.Source{source}, router, webhook.WithPoll(time.Second))
		defer o.work()()
		var states []webhook.State
		for _, e := range []struct {
			version int64
			state   string
		}{{1, "active"}, {3, "active"}, {2, "past_due"}, {2, "past_due"}, {5, "canceled"}, {1, "active"}, {4, "past_due"}} {
			version = e.version
			o.accept(newID(), "payment."+e.state, "sub_1")
			synctest.Wait()
			time.Sleep(3 * time.Second) // of the bubble: until what it woke is settled
		}
		for len(o.settled) > 0 {
			states = append(states, (<-o.settled).State)
		}
		assert.Equal(t, []int64{1, 2, 3, 4, 5}, applied)
		count := map[webhook.State]int{}
		for _, s := range states {
			count[s]++
		}
		assert.Equal(t, 5, count[webhook.Done])
		assert.Equal(t, 2, count[webhook.Stale])
		b, err := o.Backlog(t.Context())
		require.NoError(t, err)
		assert.Zero(t, b.Unsettled())
	})
}

// Two handlers of one order share the object's state; a second order has its own.
func TestOrdersAreSeparatedByName(t *testing.T) {
	ship := webhook.Transitions[string]{Initial: "new", Next: map[string][]string{"new": {"sent"}, "sent": {"delivered"}}}
	handler := func(context.Context, *webhook.Job) error { return nil }
	router := webhook.NewRouter()
	router.Handle("stripe", "payment.authorized", handler, webhook.Ordered(payment(), toState, webhook.OrderOptions{}))
	router.Handle("stripe", "payment.captured", handler, webhook.Ordered(payment(), toState, webhook.OrderOptions{}))
	toShip := func(e webhook.Event) (string, bool) { return strings.TrimPrefix(e.Type, "ship."), true }
	router.Handle("stripe", "ship.*", handler, webhook.Ordered(ship, toShip, webhook.OrderOptions{Name: "shipping"}))
	synctest.Test(t, func(t *testing.T) {
		o := newOffice(t, idemtest.NewRedis(t), router, webhook.WithPoll(time.Second))
		defer o.work()()
		for _, typ := range []string{"payment.authorized", "ship.sent", "payment.captured", "ship.delivered"} {
			o.accept(newID(), typ, "order_1")
			assert.Equal(t, webhook.Done, (<-o.settled).State, typ)
		}
	})
	other := webhook.NewRouter()
	other.Handle("stripe", "payment.*", handler, webhook.Ordered(payment(), toState, webhook.OrderOptions{}))
	other.Handle("stripe", "ship.*", handler, webhook.Ordered(ship, toShip, webhook.OrderOptions{}))
	_, err := webhook.New(t.Context(), open(t, idemtest.NewRedis(t), namespace()), []webhook.Source{stripeSource(t)}, other)
	assert.ErrorContains(t, err, `two orders named "order"`)
}

// Package webhooktest tests code that uses package webhook: it checks custom stores, and signs deliveries.
package webhooktest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/idempotent-go/idempotent/webhook"
)

// TestStore fails the test for each rule of [webhook.Store] that a store breaks. open returns a new, empty store each
// time; what it starts must end with the test. The suite runs in real time and takes a few seconds. It calls the methods of
// webhook.Store and nothing else.
func TestStore(t *testing.T, open func(t testing.TB) webhook.Store) {
	for _, c := range []struct {
		name string
		test func(*suite)
	}{
		{"Accept/stores an event", testAccept},
		{"Accept/counts deliveries of one key", testDuplicates},
		{"Accept/takes one of many concurrent deliveries for new", testConcurrentAccept},
		{"Accept/refuses new events when the backlog is full", testBacklogLimit},
		{"Accept/bounds the receipts", testReceipts},
		{"Take/gives each event to one worker", testConcurrentTake},
		{"Take/gives the event first that is due first", testTakeOrder},
		{"Take/gives one event of an object at a time", testOneAtATime},
		{"Take/gives an event again when its lease ran out", testExpiredLease},
		{"Take/gives one event of an object to one of many workers", testConcurrentObject},
		{"Extend/keeps a lease", testExtend},
		{"Settle/ends an event", testSettle},
		{"Settle/retries when due", testRetry},
		{"Settle/refuses a lost ticket", testLostTicket},
		{"Settle/accepts a ticket once", testConcurrentSettle},
		{"Settle/wakes the parked events of the object that moved", testParked},
		{"Settle/bounds the trail", testTrail},
		{"Backlog/counts events by state", testBacklog},
		{"Get/finds by key and by id", testGet},
		{"Find/filters", testFilters},
		{"Find/pages", testPages},
		{"Redrive/queues each event once for each name", testRedrive},
		{"Redrive/queues each event once for many callers", testConcurrentRedrive},
		{"Redrive/leaves unsettled and erased events", testRedriveLeaves},
		{"Redrive/comes after new events, at its rate", testRedriveRate},
		{"Erase/deletes payloads of settled events", testErase},
		{"Retention/deletes bodies first, then events", testRetention},
		{"Executor/runs a key once", testExecutor},
		{"Executor/reports attempts without an outcome", testExecutorAttempts},
		{"Executor/refuses after an interruption", testExecutorRefuse},
		{"Check/says what an accepted event survives", testCheck},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.test(&suite{T: t, Store: open(t)})
		})
	}
}

// A suite is one test of the suite, on a store of its own.
type suite struct {
	*testing.T
	webhook.Store
	serial atomic.Int64
}

const (
	day   = 24 * time.Hour
	lease = time.Minute
	// shortLease is long enough for a test to act within it, and short enough to wait for.
	shortLease = 300 * time.Millisecond
	// patience bounds the wait for an event that must come.
	patience = 20 * time.Second
)

func retention() webhook.Retention {
	return webhook.Retention{Events: 31 * day, Bodies: 7 * day, Positions: 400 * day}
}

// arrival returns a new event of source "shop".
func (s *suite) arrival(change ...func(*webhook.Arrival)) webhook.Arrival {
	n := s.serial.Add(1)
	at := time.Now()
	a := webhook.Arrival{
		Key:         fmt.Sprintf("key-%d", n),
		Source:      "shop",
		Event:       webhook.Event{ID: fmt.Sprintf("evt_%d", n), Type: "order.paid", Version: n, OccurredAt: at.Add(-time.Second)},
		Payload:     webhook.Payload{Header: http.Header{"Content-Type": {"application/json"}}, Body: []byte(`{}`)},
		Receipt:     webhook.Receipt{At: at, Peer: "192.0.2.1"},
		TraceParent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
		Retention:   retention(),
		Step:        step(webhook.Queued),
	}
	for _, c := range change {
		c(&a)
	}
	return a
}

func object(name string) func(*webhook.Arrival) {
	return func(a *webhook.Arrival) { a.Event.Object = name }
}

func step(state webhook.State) webhook.Step {
	return webhook.Step{At: time.Now(), State: state, By: "host:1", TraceID: "4bf92f3577b34da6a3ce929d0e0e4736"}
}

func settlement(state webhook.State) webhook.Settlement {
	return webhook.Settlement{State: state, Attempts: 1, Retention: retention(), Step: step(state)}
}

// accept stores a new event.
func (s *suite) accept(change ...func(*webhook.Arrival)) webhook.Arrival {
	s.Helper()
	a := s.arrival(change...)
	n, err := s.Accept(s.Context(), a)
	s.no(err)
	s.equal("deliveries of a new event", n, 1)
	return a
}

// settled stores an event and brings it to a state.
func (s *suite) settled(state webhook.State, change ...func(*webhook.Arrival)) webhook.Arrival {
	s.Helper()
	a := s.accept(change...)
	s.no(s.Settle(s.Context(), s.take(a.Key).Ticket, settlement(state)))
	return a
}

// take waits for one event to be due, takes it and expects the key.
func (s *suite) take(key string) webhook.Taken {
	s.Helper()
	return s.takeFor(lease, key)
}

func (s *suite) takeFor(lease time.Duration, key string) webhook.Taken {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), patience)
	defer cancel()
	for {
		taken, err := s.Take(ctx, 1, lease, step(webhook.Running))
		switch {
		case err != nil:
			s.Fatalf("Take, while waiting for %s: %v", key, err)
		case len(taken) == 1 && taken[0].Key == key:
			return taken[0]
		case len(taken) > 0:
			s.Fatalf("Take returned %s, %d events; want %s", taken[0].Key, len(taken), key)
		}
		select {
		case <-ctx.Done():
			s.Fatalf("event %s was not due within %v", key, patience)
		case <-time.After(5 * time.Millisecond): // until the next look; the store has no signal
		}
	}
}

// none expects that no event is due.
func (s *suite) none() {
	s.Helper()
	taken, err := s.Take(s.Context(), 10, lease, step(webhook.Running))
	s.no(err)
	if len(taken) > 0 {
		s.Fatalf("Take returned %s; want nothing to be due", taken[0].Key)
	}
}

func (s *suite) get(key string) webhook.Record {
	s.Helper()
	r, err := s.Get(s.Context(), webhook.Lookup{Key: key})
	s.no(err)
	return r
}

func (s *suite) no(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func (s *suite) is(err, want error) {
	s.Helper()
	if !errors.Is(err, want) {
		s.Fatalf("error is %v; want %v", err, want)
	}
}

func (s *suite) equal(what string, got, want any) {
	s.Helper()
	if got != want {
		s.Fatalf("%s: %v; want %v", what, got, want)
	}
}

// sameTime compares times that a store may keep in microseconds.
func (s *suite) sameTime(what string, got, want time.Time) {
	s.Helper()
	if !got.Truncate(time.Microsecond).Equal(want.Truncate(time.Microsecond)) {
		s.Fatalf("%s: %v; want %v", what, got, want)
	}
}

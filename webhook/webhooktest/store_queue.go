package webhooktest

import (
	"bytes"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/idempotent-go/idempotent/webhook"
)

func testAccept(s *suite) {
	body := make([]byte, 1<<12)
	for i := range body {
		body[i] = byte(rand.UintN(256)) //nolint:gosec // chance, no secret
	}
	header := http.Header{"X-Many": {"a", "", "b"}, "X-Bytes": {"\x80\xff <&>"}, "X-Empty": {""}}
	a := s.accept(object("order_1"), func(a *webhook.Arrival) {
		a.Payload = webhook.Payload{Header: header, Body: body, Part: body[10:20]}
		a.Event.Unsigned = true
	})
	for _, r := range []webhook.Record{s.get(a.Key), s.take(a.Key).Record} {
		s.equal("key", r.Key, a.Key)
		s.equal("source", r.Source, a.Source)
		s.equal("id", r.ID, a.Event.ID)
		s.equal("type", r.Type, a.Event.Type)
		s.equal("object", r.Object, "order_1")
		s.equal("version", r.Version, a.Event.Version)
		s.equal("unsigned", r.Unsigned, true)
		s.equal("traceparent", r.TraceParent, a.TraceParent)
		s.sameTime("occurred at", r.OccurredAt, a.Event.OccurredAt)
		s.sameTime("received at", r.ReceivedAt, a.Receipt.At)
		s.equal("deliveries", r.Deliveries, 1)
		s.equal("receipts", len(r.Receipts), 1)
		s.sameTime("receipt", r.Receipts[0].At, a.Receipt.At)
		s.equal("peer", r.Receipts[0].Peer, a.Receipt.Peer)
		if r.Payload == nil {
			s.Fatal("the payload is missing")
		}
		if !bytes.Equal(r.Payload.Body, body) || !bytes.Equal(r.Payload.Part, body[10:20]) {
			s.Fatal("the body or the part differs from what was accepted")
		}
		if !maps.EqualFunc(r.Payload.Header, header, slices.Equal) {
			s.Fatalf("header: %q; want %q", r.Payload.Header, header)
		}
		s.equal("sealed", r.Payload.Sealed, false)
	}
	sealed := s.accept(func(a *webhook.Arrival) { a.Payload = webhook.Payload{Body: []byte{0, 1, 2}, Sealed: true} })
	p := s.take(sealed.Key).Record.Payload
	s.equal("sealed", p.Sealed, true)
	s.equal("headers of a sealed payload", len(p.Header), 0)
	s.equal("part of a sealed payload", len(p.Part), 0)
}

func testDuplicates(s *suite) {
	a := s.accept()
	for n := 2; n < 5; n++ {
		again := a
		again.Receipt.At = a.Receipt.At.Add(time.Duration(n) * time.Second)
		again.Payload.Body = []byte("another body")
		got, err := s.Accept(s.Context(), again)
		s.no(err)
		s.equal("deliveries", got, n)
	}
	s.no(s.Settle(s.Context(), s.take(a.Key).Ticket, settlement(webhook.Done)))
	s.none()
	got, err := s.Accept(s.Context(), a)
	s.no(err)
	s.equal("deliveries", got, 5)
	s.none()
	r := s.get(a.Key)
	s.equal("state of a settled event that came again", r.State, webhook.Done)
	s.equal("deliveries", r.Deliveries, 5)
	s.sameTime("received at", r.ReceivedAt, a.Receipt.At)
	s.equal("body", string(r.Payload.Body), "{}")
}

func testConcurrentAccept(s *suite) {
	a := s.arrival()
	var wg sync.WaitGroup
	var fresh atomic.Int64
	for range 50 {
		wg.Go(func() {
			n, err := s.Accept(s.Context(), a)
			if err != nil {
				s.Error(err)
			} else if n == 1 {
				fresh.Add(1)
			}
		})
	}
	wg.Wait()
	s.equal("deliveries that were new", fresh.Load(), int64(1))
	s.equal("deliveries", s.get(a.Key).Deliveries, 50)
	s.take(a.Key)
	s.none()
}

func testBacklogLimit(s *suite) {
	limited := func(a *webhook.Arrival) { a.Event.Object, a.Backlog = "order_1", 4 } // one object has one lane
	first := s.accept(limited)
	t := s.take(first.Key)
	second := s.accept(limited, func(a *webhook.Arrival) { a.Event.Object = "order_1" })
	s.accept(limited)
	s.accept(limited)
	_, err := s.Accept(s.Context(), s.arrival(limited))
	s.is(err, webhook.ErrBacklogFull)
	n, err := s.Accept(s.Context(), second)
	s.no(err)
	s.equal("deliveries of a known event, with a full backlog", n, 2)
	s.no(s.Settle(s.Context(), t.Ticket, settlement(webhook.Dead)))
	s.accept(limited) // the dead letter does not count
	_, err = s.Accept(s.Context(), s.arrival(limited))
	s.is(err, webhook.ErrBacklogFull)
	s.accept(object("order_1")) // without a limit
}

func testReceipts(s *suite) {
	a := s.accept()
	for range webhook.MaxReceipts + 5 {
		_, err := s.Accept(s.Context(), a)
		s.no(err)
	}
	r := s.get(a.Key)
	s.equal("deliveries", r.Deliveries, webhook.MaxReceipts+6)
	s.equal("receipts", len(r.Receipts), webhook.MaxReceipts)
}

func testConcurrentTake(s *suite) {
	const events = 60
	for range events {
		s.accept()
	}
	var mu sync.Mutex
	seen := map[string]int{}
	tokens := map[string]bool{}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for {
				taken, err := s.Take(s.Context(), 7, lease, step(webhook.Running))
				if err != nil {
					s.Error(err)
					return
				}
				if len(taken) > 7 {
					s.Errorf("Take of 7 returned %d events", len(taken))
				}
				mu.Lock()
				for _, t := range taken {
					seen[t.Key]++
					tokens[t.Key+t.Token] = true
				}
				mu.Unlock()
				if len(taken) == 0 {
					return
				}
			}
		})
	}
	wg.Wait()
	s.equal("events taken", len(seen), events)
	for key, n := range seen {
		s.equal("times that "+key+" was taken", n, 1)
	}
}

func testTakeOrder(s *suite) {
	lane := object("order_1") // one lane; the order of lanes is free
	var keys []string
	for range 4 {
		keys = append(keys, s.accept(lane).Key)
	}
	for _, key := range keys {
		s.no(s.Settle(s.Context(), s.take(key).Ticket, settlement(webhook.Done)))
	}
}

func testOneAtATime(s *suite) {
	first, second, third := s.accept(object("order_1")), s.accept(object("order_1")), s.accept(object("order_1"))
	t := s.take(first.Key)
	s.none()
	other := s.accept(object("order_1"), func(a *webhook.Arrival) { a.Source = "bank" })
	s.take(other.Key) // the same name in another source is another object
	different := s.accept(object("order_2"))
	s.take(different.Key)
	s.none()
	s.no(s.Settle(s.Context(), t.Ticket, settlement(webhook.Done)))
	t = s.take(second.Key)
	s.none()
	retry := settlement(webhook.Retrying)
	retry.After = time.Hour
	s.no(s.Settle(s.Context(), t.Ticket, retry))
	s.take(third.Key) // a retrying event does not hold its object
	for range 3 {
		s.accept()
	}
	taken, err := s.Take(s.Context(), 10, lease, step(webhook.Running))
	s.no(err)
	s.equal("events without an object that are taken together", len(taken), 3)
}

func testExpiredLease(s *suite) {
	a, next := s.accept(object("order_1")), s.accept(object("order_1"))
	first := s.takeFor(shortLease, a.Key)
	again := s.take(a.Key)
	if first.Token == again.Token {
		s.Fatalf("both times that the event was taken have the token %s", first.Token)
	}
	s.is(s.Settle(s.Context(), first.Ticket, settlement(webhook.Dead)), webhook.ErrTicketLost)
	lost, err := s.Extend(s.Context(), []webhook.Ticket{first.Ticket, again.Ticket}, lease)
	s.no(err)
	if len(lost) != 1 || lost[0] != first.Ticket {
		s.Fatalf("Extend reports as lost: %v; want the first ticket", lost)
	}
	s.none()
	s.equal("state", s.get(a.Key).State, webhook.Running)
	s.no(s.Settle(s.Context(), again.Ticket, settlement(webhook.Done)))
	s.take(next.Key)
}

func testExtend(s *suite) {
	kept, lost := s.accept(), s.accept()
	byKey := map[string]webhook.Ticket{}
	for range 2 {
		taken, err := s.Take(s.Context(), 1, shortLease, step(webhook.Running))
		s.no(err)
		for _, t := range taken {
			byKey[t.Key] = t.Ticket
		}
	}
	s.equal("events taken", len(byKey), 2)
	gone, err := s.Extend(s.Context(), []webhook.Ticket{byKey[kept.Key]}, lease)
	s.no(err)
	s.equal("lost tickets", len(gone), 0)
	s.take(lost.Key) // its lease was as short as the one that was extended
	s.none()
	s.no(s.Settle(s.Context(), byKey[kept.Key], settlement(webhook.Done)))
	gone, err = s.Extend(s.Context(), []webhook.Ticket{byKey[kept.Key]}, lease)
	s.no(err)
	s.equal("lost tickets after the event was settled", len(gone), 1)
}

package webhooktest

import (
	"slices"
	"strconv"
	"time"

	"github.com/idempotent-go/idempotent/webhook"
)

func testGet(s *suite) {
	a := s.accept(object("order_1"))
	b := s.accept(func(b *webhook.Arrival) { // one id in two sources, as two keys
		b.Source, b.Event.ID = "bank", a.Event.ID
	})
	later := s.accept(func(c *webhook.Arrival) { // and twice in one source
		c.Event.ID, c.Receipt.At = a.Event.ID, a.Receipt.At.Add(time.Second)
	})
	for _, l := range []struct {
		lookup webhook.Lookup
		key    string
	}{
		{webhook.Lookup{Key: a.Key}, a.Key},
		{webhook.Lookup{Source: "bank", ID: a.Event.ID}, b.Key},
		{webhook.Lookup{Source: "shop", ID: a.Event.ID}, later.Key},
	} {
		r, err := s.Get(s.Context(), l.lookup)
		s.no(err)
		s.equal("key", r.Key, l.key)
	}
	for _, l := range []webhook.Lookup{{Key: "unknown"}, {Source: "shop", ID: "unknown"}, {Source: "unknown", ID: a.Event.ID}} {
		_, err := s.Get(s.Context(), l)
		s.is(err, webhook.ErrNotFound)
	}
}

// find returns the keys of all pages, and expects no payload in them.
func (s *suite) find(f webhook.Filter, limit int) (keys []string) {
	s.Helper()
	for cursor, pages := "", 0; ; pages++ {
		page, next, err := s.Find(s.Context(), f, cursor, limit)
		s.no(err)
		if len(page) > limit {
			s.Fatalf("a page holds %d events; want at most %d", len(page), limit)
		}
		for _, r := range page {
			if r.Payload != nil {
				s.Fatalf("event %s was found with its payload", r.Key)
			}
			keys = append(keys, r.Key)
		}
		if cursor = next; next == "" {
			return keys
		}
		if pages > 1000 {
			s.Fatal("Find does not end after 1000 pages")
		}
	}
}

func testFilters(s *suite) {
	start := time.Now().Add(-time.Hour).Truncate(time.Microsecond)
	at := func(minute int) func(*webhook.Arrival) {
		return func(a *webhook.Arrival) { a.Receipt.At = start.Add(time.Duration(minute) * time.Minute) }
	}
	kind := func(source, typ string) func(*webhook.Arrival) {
		return func(a *webhook.Arrival) { a.Source, a.Event.Type = source, typ }
	}
	dead := s.accept(at(1), object("order_1"), kind("shop", "order.paid"))
	end := settlement(webhook.Dead)
	end.Cause, end.Reason = webhook.CausePermanent, "unknown order"
	s.no(s.Settle(s.Context(), s.take(dead.Key).Ticket, end))
	done := s.settled(webhook.Done, at(2), object("order_1"), kind("shop", "order.refunded"))
	stale := s.settled(webhook.Stale, at(3), object("order_2"), kind("shop", "order.paid"))
	bank := s.settled(webhook.Done, at(4), object("order_1"), kind("bank", "transfer"))
	running := s.accept(at(5), kind("shop", "customer.created"))
	s.take(running.Key)
	retrying := s.accept(at(6))
	later := settlement(webhook.Retrying)
	later.After = time.Hour
	s.no(s.Settle(s.Context(), s.take(retrying.Key).Ticket, later))
	queued := s.accept(at(7))
	for _, c := range []struct {
		name   string
		filter webhook.Filter
		want   []webhook.Arrival
	}{
		{"all", webhook.Filter{}, []webhook.Arrival{queued, retrying, running, bank, stale, done, dead}},
		{"source", webhook.Filter{Source: "bank"}, []webhook.Arrival{bank}},
		{"type", webhook.Filter{Type: "order.paid", Source: "shop", To: start.Add(5 * time.Minute)}, []webhook.Arrival{stale, dead}},
		{"types", webhook.Filter{Type: "order.*", To: start.Add(5 * time.Minute)}, []webhook.Arrival{stale, done, dead}},
		{"object", webhook.Filter{Source: "shop", Object: "order_1"}, []webhook.Arrival{done, dead}},
		{"unknown object", webhook.Filter{Source: "shop", Object: "order_3"}, nil},
		{"one state", webhook.Filter{States: []webhook.State{webhook.Done}}, []webhook.Arrival{bank, done}},
		{"running", webhook.Filter{States: []webhook.State{webhook.Running}}, []webhook.Arrival{running}},
		{"queued", webhook.Filter{States: []webhook.State{webhook.Queued}}, []webhook.Arrival{queued}},
		{"unsettled", webhook.Filter{States: []webhook.State{webhook.Queued, webhook.Running, webhook.Retrying}}, []webhook.Arrival{queued, retrying, running}},
		{"object and state", webhook.Filter{Source: "shop", Object: "order_1", States: []webhook.State{webhook.Dead}}, []webhook.Arrival{dead}},
		{"time", webhook.Filter{From: start.Add(2 * time.Minute), To: start.Add(4 * time.Minute)}, []webhook.Arrival{stale, done}},
		{"cause", webhook.Filter{Cause: webhook.CausePermanent}, []webhook.Arrival{dead}},
		{"reason", webhook.Filter{Reason: "known ord"}, []webhook.Arrival{dead}},
		{"another reason", webhook.Filter{Reason: "timeout"}, nil},
	} {
		var want []string
		for _, a := range c.want {
			want = append(want, a.Key)
		}
		if got := s.find(c.filter, 3); !slices.Equal(got, want) {
			s.Errorf("filter %s: %v; want %v", c.name, got, want)
		}
	}
}

func testPages(s *suite) {
	at := time.Now().Add(-time.Hour)
	var want []string
	for i := range 30 { // many at the same time, and in many lanes
		a := s.accept(object("order_"+strconv.Itoa(i%7)), func(a *webhook.Arrival) {
			a.Receipt.At = at.Add(time.Duration(i/10) * time.Second)
		})
		want = append(want, a.Key)
	}
	for _, limit := range []int{1, 4, 10, 100} {
		got := s.find(webhook.Filter{}, limit)
		sorted := slices.Sorted(slices.Values(got))
		if !slices.Equal(sorted, slices.Sorted(slices.Values(want))) {
			s.Fatalf("pages of %d hold %d events %v; want each of the %d once", limit, len(got), sorted, len(want))
		}
		for i, key := range got {
			s.equal("place of "+key, slices.Index(want, key)/10, 2-i/10)
		}
	}
}

func requeue(name string) webhook.Requeue {
	return webhook.Requeue{Name: name, PerSecond: 1e6, Retention: retention(), Step: step(webhook.Queued)}
}

// redrive expects that many events to be queued.
func (s *suite) redrive(want int, r webhook.Requeue, events ...webhook.Ref) {
	s.Helper()
	n, err := s.Redrive(s.Context(), events, r)
	s.no(err)
	s.equal("events that redrive "+r.Name+" queued", n, want)
}

func testRedrive(s *suite) {
	a := s.settled(webhook.Dead, object("order_1"))
	s.redrive(1, requeue("monday"), a.Ref(), a.Ref())
	s.redrive(0, requeue("tuesday"), a.Ref()) // it is not settled
	t := s.take(a.Key)
	s.equal("redrives", t.Record.Redrives, 1)
	s.equal("attempts", t.Record.Attempts, 1)
	s.equal("attempts before", t.Record.AttemptsBefore, 1)
	s.equal("cause", t.Record.Cause, webhook.Cause(""))
	s.equal("settled at", t.Record.SettledAt.IsZero(), true)
	end := settlement(webhook.Done)
	end.Attempts = 2
	s.no(s.Settle(s.Context(), t.Ticket, end))
	s.redrive(0, requeue("monday"), a.Ref())
	r := s.get(a.Key)
	s.equal("state", r.State, webhook.Done)
	s.equal("steps", r.Steps, 6)
	s.redrive(1, requeue("tuesday"), a.Ref()) // also of an event that succeeded
	t = s.take(a.Key)
	s.equal("redrives", t.Record.Redrives, 2)
	s.equal("applied", t.Record.Applied, true)
	s.equal("attempts before", t.Record.AttemptsBefore, 2)
}

func testRedriveLeaves(s *suite) {
	queued := s.accept()
	s.take(queued.Key)
	erased := s.settled(webhook.Dead)
	n, err := s.Erase(s.Context(), []webhook.Ref{erased.Ref()}, step(""))
	s.no(err)
	s.equal("erased", n, 1)
	s.redrive(0, requeue("monday"), queued.Ref(), erased.Ref(), webhook.Ref{Key: "unknown", Source: "shop"})
	s.none()
	s.equal("state", s.get(erased.Key).State, webhook.Dead)
}

func testRedriveRate(s *suite) {
	var dead []webhook.Ref
	for range 5 {
		a := s.settled(webhook.Dead, object("order_1"))
		dead = append(dead, a.Ref())
	}
	s.redrive(5, requeue("fast"), dead...)
	fresh := s.accept(object("order_1"))
	t := s.take(fresh.Key) // before all redriven events, though they were due first
	s.no(s.Settle(s.Context(), t.Ticket, settlement(webhook.Done)))
	for _, ref := range dead {
		s.no(s.Settle(s.Context(), s.take(ref.Key).Ticket, settlement(webhook.Dead)))
	}
	slow := requeue("slow")
	slow.PerSecond = 1.0 / 3600
	s.redrive(2, slow, dead[:2]...)
	s.redrive(3, slow, dead...) // the others, at the same rate
	b, err := s.Backlog(s.Context())
	s.no(err)
	s.equal("queued", b.Queued, int64(5))
	due := 0
	for _, ref := range dead {
		if r := s.get(ref.Key); !r.Due.After(time.Now().Add(time.Minute)) {
			due++
		}
	}
	if due > 1 {
		s.Fatalf("%d events of a redrive of one an hour are due at once; want at most 1", due)
	}
}

func testErase(s *suite) {
	dead, done, queued := s.settled(webhook.Dead), s.settled(webhook.Done), s.accept()
	refs := []webhook.Ref{dead.Ref(), done.Ref(), queued.Ref(), {Key: "unknown", Source: "shop"}}
	note := step("")
	note.By, note.Note = "operator", "erased"
	n, err := s.Erase(s.Context(), refs, note)
	s.no(err)
	s.equal("erased", n, 2)
	n, err = s.Erase(s.Context(), refs, note)
	s.no(err)
	s.equal("erased again", n, 0)
	for _, key := range []string{dead.Key, done.Key} {
		r := s.get(key)
		s.equal("payload is gone", r.Payload == nil, true)
		s.equal("erased", r.Erased, true)
		s.equal("steps", r.Steps, 4)
		s.equal("who erased", r.Trail[3].By, "operator")
		s.equal("id", r.ID != "", true)
	}
	if r := s.get(queued.Key); r.Payload == nil || r.Erased {
		s.Fatal("the payload of an unsettled event was erased")
	}
	again, err := s.Accept(s.Context(), done)
	s.no(err)
	s.equal("deliveries of an erased event", again, 2)
	s.equal("payload is gone", s.get(done.Key).Payload == nil, true)
}

func testRetention(s *suite) {
	short := retention()
	short.Events, short.Bodies = 2*time.Second, 200*time.Millisecond
	for _, state := range []webhook.State{webhook.Done, webhook.Dead} {
		a := s.accept(func(a *webhook.Arrival) { a.Retention = short })
		end := settlement(state)
		end.Retention = short
		s.no(s.Settle(s.Context(), s.take(a.Key).Ticket, end))
		sawBodyGone := false
		for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) { // the store has no signal
			r, err := s.Get(s.Context(), webhook.Lookup{Key: a.Key})
			if err != nil {
				s.is(err, webhook.ErrNotFound)
				break
			}
			sawBodyGone = sawBodyGone || r.Payload == nil
			if time.Now().After(deadline) {
				s.Fatalf("a %s event is kept for more than %v; want %v", state, patience, short.Events)
			}
		}
		s.equal("the body of a "+string(state)+" event went first", sawBodyGone, state != webhook.Dead)
		s.equal("events found", len(s.find(webhook.Filter{}, 10)), 0)
	}
}

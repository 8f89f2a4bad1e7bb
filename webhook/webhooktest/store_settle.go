package webhooktest

import (
	"strconv"
	"time"

	"github.com/idempotent-go/idempotent/webhook"
)

func testSettle(s *suite) {
	for _, state := range []webhook.State{webhook.Done, webhook.Stale, webhook.Skipped, webhook.Dead} {
		a := s.accept(object("order_1"))
		end := settlement(state)
		end.Attempts, end.Cause, end.Reason, end.Changed = 3, webhook.CauseSkip, "no reason", []byte(`{"order":"1"}`)
		end.Step.Attempt, end.Step.Note = 3, "a note"
		t := s.take(a.Key)
		before := time.Now()
		s.no(s.Settle(s.Context(), t.Ticket, end))
		r := s.get(a.Key)
		s.equal("state", r.State, state)
		s.equal("attempts", r.Attempts, 3)
		s.equal("cause", r.Cause, webhook.CauseSkip)
		s.equal("reason", r.Reason, "no reason")
		s.equal("changed", string(r.Changed), `{"order":"1"}`)
		s.equal("applied", r.Applied, state == webhook.Done)
		s.equal("due", r.Due.IsZero(), true)
		if r.SettledAt.Before(before.Add(-time.Minute)) || r.SettledAt.After(time.Now().Add(time.Minute)) {
			s.Fatalf("settled at %v; want about %v", r.SettledAt, before)
		}
		s.equal("steps", r.Steps, 3)
		for i, want := range []webhook.State{webhook.Queued, webhook.Running, state} {
			s.equal("state of step "+strconv.Itoa(i), r.Trail[i].State, want)
			s.equal("process of step "+strconv.Itoa(i), r.Trail[i].By, "host:1")
			s.equal("trace of step "+strconv.Itoa(i), r.Trail[i].TraceID, end.Step.TraceID)
		}
		last := r.Trail[2]
		s.equal("attempt of the last step", last.Attempt, 3)
		s.equal("note of the last step", last.Note, "a note")
		s.sameTime("time of the last step", last.At, end.Step.At)
		s.none()
	}
}

func testRetry(s *suite) {
	a := s.accept(object("order_1"))
	later := settlement(webhook.Retrying)
	later.After, later.Cause, later.Reason = time.Hour, webhook.CauseError, "unavailable"
	s.no(s.Settle(s.Context(), s.take(a.Key).Ticket, later))
	s.none()
	r := s.get(a.Key)
	s.equal("state", r.State, webhook.Retrying)
	if left := time.Until(r.Due); left < 55*time.Minute || left > 65*time.Minute {
		s.Fatalf("due in %v; want about an hour", left)
	}
	b := s.accept(object("order_1"))
	soon := settlement(webhook.Retrying)
	soon.After = 20 * time.Millisecond
	s.no(s.Settle(s.Context(), s.take(b.Key).Ticket, soon))
	t := s.take(b.Key)
	s.equal("attempts", t.Record.Attempts, 1)
	s.equal("attempts before a redrive", t.Record.AttemptsBefore, 0)
	s.no(s.Settle(s.Context(), t.Ticket, settlement(webhook.Done)))
	r = s.get(b.Key)
	s.equal("reason of a retry, after success", r.Reason, "")
	s.equal("cause of a retry, after success", r.Cause, webhook.Cause(""))
}

func testLostTicket(s *suite) {
	a := s.accept()
	t := s.take(a.Key)
	wrong := t.Ticket
	wrong.Token += "x"
	s.is(s.Settle(s.Context(), wrong, settlement(webhook.Dead)), webhook.ErrTicketLost)
	s.equal("state", s.get(a.Key).State, webhook.Running)
	s.no(s.Settle(s.Context(), t.Ticket, settlement(webhook.Done)))
	s.is(s.Settle(s.Context(), t.Ticket, settlement(webhook.Dead)), webhook.ErrTicketLost)
	r := s.get(a.Key)
	s.equal("state", r.State, webhook.Done)
	s.equal("steps", r.Steps, 3)
	unknown := webhook.Ticket{Ref: webhook.Ref{Key: "unknown", Source: "shop"}, Token: t.Token}
	s.is(s.Settle(s.Context(), unknown, settlement(webhook.Dead)), webhook.ErrTicketLost)
}

func testParked(s *suite) {
	park := settlement(webhook.Parked)
	park.After, park.ParkedUntil, park.Cause, park.WaitsFor = time.Hour, time.Now().Add(time.Hour), webhook.CauseAhead, "authorized"
	var parked []webhook.Arrival
	for _, o := range []string{"order_1", "order_1", "order_10"} { // order_1 is the beginning of order_10
		a := s.accept(object(o))
		s.no(s.Settle(s.Context(), s.take(a.Key).Ticket, park))
		parked = append(parked, a)
	}
	s.none()
	r := s.get(parked[0].Key)
	s.equal("state", r.State, webhook.Parked)
	s.equal("waits for", r.WaitsFor, "authorized")
	s.sameTime("parked until", r.ParkedUntil, park.ParkedUntil)

	still := s.accept(object("order_1"))
	s.no(s.Settle(s.Context(), s.take(still.Key).Ticket, settlement(webhook.Done)))
	s.none() // nothing moved

	moves := s.accept(object("order_1"))
	t := s.take(moves.Key)
	s.equal("positions before the first move", len(t.Positions), 0)
	done := settlement(webhook.Done)
	done.Move = &webhook.Move{Order: "payment", Position: "authorized"}
	s.no(s.Settle(s.Context(), t.Ticket, done))

	t = s.take(parked[0].Key)
	s.equal("position", t.Positions["payment"], "authorized")
	s.sameTime("parked until", t.Record.ParkedUntil, park.ParkedUntil)
	s.no(s.Settle(s.Context(), t.Ticket, park)) // and waits again
	t = s.take(parked[1].Key)
	done.Move = &webhook.Move{Order: "shipping", Position: "sent"}
	s.no(s.Settle(s.Context(), t.Ticket, done))

	t = s.take(parked[0].Key)
	s.equal("position of one order", t.Positions["payment"], "authorized")
	s.equal("position of another order", t.Positions["shipping"], "sent")
	s.no(s.Settle(s.Context(), t.Ticket, settlement(webhook.Done)))
	r = s.get(parked[0].Key)
	s.equal("parked until, after success", r.ParkedUntil.IsZero(), true)
	s.equal("waits for, after success", r.WaitsFor, "")
	s.none()
	s.equal("state of the other object's event", s.get(parked[2].Key).State, webhook.Parked)

	soon := s.accept()
	park.After = 20 * time.Millisecond
	s.no(s.Settle(s.Context(), s.take(soon.Key).Ticket, park))
	s.take(soon.Key) // at the end of its time
}

func testTrail(s *suite) {
	a := s.accept()
	const rounds = webhook.MaxSteps
	for i := range rounds {
		retry := settlement(webhook.Retrying)
		retry.Step.Note = strconv.Itoa(i)
		s.no(s.Settle(s.Context(), s.take(a.Key).Ticket, retry))
	}
	r := s.get(a.Key)
	s.equal("steps", r.Steps, 2*rounds+1)
	s.equal("steps kept", len(r.Trail), webhook.MaxSteps)
	s.equal("note of the last step", r.Trail[len(r.Trail)-1].Note, strconv.Itoa(rounds-1))
	s.equal("state before the last step", r.Trail[len(r.Trail)-2].State, webhook.Running)
}

func testBacklog(s *suite) {
	later := settlement(webhook.Retrying)
	later.After = time.Hour
	parked := settlement(webhook.Parked)
	parked.After = time.Hour
	for i, end := range []webhook.Settlement{later, later, parked, settlement(webhook.Dead), settlement(webhook.Done)} {
		a := s.accept(object("order_" + strconv.Itoa(i)))
		s.no(s.Settle(s.Context(), s.take(a.Key).Ticket, end))
	}
	b, err := s.Backlog(s.Context())
	s.no(err)
	s.equal("oldest due, with nothing due", b.OldestDue, time.Duration(0))
	s.take(s.accept().Key)
	waits := s.accept()
	s.accept()
	if b, err = s.Backlog(s.Context()); err != nil {
		s.Fatal(err)
	}
	s.equal("queued", b.Queued, int64(2))
	s.equal("running", b.Running, int64(1))
	s.equal("retrying", b.Retrying, int64(2))
	s.equal("parked", b.Parked, int64(1))
	s.equal("dead", b.Dead, int64(1))
	s.equal("unsettled", b.Unsettled(), int64(6))
	var lanes int64
	for _, n := range b.Lanes {
		lanes += n
	}
	s.equal("unsettled in all lanes", lanes, int64(6))
	if age := time.Since(waits.Receipt.At); b.OldestDue <= 0 || b.OldestDue > age+time.Second {
		s.Fatalf("oldest due: %v; want up to %v", b.OldestDue, age)
	}
}

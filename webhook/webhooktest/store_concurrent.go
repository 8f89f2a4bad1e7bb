package webhooktest

import (
	"errors"
	"sync"
	"sync/atomic"

	"github.com/idempotent-go/idempotent/webhook"
)

// Many workers take and settle the events of one object. At no time do two of them have one.
func testConcurrentObject(s *suite) {
	const events = 40
	for range events {
		s.accept(object("order_1"))
	}
	var inside, settled atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for settled.Load() < events {
				taken, err := s.Take(s.Context(), 3, lease, step(webhook.Running))
				if err != nil {
					s.Error(err)
					return
				}
				for _, t := range taken {
					if n := inside.Add(1); n > 1 {
						s.Errorf("%d events of one object are taken at a time", n)
					}
					if _, err := s.Get(s.Context(), webhook.Lookup{Key: t.Key}); err != nil { // takes a while
						s.Error(err)
					}
					inside.Add(-1)
					if err := s.Settle(s.Context(), t.Ticket, settlement(webhook.Done)); err != nil {
						s.Error(err)
						return
					}
					settled.Add(1)
				}
			}
		})
	}
	wg.Wait()
	s.equal("events settled", settled.Load(), int64(events))
}

func testConcurrentSettle(s *suite) {
	a := s.accept(object("order_1"))
	t := s.take(a.Key)
	var accepted atomic.Int64
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			switch err := s.Settle(s.Context(), t.Ticket, settlement(webhook.Done)); {
			case err == nil:
				accepted.Add(1)
			case !errors.Is(err, webhook.ErrTicketLost):
				s.Error(err)
			}
		})
	}
	wg.Wait()
	s.equal("settlements accepted", accepted.Load(), int64(1))
	s.equal("steps", s.get(a.Key).Steps, 3)
}

func testConcurrentRedrive(s *suite) {
	var dead []webhook.Ref
	for range 20 {
		a := s.settled(webhook.Dead)
		dead = append(dead, a.Ref())
	}
	var queued atomic.Int64
	var wg sync.WaitGroup
	for range 5 {
		wg.Go(func() {
			n, err := s.Redrive(s.Context(), dead, requeue("monday"))
			if err != nil {
				s.Error(err)
			}
			queued.Add(int64(n))
		})
	}
	wg.Wait()
	s.equal("events queued by all callers", queued.Load(), int64(len(dead)))
	for _, ref := range dead {
		s.equal("redrives of "+ref.Key, s.get(ref.Key).Redrives, 1)
	}
}

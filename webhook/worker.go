package webhook

import (
	"context"
	"errors"
	"sync"
	"time"
)

// Work handles events until ctx ends. Then it takes no more, waits for the handlers that run, and returns nil. It returns
// an error at once if the Inbox is closed or Work runs already. Errors of the store are logged and retried.
func (in *Inbox) Work(ctx context.Context) error {
	if in.closed.Load() {
		return errClosed
	}
	if in.working.Swap(true) {
		return errors.New("webhook: Work runs already; allowed: once in each Inbox")
	}
	defer in.working.Store(false)
	w := &worker{Inbox: in, slots: make(chan struct{}, in.cfg.workers), running: map[Ticket]context.CancelCauseFunc{}}
	extending, stop := context.WithCancel(context.WithoutCancel(ctx))
	var extender sync.WaitGroup
	extender.Go(func() { w.extend(extending) })
	w.dispatch(ctx)
	w.handlers.Wait()
	stop()
	extender.Wait()
	return nil
}

// A worker is one call of Work.
type worker struct {
	*Inbox
	slots    chan struct{} // one for each handler that may run
	handlers sync.WaitGroup

	mu      sync.Mutex
	running map[Ticket]context.CancelCauseFunc
}

// dispatch takes events as long as there are free slots, and runs each in a goroutine, until ctx ends.
func (w *worker) dispatch(ctx context.Context) {
	poll := time.NewTicker(w.cfg.poll)
	defer poll.Stop()
	for {
		select { // a free slot
		case <-ctx.Done():
			return
		case w.slots <- struct{}{}:
		}
		free := 1
		for free < cap(w.slots) && w.claimSlot() {
			free++
		}
		taken := w.take(ctx, free)
		for _, t := range taken {
			w.start(ctx, t)
		}
		for range free - len(taken) {
			<-w.slots
		}
		if len(taken) == free {
			continue // there may be more
		}
		select {
		case <-ctx.Done():
			return
		case <-w.wake:
		case <-poll.C:
		}
	}
}

func (w *worker) claimSlot() bool {
	select {
	case w.slots <- struct{}{}:
		return true
	default:
		return false
	}
}

func (w *worker) take(ctx context.Context, n int) []Taken {
	taken, err := w.store.Take(ctx, n, w.cfg.lease, w.step(Running, "", 0, ""))
	if err != nil && ctx.Err() == nil {
		w.report.logger.ErrorContext(ctx, "webhook: no events from the store", "error", storeErrorText(err))
	}
	return taken
}

// start handles an event in a goroutine. Its context does not end with Work's: what has begun is finished.
func (w *worker) start(ctx context.Context, t Taken) {
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	w.mu.Lock()
	w.running[t.Ticket] = cancel
	w.mu.Unlock()
	w.handlers.Go(func() {
		defer func() {
			w.mu.Lock()
			delete(w.running, t.Ticket)
			w.mu.Unlock()
			cancel(nil)
			<-w.slots
			w.signal() // another event of the object may be due
		}()
		w.handle(ctx, &t)
	})
}

// extend renews the leases of all running events, and cancels those that are lost, until ctx ends.
func (w *worker) extend(ctx context.Context) {
	tick := time.NewTicker(w.cfg.lease / 3)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		w.mu.Lock()
		tickets := make([]Ticket, 0, len(w.running))
		for t := range w.running {
			tickets = append(tickets, t)
		}
		w.mu.Unlock()
		if len(tickets) == 0 {
			continue
		}
		// A renewal that takes longer than to the next one is given up.
		sending, cancel := context.WithTimeout(ctx, w.cfg.lease/3)
		lost, err := w.store.Extend(sending, tickets, w.cfg.lease)
		cancel()
		if err != nil && ctx.Err() == nil {
			w.report.logger.ErrorContext(ctx, "webhook: leases not renewed", "events", len(tickets), "error", storeErrorText(err))
		}
		w.mu.Lock()
		for _, t := range lost {
			if stop := w.running[t]; stop != nil { // not settled meanwhile
				stop(ErrTicketLost)
			}
		}
		w.mu.Unlock()
	}
}

// Package release gives keys back that were claimed and given up: a claim whose reply was lost, or
// came after its caller had left. It owns the queue of these keys and the goroutine that empties it.
// It never decides what is released, and never touches a record that is not the given-up claim's.
package release

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/idempotent-go/idempotent/internal/backoff"
	"github.com/idempotent-go/idempotent/internal/rediserr"
	"github.com/idempotent-go/idempotent/internal/store"
)

const (
	// Limit is how many keys may wait for their release. Beyond it the executor claims no more, so
	// that an outage fills no memory and nothing has to be dropped.
	Limit = 1 << 16
	// batchLimit is how many releases share a pipeline.
	batchLimit = 500
	// firstPause and longestPause bound the time between two tries of one release.
	firstPause   = 20 * time.Millisecond
	longestPause = time.Second
)

// A Queue releases keys in the background, in pipelines, until Redis has answered for each.
type Queue struct {
	store  *store.Store
	linger time.Duration
	logger *slog.Logger

	mu      sync.Mutex
	entries []*entry        // neither sent at the moment nor settled
	sending map[string]bool // servers that a pipeline is in flight to
	pending int             // entries, and those in flight
	running bool
	closed  bool
	wake    chan struct{}
	quit    chan struct{} // closed by Close
	all     sync.WaitGroup
}

type entry struct {
	store.Release
	doubtful bool      // the claim may still arrive
	due      time.Time // when to send it next
	answered time.Time // when Redis first answered
	pause    backoff.Backoff
}

// New returns a queue without a goroutine; the first Add starts one. A claim of unknown fate may
// arrive after its release did, when both wait in buffers of a server that was stalled. Its release is
// therefore repeated until linger, one lease, has passed since Redis first answered.
func New(s *store.Store, linger time.Duration, logger *slog.Logger) *Queue {
	return &Queue{
		store: s, linger: linger, logger: logger,
		sending: make(map[string]bool),
		wake:    make(chan struct{}, 1),
		quit:    make(chan struct{}),
	}
}

// Add queues a release. doubtful says that it is not known whether the claim arrived, or will.
func (q *Queue) Add(r store.Release, doubtful bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.pending++
	q.entries = append(q.entries, &entry{
		Release: r, doubtful: doubtful,
		pause: backoff.Backoff{First: firstPause, Limit: longestPause},
	})
	q.start()
}

// start wakes the goroutine, or starts it. The caller holds the mutex.
func (q *Queue) start() {
	if !q.running {
		q.running = true
		q.all.Go(q.run)
		return
	}
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// Full reports whether no further claim should be made until Redis has answered for earlier ones.
func (q *Queue) Full() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.pending >= Limit
}

// Close sends each release once more and returns when that is done, or when ctx ends. What Redis has
// not answered for by then is left to its lease.
func (q *Queue) Close(ctx context.Context) {
	q.mu.Lock()
	if !q.closed {
		q.closed = true
		close(q.quit)
	}
	q.mu.Unlock()
	done := make(chan struct{})
	go func() {
		q.all.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// run sends what is due until nothing is left. It is the only one that starts pipelines.
func (q *Queue) run() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		due, next, over := q.take(time.Now())
		if over {
			return
		}
		for address, batch := range due {
			q.all.Go(func() { q.send(address, batch) })
		}
		timer.Reset(next)
		select {
		case <-timer.C:
		case <-q.wake:
		case <-q.quit:
			q.last()
			return
		}
	}
}

// last sends everything once more, whenever it would be due.
func (q *Queue) last() {
	q.mu.Lock()
	left := q.entries
	q.entries, q.running = nil, false
	q.mu.Unlock()
	for address, batch := range q.byServer(left) {
		for part := range slices.Chunk(batch, batchLimit) {
			q.all.Go(func() { q.send(address, part) })
		}
	}
}

// take removes what is due, by server, from the queue. next is when something else will be. over says
// that the queue is empty; the goroutine ends then.
func (q *Queue) take(now time.Time) (due map[string][]*entry, next time.Duration, over bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.pending == 0 {
		q.running = false
		return nil, 0, true
	}
	due = q.byServer(q.entries)
	q.entries, next = nil, longestPause
	for address, all := range due {
		ready := all[:0:0]
		for _, e := range all {
			if e.due.After(now) || q.sending[address] || len(ready) == batchLimit {
				q.entries = append(q.entries, e)
				if !q.sending[address] {
					next = min(next, max(e.due.Sub(now), 0))
				}
				continue
			}
			ready = append(ready, e)
		}
		if len(ready) == batchLimit {
			next = longestPause // the pipeline wakes the goroutine when it is done
		}
		if due[address] = ready; len(ready) == 0 {
			delete(due, address)
			continue
		}
		q.sending[address] = true
	}
	return due, next, false
}

func (q *Queue) byServer(entries []*entry) map[string][]*entry {
	servers := make(map[string][]*entry)
	for _, e := range entries {
		address, _, _ := q.store.Node(context.Background(), e.Name)
		servers[address] = append(servers[address], e)
	}
	return servers
}

// send releases a batch, and puts back what has to be sent again.
func (q *Queue) send(address string, batch []*entry) {
	returned := false
	defer func() { q.finish(address, batch, returned) }() // also if a hook of the client ends the goroutine
	releases := make([]*store.Release, len(batch))
	for i, e := range batch {
		releases[i] = &e.Release
	}
	q.store.ReleaseMany(context.Background(), releases)
	returned = true
}

func (q *Queue) finish(address string, batch []*entry, returned bool) {
	now := time.Now()
	var failed error
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.sending, address)
	for _, e := range batch {
		if e.Err != nil {
			failed = e.Err
		}
		if q.closed || q.settled(e, now, returned) {
			q.pending--
			continue
		}
		e.due = now.Add(q.pauseOf(e, now))
		q.entries = append(q.entries, e)
	}
	if q.closed {
		return
	}
	q.start()
	if failed != nil {
		q.logger.Debug("idempotent: releases failed, trying again", "releases", len(batch), "error", rediserr.Text(failed))
	}
}

// settled reports whether a release need not be sent again. A claim that it found may have been sent
// twice, since go-redis retries by itself, so that finding it settles nothing.
func (q *Queue) settled(e *entry, now time.Time, returned bool) bool {
	if !returned || e.Err != nil {
		return false
	}
	if e.answered.IsZero() {
		e.answered = now
	}
	return !e.doubtful || now.Sub(e.answered) >= q.linger
}

// pauseOf backs off while Redis does not answer. After that, a claim that has not arrived for some time
// is looked for after the same time again: most come at once, when a server wakes up.
func (q *Queue) pauseOf(e *entry, now time.Time) time.Duration {
	if e.Err != nil || e.answered.IsZero() {
		return e.pause.Next()
	}
	return max(firstPause, min(now.Sub(e.answered), q.linger-now.Sub(e.answered)))
}

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
	entries []*entry // neither sent at the moment nor settled
	servers map[string]*server
	pending int // entries, and those in flight
	running bool
	closed  bool
	wake    chan struct{}
	quit    chan struct{} // closed by Close
	all     sync.WaitGroup
}

type entry struct {
	store.Release
	doubtful bool      // the claim may still arrive
	due      time.Time // when to send it next, if the server answers by then
	answered time.Time // when Redis first answered
}

// A server gets one pipeline at a time. While it fails, all its releases wait for the same retry:
// retries of their own would keep it busy with many small pipelines.
type server struct {
	sending bool
	retry   time.Time // no pipeline before then
	pause   backoff.Backoff
}

// New returns a queue without a goroutine; the first Add starts one. A claim of unknown fate may
// arrive after its release did, when both wait in buffers of a server that was stalled. Its release is
// therefore repeated until linger, one lease, has passed since Redis first answered.
func New(s *store.Store, linger time.Duration, logger *slog.Logger) *Queue {
	return &Queue{
		store: s, linger: linger, logger: logger,
		servers: make(map[string]*server),
		wake:    make(chan struct{}, 1),
		quit:    make(chan struct{}),
	}
}

// Add queues a release. doubtful says that it is not known whether the claim arrived, or will.
func (q *Queue) Add(r store.Release, doubtful bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.pending++
	q.entries = append(q.entries, &entry{Release: r, doubtful: doubtful})
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
		clear(q.servers)
		return nil, 0, true
	}
	due, next = make(map[string][]*entry), longestPause
	waiting := q.byServer(q.entries)
	q.entries = nil
	for address, entries := range waiting {
		to := q.server(address)
		ready, later, wait := to.ready(entries, now)
		q.entries = append(q.entries, later...)
		next = min(next, wait)
		if len(ready) > 0 {
			due[address], to.sending = ready, true
		}
	}
	return due, next, false
}

// server returns the state of one server. The caller holds the mutex.
func (q *Queue) server(address string) *server {
	s, ok := q.servers[address]
	if !ok {
		s = &server{pause: backoff.Backoff{First: firstPause, Limit: longestPause}}
		q.servers[address] = s
	}
	return s
}

// ready divides what waits for a server into what to send now and the rest, and returns how long the
// rest has to wait. A pipeline wakes the goroutine when it is done.
func (s *server) ready(entries []*entry, now time.Time) (ready, later []*entry, wait time.Duration) {
	wait = longestPause
	if s.sending {
		return nil, entries, wait
	}
	if s.retry.After(now) {
		return nil, entries, s.retry.Sub(now)
	}
	for _, e := range entries {
		switch {
		case len(ready) == batchLimit:
			later = append(later, e)
		case e.due.After(now):
			later = append(later, e)
			wait = min(wait, e.due.Sub(now))
		default:
			ready = append(ready, e)
		}
	}
	return ready, later, wait
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
	n, err := failures(batch)
	answered := returned && n < len(batch)
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, e := range batch {
		if q.closed || q.settled(e, now, returned) {
			q.pending--
			continue
		}
		if answered {
			e.due = now.Add(q.pauseOf(e, now))
		}
		q.entries = append(q.entries, e)
	}
	q.server(address).sent(now, answered)
	if q.closed {
		return
	}
	q.start()
	if err != nil {
		q.logger.Debug("idempotent: releases failed, trying again", "releases", n, "error", rediserr.Text(err))
	}
}

// failures returns how many releases of a batch failed, and the error of one.
func failures(batch []*entry) (n int, err error) {
	for _, e := range batch {
		if e.Err != nil {
			n, err = n+1, e.Err
		}
	}
	return n, err
}

// sent takes note of the end of a pipeline.
func (s *server) sent(now time.Time, answered bool) {
	s.sending, s.retry = false, time.Time{}
	if answered {
		s.pause.Reset()
		return
	}
	s.retry = now.Add(s.pause.Next())
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

// pauseOf is when to send a release again to a server that answers. A claim that has not arrived for
// some time is looked for after the same time again: most come at once, when a server wakes up. A key
// that the server refuses does not hold up the others.
func (q *Queue) pauseOf(e *entry, now time.Time) time.Duration {
	if e.Err != nil {
		return longestPause
	}
	return max(firstPause, min(now.Sub(e.answered), q.linger-now.Sub(e.answered)))
}

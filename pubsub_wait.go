package idempotent

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// A hub owns the executor's subscriptions. Every operation that is waited for is a topic; a link
// is one subscription connection: one in all, or one for each master of a Cluster or shard of a Ring. Lock order: hub.mu
// is the only lock, and is never held across a call to Redis.
type hub struct {
	store   *store
	sharded bool // SSUBSCRIBE, on Cluster
	logger  *slog.Logger
	ctx     context.Context // ends with close
	stop    context.CancelFunc
	done    sync.WaitGroup

	mu     sync.Mutex
	topics map[string]*topic
	links  map[string]*link // by the address of the server; "" when there is one in all
}

// A topic is an operation that somebody waits for.
type topic struct {
	waiters   map[*waiter]struct{}
	link      *link
	confirmed bool // the server confirmed the subscription, and the connection stood since
}

// A waiter is one wait. wake says that there is something to take.
type waiter struct {
	name string
	wake chan struct{}

	// Guarded by hub.mu.
	message []byte // the latest, nil if there is none but a read is due
}

func newHub(s *store, logger *slog.Logger) *hub {
	ctx, stop := context.WithCancel(context.Background())
	return &hub{
		store:   s,
		sharded: s.publish == "SPUBLISH",
		logger:  logger,
		ctx:     ctx,
		stop:    stop,
		topics:  make(map[string]*topic),
		links:   make(map[string]*link),
	}
}

// watch begins a wait. The waiter is woken once the subscription stands, again each time it had
// to be made anew, and by every message.
func (h *hub) watch(ctx context.Context, name string) *waiter {
	address, node := h.route(ctx, name)
	h.mu.Lock()
	defer h.mu.Unlock()
	w := &waiter{name: name, wake: make(chan struct{}, 1)}
	t := h.topics[name]
	if t == nil {
		t = &topic{waiters: make(map[*waiter]struct{})}
		h.topics[name] = t
		h.attach(name, t, address, node)
	}
	t.waiters[w] = struct{}{}
	if t.confirmed {
		w.wake <- struct{}{}
	}
	return w
}

// unwatch ends a wait; the last one of a topic drops the channel.
func (h *hub) unwatch(w *waiter) {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.topics[w.name]
	delete(t.waiters, w)
	if len(t.waiters) > 0 {
		return
	}
	delete(h.topics, w.name)
	delete(t.link.wanted, w.name)
	t.link.change(w.name)
}

// take returns the message that woke w, nil when it should read, and whether the subscription
// stands.
func (h *hub) take(w *waiter) (message []byte, confirmed bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	message, w.message = w.message, nil
	return message, h.topics[w.name].confirmed
}

func (h *hub) close() {
	h.stop()
	h.done.Wait()
}

// route finds the connection a channel belongs on. While nobody can say, that is a link without
// a server, from which regroup takes the channel away again.
func (h *hub) route(ctx context.Context, name string) (address string, node redis.UniversalClient) {
	address, node, err := h.store.node(ctx, name)
	if err != nil {
		return "", nil
	}
	return address, node
}

// attach puts a topic on its link, which it makes if need be. The caller holds the mutex.
func (h *hub) attach(name string, t *topic, address string, node redis.UniversalClient) {
	l := h.links[address]
	if l == nil {
		l = &link{
			hub: h, address: address, node: node,
			wanted: make(map[string]struct{}), dropped: make(map[string]int), changed: make(chan struct{}, 1),
		}
		h.links[address] = l
		h.done.Go(l.run)
	}
	t.link, t.confirmed = l, false
	l.wanted[name] = struct{}{}
	l.change(name)
}

// confirm wakes those who wait for a channel whose subscription stands now.
func (h *hub) confirm(name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if t := h.topics[name]; t != nil {
		t.confirmed = true
		for w := range t.waiters {
			w.notify()
		}
	}
}

// deliver hands a message to those who wait for it. A later message takes the place of one not
// taken yet: it knows more.
func (h *hub) deliver(name string, message []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if t := h.topics[name]; t != nil {
		for w := range t.waiters {
			w.message = message
			w.notify()
		}
	}
}

func (w *waiter) notify() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// A link is one subscription connection. Its goroutine (run) subscribes and unsubscribes; a
// second one (receive) reads, and never sends a command.
type link struct {
	hub     *hub
	address string
	node    redis.UniversalClient // nil when no server is known; run's goroutine owns it

	// Guarded by hub.mu.
	wanted  map[string]struct{}
	dropped map[string]int // unsubscribed from, and the server has not said so yet
	pending []string       // names that were wanted, or are not any more
	changed chan struct{}
}

const (
	healthInterval = 3 * time.Second
	maxLinkBackoff = 2 * time.Second
)

// change notes that name is wanted now, or not any more. The caller holds the mutex.
func (l *link) change(name string) {
	l.pending = append(l.pending, name)
	select {
	case l.changed <- struct{}{}:
	default:
	}
}

// run keeps the connection until the hub is closed or, after a failure, nothing is wanted of this
// server any more.
func (l *link) run() {
	pause := backoff{first: 10 * time.Millisecond, limit: maxLinkBackoff}
	for {
		began := time.Now()
		err := l.session()
		if l.hub.ctx.Err() != nil {
			return
		}
		l.unconfirm()
		l.hub.logger.Warn("idempotent: subscription lost, waiters read until it is back", "error", err.Error())
		if time.Since(began) > maxLinkBackoff {
			pause.reset()
		}
		select {
		case <-l.hub.ctx.Done():
			return
		case <-time.After(pause.next()):
		}
		if !l.regroup() {
			return
		}
	}
}

// session is one connection, from its making to its loss or the close of the hub.
func (l *link) session() error {
	if l.node == nil {
		return errNoServer
	}
	ctx := l.hub.ctx
	var ps *redis.PubSub
	if l.hub.sharded {
		ps = l.node.SSubscribe(ctx)
	} else {
		ps = l.node.Subscribe(ctx)
	}
	r := &receiver{link: l, failed: make(chan error, 1)}
	var reading sync.WaitGroup
	defer reading.Wait()
	defer ps.Close()

	have := make(map[string]struct{})
	l.resubscribe()
	health := time.NewTimer(healthInterval)
	defer health.Stop()
	pinged := false
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-r.failed:
			return err
		case <-l.changed:
			add, drop := l.diff(have)
			if err := l.subscribe(ctx, ps, add, drop); err != nil {
				return err
			}
			if !r.started && len(add) > 0 {
				r.started = true
				reading.Go(func() { r.receive(ctx, ps) })
			}
			continue
		case <-health.C:
		}
		health.Reset(healthInterval)
		heard := r.heard()
		switch {
		case heard || len(have) == 0:
			pinged = false
		case pinged:
			return errSilent
		default:
			pinged = true
			if err := ps.Ping(ctx); err != nil {
				return err
			}
		}
	}
}

// resubscribe makes everything wanted pending, for a new connection.
func (l *link) resubscribe() {
	l.hub.mu.Lock()
	defer l.hub.mu.Unlock()
	clear(l.dropped)
	l.pending = l.pending[:0]
	for name := range l.wanted {
		l.change(name)
	}
}

// diff takes the pending names and brings have up to what is wanted.
func (l *link) diff(have map[string]struct{}) (add, drop []string) {
	l.hub.mu.Lock()
	defer l.hub.mu.Unlock()
	for _, name := range l.pending {
		_, wanted := l.wanted[name]
		_, held := have[name]
		switch {
		case wanted && !held:
			have[name] = struct{}{}
			add = append(add, name)
		case !wanted && held:
			delete(have, name)
			l.dropped[name]++
			drop = append(drop, name)
		case wanted && held && !l.hub.topics[name].confirmed:
			// Dropped and wanted again before this goroutine came to it: the subscription stands.
			add = append(add, name)
		}
	}
	l.pending = l.pending[:0]
	return add, drop
}

// subscribe sends the changes. Sharded channels go one by one: a command may hold one slot only.
func (l *link) subscribe(ctx context.Context, ps *redis.PubSub, add, drop []string) error {
	if !l.hub.sharded {
		if len(add) > 0 {
			if err := ps.Subscribe(ctx, add...); err != nil {
				return err
			}
		}
		if len(drop) > 0 {
			return ps.Unsubscribe(ctx, drop...)
		}
		return nil
	}
	for _, name := range add {
		if err := ps.SSubscribe(ctx, name); err != nil {
			return err
		}
	}
	for _, name := range drop {
		if err := ps.SUnsubscribe(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

// regroup marks the link's topics unconfirmed and moves those that belong on another server by
// now. It reports whether the link goes on.
func (l *link) regroup() bool {
	type place struct {
		address string
		node    redis.UniversalClient
	}
	places := make(map[string]place)
	for _, name := range l.unconfirm() {
		address, node := l.hub.route(l.hub.ctx, name)
		places[name] = place{address, node}
	}
	l.hub.mu.Lock()
	defer l.hub.mu.Unlock()
	for name, p := range places {
		t := l.hub.topics[name]
		switch {
		case t == nil || t.link != l:
		case p.address == l.address:
			l.node = p.node
		default:
			delete(l.wanted, name)
			l.hub.attach(name, t, p.address, p.node)
		}
	}
	if len(l.wanted) == 0 {
		delete(l.hub.links, l.address)
		return false
	}
	return true
}

// unconfirm lets everybody know that the subscription does not stand, and returns the names.
func (l *link) unconfirm() (names []string) {
	l.hub.mu.Lock()
	defer l.hub.mu.Unlock()
	for name := range l.wanted {
		names = append(names, name)
		t := l.hub.topics[name]
		t.confirmed = false
		for w := range t.waiters {
			w.notify()
		}
	}
	return names
}

// unsubscribed reports whether the server's word that it dropped a channel was asked for. On a
// Cluster it drops those whose slot moves away.
func (l *link) unsubscribed(name string) (asked bool) {
	l.hub.mu.Lock()
	defer l.hub.mu.Unlock()
	if l.dropped[name] == 0 {
		return false
	}
	l.dropped[name]--
	if l.dropped[name] == 0 {
		delete(l.dropped, name)
	}
	return true
}

// Package pubsub owns the subscriptions through which waiters are woken: which channel is on which
// connection, and whether that connection delivers. It never reads a record and never decides what a
// message means. A wake-up is a hint: waiters read when they are not sure.
package pubsub

import (
	"context"
	"log/slog"
	"slices"
	"sync"

	"github.com/redis/go-redis/v9"

	"github.com/idempotent-go/idempotent/internal/topology"
)

// A Hub owns the subscriptions of one executor. Each operation that is waited for has a channel; all
// channels share one connection or, on a Cluster or a Ring, one for each server. Lock order: mu is the
// only lock, and is never held across a call to Redis.
type Hub struct {
	servers *topology.Servers
	sharded bool // SSUBSCRIBE, on a Cluster
	logger  *slog.Logger
	ctx     context.Context // ends with Close
	stop    context.CancelFunc
	done    sync.WaitGroup

	mu       sync.Mutex
	channels map[string]*channel
	conns    map[string]*conn // by the address of the server; "" if there is one server
}

// A channel is that of an operation with waiters.
type channel struct {
	waiters   []*Waiter // usually one, because callers in one process follow each other
	conn      *conn
	confirmed bool // the server confirmed the subscription, and the connection has not failed since
}

// A Waiter is one wait for a channel. Wake receives when there is something to take or to read.
type Waiter struct {
	name string
	Wake chan struct{}

	// Guarded by Hub.mu.
	index   int    // in the channel
	message []byte // the latest, nil if a read is due instead
}

// NewHub returns a Hub without connections: the first Watch makes one.
func NewHub(s *topology.Servers, sharded bool, logger *slog.Logger) *Hub {
	ctx, stop := context.WithCancel(context.Background())
	return &Hub{
		servers:  s,
		sharded:  sharded,
		logger:   logger,
		ctx:      ctx,
		stop:     stop,
		channels: make(map[string]*channel),
		conns:    make(map[string]*conn),
	}
}

// Watch starts a wait. The waiter is woken when its subscription is confirmed, because what was
// published before is lost; again whenever it is lost or restored; and by every message.
func (h *Hub) Watch(ctx context.Context, name string) *Waiter {
	address, node := h.route(ctx, name)
	h.mu.Lock()
	defer h.mu.Unlock()
	w := &Waiter{name: name, Wake: make(chan struct{}, 1)}
	ch := h.channels[name]
	if ch == nil {
		ch = &channel{}
		h.channels[name] = ch
		h.attach(name, ch, address, node)
	}
	w.index = len(ch.waiters)
	ch.waiters = append(ch.waiters, w)
	if ch.confirmed {
		w.Wake <- struct{}{}
	}
	return w
}

// Unwatch ends a wait. The last one of a channel unsubscribes.
func (h *Hub) Unwatch(w *Waiter) {
	h.mu.Lock()
	defer h.mu.Unlock()
	ch := h.channels[w.name]
	last := ch.waiters[len(ch.waiters)-1]
	ch.waiters[w.index], last.index = last, w.index
	ch.waiters = slices.Delete(ch.waiters, len(ch.waiters)-1, len(ch.waiters))
	if len(ch.waiters) > 0 {
		return
	}
	delete(h.channels, w.name)
	delete(ch.conn.wanted, w.name)
	ch.conn.change(w.name)
}

// Take returns the message that woke w, nil if it must read instead, and whether its subscription is
// confirmed. While it is not, messages may be lost and the waiter must poll.
func (h *Hub) Take(w *Waiter) (message []byte, confirmed bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	message, w.message = w.message, nil
	return message, h.channels[w.name].confirmed
}

// Close ends all connections and returns when their goroutines have ended.
func (h *Hub) Close() {
	h.stop()
	h.done.Wait()
}

// route returns the server that a channel belongs on. While that is unknown, the channel goes on a
// connection without a server, which moves it as soon as its server is known.
func (h *Hub) route(ctx context.Context, name string) (address string, node redis.UniversalClient) {
	address, node, err := h.servers.Node(ctx, name)
	if err != nil {
		return "", nil
	}
	return address, node
}

// attach puts a channel on the connection to address, which it makes if there is none. The caller
// holds the mutex.
func (h *Hub) attach(name string, ch *channel, address string, node redis.UniversalClient) {
	c := h.conns[address]
	if c == nil {
		c = &conn{
			hub: h, address: address, node: node,
			wanted: make(map[string]struct{}), dropped: make(map[string]int), changed: make(chan struct{}, 1),
		}
		h.conns[address] = c
		h.done.Go(c.run)
	}
	ch.conn, ch.confirmed = c, false
	c.wanted[name] = struct{}{}
	c.change(name)
}

// confirm wakes the waiters of a channel whose subscription c has confirmed. A connection that the
// channel has left in the meantime does not count.
func (h *Hub) confirm(name string, c *conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if ch := h.channels[name]; ch != nil && ch.conn == c {
		ch.confirmed = true
		ch.wake()
	}
}

// deliver hands a message to the waiters of its channel. It replaces one that was not taken yet,
// because the later message knows more.
func (h *Hub) deliver(name string, message []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if ch := h.channels[name]; ch != nil {
		for _, w := range ch.waiters {
			w.message = message
		}
		ch.wake()
	}
}

// invalidate makes the waiters read, and poll until the subscription is confirmed again. The caller
// holds the mutex.
func (ch *channel) invalidate() {
	ch.confirmed = false
	ch.wake()
}

func (ch *channel) wake() {
	for _, w := range ch.waiters {
		select {
		case w.Wake <- struct{}{}:
		default: // it has not looked since the last time
		}
	}
}

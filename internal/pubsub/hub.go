package pubsub

import (
	"context"
	"log/slog"
	"slices"
	"sync"

	"github.com/redis/go-redis/v9"

	"github.com/idempotent-go/idempotent/internal/topology"
)

// A hub owns the executor's subscriptions. Every operation that is waited for is a topic; a link
// is one subscription connection: one in all, or one for each master of a Cluster or shard of a Ring. Lock order: hub.mu
// is the only lock, and is never held across a call to Redis.
type Hub struct {
	servers *topology.Servers
	sharded bool // SSUBSCRIBE, on Cluster
	logger  *slog.Logger
	ctx     context.Context // ends with close
	stop    context.CancelFunc
	done    sync.WaitGroup

	mu       sync.Mutex
	channels map[string]*channel
	conns    map[string]*conn // by the address of the server; "" when there is one in all
}

// A topic is an operation that somebody waits for.
type channel struct {
	waiters    []*Waiter // one, mostly: callers in this process follow each other
	conn       *conn
	confirmed  bool // the server confirmed the subscription, and the connection stood since
	redirected bool // a server said that another one has it, and no server has confirmed it since
}

// A waiter is one wait. wake says that there is something to take.
type Waiter struct {
	name string
	Wake chan struct{}

	// Guarded by hub.mu.
	place   int    // in the topic
	message []byte // the latest, nil if there is none but a read is due
}

func New(s *topology.Servers, sharded bool, logger *slog.Logger) *Hub {
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

// watch begins a wait. The waiter is woken once the subscription stands, again each time it had
// to be made anew, and by every message.
func (h *Hub) Watch(ctx context.Context, name string) *Waiter {
	address, node := h.route(ctx, name)
	h.mu.Lock()
	defer h.mu.Unlock()
	w := &Waiter{name: name, Wake: make(chan struct{}, 1)}
	t := h.channels[name]
	if t == nil {
		t = &channel{}
		h.channels[name] = t
		h.attach(name, t, address, node)
	}
	w.place = len(t.waiters)
	t.waiters = append(t.waiters, w)
	if t.confirmed {
		w.Wake <- struct{}{}
	}
	return w
}

// unwatch ends a wait; the last one of a topic drops the channel.
func (h *Hub) Unwatch(w *Waiter) {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.channels[w.name]
	last := t.waiters[len(t.waiters)-1]
	t.waiters[w.place], last.place = last, w.place
	t.waiters = slices.Delete(t.waiters, len(t.waiters)-1, len(t.waiters))
	if len(t.waiters) > 0 {
		return
	}
	delete(h.channels, w.name)
	delete(t.conn.wanted, w.name)
	t.conn.change(w.name)
}

// take returns the message that woke w, nil when it should read, and whether the subscription
// stands.
func (h *Hub) Take(w *Waiter) (message []byte, confirmed bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	message, w.message = w.message, nil
	return message, h.channels[w.name].confirmed
}

func (h *Hub) Close() {
	h.stop()
	h.done.Wait()
}

// route finds the connection a channel belongs on. While nobody can say, that is a link without
// a server, from which regroup takes the channel away again.
func (h *Hub) route(ctx context.Context, name string) (address string, node redis.UniversalClient) {
	address, node, err := h.servers.Node(ctx, name)
	if err != nil {
		return "", nil
	}
	return address, node
}

// attach puts a topic on its link, which it makes if need be. The caller holds the mutex.
func (h *Hub) attach(name string, t *channel, address string, node redis.UniversalClient) {
	l := h.conns[address]
	if l == nil {
		l = &conn{
			hub: h, address: address, node: node,
			wanted: make(map[string]struct{}), dropped: make(map[string]int), changed: make(chan struct{}, 1),
		}
		h.conns[address] = l
		h.done.Go(l.run)
	}
	t.conn, t.confirmed = l, false
	l.wanted[name] = struct{}{}
	l.change(name)
}

// confirm wakes those who wait for a channel whose subscription stands now. A link that the
// channel was taken from in the meantime does not count.
func (h *Hub) confirm(name string, l *conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if t := h.channels[name]; t != nil && t.conn == l {
		t.confirmed, t.redirected = true, false
		for _, w := range t.waiters {
			w.notify()
		}
	}
}

// sendOn reports whether a server's word is taken for where a topic belongs, once until one confirms it.
func (h *Hub) acceptRedirect(name string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.channels[name]
	if t == nil || t.redirected {
		return false
	}
	t.redirected = true
	return true
}

// deliver hands a message to those who wait for it. A later message takes the place of one not
// taken yet: it knows more.
func (h *Hub) deliver(name string, message []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if t := h.channels[name]; t != nil {
		for _, w := range t.waiters {
			w.message = message
			w.notify()
		}
	}
}

func (w *Waiter) notify() {
	select {
	case w.Wake <- struct{}{}:
	default:
	}
}

package idempotent

import (
	"context"
	"log/slog"
	"slices"
	"sync"

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
	waiters   []*waiter // one, mostly: callers in this process follow each other
	link      *link
	confirmed bool // the server confirmed the subscription, and the connection stood since
	sentOn    bool // a server said that another one has it, and no server has confirmed it since
}

// A waiter is one wait. wake says that there is something to take.
type waiter struct {
	name string
	wake chan struct{}

	// Guarded by hub.mu.
	place   int    // in the topic
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
		t = &topic{}
		h.topics[name] = t
		h.attach(name, t, address, node)
	}
	w.place = len(t.waiters)
	t.waiters = append(t.waiters, w)
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
	last := t.waiters[len(t.waiters)-1]
	t.waiters[w.place], last.place = last, w.place
	t.waiters = slices.Delete(t.waiters, len(t.waiters)-1, len(t.waiters))
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

// confirm wakes those who wait for a channel whose subscription stands now. A link that the
// channel was taken from in the meantime does not count.
func (h *hub) confirm(name string, l *link) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if t := h.topics[name]; t != nil && t.link == l {
		t.confirmed, t.sentOn = true, false
		for _, w := range t.waiters {
			w.notify()
		}
	}
}

// sendOn reports whether a server's word is taken for where a topic belongs, once until one confirms it.
func (h *hub) sendOn(name string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.topics[name]
	if t == nil || t.sentOn {
		return false
	}
	t.sentOn = true
	return true
}

// deliver hands a message to those who wait for it. A later message takes the place of one not
// taken yet: it knows more.
func (h *hub) deliver(name string, message []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if t := h.topics[name]; t != nil {
		for _, w := range t.waiters {
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

package pubsub

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/idempotent-go/idempotent/internal/slot"

	"github.com/idempotent-go/idempotent/internal/backoff"
	"github.com/idempotent-go/idempotent/internal/topology"
)

// A link is one subscription connection. Its goroutine (run) subscribes and unsubscribes; a
// second one (receive) reads, and never sends a command.
type conn struct {
	hub     *Hub
	address string
	node    redis.UniversalClient // nil when no server is known; run's goroutine owns it

	// Guarded by hub.mu.
	wanted  map[string]struct{}
	dropped map[string]int // unsubscribed from, and the server has not said so yet
	ended   []string       // subscriptions that the server ended
	moved   map[int]string // where slots are of which it refused subscriptions
	pending []string       // names that were wanted, or are not any more
	changed chan struct{}
}

const (
	healthInterval = 3 * time.Second
	// When the server ends subscriptions, a link looks around again after settlePause and once
	// more: the servers of a Cluster learn one by one who has a slot, the one that answers may be
	// late, and one that is a replica by now takes a subscription and does not hear all.
	settlePause = 250 * time.Millisecond
	settleLooks = 2
)

// change notes that name is wanted now, or not any more. The caller holds the mutex.
func (l *conn) change(name string) {
	l.pending = append(l.pending, name)
	l.signal()
}

func (l *conn) signal() {
	select {
	case l.changed <- struct{}{}:
	default:
	}
}

// run keeps the connection until the hub is closed or nothing is left for this link to do.
func (l *conn) run() {
	pause := backoff.Backoff{First: 10 * time.Millisecond, Limit: backoff.MaxReconnectPause}
	for {
		began := time.Now()
		err := l.session()
		if err == nil || l.hub.ctx.Err() != nil {
			return
		}
		l.invalidate()
		l.hub.logger.Warn("idempotent: subscription lost, waiters read until it is back", "error", err.Error())
		if time.Since(began) > backoff.MaxReconnectPause {
			pause.Reset()
		}
		select {
		case <-l.hub.ctx.Done():
			return
		case <-time.After(pause.Next()):
		}
		l.hub.servers.Refresh(l.hub.ctx)
		l.reroute()
		if l.retire() {
			return
		}
	}
}

// session is one connection, from its making to its loss or the close of the hub. It returns nil
// when the server has nothing any more that anybody waits for.
func (l *conn) session() error {
	if l.node == nil {
		return topology.ErrNoServer
	}
	ctx := l.hub.ctx
	var ps *redis.PubSub
	if l.hub.sharded {
		ps = l.node.SSubscribe(ctx)
	} else {
		ps = l.node.Subscribe(ctx)
	}
	r := &receiver{conn: l, failed: make(chan error, 1)}
	var reading sync.WaitGroup
	defer reading.Wait()
	defer ps.Close()

	have := make(map[string]struct{})
	l.resubscribe()
	health := time.NewTimer(healthInterval)
	defer health.Stop()
	pinged, looks := false, 0
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-r.failed:
			return err
		case <-l.changed:
			for number, address := range l.takeMoved() {
				l.followRedirect(ctx, number, address, have)
			}
			if l.forget(have) {
				if l.rebalance(ctx, true) {
					return nil
				}
				looks = settleLooks
				health.Reset(settlePause)
			}
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
		if l.rebalance(ctx, looks > 0) {
			return nil
		}
		looks = max(0, looks-1)
		silent := !r.takeTraffic() && len(have) > 0
		if silent && pinged {
			return topology.ErrSilent
		}
		if pinged = silent; pinged {
			if err := ps.Ping(ctx); err != nil {
				return err
			}
		}
	}
}

// settle puts topics where they belong by now, and reports whether that leaves this link nothing
// to do.
func (l *conn) rebalance(ctx context.Context, look bool) (retired bool) {
	if look {
		l.hub.servers.Refresh(ctx)
	}
	return l.reroute() && l.retire()
}

// resubscribe makes everything wanted pending, for a new connection.
func (l *conn) resubscribe() {
	l.hub.mu.Lock()
	defer l.hub.mu.Unlock()
	clear(l.dropped)
	l.ended, l.moved, l.pending = nil, nil, l.pending[:0]
	for name := range l.wanted {
		l.change(name)
	}
}

// diff takes the pending names and brings have up to what is wanted.
func (l *conn) diff(have map[string]struct{}) (add, drop []string) {
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
		case wanted && held && !l.hub.channels[name].confirmed:
			// Dropped and wanted again before this goroutine came to it: the subscription stands.
			add = append(add, name)
		}
	}
	l.pending = l.pending[:0]
	return add, drop
}

// subscribe sends the changes. Sharded channels go one by one: a command may hold one slot only.
func (l *conn) subscribe(ctx context.Context, ps *redis.PubSub, add, drop []string) error {
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

// regroup moves the topics that belong on another server by now, and reports whether there were
// any. Those of which nobody can tell stay.
func (l *conn) reroute() (moved bool) {
	for _, name := range l.names() {
		address, node := l.hub.route(l.hub.ctx, name)
		switch {
		case node == nil:
		case address == l.address:
			l.node = node
		default:
			moved = l.move(name, address, node) || moved
		}
	}
	return moved
}

func (l *conn) names() []string {
	l.hub.mu.Lock()
	defer l.hub.mu.Unlock()
	return slices.Collect(maps.Keys(l.wanted))
}

func (l *conn) move(name, address string, node redis.UniversalClient) bool {
	l.hub.mu.Lock()
	defer l.hub.mu.Unlock()
	if _, wanted := l.wanted[name]; !wanted {
		return false
	}
	delete(l.wanted, name)
	l.change(name)
	l.hub.attach(name, l.hub.channels[name], address, node)
	return true
}

// retire takes the link out of the hub if nothing is wanted of it.
func (l *conn) retire() bool {
	l.hub.mu.Lock()
	defer l.hub.mu.Unlock()
	if len(l.wanted) > 0 {
		return false
	}
	delete(l.hub.conns, l.address)
	return true
}

// unconfirm lets everybody know that the subscriptions do not stand.
func (l *conn) invalidate() {
	l.hub.mu.Lock()
	defer l.hub.mu.Unlock()
	for name := range l.wanted {
		l.hub.channels[name].invalidate()
	}
}

// unconfirm wakes those who wait, so that they read. The caller holds the mutex.
func (t *channel) invalidate() {
	t.confirmed = false
	for _, w := range t.waiters {
		w.notify()
	}
}

// unsubscribed takes the server's word that it dropped a channel: because it was asked to or, on a
// Cluster, because the channel's slot has moved away.
func (l *conn) unsubscribed(name string) {
	l.hub.mu.Lock()
	defer l.hub.mu.Unlock()
	if n := l.dropped[name]; n > 1 {
		l.dropped[name]--
		return
	} else if n == 1 {
		delete(l.dropped, name)
		return
	}
	l.ended = append(l.ended, name)
	l.change(name)
	if _, wanted := l.wanted[name]; wanted {
		l.hub.channels[name].invalidate()
	}
}

// forget takes what the server ended out of have, and reports whether there was any.
func (l *conn) forget(have map[string]struct{}) (any bool) {
	l.hub.mu.Lock()
	defer l.hub.mu.Unlock()
	for _, name := range l.ended {
		delete(have, name)
	}
	any, l.ended = len(l.ended) > 0, nil
	return any
}

// redirected takes the server's word for where a slot is. It refuses a subscription when the client
// was told before the slot moved, or by a server that had not heard of it. It reports whether err
// says of which slot.
func (l *conn) redirected(err error, addr string) bool {
	_, rest, _ := strings.Cut(err.Error(), " ")
	number, _, _ := strings.Cut(rest, " ")
	n, bad := strconv.Atoi(number)
	if bad != nil {
		return false
	}
	l.hub.mu.Lock()
	defer l.hub.mu.Unlock()
	if l.moved == nil {
		l.moved = make(map[int]string)
	}
	l.moved[n] = addr
	// It refuses to end such a subscription as well, which is then not answered otherwise.
	maps.DeleteFunc(l.dropped, func(name string, _ int) bool { return slot.Of(name) == n })
	l.signal()
	return true
}

func (l *conn) takeMoved() (moved map[int]string) {
	l.hub.mu.Lock()
	defer l.hub.mu.Unlock()
	moved, l.moved = l.moved, nil
	return moved
}

// obey moves the topics of a slot to the server that is said to have it, and leaves the others alone.
// Servers that send a topic to and fro do not agree yet: it waits without a server for a while.
func (l *conn) followRedirect(ctx context.Context, number int, address string, have map[string]struct{}) {
	names := slices.DeleteFunc(l.names(), func(name string) bool { return slot.Of(name) != number })
	if len(names) == 0 {
		return
	}
	masters, _ := l.hub.servers.Nodes(ctx)
	for _, name := range names {
		delete(have, name)
		if node := masters[address]; node != nil && l.hub.acceptRedirect(name) {
			l.move(name, address, node)
		} else {
			l.move(name, "", nil)
		}
	}
}

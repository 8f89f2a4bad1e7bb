package replaycache

import (
	"context"
	"crypto/rand"
	"errors"
	"maps"
	"strconv"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/idempotent-go/idempotent/internal/backoff"
	"github.com/idempotent-go/idempotent/internal/pubsub"
	"github.com/idempotent-go/idempotent/internal/record"
	"github.com/idempotent-go/idempotent/internal/rediserr"
	"github.com/idempotent-go/idempotent/internal/store"
)

const (
	// probeInterval is how often the cache checks that its subscription still delivers.
	probeInterval = time.Second
	// probeLife is how long a successful probe counts, from when it was sent. It bounds how long a
	// cache can serve what was forgotten elsewhere, whatever the network does.
	probeLife = 3 * time.Second
)

// A link receives the invalidations of a namespace: every Forget and Resolve publishes its key on one
// channel, on the server that has the key. The link subscribes to all servers that can have keys and
// probes each subscription once a second. A connection keeps the order, so the reply to a probe proves
// that all that was forgotten on that server before the probe has been received.
type link struct {
	cache   *Cache
	store   *store.Store
	channel string
	private string // of this link alone, for probes
	ctx     context.Context
	stop    context.CancelFunc
	once    sync.Once
	done    sync.WaitGroup
}

// Channel returns the invalidation channel of a namespace. It is the name of the empty key, which no
// operation has.
func Channel(namespace string) string { return record.Name(namespace, "") }

func newLink(c *Cache, s *store.Store) *link {
	l := &link{cache: c, store: s, channel: s.CacheChannel}
	l.private = l.channel + "cache-" + rand.Text()
	l.ctx, l.stop = context.WithCancel(context.Background())
	return l
}

// start connects the link, the first time it is called. It must not be called during close.
func (l *link) start() {
	l.once.Do(func() {
		l.done.Go(func() {
			backoff.Reconnect(l.ctx, l.hold, func(err error) {
				l.cache.logger.Warn("idempotent: replay cache emptied and bypassed until its channel is restored", "error", rediserr.Text(err))
			})
		})
	})
}

func (l *link) close() {
	l.stop()
	l.done.Wait()
}

// hold is one session: a generation of the cache, from when every server has confirmed its
// subscription until one of them fails. It never returns nil.
func (l *link) hold() error {
	ctx, cancel := context.WithCancel(l.ctx)
	s := &session{link: l}
	defer s.close()
	defer cancel()
	defer l.cache.end()
	if err := s.open(ctx); err != nil {
		return err
	}
	if err := s.await(ctx, subscribed); err != nil {
		return err
	}
	generation := l.cache.begin()
	for round := 1; ; round++ {
		sent := l.cache.now()
		if err := s.probe(ctx, strconv.Itoa(round)); err != nil {
			return err
		}
		until := sent.add(probeLife)
		generation.verifiedUntil.Store(&until)
		if round == 1 {
			l.cache.logger.Info("idempotent: replay cache in use", "servers", len(s.subs))
		}
		if err := s.rest(ctx, probeInterval-(l.cache.now().monotonic-sent.monotonic)); err != nil {
			return err
		}
	}
}

// A session is one subscription to each server. One that fails ends them all, because what was
// forgotten in the gap is unknown.
type session struct {
	link    *link
	nodes   map[string]*redis.Client // by address; nil for a client that speaks to one server
	subs    []*shardSub
	replies chan reply
}

// A reply comes from one subscription: that it is confirmed or answered a probe, or why it failed.
type reply struct {
	sub  *shardSub
	text string
	err  error
}

// subscribed is the reply of a subscription that is confirmed. No probe has this text.
const subscribed = "subscribed"

var (
	errGap      = errors.New("the client subscribed again by itself")
	errMoved    = errors.New("the server ended the subscription")
	errTopology = errors.New("the set of servers changed")
)

func (s *session) open(ctx context.Context) error {
	var err error
	if s.nodes, err = s.link.store.Nodes(ctx); err != nil {
		return err
	}
	s.replies = make(chan reply, 8*max(1, len(s.nodes))) // more than are ever in flight
	if s.nodes == nil {
		s.listen(ctx, s.link.store.Client.Subscribe(ctx, s.link.channel, s.link.private), 2)
	}
	for _, node := range s.nodes {
		s.listen(ctx, node.Subscribe(ctx, s.link.channel), 1)
	}
	return nil
}

// listen starts to read one subscription, to so many channels.
func (s *session) listen(ctx context.Context, ps *redis.PubSub, channels int) {
	sub := &shardSub{session: s, channels: channels, confirmed: make(map[string]struct{})}
	s.subs = append(s.subs, sub)
	sub.Subscription = pubsub.Receive(ctx, ps,
		func(message any) error { return sub.handle(ctx, message) },
		func(err error) {
			s.link.cache.end() // at once: nothing is served after a subscription has failed
			sub.reply(ctx, reply{err: err})
		})
}

func (s *session) close() {
	for _, sub := range s.subs {
		sub.Close()
	}
}

// probe makes every server answer through its subscription. With one server the probe is published
// through the client, as a Forget is: if the address means another server now, it does not come back.
// With several, the servers are listed again and pinged each on its own connection.
func (s *session) probe(ctx context.Context, round string) error {
	if s.nodes == nil {
		store := s.link.store
		if err := store.Send(ctx, store.Client, redis.NewIntCmd(ctx, "publish", s.link.private, round)); err != nil {
			return err
		}
		return s.await(ctx, round)
	}
	nodes, err := s.link.store.Nodes(ctx)
	if err != nil {
		return err
	}
	if !maps.Equal(nodes, s.nodes) {
		return errTopology
	}
	for _, sub := range s.subs {
		if err := sub.Ping(ctx, round); err != nil {
			return err
		}
	}
	return s.await(ctx, round)
}

// await returns when every subscription has given this reply.
func (s *session) await(ctx context.Context, text string) error {
	timeout := time.NewTimer(probeLife)
	defer timeout.Stop()
	for answered := make(map[*shardSub]struct{}); len(answered) < len(s.subs); {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timeout.C:
			return pubsub.ErrSilent
		case r := <-s.replies:
			if r.err != nil {
				return r.err
			}
			if r.text == text { // not the late reply to an earlier probe
				answered[r.sub] = struct{}{}
			}
		}
	}
	return nil
}

// rest waits until the next probe is due, or until a subscription fails.
func (s *session) rest(ctx context.Context, d time.Duration) error {
	over := time.NewTimer(d)
	defer over.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-over.C:
			return nil
		case r := <-s.replies:
			if r.err != nil {
				return r.err
			}
		}
	}
}

// A shardSub is the subscription to one server. It applies what it receives before it receives more,
// and it alone invalidates, so a reply is passed on only after all that was forgotten before it.
type shardSub struct {
	*pubsub.Subscription
	session   *session
	channels  int                 // how many it subscribes to
	confirmed map[string]struct{} // of those
}

// handle applies one message.
func (sub *shardSub) handle(ctx context.Context, message any) error {
	switch m := message.(type) {
	case *redis.Subscription:
		return sub.confirm(ctx, m)
	case *redis.Message:
		if m.Channel == sub.session.link.channel {
			sub.session.link.cache.Invalidate(m.Payload)
		} else {
			sub.reply(ctx, reply{text: m.Payload})
		}
	case *redis.Pong:
		sub.reply(ctx, reply{text: m.Payload})
	}
	return nil
}

// confirm counts the confirmations. A second one for a channel means that go-redis replaced the
// connection by itself, so that messages may be lost.
func (sub *shardSub) confirm(ctx context.Context, m *redis.Subscription) error {
	if m.Kind != "subscribe" {
		return errMoved
	}
	if _, again := sub.confirmed[m.Channel]; again {
		return errGap
	}
	sub.confirmed[m.Channel] = struct{}{}
	if len(sub.confirmed) == sub.channels {
		sub.reply(ctx, reply{text: subscribed})
	}
	return nil
}

func (sub *shardSub) reply(ctx context.Context, r reply) {
	r.sub = sub
	select {
	case sub.session.replies <- r:
	case <-ctx.Done():
	}
}

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
	"github.com/idempotent-go/idempotent/internal/record"
	"github.com/idempotent-go/idempotent/internal/rediserr"
	"github.com/idempotent-go/idempotent/internal/store"
	"github.com/idempotent-go/idempotent/internal/topology"
)

const (
	// proofInterval is how often a cache's link is put to the proof.
	probeInterval = time.Second
	// proofLife is for how long a proof counts, from when it was asked for: the longest that a cache
	// can serve what was forgotten elsewhere, whatever the network does.
	probeLife = 3 * time.Second
)

// A cacheLink hears what is forgotten in a namespace: every Forget and Resolve publishes the key on
// one channel, on the server that has it. The link listens to all servers that can have keys, and
// asks each of them again and again for an answer through the very subscription. Since a
// connection keeps the order, an answer proves that everything forgotten on that server before the
// question has been heard.
type link struct {
	cache   *Cache
	store   *store.Store
	channel string
	private string // heard by this link alone
	ctx     context.Context
	stop    context.CancelFunc
	once    sync.Once
	done    sync.WaitGroup
}

// cacheChannel is where a namespace's forgotten keys are published. It is under the namespace's
// names and none of them, since no key is empty.
func Channel(namespace string) string { return record.Name(namespace, "") }

func newCacheLink(c *Cache, s *store.Store) *link {
	l := &link{cache: c, store: s, channel: s.CacheChannel}
	l.private = l.channel + "cache-" + rand.Text()
	l.ctx, l.stop = context.WithCancel(context.Background())
	return l
}

// start has the link made, the first time it is called. It must not be called during close.
func (l *link) start() {
	l.once.Do(func() { l.done.Go(l.run) })
}

func (l *link) close() {
	l.stop()
	l.done.Wait()
}

func (l *link) run() {
	pause := backoff.Backoff{First: 10 * time.Millisecond, Limit: backoff.MaxReconnectPause}
	for {
		began := time.Now()
		err := l.hold()
		if l.ctx.Err() != nil {
			return
		}
		l.cache.logger.Warn("idempotent: replay cache emptied and bypassed until its channel stands", "error", rediserr.Text(err))
		if time.Since(began) > backoff.MaxReconnectPause {
			pause.Reset()
		}
		select {
		case <-l.ctx.Done():
			return
		case <-time.After(pause.Next()):
		}
	}
}

// hold is one session: a generation of the cache, from when every server has confirmed its
// subscription to the first doubt.
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
		asked := l.cache.now()
		if err := s.probe(ctx, strconv.Itoa(round)); err != nil {
			return err
		}
		until := asked.add(probeLife)
		generation.verifiedUntil.Store(&until)
		if round == 1 {
			l.cache.logger.Info("idempotent: replay cache in use", "servers", len(s.subs))
		}
		if err := s.rest(ctx, probeInterval-(l.cache.now().monotonic-asked.monotonic)); err != nil {
			return err
		}
	}
}

// A cacheSession is one subscription to each server.
type session struct {
	link      *link
	nodes     map[string]*redis.Client // by address; nil for a client that speaks to one server
	subs      []*shardSub
	heard     chan heard
	listening sync.WaitGroup
}

// heard is what an ear says: an answer, or why it hears nothing any more.
type heard struct {
	ear    *shardSub
	answer string
	err    error
}

// subscribed is the answer of an ear whose subscription stands.
const subscribed = "subscribed"

var (
	errGap      = errors.New("the client subscribed anew")
	errTopology = errors.New("the set of servers changed")
)

func (s *session) open(ctx context.Context) error {
	var err error
	if s.nodes, err = s.link.store.Nodes(ctx); err != nil {
		return err
	}
	if s.nodes == nil {
		ps := s.link.store.Client.Subscribe(ctx, s.link.channel, s.link.private)
		s.subs = append(s.subs, &shardSub{session: s, pubsub: ps, channels: 2})
	}
	for _, node := range s.nodes {
		s.subs = append(s.subs, &shardSub{session: s, pubsub: node.Subscribe(ctx, s.link.channel), channels: 1})
	}
	s.heard = make(chan heard, 8*len(s.subs)) // more than are ever under way
	for _, e := range s.subs {
		s.listening.Go(func() { e.listen(ctx) })
	}
	return nil
}

func (s *session) close() {
	for _, e := range s.subs {
		_ = e.pubsub.Close()
	}
	s.listening.Wait()
}

// prove has every server answer through the subscription. With one server, the question goes the
// way of a Forget, through the client: where an address means another server by now, it does not
// come back. With several, they are listed anew and asked each on its own connection.
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
	for _, e := range s.subs {
		if err := e.pubsub.Ping(ctx, round); err != nil {
			return err
		}
	}
	return s.await(ctx, round)
}

// await returns when every ear has given this answer.
func (s *session) await(ctx context.Context, answer string) error {
	timeout := time.NewTimer(probeLife)
	defer timeout.Stop()
	for answered := make(map[*shardSub]struct{}); len(answered) < len(s.subs); {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timeout.C:
			return topology.ErrSilent
		case h := <-s.heard:
			if h.err != nil {
				return h.err
			}
			if h.answer == answer { // not the repetition of an earlier one
				answered[h.ear] = struct{}{}
			}
		}
	}
	return nil
}

// rest lets some time pass, unless an ear fails.
func (s *session) rest(ctx context.Context, d time.Duration) error {
	over := time.NewTimer(d)
	defer over.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-over.C:
			return nil
		case h := <-s.heard:
			if h.err != nil {
				return h.err
			}
		}
	}
}

// An ear reads one subscription. It does what it hears before it hears more, and it alone tells the
// cache, so that an answer is passed on only after what was forgotten before it is dropped.
type shardSub struct {
	session   *session
	pubsub    *redis.PubSub
	channels  int // how many it is subscribed to
	confirmed map[string]struct{}
}

func (e *shardSub) listen(ctx context.Context) {
	for {
		message, err := e.pubsub.Receive(ctx)
		if err == nil {
			err = e.hear(ctx, message)
		}
		if err != nil {
			e.session.link.cache.end()
			e.say(ctx, heard{ear: e, err: err})
			return
		}
	}
}

func (e *shardSub) hear(ctx context.Context, message any) error {
	switch m := message.(type) {
	case *redis.Subscription:
		return e.subscription(ctx, m)
	case *redis.Message:
		if m.Channel == e.session.link.channel {
			e.session.link.cache.Invalidate(m.Payload)
		} else {
			e.say(ctx, heard{ear: e, answer: m.Payload})
		}
	case *redis.Pong:
		e.say(ctx, heard{ear: e, answer: m.Payload})
	}
	return nil
}

// subscription counts the confirmations. A second one means that go-redis made the connection anew
// by itself, and something may have been missed.
func (e *shardSub) subscription(ctx context.Context, m *redis.Subscription) error {
	if m.Kind != "subscribe" {
		return topology.ErrMoved
	}
	if _, again := e.confirmed[m.Channel]; again {
		return errGap
	}
	if e.confirmed == nil {
		e.confirmed = make(map[string]struct{})
	}
	e.confirmed[m.Channel] = struct{}{}
	if len(e.confirmed) == e.channels {
		e.say(ctx, heard{ear: e, answer: subscribed})
	}
	return nil
}

func (e *shardSub) say(ctx context.Context, h heard) {
	select {
	case e.session.heard <- h:
	case <-ctx.Done():
	}
}

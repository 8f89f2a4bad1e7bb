package endpoint

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/idempotent-go/idempotent"
	"github.com/redis/go-redis/v9"
)

// A stored event is what Redis knows of it.
type stored struct {
	key          string
	provider     string
	id           string // the first one, if the provider uses several
	kind         string
	body         []byte
	received     time.Time
	lastReceived time.Time
	deliveries   int
	attempts     int // executions whose end is known, since the last replay
	replays      int
	reason       string
	firstFailed  time.Time
	lastFailed   time.Time
	processed    time.Time
	changed      string    // JSON
	due          time.Time // of the next try; zero if none is planned
	died         time.Time // zero if it is no dead letter
}

// runKey is the executor's key for the event. What an execution has left under its key stays: a
// replay gets a key of its own instead. Forget would do as well, but not when two people replay at
// once: the second one's would remove the first one's success.
func (s *stored) runKey() string {
	if s.replays == 0 {
		return s.key
	}
	return idempotent.HashKey(s.key, "replay", strconv.Itoa(s.replays))
}

// load reads an event; nil if there is none.
func (s *store) load(ctx context.Context, key string) (*stored, error) {
	events, err := s.loadAll(ctx, []string{key})
	if err != nil || len(events) == 0 {
		return nil, err
	}
	return events[0], nil
}

// loadAll reads several events, and leaves out those that are not there any more.
func (s *store) loadAll(ctx context.Context, keys []string) ([]*stored, error) {
	hashes := make([]*redis.MapStringStringCmd, len(keys))
	dues := make([]*redis.FloatCmd, len(keys))
	deaths := make([]*redis.FloatCmd, len(keys))
	_, err := s.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, key := range keys {
			hashes[i] = p.HGetAll(ctx, s.event(key))
			dues[i] = p.ZScore(ctx, s.retries(), key)
			deaths[i] = p.ZScore(ctx, s.dead(), key)
		}
		return nil
	})
	if err != nil && !errors.Is(err, redis.Nil) {
		return nil, err
	}
	var events []*stored
	for i, key := range keys {
		if fields := hashes[i].Val(); len(fields) > 0 {
			e := read(key, fields)
			e.due, e.died = score(dues[i]), score(deaths[i])
			events = append(events, e)
		}
	}
	return events, nil
}

func read(key string, fields map[string]string) *stored {
	number := func(name string) int {
		n, _ := strconv.Atoi(fields[name])
		return n
	}
	moment := func(name string) (t time.Time) {
		if ms := number(name); ms > 0 {
			t = time.UnixMilli(int64(ms))
		}
		return t
	}
	return &stored{
		key:          key,
		provider:     fields["provider"],
		id:           fields["id"],
		kind:         fields["type"],
		body:         []byte(fields["body"]),
		received:     moment("received"),
		lastReceived: moment("last_received"),
		deliveries:   number("deliveries"),
		attempts:     number("attempts"),
		replays:      number("replays"),
		reason:       fields["reason"],
		firstFailed:  moment("first_failed"),
		lastFailed:   moment("last_failed"),
		processed:    moment("processed"),
		changed:      fields["changed"],
	}
}

func score(cmd *redis.FloatCmd) (t time.Time) {
	if cmd.Err() == nil {
		t = time.UnixMilli(int64(cmd.Val()))
	}
	return t
}

// find returns the event that a provider sent under that id; nil if there is none.
func (s *store) find(ctx context.Context, provider, id string) (*stored, error) {
	key, err := s.rdb.Get(ctx, s.alias(provider, id)).Result()
	if errors.Is(err, redis.Nil) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return s.load(ctx, key)
}

// deadLetters returns the oldest ones.
func (s *store) deadLetters(ctx context.Context, limit int64) ([]*stored, error) {
	keys, err := s.rdb.ZRange(ctx, s.dead(), 0, limit-1).Result()
	if err != nil || len(keys) == 0 {
		return nil, err
	}
	return s.loadAll(ctx, keys)
}

// A Backlog is what is not settled.
type Backlog struct {
	Queued   int64 `json:"queued"` // deliveries, those that are handled just now among them
	Retrying int64 `json:"retrying"`
	Dead     int64 `json:"dead"`
}

func (s *store) unsettled(ctx context.Context) (Backlog, error) {
	var queued, retrying, dead *redis.IntCmd
	_, err := s.rdb.TxPipelined(ctx, func(p redis.Pipeliner) error { // an event moves: see it once
		queued, retrying, dead = p.XLen(ctx, s.queue()), p.ZCard(ctx, s.retries()), p.ZCard(ctx, s.dead())
		return nil
	})
	if err != nil {
		return Backlog{}, err
	}
	return Backlog{Queued: queued.Val(), Retrying: retrying.Val(), Dead: dead.Val()}, nil
}

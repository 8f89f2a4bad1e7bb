package endpoint

import (
	"context"
	_ "embed"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/idempotent-go/idempotent"
	"github.com/redis/go-redis/v9"
)

// A store keeps events in Redis: each in a hash, and its key in a queue (a stream), among the
// retries (a sorted set by due time) or among the dead letters (by time of death). Each step from
// one to another is one script, so that a crash can lose none of them; a crash between two steps
// leaves the entry in the queue, from where it is given out again.
//
// All keys hold the same hash tag: on a Cluster they share a slot, as the scripts need.
type store struct {
	rdb     redis.UniversalClient
	prefix  string
	keep    time.Duration
	backlog int
}

const (
	group = "workers"
	// consumer is the same for all processes. What a dead one has taken is found by its age, and
	// names of their own would pile up in the group.
	consumer = "any"
	// batch is how many events again.lua moves at once.
	batch = 100
	// blockFor is how long a worker waits for an event before it looks whether it shall stop.
	blockFor = time.Second
)

// errFull: too many events are unsettled. New ones are left to the provider, which has room.
var errFull = errors.New("too many unsettled events")

var (
	//go:embed lua/accept.lua
	acceptLua string
	//go:embed lua/again.lua
	againLua string
	//go:embed lua/finish.lua
	finishLua string
	//go:embed lua/postpone.lua
	postponeLua string
	//go:embed lua/bury.lua
	buryLua string
	//go:embed lua/replay.lua
	replayLua string

	acceptScript   = redis.NewScript(acceptLua)
	againScript    = redis.NewScript(againLua)
	finishScript   = redis.NewScript(finishLua)
	postponeScript = redis.NewScript(postponeLua)
	buryScript     = redis.NewScript(buryLua)
	replayScript   = redis.NewScript(replayLua)
)

func newStore(rdb redis.UniversalClient, cfg *Config) *store {
	return &store{rdb: rdb, prefix: "webhook:{" + cfg.Namespace + "}:", keep: cfg.Keep, backlog: cfg.Backlog}
}

func (s *store) queue() string           { return s.prefix + "queue" }
func (s *store) retries() string         { return s.prefix + "retries" }
func (s *store) dead() string            { return s.prefix + "dead" }
func (s *store) event(key string) string { return s.prefix + "event:" + key }
func (s *store) alias(provider, id string) string {
	return s.prefix + "id:" + idempotent.HashKey(provider, id)
}

// An arrival is an event as it comes in.
type arrival struct {
	key, provider, id, kind string
	body                    []byte
}

// accept stores an event and puts it into the queue. It returns how often it was delivered so far.
func (s *store) accept(ctx context.Context, a arrival) (deliveries int, err error) {
	deliveries, err = acceptScript.Run(ctx, s.rdb,
		[]string{s.queue(), s.retries(), s.dead(), s.event(a.key), s.alias(a.provider, a.id)},
		a.key, s.backlog, s.keep.Milliseconds(), now(), a.provider, a.id, a.kind, a.body).Int()
	if err == nil && deliveries == 0 {
		return 0, errFull
	}
	return deliveries, err
}

// An entry is an event in the queue, taken by a worker.
type entry struct{ id, key string }

// next takes an entry off the queue. It waits for one for a while; ok is false if none came.
func (s *store) next(ctx context.Context) (e entry, ok bool, err error) {
	streams, err := s.rdb.XReadGroup(ctx, &redis.XReadGroupArgs{
		Group: group, Consumer: consumer, Streams: []string{s.queue(), ">"}, Count: 1, Block: blockFor,
	}).Result()
	if errors.Is(err, redis.Nil) {
		return entry{}, false, nil
	}
	if err != nil {
		return entry{}, false, s.grouped(ctx, err)
	}
	if len(streams) == 0 || len(streams[0].Messages) == 0 {
		return entry{}, false, nil
	}
	message := streams[0].Messages[0]
	key, _ := message.Values["key"].(string)
	return entry{id: message.ID, key: key}, true, nil
}

// grouped makes the consumer group if that is what was missing. It begins at the first entry: some
// may be in the queue before there is a group.
func (s *store) grouped(ctx context.Context, err error) error {
	if !strings.Contains(err.Error(), "NOGROUP") { // not always at the beginning if a script says it
		return err
	}
	err = s.rdb.XGroupCreateMkStream(ctx, s.queue(), group, "0").Err()
	if err != nil && !strings.HasPrefix(err.Error(), "BUSYGROUP") { // another process was first
		return err
	}
	return s.rdb.PExpire(ctx, s.queue(), s.keep).Err()
}

// again puts into the queue what was taken and not settled, and what is due.
func (s *store) again(ctx context.Context, stale time.Duration) error {
	err := againScript.Run(ctx, s.rdb, []string{s.queue(), s.retries()},
		group, consumer, stale.Milliseconds(), now(), batch, s.keep.Milliseconds()).Err()
	if err != nil {
		return s.grouped(ctx, err)
	}
	return nil
}

// drop takes an entry off the queue that needs no handling.
func (s *store) drop(ctx context.Context, e entry) error {
	_, err := s.rdb.TxPipelined(ctx, func(p redis.Pipeliner) error {
		p.XAck(ctx, s.queue(), group, e.id)
		p.XDel(ctx, s.queue(), e.id)
		return nil
	})
	return err
}

// finish: the event was processed.
func (s *store) finish(ctx context.Context, e entry, attempts int, changed []byte) error {
	return finishScript.Run(ctx, s.rdb, []string{s.event(e.key), s.queue(), s.retries()},
		e.key, group, e.id, now(), attempts, changed).Err()
}

// postpone: it failed, and is to be tried again after a pause.
func (s *store) postpone(ctx context.Context, e entry, attempts int, why error, pause time.Duration) error {
	due := time.Now().Add(pause).UnixMilli() + 1 // not before it
	return postponeScript.Run(ctx, s.rdb, []string{s.event(e.key), s.queue(), s.retries()},
		e.key, group, e.id, now(), attempts, why.Error(), due, s.keep.Milliseconds()).Err()
}

// bury: it failed, and trying again would not help.
func (s *store) bury(ctx context.Context, e entry, attempts int, why error, replays int) error {
	return buryScript.Run(ctx, s.rdb, []string{s.event(e.key), s.queue(), s.retries(), s.dead()},
		e.key, group, e.id, now(), attempts, why.Error(), replays, s.keep.Milliseconds()).Err()
}

// replay puts a dead letter into the queue. ok is false if there is no such dead letter.
func (s *store) replay(ctx context.Context, key string) (ok bool, err error) {
	n, err := replayScript.Run(ctx, s.rdb, []string{s.event(key), s.queue(), s.dead()},
		key, s.keep.Milliseconds()).Int()
	return n == 1, err
}

// now is this machine's clock, which is what people compare the times with. Where it is wrong,
// retries come early or late, and nothing else does.
func now() string { return strconv.FormatInt(time.Now().UnixMilli(), 10) }

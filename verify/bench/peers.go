package main

import (
	"context"
	"errors"
	"time"

	"github.com/bsm/redislock"
	"github.com/go-redsync/redsync/v4"
	"github.com/go-redsync/redsync/v4/redis/goredis/v9"
	"github.com/redis/go-redis/v9"
	"github.com/redis/rueidis"
)

// handRolled is what people write around a lock: GET, lock, GET, fn, SET, unlock.
type handRolled struct {
	client redis.UniversalClient
	lock   func(ctx context.Context, name string) (unlock func() error, err error)
}

func (h handRolled) run(ctx context.Context, key string, fn func(context.Context) (string, error)) (result string, err error) {
	name := "hand-rolled:" + key
	if result, err = h.client.Get(ctx, name).Result(); !errors.Is(err, redis.Nil) {
		return result, err
	}
	unlock, err := h.lock(ctx, name+":lock")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	if result, err = h.client.Get(ctx, name).Result(); !errors.Is(err, redis.Nil) {
		return result, err
	}
	if result, err = fn(ctx); err != nil {
		return "", err
	}
	return result, h.client.Set(ctx, name, result, day).Err()
}

const peerLease = 10 * time.Second

// withRedislock polls every 100 ms, as the examples of that library do.
func withRedislock(client redis.UniversalClient) handRolled {
	locker := redislock.New(client)
	return handRolled{client, func(ctx context.Context, name string) (func() error, error) {
		lock, err := locker.Obtain(ctx, name, peerLease, &redislock.Options{RetryStrategy: redislock.LinearBackoff(100 * time.Millisecond)})
		if err != nil {
			return nil, err
		}
		return func() error { return lock.Release(ctx) }, nil
	}}
}

// withRedsync polls every 50 to 250 ms, which is that library's default.
func withRedsync(client redis.UniversalClient) handRolled {
	sync := redsync.New(goredis.NewPool(client))
	return handRolled{client, func(ctx context.Context, name string) (func() error, error) {
		mutex := sync.NewMutex(name, redsync.WithExpiry(peerLease))
		if err := mutex.LockContext(ctx); err != nil {
			return nil, err
		}
		return func() error {
			_, err := mutex.UnlockContext(ctx)
			return err
		}, nil
	}}
}

// A rueidisFloor is the bare pair and the bare GET through another client.
type rueidisFloor struct {
	client rueidis.Client
	commit *rueidis.Lua
}

func (e *env) rueidis() (rueidisFloor, error) {
	client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{e.server.Addr()}, DisableCache: true})
	if err != nil {
		return rueidisFloor{}, err
	}
	e.closes = append(e.closes, func() error { client.Close(); return nil })
	return rueidisFloor{client, rueidis.NewLuaScript(bareCommitText)}, nil
}

func (r rueidisFloor) pair(ctx context.Context, key string) error {
	name := keyPrefix + key
	claim := r.client.B().Set().Key(name).Value(bareRunning).Nx().Get().Px(day).Build()
	if err := r.client.Do(ctx, claim).Error(); !rueidis.IsRedisNil(err) {
		return errors.Join(errors.New("rueidis: the claim found something"), err)
	}
	return r.commit.Exec(ctx, r.client, []string{name}, []string{bareToken, bareDone, dayMillis}).Error()
}

func (r rueidisFloor) get(ctx context.Context, key string) error {
	return r.client.Do(ctx, r.client.B().Get().Key(keyPrefix+key).Build()).Error()
}

// A peer is one way to do a first run and a replay.
type peer struct {
	name          string
	first, replay func() error
}

// peers takes turns with them all in the same rounds.
func (e *env) peers() (table, []peerTimes, error) {
	all, err := e.allPeers()
	if err != nil {
		return table{}, nil, err
	}
	var contenders []contender
	for _, p := range all {
		contenders = append(contenders, serial(p.first), serial(p.replay))
	}
	times, err := alternate(e.rounds/2+1, e.slice, contenders...)
	if err != nil {
		return table{}, nil, err
	}
	out := table{head: []string{"", "first run", "commands", "× the pair", "replay", "commands", "× GET"}}
	var charted []peerTimes
	for i, p := range all {
		first, replay := times[2*i], times[2*i+1]
		counts := make([]string, 2)
		for j := range counts {
			counted, err := e.count(func() error { return contenders[2*i+j](countedOps) })
			if err != nil {
				return table{}, nil, err
			}
			counts[j] = counted.text(countedOps)
		}
		out.add(p.name,
			span(median(first)), counts[0], significant(median(quotients(first, times[0]))),
			span(median(replay)), counts[1], significant(median(quotients(replay, times[1]))))
		charted = append(charted, peerTimes{p.name, median(first), median(replay)})
	}
	return out, charted, nil
}

// peerTimes are medians in nanoseconds.
type peerTimes struct {
	name          string
	first, replay float64
}

func (e *env) allPeers() ([]peer, error) {
	ctx := context.Background()
	get, replay, err := e.replays(e.plain, 1_000)
	if err != nil {
		return nil, err
	}
	pair, first, err := e.firsts(e.plain)
	if err != nil {
		return nil, err
	}
	other, err := e.rueidis()
	if err != nil {
		return nil, err
	}
	known := e.fresh()
	if err := barePair(ctx, e.plain, known); err != nil {
		return nil, err
	}
	all := []peer{
		{"bare commands, go-redis", pair, get},
		{"idempotent", first, replay},
		{"bare commands, rueidis",
			func() error { return other.pair(ctx, e.fresh()) },
			func() error { return other.get(ctx, known) }},
	}
	for _, p := range []struct {
		name string
		handRolled
	}{{"redislock, hand-rolled", withRedislock(e.plain)}, {"redsync, hand-rolled", withRedsync(e.plain)}} {
		done := e.fresh()
		if _, err := p.run(ctx, done, charge); err != nil {
			return nil, err
		}
		all = append(all, peer{p.name,
			func() error { _, err := p.run(ctx, e.fresh(), charge); return err },
			func() error { _, err := p.run(ctx, done, mustNotRun); return err },
		})
	}
	return all, nil
}

package webhook

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

// Get implements Archive. The lane of an event is not known from its key or id, so it asks all lanes in one pipeline.
func (s *RedisStore) Get(ctx context.Context, l Lookup) (Record, error) {
	keys := make([]string, len(s.prefixes)) // in each lane
	for i := range keys {
		keys[i] = l.Key
	}
	if l.Key == "" {
		ids := make([]*redis.StringCmd, len(s.prefixes))
		_, err := s.rdb.Pipelined(ctx, func(pipe redis.Pipeliner) error {
			for i, prefix := range s.prefixes {
				ids[i] = pipe.Get(ctx, idName(prefix, l.Source, l.ID))
			}
			return nil
		})
		if err != nil && !errors.Is(err, redis.Nil) {
			return Record{}, err
		}
		for i, cmd := range ids {
			if err := cmd.Err(); err != nil && !errors.Is(err, redis.Nil) {
				return Record{}, err
			}
			if keys[i] = cmd.Val(); keys[i] == "" {
				keys[i] = idKey(l.Source, l.ID) // needs no index
			}
		}
	}
	places := make([]place, len(keys))
	for i, key := range keys {
		places[i] = place{lane: i, prefix: s.prefixes[i], key: key}
	}
	found, err := s.load(ctx, places, true)
	if err != nil {
		return Record{}, err
	}
	var last *Record
	for _, r := range found {
		if r != nil && (last == nil || r.ReceivedAt.After(last.ReceivedAt)) {
			last = r
		}
	}
	if last == nil {
		return Record{}, fmt.Errorf("%w: %s", ErrNotFound, l)
	}
	if err := s.locate(ctx, []*Record{last}); err != nil {
		return Record{}, err
	}
	return *last, nil
}

// String names the event in errors.
func (l Lookup) String() string {
	if l.Key != "" {
		return fmt.Sprintf("key %q", l.Key)
	}
	return fmt.Sprintf("source %q, id %q", l.Source, l.ID)
}

// load reads events; nil for those that are gone.
func (s *RedisStore) load(ctx context.Context, places []place, payloads bool) ([]*Record, error) {
	events := make([]*redis.MapStringStringCmd, len(places))
	bodies := make([]*redis.MapStringStringCmd, len(places))
	_, err := s.rdb.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for i, p := range places {
			events[i] = pipe.HGetAll(ctx, p.event())
			if payloads {
				bodies[i] = pipe.HGetAll(ctx, p.payload())
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	records := make([]*Record, len(places))
	for i, p := range places {
		if fields := events[i].Val(); fields["received"] != "" {
			r := readRecord(p.key, fields)
			if payloads {
				r.Payload = readPayload(bodies[i].Val())
			}
			records[i] = &r
		}
	}
	return records, nil
}

// locate sets when events that wait are due: a parked event may have been woken.
func (s *RedisStore) locate(ctx context.Context, records []*Record) error {
	type scores struct{ queued, redriven *redis.FloatCmd }
	found := map[*Record]scores{}
	_, err := s.rdb.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for _, r := range records {
			if !r.Due.IsZero() {
				p := s.place(r.Ref())
				found[r] = scores{pipe.ZScore(ctx, p.prefix+queueName, p.reference()), pipe.ZScore(ctx, p.prefix+redriveName, p.reference())}
			}
		}
		return nil
	})
	if err != nil && !errors.Is(err, redis.Nil) {
		return err
	}
	for r, f := range found {
		for _, cmd := range []*redis.FloatCmd{f.queued, f.redriven} {
			switch err := cmd.Err(); {
			case err == nil:
				r.Due = time.UnixMicro(int64(cmd.Val())).UTC()
			case !errors.Is(err, redis.Nil):
				return err
			}
		}
	}
	return nil
}

// Redrive implements Archive. It is one script for each event, in one pipeline. The rate is divided among the lanes: a
// redrive whose events are all in one lane is that much slower.
func (s *RedisStore) Redrive(ctx context.Context, events []Ref, r Requeue) (queued int, err error) {
	if r.Name == "" || len(r.Name) > maxKey || !(r.PerSecond > 0) {
		return 0, fmt.Errorf("webhook: Redrive: name of %d bytes at %g per second; allowed: 1 to %d bytes, more than 0 per second", len(r.Name), r.PerSecond, maxKey)
	}
	between := float64(len(s.prefixes)) * 1e6 / r.PerSecond
	calls := make([]call, len(events))
	for i, e := range events {
		p := s.place(e)
		calls[i] = call{redriveScript, []string{
			p.event(), p.payload(), p.prefix + redriveName, p.prefix + "redrive:" + r.Name,
			p.state(Queued), p.state(Done), p.state(Stale), p.state(Skipped), p.state(Dead),
			p.objects(), idName(p.prefix, e.Source, e.ID),
		}, []any{
			p.reference(), e.Key, "d:" + r.Name, encodeStep(r.Step), MaxSteps,
			wholeMicros(between), wholeMicros(between * float64(p.lane) / float64(len(s.prefixes))),
			r.Retention.Events.Milliseconds(), laneTTL.Milliseconds(),
		}}
	}
	return s.count(ctx, calls)
}

// wholeMicros is a number of microseconds without a fraction, up to 100 years.
func wholeMicros(us float64) string {
	return strconv.FormatFloat(min(us, 100*365*24*3600*1e6), 'f', 0, 64)
}

// Erase implements Archive. It is one script for each event, in one pipeline.
func (s *RedisStore) Erase(ctx context.Context, events []Ref, step Step) (erased int, err error) {
	calls := make([]call, len(events))
	for i, e := range events {
		p := s.place(e)
		calls[i] = call{eraseScript, []string{p.event(), p.payload()}, []any{encodeStep(step), MaxSteps}}
	}
	return s.count(ctx, calls)
}

// count runs scripts that return 1 or 0, and returns how many returned 1.
func (s *RedisStore) count(ctx context.Context, calls []call) (n int, err error) {
	if len(calls) == 0 {
		return 0, nil
	}
	cmds, err := s.run(ctx, calls)
	for _, cmd := range cmds {
		if ok, _ := cmd.Bool(); ok {
			n++
		}
	}
	return n, err
}

// Backlog implements Queue. Its counts are of one moment for each lane.
func (s *RedisStore) Backlog(ctx context.Context) (Backlog, error) {
	type lane struct {
		queued, retrying, parked, running, dead *redis.IntCmd
		oldest                                  *redis.ZSliceCmd
	}
	lanes := make([]lane, len(s.prefixes))
	_, err := s.rdb.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for i, prefix := range s.prefixes {
			state := func(of State) *redis.IntCmd { return pipe.ZCard(ctx, prefix+stateName+string(of)) }
			lanes[i] = lane{
				queued: state(Queued), retrying: state(Retrying), parked: state(Parked), dead: state(Dead),
				running: state(Running),
				oldest:  pipe.ZRangeByScoreWithScores(ctx, prefix+queueName, &redis.ZRangeBy{Min: "(1", Max: "+inf", Count: 1}),
			}
		}
		return nil
	})
	if err != nil {
		return Backlog{}, err
	}
	now := time.Now()
	b := Backlog{Lanes: make([]int64, len(lanes))}
	for i, l := range lanes {
		b.Lanes[i] = l.queued.Val() + l.running.Val() + l.retrying.Val() + l.parked.Val()
		b.Queued += l.queued.Val()
		b.Retrying += l.retrying.Val()
		b.Parked += l.parked.Val()
		b.Running += l.running.Val()
		b.Dead += l.dead.Val()
		for _, z := range l.oldest.Val() {
			b.OldestDue = max(b.OldestDue, now.Sub(time.UnixMicro(int64(z.Score))))
		}
	}
	return b, nil
}

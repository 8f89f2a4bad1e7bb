package webhook

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

// Accept implements Queue. It is one script; with WithReplicaAck, WAIT follows it on the same connection.
func (s *RedisStore) Accept(ctx context.Context, a Arrival) (deliveries int, err error) {
	if err := checkArrival(&a); err != nil {
		return 0, err
	}
	p := s.place(a.Ref())
	event := eventFields(&a)
	payload := payloadFields(&a.Payload)
	args := []any{
		p.reference(), a.Key, a.Backlog, micros(a.Receipt.At), encodeReceipt(a.Receipt), MaxReceipts,
		a.Retention.Events.Milliseconds(), laneTTL.Milliseconds(), flag(a.Event.Object != ""),
		flag(a.Key != idKey(a.Source, a.Event.ID)), len(event),
	}
	c := call{acceptScript, []string{
		p.event(), p.payload(), p.prefix + queueName, p.state(Queued), p.state(Running), p.state(Retrying), p.state(Parked),
		p.objects(), idName(p.prefix, a.Source, a.Event.ID),
	}, append(append(args, event...), payload...)}
	var cmd *redis.Cmd
	switch {
	case s.ack.replicas > 0:
		if cmd, err = s.runAcknowledged(ctx, c); err != nil {
			return 0, err
		}
	case s.batcher != nil:
		cmd = s.runShared(ctx, c)
	default:
		cmd = c.script.Run(ctx, s.rdb, c.keys, c.args...)
	}
	deliveries, err = cmd.Int()
	if err == nil && deliveries == 0 {
		return 0, ErrBacklogFull
	}
	return deliveries, err
}

const maxKey = 128

func checkArrival(a *Arrival) error {
	switch r := a.Retention; {
	case len(a.Key) == 0 || len(a.Key) > maxKey:
		return fmt.Errorf("webhook: Accept: the key has %d bytes; allowed: 1 to %d", len(a.Key), maxKey)
	case r.Events < time.Millisecond || r.Bodies < time.Millisecond || r.Positions < time.Millisecond:
		return fmt.Errorf("webhook: Accept: retention is %+v; allowed: 1 ms or more of each", r)
	}
	return nil
}

// Take implements Queue. It asks the lanes in pipelines, from a random lane on, until n events are taken; then it reads
// the events in one pipeline.
func (s *RedisStore) Take(ctx context.Context, n int, lease time.Duration, step Step) ([]Taken, error) {
	start := rand.IntN(len(s.prefixes)) //nolint:gosec // chance, no secret
	lanes := make([]int, len(s.prefixes))
	for i := range lanes {
		lanes[i] = (start + i) % len(lanes)
	}
	var tickets []placed
	var failed error
	for len(lanes) > 0 && len(tickets) < n && failed == nil {
		var full []int
		group := min(len(lanes), n-len(tickets))
		tickets, full, failed = s.takeFrom(ctx, lanes[:group], (n-len(tickets))/group, lease, tickets)
		lanes = append(lanes[group:], full...) // a lane that gave all it was asked for may have more
	}
	if len(tickets) == 0 {
		return nil, failed
	}
	return s.begin(ctx, tickets, step)
}

// A placed is a taken event's place and token.
type placed struct {
	place
	token string
}

// takeFrom takes up to limit events from each lane, and returns the lanes that had as many.
func (s *RedisStore) takeFrom(ctx context.Context, lanes []int, limit int, lease time.Duration, tickets []placed) (all []placed, full []int, err error) {
	token := s.process + "-" + strconv.FormatUint(s.takes.Add(1), 36)
	calls := make([]call, len(lanes))
	for i, lane := range lanes {
		prefix := s.prefixes[lane]
		calls[i] = call{takeScript, []string{
			prefix + queueName, prefix + redriveName, prefix + leasesName, prefix + busyName, prefix + waitingName, prefix + tokenName,
		}, []any{limit, lease.Microseconds(), token, laneTTL.Milliseconds()}}
	}
	cmds, err := s.run(ctx, calls)
	for i, cmd := range cmds {
		references, _ := cmd.StringSlice() // run returned the error
		for _, reference := range references {
			tickets = append(tickets, placed{s.placeOf(lanes[i], reference), token})
		}
		if len(references) == limit {
			full = append(full, lanes[i])
		}
	}
	return tickets, full, err
}

// begin adds the step to each event and reads it. Events that cannot be read now are taken again when their leases end.
func (s *RedisStore) begin(ctx context.Context, tickets []placed, step Step) (taken []Taken, err error) {
	calls := make([]call, len(tickets))
	for i, t := range tickets {
		calls[i] = call{beginScript, []string{
			t.event(), t.payload(), t.positions(), t.state(Queued), t.state(Retrying), t.state(Parked), t.state(Running),
		}, []any{encodeStep(step), MaxSteps, t.key, laneTTL.Milliseconds()}}
	}
	cmds, err := s.run(ctx, calls)
	for i, t := range tickets {
		parts, failed := cmds[i].Slice()
		if errors.Is(failed, redis.Nil) {
			err = errors.Join(err, s.dropExpired(ctx, t))
			continue
		}
		if failed != nil || len(parts) != 3 {
			continue
		}
		r := readRecord(t.key, replyMap(parts[0]))
		r.Payload = readPayload(replyMap(parts[1]))
		taken = append(taken, Taken{Ticket: Ticket{Ref: r.Ref(), Token: t.token}, Record: r, Positions: replyMap(parts[2])})
	}
	if len(taken) > 0 {
		return taken, nil
	}
	return nil, err
}

// Extend implements Queue. It is one script for each lane, in one pipeline.
func (s *RedisStore) Extend(ctx context.Context, tickets []Ticket, lease time.Duration) (lost []Ticket, err error) {
	byLane := map[int][]Ticket{}
	for _, t := range tickets {
		lane := s.place(t.Ref).lane
		byLane[lane] = append(byLane[lane], t)
	}
	var calls []call
	var asked [][]Ticket
	for lane, tickets := range byLane {
		args := []any{lease.Microseconds()}
		for _, t := range tickets {
			args = append(args, s.place(t.Ref).reference(), t.Token)
		}
		calls = append(calls, call{extendScript, []string{s.prefixes[lane] + leasesName, s.prefixes[lane] + tokenName}, args})
		asked = append(asked, tickets)
	}
	if len(calls) == 0 {
		return nil, nil
	}
	cmds, err := s.run(ctx, calls)
	for i, cmd := range cmds {
		kept, failed := cmd.BoolSlice()
		if failed != nil {
			continue
		}
		for j, ok := range kept {
			if !ok {
				lost = append(lost, asked[i][j])
			}
		}
	}
	return lost, err
}

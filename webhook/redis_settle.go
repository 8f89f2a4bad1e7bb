package webhook

import (
	"context"
	"time"
)

// Settle implements Queue. It is one script.
func (s *RedisStore) Settle(ctx context.Context, t Ticket, to Settlement) error {
	fields := []any{
		"attempts", to.Attempts, "cause", string(to.Cause), "reason", to.Reason, "waits", to.WaitsFor,
		"parked", micros(to.ParkedUntil),
	}
	if to.Changed != nil {
		fields = append(fields, "changed", to.Changed)
	}
	return s.settle(ctx, placed{s.place(t.Ref), t.Token}, t.Ref, to, fields)
}

func (s *RedisStore) settle(ctx context.Context, t placed, r Ref, to Settlement, fields []any) error {
	bodies := to.Retention.Bodies
	if to.State == Dead || !to.State.Settled() { // a redrive and the next attempt need it, as long as there is a record
		bodies = to.Retention.Events + time.Second
	}
	var move Move
	if to.Move != nil {
		move = *to.Move
	}
	args := []any{
		t.reference(), t.tag, t.key, t.token, string(to.State), encodeStep(to.Step), MaxSteps,
		to.Retention.Events.Milliseconds(), bodies.Milliseconds(), to.Retention.Positions.Milliseconds(),
		move.Order, move.Position, to.After.Microseconds(), laneTTL.Milliseconds(),
	}
	n, err := settleScript.Run(ctx, s.rdb, []string{
		t.event(), t.payload(), t.prefix + queueName, t.prefix + redriveName, t.prefix + leasesName, t.prefix + busyName,
		t.prefix + waitingName, t.prefix + tokenName, t.prefix + parkingName,
		t.state(Running), t.state(to.State), t.positions(), t.objects(), idName(t.prefix, r.Source, r.ID),
		t.state(Queued), t.state(Retrying), t.state(Parked),
	}, append(args, fields...)...).Int()
	if err == nil && n == 0 {
		return ErrTicketLost
	}
	return err
}

// dropExpired removes what is left of an event that is past its retention and was taken.
func (s *RedisStore) dropExpired(ctx context.Context, t placed) error {
	second := Retention{time.Second, time.Second, time.Second}
	return s.settle(ctx, t, Ref{}, Settlement{State: Skipped, Retention: second}, []any{"state", string(Skipped)})
}

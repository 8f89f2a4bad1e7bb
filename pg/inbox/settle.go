package inbox

import (
	"context"

	"github.com/idempotent-go/idempotent/webhook"
)

const settleCTE = `WITH settled AS (
	UPDATE idempotent_inbox_events SET state = $4::text, attempts = $5,
		due = CASE WHEN $16 THEN due ELSE now() + $6::bigint * interval '1 microsecond' END,
		next_at = CASE WHEN $16 THEN next_at ELSE now() + $6::bigint * interval '1 microsecond' END,
		parked_until = CASE WHEN $4::text = 'parked' THEN $7 WHEN $16 THEN NULL ELSE parked_until END,
		cause = $8, reason = $9, waits_for = $10, changed = coalesce($11, changed),
		trail = (array_append(trail, $12::bytea))[greatest(1, cardinality(trail) + 2 - $13):], steps = steps + 1,
		settled_at = CASE WHEN $16 THEN now() END, dead = $4::text = 'dead', applied = applied OR $4::text = 'done',
		payload_until = now() + $14::bigint * interval '1 microsecond', expires_at = now() + $15::bigint * interval '1 microsecond'
	WHERE namespace = $1 AND key = $2 AND token = $3 AND state = 'running' RETURNING id, object
), freed AS (
	UPDATE idempotent_inbox_objects o SET busy_event = NULL, busy_until = '-infinity', seen_at = now()
	FROM settled s WHERE o.namespace = $1 AND o.object = s.object AND o.busy_event = s.id
), moved AS (
	INSERT INTO idempotent_inbox_positions AS p (namespace, object, ordering, position, expires_at)
	SELECT $1, object, $17, $18, now() + $19::bigint * interval '1 microsecond' FROM settled WHERE $17::bytea IS NOT NULL AND object IS NOT NULL
	ON CONFLICT (namespace, object, ordering) DO UPDATE SET position = EXCLUDED.position, expires_at = EXCLUDED.expires_at
), woken AS (
	UPDATE idempotent_inbox_events e SET due = now(), next_at = now() FROM settled s
	WHERE $17::bytea IS NOT NULL AND e.namespace = $1 AND e.object = s.object AND e.settled_at IS NULL AND e.state = 'parked' AND e.id <> s.id
)`

const settleSQL = settleCTE + ` SELECT count(*) FROM settled`

// settleArgs are the arguments of settleSQL.
func (s *Store) settleArgs(t webhook.Ticket, to webhook.Settlement) []any {
	bodies := to.Retention.Bodies
	if to.State == webhook.Dead { // a redrive needs it as long as there is a record
		bodies = to.Retention.Events
	}
	var order, position []byte
	if to.Move != nil {
		order, position = []byte(to.Move.Order), []byte(to.Move.Position)
	}
	return []any{
		s.namespace, []byte(t.Key), t.Token, string(to.State), to.Attempts, micros(to.After), timeOrNull(to.ParkedUntil),
		string(to.Cause), []byte(to.Reason), []byte(to.WaitsFor), to.Changed, encode(to.Step), webhook.MaxSteps,
		micros(bodies), micros(to.Retention.Events), to.State.Settled(), order, position, micros(to.Retention.Positions),
	}
}

// Settle implements webhook.Queue. If the executor of this Store ran the event's handler, Settle commits the handler's
// transaction; otherwise it is one statement. If that transaction cannot be committed, the event is due again after a
// while and Settle returns ErrTicketLost.
func (s *Store) Settle(ctx context.Context, t webhook.Ticket, to webhook.Settlement) error {
	if x := s.claimExecution(t.Token); x != nil {
		return x.settle(ctx, t, to)
	}
	var n int
	if err := s.pool.QueryRow(ctx, settleSQL, s.settleArgs(t, to)...).Scan(&n); err != nil {
		return failed("Settle", err)
	}
	if n == 0 {
		return webhook.ErrTicketLost
	}
	return nil
}

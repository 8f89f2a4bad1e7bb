package inbox

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/idempotent-go/idempotent/webhook"
)

// Of the events of an object, only the first that is due is taken, and only while the object is free. A Take that waits
// for no lock, and evaluates the conditions again on rows that changed since its snapshot, needs no lock of its own.
const takeSQL = `WITH alone AS MATERIALIZED (
	SELECT e.id, e.redriven, e.due, NULL::bytea AS object FROM idempotent_inbox_events e
	WHERE e.namespace = $1 AND e.settled_at IS NULL AND e.object IS NULL AND e.due <= now() AND e.next_at <= now()
	ORDER BY e.redriven, e.due, e.id LIMIT $2 FOR UPDATE SKIP LOCKED
), first AS MATERIALIZED (
	SELECT e.id, e.redriven, e.due, o.object FROM idempotent_inbox_events e
	JOIN idempotent_inbox_objects o ON o.namespace = e.namespace AND o.object = e.object
	WHERE e.namespace = $1 AND e.settled_at IS NULL AND e.object IS NOT NULL AND e.due <= now() AND e.next_at <= now()
		AND o.busy_until <= now()
		AND NOT EXISTS (SELECT FROM idempotent_inbox_events p WHERE p.namespace = $1 AND p.object = e.object
			AND p.settled_at IS NULL AND p.due <= now() AND p.next_at <= now() AND (p.redriven, p.due, p.id) < (e.redriven, e.due, e.id))
	ORDER BY e.redriven, e.due, e.id LIMIT $2 FOR UPDATE OF e, o SKIP LOCKED
), chosen AS (
	SELECT * FROM (SELECT * FROM alone UNION ALL SELECT * FROM first) due ORDER BY redriven, due, id LIMIT $2
), taken AS (
	UPDATE idempotent_inbox_events e SET state = 'running', next_at = now() + $3::bigint * interval '1 microsecond',
		token = $4::text || '-' || e.id, interrupted = interrupted + (state = 'running')::int,
		trail = (array_append(trail, $5::bytea))[greatest(1, cardinality(trail) + 2 - $6):], steps = steps + 1
	FROM chosen c WHERE e.id = c.id RETURNING e.*
), busy AS (
	UPDATE idempotent_inbox_objects o SET busy_event = c.id, busy_until = now() + $3::bigint * interval '1 microsecond'
	FROM chosen c WHERE o.namespace = $1 AND o.object = c.object
) SELECT ` + columns + `, p.payload, e.token,
	(SELECT array_agg(ordering) FROM idempotent_inbox_positions s WHERE s.namespace = $1 AND s.object = e.object AND s.expires_at > now()),
	(SELECT array_agg(position) FROM idempotent_inbox_positions s WHERE s.namespace = $1 AND s.object = e.object AND s.expires_at > now())
FROM taken e LEFT JOIN idempotent_inbox_payloads p ON p.day = e.payload_day AND p.event = e.id
ORDER BY e.redriven, e.due, e.id`

// Take implements webhook.Queue. It is one statement.
func (s *Store) Take(ctx context.Context, n int, lease time.Duration, step webhook.Step) ([]webhook.Taken, error) {
	rows, err := s.pool.Query(ctx, takeSQL, s.namespace, n, micros(lease), s.newToken(), encode(step), webhook.MaxSteps)
	if err != nil {
		return nil, failed("Take", err)
	}
	taken, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (t webhook.Taken, err error) {
		var orders, positions [][]byte
		t.Record, err = scanRecord(row, &t.Token, &orders, &positions)
		if errors.Is(err, errUnreadable) { // without its payload it becomes a dead letter, instead of holding up the others
			t.Record.Payload, err = nil, nil
		}
		if err != nil {
			return t, err
		}
		t.Ref = t.Record.Ref()
		t.Positions = make(map[string]string, len(orders))
		for i := range orders {
			t.Positions[string(orders[i])] = string(positions[i])
		}
		return t, nil
	})
	if err != nil {
		return nil, failed("Take", err)
	}
	return taken, nil
}

const extendSQL = `WITH kept AS (
	UPDATE idempotent_inbox_events e SET next_at = now() + $4::bigint * interval '1 microsecond'
	FROM unnest($2::bytea[], $3::text[]) t(key, token)
	WHERE e.namespace = $1 AND e.key = t.key AND e.token = t.token AND e.state = 'running' RETURNING e.id, e.object, e.token
), busy AS (
	UPDATE idempotent_inbox_objects o SET busy_until = now() + $4::bigint * interval '1 microsecond'
	FROM kept WHERE o.namespace = $1 AND o.object = kept.object AND o.busy_event = kept.id
) SELECT token FROM kept`

// Extend implements webhook.Queue. It is one statement.
func (s *Store) Extend(ctx context.Context, tickets []webhook.Ticket, lease time.Duration) (lost []webhook.Ticket, err error) {
	keys, tokens := make([][]byte, len(tickets)), make([]string, len(tickets))
	for i, t := range tickets {
		keys[i], tokens[i] = []byte(t.Key), t.Token
	}
	rows, err := s.pool.Query(ctx, extendSQL, s.namespace, keys, tokens, micros(lease))
	if err != nil {
		return nil, failed("Extend", err)
	}
	kept, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, failed("Extend", err)
	}
	has := make(map[string]bool, len(kept))
	for _, token := range kept {
		has[token] = true
	}
	for _, t := range tickets {
		if !has[t.Token] {
			lost = append(lost, t)
		}
	}
	return lost, nil
}

// An object is busy until the lease of its event runs out, so events that wait for it are not counted as due.
const backlogSQL = `SELECT count(*) FILTER (WHERE state = 'queued'), count(*) FILTER (WHERE state = 'running'),
	count(*) FILTER (WHERE state = 'retrying'), count(*) FILTER (WHERE state = 'parked'),
	coalesce(extract(epoch FROM now() - min(greatest(due, next_at)) FILTER (WHERE due <= now() AND next_at <= now()
		AND NOT EXISTS (SELECT FROM idempotent_inbox_objects o WHERE o.namespace = $1 AND o.object = e.object AND o.busy_until > now()))), 0)::float8,
	(SELECT count(*) FROM idempotent_inbox_events WHERE namespace = $1 AND dead)
	FROM idempotent_inbox_events e WHERE namespace = $1 AND settled_at IS NULL`

// Backlog implements webhook.Queue.
func (s *Store) Backlog(ctx context.Context) (b webhook.Backlog, err error) {
	var oldest float64
	err = s.pool.QueryRow(ctx, backlogSQL, s.namespace).Scan(&b.Queued, &b.Running, &b.Retrying, &b.Parked, &oldest, &b.Dead)
	if err != nil {
		return b, failed("Backlog", err)
	}
	b.OldestDue = time.Duration(oldest * float64(time.Second))
	b.Lanes = []int64{b.Unsettled()}
	return b, nil
}

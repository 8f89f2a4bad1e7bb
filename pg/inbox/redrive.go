package inbox

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/idempotent-go/idempotent/webhook"
)

const (
	// The row of a redrive is locked until its events are queued, so that all calls keep one rate.
	redriveSQL = `INSERT INTO idempotent_inbox_redrives AS r (namespace, name, next_at, expires_at)
		VALUES ($1, $2, now(), now() + $3::bigint * interval '1 microsecond')
		ON CONFLICT (namespace, name) DO UPDATE SET next_at = greatest(r.next_at, now()), expires_at = EXCLUDED.expires_at`

	// Events are locked in one order, by id, so that two calls do not wait for each other.
	requeueSQL = `WITH picked AS MATERIALIZED (
		SELECT e.id, t.place FROM (SELECT key, min(place) AS place FROM unnest($3::bytea[]) WITH ORDINALITY t(key, place) GROUP BY key) t
		JOIN idempotent_inbox_events e ON e.namespace = $1 AND e.key = t.key
		WHERE e.settled_at IS NOT NULL AND e.expires_at > now() AND ` + payloadKept + ` AND NOT e.redrive_names @> ARRAY[$2::bytea]
		ORDER BY e.id FOR UPDATE OF e
	), placed AS (
		SELECT id, row_number() OVER (ORDER BY place) - 1 AS place FROM picked
	), queued AS (
		UPDATE idempotent_inbox_events e SET state = 'queued', redriven = true, redrives = redrives + 1, attempts_before = attempts,
			redrive_names = array_append(redrive_names, $2::bytea), due = r.next_at + p.place * $4::bigint * interval '1 microsecond',
			next_at = r.next_at + p.place * $4::bigint * interval '1 microsecond', interrupted = 0,
			cause = '', reason = '', waits_for = '', parked_until = NULL, settled_at = NULL, dead = false,
			trail = (array_append(trail, $5::bytea))[greatest(1, cardinality(trail) + 2 - $6):], steps = steps + 1,
			expires_at = now() + $7::bigint * interval '1 microsecond'
		FROM placed p, idempotent_inbox_redrives r WHERE e.id = p.id AND r.namespace = $1 AND r.name = $2 RETURNING e.id
	), object AS (
		INSERT INTO idempotent_inbox_objects AS o (namespace, object)
		SELECT DISTINCT $1, e.object FROM picked JOIN idempotent_inbox_events e USING (id) WHERE e.object IS NOT NULL ORDER BY 2
		ON CONFLICT (namespace, object) DO UPDATE SET seen_at = now()
	) SELECT count(*) FROM queued`

	nextRedriveSQL = `UPDATE idempotent_inbox_redrives SET next_at = next_at + $3::bigint * $4::bigint * interval '1 microsecond'
		WHERE namespace = $1 AND name = $2`
)

// maxInterval is the longest time between two events of a redrive: 100 years.
const maxInterval = 100 * 365 * 24 * 3600 * 1e6 // µs

// Redrive implements webhook.Archive. It is one transaction.
func (s *Store) Redrive(ctx context.Context, events []webhook.Ref, r webhook.Requeue) (queued int, err error) {
	if r.Name == "" || len(r.Name) > 128 || !(r.PerSecond > 0) {
		return 0, fmt.Errorf("inbox: Redrive: name of %d bytes at %g per second; allowed: 1 to 128 bytes, more than 0 per second", len(r.Name), r.PerSecond)
	}
	if len(events) == 0 {
		return 0, nil
	}
	between := int64(min(1e6/r.PerSecond, maxInterval))
	name := []byte(r.Name)
	err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, redriveSQL, s.namespace, name, micros(r.Retention.Events)); err != nil {
			return err
		}
		if err := tx.QueryRow(ctx, requeueSQL, s.namespace, name, keys(events), between, encode(r.Step), webhook.MaxSteps,
			micros(r.Retention.Events)).Scan(&queued); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, nextRedriveSQL, s.namespace, name, queued, between)
		return err
	})
	if err != nil {
		return 0, failed("Redrive", err)
	}
	return queued, nil
}

func keys(events []webhook.Ref) [][]byte {
	all := make([][]byte, len(events))
	for i, e := range events {
		all[i] = []byte(e.Key)
	}
	return all
}

const eraseSQL = `WITH picked AS MATERIALIZED (
		SELECT e.id, e.payload_day FROM idempotent_inbox_events e
		WHERE e.namespace = $1 AND e.key = ANY ($2) AND e.settled_at IS NOT NULL AND e.expires_at > now() AND ` + payloadKept + `
		ORDER BY e.id FOR UPDATE OF e
	), erased AS (
		UPDATE idempotent_inbox_events e SET erased = true, payload_day = NULL, steps = steps + 1,
			trail = (array_append(trail, $3::bytea))[greatest(1, cardinality(trail) + 2 - $4):]
		FROM picked p WHERE e.id = p.id RETURNING e.id
	), payload AS (
		DELETE FROM idempotent_inbox_payloads p USING picked e WHERE p.day = e.payload_day AND p.event = e.id
	) SELECT count(*) FROM erased`

// Erase implements webhook.Archive. It is one statement.
func (s *Store) Erase(ctx context.Context, events []webhook.Ref, step webhook.Step) (erased int, err error) {
	err = s.pool.QueryRow(ctx, eraseSQL, s.namespace, keys(events), encode(step), webhook.MaxSteps).Scan(&erased)
	if err != nil {
		return 0, failed("Erase", err)
	}
	return erased, nil
}

package inbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const (
	payloadTable = "idempotent_inbox_payloads"

	// pruneBatch is how many rows one transaction of Prune deletes.
	pruneBatch = 500

	// keepDays is for how long a payload is moved that is needed on the day of its partition.
	keepDays = 7
)

// dropDay is the day on which the partition of a payload is dropped, one day after its retention is over.
func dropDay(now time.Time, bodies time.Duration) time.Time {
	return now.UTC().Add(bodies).Truncate(24 * time.Hour).Add(24 * time.Hour)
}

func partitionOf(day time.Time) string { return payloadTable + "_" + day.Format("20060102") }

// createPartition creates the partition of a day, if there is none. The name is a date, so it needs no quotes.
func (s *Store) createPartition(ctx context.Context, day time.Time) error {
	return pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error { return createPartition(ctx, tx, day) })
}

func createPartition(ctx context.Context, tx pgx.Tx, day time.Time) error {
	// One process at a time: IF NOT EXISTS does not keep two that create it at once from failing.
	if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtextextended($1, 0))`, payloadTable); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, fmt.Sprintf(`CREATE TABLE IF NOT EXISTS %s PARTITION OF %s FOR VALUES FROM ('%s') TO ('%s')`,
		partitionOf(day), payloadTable, day.Format(time.DateOnly), day.AddDate(0, 0, 1).Format(time.DateOnly)))
	return err
}

// Statements that delete what is past its retention, in batches. SKIP LOCKED keeps them out of the way of what runs.
var pruneSQL = []string{
	`DELETE FROM idempotent_inbox_events WHERE id = ANY (ARRAY(
		SELECT id FROM idempotent_inbox_events WHERE namespace = $1 AND settled_at IS NOT NULL AND expires_at <= now()
		ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED))`,
	`DELETE FROM idempotent_inbox_runs WHERE ctid = ANY (ARRAY(
		SELECT ctid FROM idempotent_inbox_runs WHERE namespace = $1 AND expires_at <= now() ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED))`,
	`DELETE FROM idempotent_inbox_positions WHERE ctid = ANY (ARRAY(
		SELECT ctid FROM idempotent_inbox_positions WHERE namespace = $1 AND expires_at <= now() ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED))`,
	`DELETE FROM idempotent_inbox_redrives WHERE ctid = ANY (ARRAY(
		SELECT ctid FROM idempotent_inbox_redrives WHERE namespace = $1 AND expires_at <= now() LIMIT $2 FOR UPDATE SKIP LOCKED))`,
	// An event that is accepted at the same time has renewed seen_at: the row is locked, and looked at again, before it goes.
	`DELETE FROM idempotent_inbox_objects WHERE ctid = ANY (ARRAY(
		SELECT o.ctid FROM idempotent_inbox_objects o WHERE o.namespace = $1 AND o.busy_event IS NULL AND o.seen_at < now() - interval '1 day'
		AND NOT EXISTS (SELECT FROM idempotent_inbox_events e WHERE e.namespace = $1 AND e.object = o.object AND e.settled_at IS NULL)
		LIMIT $2 FOR UPDATE SKIP LOCKED))`,
}

// Prune deletes up to limit events that are past their retention, 1 or more, and as much of what belongs to such, in
// transactions of 500 rows. It drops the partitions of payloads whose day is over, after it moved those that are still
// needed, and creates the partition of tomorrow's events. It returns how many rows it deleted, also with an error. Call it
// each minute or so, from any number of processes.
func (s *Store) Prune(ctx context.Context, limit int) (deleted int, err error) {
	if limit < 1 {
		return 0, fmt.Errorf("inbox: Prune: limit is %d; allowed: 1 or more", limit)
	}
	for _, query := range pruneSQL {
		for left := limit; left > 0; {
			size := min(left, pruneBatch)
			tag, err := s.pool.Exec(ctx, query, s.namespace, size)
			if err != nil {
				return deleted, failed("Prune", err)
			}
			n := int(tag.RowsAffected())
			deleted += n
			left -= n
			if n < size {
				break
			}
		}
	}
	now := time.Now()
	if bodies := time.Duration(s.bodies.Load()); bodies > 0 {
		if err := s.createPartition(ctx, dropDay(now, bodies).AddDate(0, 0, 1)); err != nil {
			return deleted, failed("Prune", err)
		}
	}
	if err := s.dropPartitions(ctx, now.UTC().Truncate(24*time.Hour)); err != nil {
		return deleted, failed("Prune", err)
	}
	return deleted, nil
}

// dropPartitions drops those of days before today. One that cannot be locked within a second is left for the next Prune, so
// that the events that are accepted meanwhile do not wait for it.
func (s *Store) dropPartitions(ctx context.Context, today time.Time) error {
	rows, err := s.pool.Query(ctx, `SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
		WHERE i.inhparent = $1::regclass ORDER BY 1`, payloadTable)
	if err != nil {
		return err
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	for _, name := range names {
		day, err := time.Parse(payloadTable+"_20060102", name)
		if err != nil || !day.Before(today) {
			continue // not a partition of this package, or not over yet
		}
		err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error { return dropPartition(ctx, tx, day, today) })
		if server, ok := errors.AsType[*pgconn.PgError](err); ok && server.Code == "55P03" { // lock_not_available
			continue
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Payloads of all namespaces are in one partition. The events are locked before the partition, as everywhere.
const keepSQL = `WITH kept AS MATERIALIZED (
		SELECT e.id FROM idempotent_inbox_events e JOIN idempotent_inbox_payloads p ON p.day = e.payload_day AND p.event = e.id
		WHERE p.day = $1::date AND ` + payloadKept + ` ORDER BY e.id FOR UPDATE OF e
	), moved AS (
		UPDATE idempotent_inbox_events e SET payload_day = $2::date FROM kept WHERE e.id = kept.id
	)
	INSERT INTO idempotent_inbox_payloads (day, event, payload)
	SELECT $2::date, p.event, p.payload FROM idempotent_inbox_payloads p JOIN kept ON kept.id = p.event WHERE p.day = $1::date`

func dropPartition(ctx context.Context, tx pgx.Tx, day, today time.Time) error {
	if _, err := tx.Exec(ctx, `SET LOCAL lock_timeout = '1s'`); err != nil {
		return err
	}
	later := today.AddDate(0, 0, keepDays)
	if err := createPartition(ctx, tx, later); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, keepSQL, day, later); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, `DROP TABLE IF EXISTS `+partitionOf(day))
	return err
}

package inbox

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/idempotent-go/idempotent/webhook"
)

const acceptSQL = `WITH event AS (
	INSERT INTO idempotent_inbox_events AS e
		(namespace, key, source, object, provider_id, head, received_at, receipts, trail, payload_day, expires_at)
	VALUES ($1, $2, $3, $4, $5, $6, $7, ARRAY[$8::bytea], ARRAY[$9::bytea], $10::date, now() + $11::bigint * interval '1 microsecond')
	ON CONFLICT (namespace, key) DO UPDATE SET deliveries = e.deliveries + 1,
		receipts = CASE WHEN cardinality(e.receipts) < $13 THEN array_append(e.receipts, $8::bytea) ELSE e.receipts END
	RETURNING id, deliveries, settled_at IS NOT NULL AND expires_at <= now() AS expired
), payload AS (
	INSERT INTO idempotent_inbox_payloads (day, event, payload) SELECT $10::date, id, $12::bytea FROM event WHERE deliveries = 1
), object AS (
	INSERT INTO idempotent_inbox_objects AS o (namespace, object) SELECT $1, $4::bytea FROM event WHERE deliveries = 1 AND $4::bytea IS NOT NULL
	ON CONFLICT (namespace, object) DO UPDATE SET seen_at = now()
) SELECT deliveries, expired FROM event`

// A known event is counted also when the backlog is full.
const acceptKnownSQL = `UPDATE idempotent_inbox_events SET deliveries = deliveries + 1,
	receipts = CASE WHEN cardinality(receipts) < $4 THEN array_append(receipts, $3::bytea) ELSE receipts END
	WHERE namespace = $1 AND key = $2 AND NOT (settled_at IS NOT NULL AND expires_at <= now()) RETURNING deliveries`

const dropExpiredSQL = `DELETE FROM idempotent_inbox_events WHERE namespace = $1 AND key = $2 AND settled_at IS NOT NULL AND expires_at <= now()`

// Accept implements webhook.Queue. It is one statement.
func (s *Store) Accept(ctx context.Context, a webhook.Arrival) (deliveries int, err error) {
	receipt := encode(a.Receipt)
	ok, err := s.room.has(ctx, s, a.Backlog)
	if err != nil {
		return 0, failed("Accept", err)
	}
	if !ok {
		err := s.pool.QueryRow(ctx, acceptKnownSQL, s.namespace, []byte(a.Key), receipt, webhook.MaxReceipts).Scan(&deliveries)
		if errors.Is(err, pgx.ErrNoRows) {
			return 0, webhook.ErrBacklogFull
		}
		if err != nil {
			return 0, failed("Accept", err)
		}
		return deliveries, nil
	}
	s.bodies.Store(int64(a.Retention.Bodies))
	h := head{a.Event.ID, a.Event.Type, a.Event.Object, a.Event.Version, a.Event.OccurredAt, a.Event.Unsigned, a.TraceParent}
	day := dropDay(time.Now(), a.Retention.Bodies)
	args := []any{
		s.namespace, []byte(a.Key), a.Source, objectOf(a.Source, a.Event.Object), hash(a.Source, a.Event.ID), encode(h),
		a.Receipt.At, receipt, encode(a.Step), day, micros(a.Retention.Events), encode(payload(a.Payload)), webhook.MaxReceipts,
	}
	for range 3 { // without a partition; with an expired event; at last
		var expired bool
		err = s.pool.QueryRow(ctx, acceptSQL, args...).Scan(&deliveries, &expired)
		switch {
		case noPartition(err):
			err = s.createPartition(ctx, day)
		case err == nil && expired:
			_, err = s.pool.Exec(ctx, dropExpiredSQL, s.namespace, []byte(a.Key))
		case err == nil:
			if deliveries == 1 {
				s.room.taken()
			}
			return deliveries, nil
		}
		if err != nil {
			return 0, failed("Accept", err)
		}
	}
	return 0, failed("Accept", errors.New("the event was changed by other processes at the same time"))
}

// noPartition reports whether a row had no partition to go to (SQLSTATE 23514, check_violation, as Postgres reports it).
func noPartition(err error) bool {
	server, ok := errors.AsType[*pgconn.PgError](err)
	return ok && server.Code == "23514" && server.TableName == payloadTable
}

// A room says whether the backlog has room for a new event. Counting is as expensive as the backlog is long, so a count is
// good for half of the events that it leaves room for, within a second: a process never exceeds the limit by itself, and
// several by at most what the others accept meanwhile.
type room struct {
	mu    sync.Mutex
	until time.Time
	left  int
}

// One count for each of the two indexes.
const countSQL = `SELECT (SELECT count(*) FROM (SELECT FROM idempotent_inbox_events
		WHERE namespace = $1 AND settled_at IS NULL AND object IS NULL LIMIT $2) alone)
	+ (SELECT count(*) FROM (SELECT FROM idempotent_inbox_events
		WHERE namespace = $1 AND settled_at IS NULL AND object IS NOT NULL LIMIT $2) others)`

func (r *room) has(ctx context.Context, s *Store, limit int) (bool, error) {
	if limit <= 0 {
		return true, nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.left > 0 && time.Now().Before(r.until) {
		return true, nil
	}
	var n int
	if err := s.pool.QueryRow(ctx, countSQL, s.namespace, limit).Scan(&n); err != nil {
		return false, err
	}
	r.left, r.until = (limit-n)/2, time.Now().Add(time.Second)
	return n < limit, nil
}

// taken counts an accepted event.
func (r *room) taken() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.left--
}

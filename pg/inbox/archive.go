package inbox

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/idempotent-go/idempotent/webhook"
)

// An event is past its retention, or its payload is, when it is settled and the time is over, whether it was pruned or not.
const (
	alive       = `NOT (e.settled_at IS NOT NULL AND e.expires_at <= now())`
	payloadKept = `e.payload_day IS NOT NULL AND (e.settled_at IS NULL OR e.payload_until > now())`
)

const (
	getSQL = `SELECT ` + columns + `, p.payload FROM idempotent_inbox_events e
		LEFT JOIN idempotent_inbox_payloads p ON p.day = e.payload_day AND p.event = e.id AND ` + payloadKept + `
		WHERE e.namespace = $1 AND ` + alive
	getByKeySQL = getSQL + ` AND e.key = $2`
	getByIDSQL  = getSQL + ` AND e.provider_id = $2 ORDER BY e.received_at DESC, e.id DESC LIMIT 1`
)

// Get implements webhook.Archive.
func (s *Store) Get(ctx context.Context, l webhook.Lookup) (webhook.Record, error) {
	query, arg := getByKeySQL, []byte(l.Key)
	if l.Key == "" {
		query, arg = getByIDSQL, hash(l.Source, l.ID)
	}
	r, err := scanRecord(s.pool.QueryRow(ctx, query, s.namespace, arg))
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return webhook.Record{}, fmt.Errorf("%w: key %q, source %q, id %q", webhook.ErrNotFound, l.Key, l.Source, l.ID)
	case err != nil:
		return webhook.Record{}, failed("Get", err)
	}
	return r, nil
}

// mostScanned bounds how many events a page looks at, so that a filter that matches few takes a bounded time.
const mostScanned = 5000

const findSQL = `SELECT ` + columns + `, NULL::bytea, e.id FROM idempotent_inbox_events e
	WHERE e.namespace = $1 AND ` + alive + ` AND (e.received_at, e.id) < ($2, $3)
		AND ($4::timestamptz IS NULL OR e.received_at >= $4) AND ($5::timestamptz IS NULL OR e.received_at < $5)
		AND ($6::text[] IS NULL OR e.state = ANY ($6)) AND ($7 = '' OR e.source = $7) AND ($8 = '' OR e.cause = $8)
		AND ($9::bytea IS NULL OR e.object = $9)
	ORDER BY e.received_at DESC, e.id DESC LIMIT $10`

// Find implements webhook.Archive.
func (s *Store) Find(ctx context.Context, f webhook.Filter, cursor string, limit int) (page []webhook.Record, next string, err error) {
	if f.Object != "" && f.Source == "" {
		return nil, "", errors.New("inbox: Find: the filter has an object and no source; allowed: both")
	}
	if limit < 1 {
		return nil, "", fmt.Errorf("inbox: Find: limit is %d; allowed: 1 or more", limit)
	}
	after, err := parseCursor(cursor)
	if err != nil {
		return nil, "", err
	}
	var states []string
	for _, state := range f.States {
		states = append(states, string(state))
	}
	for scanned := 0; scanned < mostScanned; {
		n := max(limit-len(page), 100)
		rows, err := s.pool.Query(ctx, findSQL, s.namespace, after.at, after.id, timeOrNull(f.From), timeOrNull(f.To), states,
			f.Source, string(f.Cause), objectOf(f.Source, f.Object), n)
		if err != nil {
			return nil, "", failed("Find", err)
		}
		found := 0
		for rows.Next() && len(page) < limit {
			r, err := scanRecord(rows, &after.id)
			if err != nil {
				rows.Close()
				return nil, "", failed("Find", err)
			}
			after.at = r.ReceivedAt
			found++
			if f.Matches(&r) {
				page = append(page, r)
			}
		}
		rows.Close()
		if err := rows.Err(); err != nil {
			return nil, "", failed("Find", err)
		}
		scanned += found
		if len(page) == limit {
			break
		}
		if found < n {
			return page, "", nil
		}
	}
	return page, after.String(), nil
}

// A cursor is the place of the last event of a page.
type cursor struct {
	at time.Time
	id int64
}

func (c cursor) String() string {
	b := binary.BigEndian.AppendUint64(nil, uint64(c.at.UnixMicro())) //nolint:gosec // read back as it was
	return base64.RawURLEncoding.EncodeToString(binary.BigEndian.AppendUint64(b, uint64(c.id)))
}

func parseCursor(text string) (cursor, error) {
	if text == "" {
		return cursor{at: time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)}, nil
	}
	b, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || len(b) != 16 {
		return cursor{}, fmt.Errorf("inbox: Find: cursor is %q; allowed: one that Find returned", text)
	}
	return cursor{
		at: time.UnixMicro(int64(binary.BigEndian.Uint64(b))), //nolint:gosec // as String wrote it
		id: int64(binary.BigEndian.Uint64(b[8:])),             //nolint:gosec // the same
	}, nil
}

package inbox

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/vmihailenco/msgpack/v5"

	"github.com/idempotent-go/idempotent/webhook"
)

// errUnreadable is the error of a row that this package cannot have written.
var errUnreadable = errors.New("the stored event cannot be read")

// A head is what does not change in an event. Like a payload, it is msgpack: JSON would change bytes that are no UTF-8.
type head struct {
	ID, Type, Object string
	Version          int64
	OccurredAt       time.Time
	Unsigned         bool
	TraceParent      string
}

// encode cannot fail for the types of this package.
func encode(v any) []byte {
	data, err := msgpack.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("inbox: a %T is not encoded: %v", v, err))
	}
	return data
}

// A stored payload. Headers and part are nil if they were.
type payload struct {
	Header http.Header
	Body   []byte
	Part   []byte
	Sealed bool
}

// columns are what scanRecord reads, of an event e. The payload comes after them.
const columns = `e.key, e.source, e.head, e.received_at, e.receipts, e.deliveries, e.state, e.due, e.attempts, e.attempts_before,
	e.redrives, e.cause, e.reason, e.waits_for, e.parked_until, e.settled_at, e.applied, e.changed, e.trail, e.steps, e.erased`

// scanRecord reads columns and, after them, the payload and what else extra takes.
func scanRecord(row pgx.Row, extra ...any) (r webhook.Record, err error) {
	var (
		h                          head
		key, raw, reason, waitsFor []byte
		receipts, trail            [][]byte
		due                        time.Time
		parkedUntil, settledAt     *time.Time
		body                       []byte
		cause, state               string
	)
	err = row.Scan(append([]any{&key, &r.Source, &raw, &r.ReceivedAt, &receipts, &r.Deliveries, &state, &due, &r.Attempts,
		&r.AttemptsBefore, &r.Redrives, &cause, &reason, &waitsFor, &parkedUntil, &settledAt, &r.Applied,
		(*[]byte)(&r.Changed), &trail, &r.Steps, &r.Erased, &body}, extra...)...)
	if err != nil {
		return r, err
	}
	if err := msgpack.Unmarshal(raw, &h); err != nil {
		return r, fmt.Errorf("%w: key %q, its head", errUnreadable, key)
	}
	r.Key, r.ID, r.Type, r.Object, r.Version = string(key), h.ID, h.Type, h.Object, h.Version
	r.Unsigned, r.TraceParent = h.Unsigned, h.TraceParent
	if !h.OccurredAt.IsZero() {
		r.OccurredAt = h.OccurredAt.UTC()
	}
	r.ReceivedAt = r.ReceivedAt.UTC()
	r.State, r.Cause, r.Reason, r.WaitsFor = webhook.State(state), webhook.Cause(cause), string(reason), string(waitsFor)
	r.ParkedUntil, r.SettledAt = utc(parkedUntil), utc(settledAt)
	if !r.State.Settled() && r.State != webhook.Running {
		r.Due = due.UTC()
	}
	if r.Receipts, err = decodeAll[webhook.Receipt](receipts); err != nil {
		return r, fmt.Errorf("%w: key %q, its receipts", errUnreadable, key)
	}
	if r.Trail, err = decodeAll[webhook.Step](trail); err != nil {
		return r, fmt.Errorf("%w: key %q, its trail", errUnreadable, key)
	}
	if body != nil {
		var p payload
		if err := msgpack.Unmarshal(body, &p); err != nil {
			return r, fmt.Errorf("%w: key %q, its payload", errUnreadable, key)
		}
		r.Payload = (*webhook.Payload)(&p)
	}
	return r, nil
}

func decodeAll[T any](raw [][]byte) ([]T, error) {
	all := make([]T, len(raw))
	for i, b := range raw {
		if err := msgpack.Unmarshal(b, &all[i]); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func utc(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.UTC()
}

// micros is a duration as the statements take it.
func micros(d time.Duration) int64 { return max(d, 0).Microseconds() }

func timeOrNull(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

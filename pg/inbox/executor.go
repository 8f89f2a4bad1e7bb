package inbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/vmihailenco/msgpack/v5"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/internal/record"
	"github.com/idempotent-go/idempotent/internal/seam"
	"github.com/idempotent-go/idempotent/webhook"
)

type txKey struct{}

// Tx returns the transaction of the handler whose context ctx is, nil elsewhere. The handler must not end it, nor use it
// from several goroutines at once.
func Tx(ctx context.Context) pgx.Tx {
	tx, _ := ctx.Value(txKey{}).(pgx.Tx)
	return tx
}

// Executor implements webhook.Store. It runs each handler in a transaction, which Tx returns. An error after which the
// event is tried again rolls the handler's writes back.
func (s *Store) Executor(cfg webhook.ExecutorConfig) (webhook.Executor, error) {
	if cfg.TTL <= 0 {
		return nil, fmt.Errorf("inbox: Executor: TTL is %v; allowed: more than 0", cfg.TTL)
	}
	return &executor{store: s, ttl: cfg.TTL, registry: idempotent.NewErrorRegistry()}, nil
}

type executor struct {
	store    *Store
	ttl      time.Duration
	registry *idempotent.ErrorRegistry
}

// Close rolls back what Settle was never called for.
func (x *executor) Close() error {
	x.store.mu.Lock()
	open := x.store.open
	x.store.open = map[string]*execution{}
	x.store.mu.Unlock()
	for _, e := range open {
		e.rollback()
	}
	return nil
}

const (
	lockSQL = `SELECT pg_try_advisory_xact_lock($1::bigint), set_config('idle_in_transaction_session_timeout', $2, true)`

	// An event that is not running with this token is another worker's.
	claimSQL = `SELECT coalesce(r.attempts, 0) + coalesce(e.interrupted, 0), r.outcome, e.id IS NOT NULL
		FROM (VALUES (1)) one
		LEFT JOIN idempotent_inbox_runs r ON r.namespace = $1 AND r.key_hash = sha256($2::bytea) AND r.expires_at > clock_timestamp()
		LEFT JOIN idempotent_inbox_events e ON e.namespace = $1 AND e.key = $3::bytea AND e.token = $4 AND e.state = 'running'`

	// recordSQL stores an outcome, or counts an attempt without one.
	recordSQL = `INSERT INTO idempotent_inbox_runs AS r (namespace, key_hash, attempts, outcome, expires_at)
		VALUES ($1, sha256($2::bytea), $3, $4, clock_timestamp() + $5::bigint * interval '1 microsecond')
		ON CONFLICT (namespace, key_hash) DO UPDATE SET expires_at = EXCLUDED.expires_at,
			attempts = CASE WHEN r.expires_at > clock_timestamp() THEN r.attempts ELSE 0 END + EXCLUDED.attempts,
			outcome = coalesce(EXCLUDED.outcome, CASE WHEN r.expires_at > clock_timestamp() THEN r.outcome END)`

	setSavepoint      = `SAVEPOINT idempotent`
	rollbackSavepoint = `ROLLBACK TO SAVEPOINT idempotent`
)

// Execute implements webhook.Executor.
func (x *executor) Execute(ctx context.Context, e webhook.Execution) (out webhook.Outcome, attempt int, err error) {
	r := &execution{executor: x, key: e.Key}
	defer func() {
		if !r.kept {
			r.rollback()
		}
	}()
	before, found, err := r.claim(ctx, e.Ticket)
	switch {
	case err != nil:
		return out, 0, err
	case found != nil:
		return x.replay(found)
	case before > 0 && e.Refuse:
		return out, before, fmt.Errorf("%w: %d executions of the handler", idempotent.ErrInterrupted, before)
	}
	attempt = before + 1
	out, err = r.run(ctx, e.Run, attempt)
	if e.Ticket.Token != "" {
		if r.tx != nil || r.failed != nil {
			x.store.keep(e.Ticket.Token, r)
		}
		return out, attempt, err
	}
	if r.failed == nil && r.tx != nil {
		r.failed = r.commit(ctx)
	}
	if r.failed != nil {
		return webhook.Outcome{}, attempt, failed("Execute", r.failed)
	}
	return out, attempt, err
}

func (x *executor) replay(raw []byte) (out webhook.Outcome, attempt int, err error) {
	rec, err := record.Decode(raw)
	if err != nil {
		return out, 0, err
	}
	if rec.Outcome != record.OutcomeValue {
		return out, int(rec.Attempt), seam.DecodeError(x.registry, rec, func(string) {})
	}
	if err := msgpack.Unmarshal(rec.Payload, &out); err != nil {
		return webhook.Outcome{}, 0, fmt.Errorf("%w: its payload is no outcome of a handler", idempotent.ErrCorruptRecord)
	}
	return out, int(rec.Attempt), nil
}

// newRecord returns the bytes of the record of an outcome.
func (x *executor) newRecord(attempt int, out webhook.Outcome, err error) []byte {
	rec := &record.Record{
		Kind: record.KindDone, Token: record.NewToken(), Attempt: uint32(attempt), At: time.Now(), //nolint:gosec // a count of attempts
		Outcome: record.OutcomeValue, Codec: record.CodecMsgpack, Payload: encode(out),
	}
	if err != nil {
		rec.Outcome, rec.Payload = record.OutcomeError, seam.EncodeError(x.registry, err, func(string) {})
	}
	return rec.Encode()
}

// isUnknown reports whether an error says nothing final of the handler.
func isUnknown(ctx context.Context, err error) bool {
	return ctx.Err() != nil || seam.IsUnknown(err)
}

// keep holds an execution for Settle.
func (s *Store) keep(token string, r *execution) {
	r.kept = true
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open[token] = r
}

// claimExecution returns the execution that was kept for Settle, nil if there is none.
func (s *Store) claimExecution(token string) *execution {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.open[token]
	delete(s.open, token)
	return r
}

var errAborted = errors.New("a statement of the handler failed, so its transaction cannot be committed")

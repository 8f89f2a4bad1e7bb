package pg

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/internal/record"
)

// The statements of this package. clock_timestamp() and not now(): a transaction of the caller's may be old.
const (
	readSQL = `SELECT outcome FROM idempotent_records WHERE namespace = $1 AND key_hash = $2 AND expires_at > clock_timestamp()`

	lockedReadSQL = `SELECT outcome, expires_at > clock_timestamp() FROM idempotent_records WHERE namespace = $1 AND key_hash = $2`

	// insertSQL fails if there is a record, so that its transaction fails, too. $6 is the TTL in microseconds.
	insertSQL = `INSERT INTO idempotent_records (namespace, key_hash, fingerprint, kind, outcome, expires_at)
		VALUES ($1, $2, $3, $4, $5, coalesce(clock_timestamp() + $6::bigint * interval '1 microsecond', 'infinity'))`

	expireSQL = `DELETE FROM idempotent_records WHERE namespace = $1 AND key_hash = $2 AND expires_at <= clock_timestamp()`

	forgetSQL = `DELETE FROM idempotent_records WHERE namespace = $1 AND key_hash = $2`

	// A batch locks and deletes the records that expired first. SKIP LOCKED keeps several processes that prune, and a Run
	// that replaces an expired record, from waiting for each other.
	pruneSQL = `DELETE FROM idempotent_records WHERE ctid = ANY (ARRAY(
		SELECT ctid FROM idempotent_records WHERE namespace = $1 AND expires_at <= clock_timestamp()
		ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED))`

	tryLockSQL     = `SELECT pg_try_advisory_xact_lock($1::bigint)`
	beginLockSQL   = `SELECT pg_try_advisory_xact_lock($1::bigint), set_config('idle_in_transaction_session_timeout', $2, true)`
	waitLockSQL    = `SELECT pg_advisory_xact_lock($1::bigint)`
	lockTimeoutSQL = `SELECT set_config('lock_timeout', $1, true)`
	readTimeoutSQL = `SELECT current_setting('lock_timeout')`

	// A row lock is written ahead, so that the COMMIT after it waits for the standby. One that wrote nothing would not.
	confirmSQL = `SELECT FROM idempotent_records WHERE namespace = $1 AND key_hash = $2 FOR UPDATE`

	setSavepoint      = `SAVEPOINT idempotent`
	releaseSavepoint  = `RELEASE SAVEPOINT idempotent`
	rollbackSavepoint = `ROLLBACK TO SAVEPOINT idempotent`
)

// pruneBatch is how many records one transaction of Prune deletes: few enough to be over in milliseconds.
const pruneBatch = 500

// read returns the record of op, nil if there is none.
func (c *core) read(ctx context.Context, op *operation) (*record.Record, error) {
	var raw []byte
	err := c.pool.QueryRow(ctx, readSQL, c.namespace, op.hash).Scan(&raw)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil, nil
	case err != nil:
		return nil, unavailable(ctx, err)
	}
	return decodeRecord(raw)
}

func decodeRecord(raw []byte) (*record.Record, error) {
	rec, err := record.Decode(raw)
	if err == nil && (rec.Kind != record.KindDone || rec.Outcome == record.OutcomeInterrupted) {
		err = fmt.Errorf("%w: it is not one of a finished operation", idempotent.ErrCorruptRecord)
	}
	return rec, err
}

// kindOf names an outcome for people who read the table.
func kindOf(outcome record.Outcome) string {
	switch outcome {
	case record.OutcomeError:
		return "error"
	case record.OutcomePanic:
		return "panic"
	}
	return "value"
}

// nonEmpty makes an empty fingerprint NULL.
func nonEmpty(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	return b
}

// forget deletes the record of op, under its lock.
func (c *core) forget(ctx context.Context, op *operation) error {
	op.cfg.noWait = true
	t, err := c.claim(ctx, op, op.deadline())
	if errors.Is(err, idempotent.ErrCorruptRecord) { // Forget is for these, too
		if _, err = c.pool.Exec(ctx, forgetSQL, c.namespace, op.hash); err != nil {
			return unavailable(ctx, err)
		}
		return nil
	}
	if err != nil {
		return err
	}
	defer t.close(ctx)
	b := &pgx.Batch{}
	b.Queue(forgetSQL, c.namespace, op.hash)
	b.Queue("COMMIT")
	if err := t.tx.SendBatch(ctx, b).Close(); err != nil {
		return unavailable(ctx, err)
	}
	t.ended = true
	return nil
}

// Prune deletes up to limit expired records of the executor's namespace, 1 or more, in transactions of 500, and returns how many it
// deleted, also with an error. Expired records are never replayed, so Prune only frees space: call it each minute or so,
// from any number of processes.
func (e *Executor[T]) Prune(ctx context.Context, limit int) (deleted int, err error) {
	if limit < 1 {
		return 0, invalid("Prune", "limit", fmt.Sprint(limit), "1 or more")
	}
	for deleted < limit {
		size := min(limit-deleted, pruneBatch)
		tag, err := e.pool.Exec(ctx, pruneSQL, e.namespace, size)
		if err != nil {
			return deleted, unavailable(ctx, err)
		}
		deleted += int(tag.RowsAffected())
		if int(tag.RowsAffected()) < size {
			break
		}
	}
	return deleted, nil
}

package pg

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/internal/record"
)

// A transaction holds the lock of an operation. It has a savepoint, set after the lock was taken: rolling back to it keeps
// the lock.
type transaction struct {
	*core
	op   *operation
	conn *pgxpool.Conn // nil in a transaction of the caller's
	tx   pgx.Tx

	found   *record.Record // the record, if there is one
	expired bool           // there is an expired one, which an insert must delete first
	ended   bool           // committed or rolled back
}

// claim begins a transaction, takes the lock of op, waiting until deadline, and reads the record. All of this is one round
// trip if the lock is free.
func (c *core) claim(ctx context.Context, op *operation, deadline time.Time) (*transaction, error) {
	conn, err := c.pool.Acquire(ctx)
	if err != nil {
		return nil, unavailable(ctx, err)
	}
	b := &pgx.Batch{}
	b.BeginTx(c.begin)
	t := &transaction{core: c, op: op, conn: conn}
	if err := t.take(ctx, b, deadline); err != nil {
		t.close(ctx)
		return nil, err
	}
	return t, nil
}

// take sends b, which is empty or begins the transaction, and the statements that take the lock, read the record and set
// the savepoint.
func (t *transaction) take(ctx context.Context, b *pgx.Batch, deadline time.Time) error {
	var br pgx.BatchResults
	var locked bool
	var err error
	if begins := b.Len() > 0; begins {
		b.Queue(beginLockSQL, t.op.lock, t.idle)
		t.queueRead(b)
		br = t.conn.SendBatch(ctx, b)
		t.tx = br.Tx()
		if _, err = br.Exec(); err == nil {
			err = br.QueryRow().Scan(&locked, nil)
		}
	} else {
		t.queueOnly(b)
		br = t.tx.SendBatch(ctx, b)
		err = br.QueryRow().Scan(&locked)
	}
	if err == nil && locked {
		err = t.scanRead(br)
	}
	if closeErr := br.Close(); err == nil {
		err = closeErr
	}
	switch {
	case errors.Is(err, idempotent.ErrCorruptRecord):
		return err
	case err != nil:
		return unavailable(ctx, err)
	case locked:
		return nil
	}
	return t.wait(ctx, deadline)
}

func (t *transaction) queueOnly(b *pgx.Batch) {
	b.Queue(tryLockSQL, t.op.lock)
	t.queueRead(b)
}

func (t *transaction) queueRead(b *pgx.Batch) {
	b.Queue(lockedReadSQL, t.namespace, t.op.hash)
	b.Queue(setSavepoint)
}

// scanRead reads the result of lockedReadSQL.
func (t *transaction) scanRead(br pgx.BatchResults) error {
	var raw []byte
	var live bool
	err := br.QueryRow().Scan(&raw, &live)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil
	case err != nil:
		return err
	case !live:
		t.expired = true
		return nil
	}
	t.found, err = decodeRecord(raw)
	return err
}

// wait waits for the lock until deadline, and reads the record after it. Postgres counts the time, so that a wait that is
// over costs no connection. The lock is taken inside the savepoint: if that fails, a transaction of the caller's stays
// usable, and if it succeeds, the lock outlives its release. lock_timeout is put back for the statements of fn.
func (t *transaction) wait(ctx context.Context, deadline time.Time) error {
	if t.op.cfg.noWait {
		return t.busy(ctx)
	}
	t.waitStarted(ctx, t.op)
	var timeout string
	if err := t.tx.QueryRow(ctx, readTimeoutSQL).Scan(&timeout); err != nil {
		return unavailable(ctx, err)
	}
	left := time.Until(deadline).Milliseconds()
	if left < 1 { // 0 would mean no limit
		return t.busy(ctx)
	}
	b := &pgx.Batch{}
	b.Queue(lockTimeoutSQL, strconv.FormatInt(left, 10))
	b.Queue(waitLockSQL, t.op.lock)
	b.Queue(lockTimeoutSQL, timeout)
	b.Queue(releaseSavepoint)
	t.queueRead(b)
	br := t.tx.SendBatch(ctx, b)
	var err error
	for range 4 {
		if err == nil {
			_, err = br.Exec()
		}
	}
	if err == nil {
		err = t.scanRead(br)
	}
	if closeErr := br.Close(); err == nil {
		err = closeErr
	}
	switch {
	case err == nil:
		t.waitEnded(ctx, t.op, nil)
		return nil
	case sqlState(err) == codeLockNotAvailable:
		return t.busy(ctx)
	case errors.Is(err, idempotent.ErrCorruptRecord):
		return err
	}
	return unavailable(ctx, err)
}

// busy gives the wait up. A transaction of the caller's is as before.
func (t *transaction) busy(ctx context.Context) error {
	if t.conn == nil {
		if err := t.undo(ctx); err != nil {
			return unavailable(ctx, err)
		}
	}
	err := &idempotent.InProgressError{}
	t.waitEnded(ctx, t.op, err)
	return err
}

// undo rolls back to the savepoint and removes it.
func (t *transaction) undo(ctx context.Context) error {
	_, err := t.tx.Exec(ctx, rollbackSavepoint+"; "+releaseSavepoint) // not prepared: the transaction may be aborted
	return err
}

// close rolls back what is not committed, and returns the connection to the pool. Should the rollback fail, the
// connection is closed, which makes Postgres roll back.
func (t *transaction) close(ctx context.Context) {
	if t.conn == nil {
		return
	}
	// With status 'I' there is no transaction: begin failed, or the server ended it.
	if open := !t.conn.Conn().IsClosed() && t.conn.Conn().PgConn().TxStatus() != 'I'; open && !t.ended {
		ctx, cancel := t.detached(ctx)
		defer cancel()
		if _, err := t.conn.Exec(ctx, "ROLLBACK"); err != nil {
			_ = t.conn.Conn().Close(ctx)
		}
	}
	t.ended = true
	t.conn.Release()
	t.conn = nil
}

// detached returns a context for what is to be done also for a caller that has left.
func (c *core) detached(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), c.commitTimeout)
}

// finish ends an execution that is not recorded: fn's writes are rolled back and the key is free. err is fn's own error if
// fn decided so, otherwise ErrRolledBack.
func (t *transaction) finish(ctx context.Context, kind idempotent.EventKind, err error) result {
	t.rollback(ctx)
	t.observe(ctx, idempotent.Event{Kind: kind, Key: t.op.key, Attempt: 1, Err: err})
	return failure(err)
}

// rollback undoes what fn wrote, also in a transaction of the caller's.
func (t *transaction) rollback(ctx context.Context) {
	if t.conn != nil {
		t.close(ctx)
		return
	}
	ctx, cancel := t.detached(ctx)
	defer cancel()
	if err := t.undo(ctx); err != nil {
		t.logger.WarnContext(ctx, "pg: savepoint not rolled back", "key", t.op.key, "namespace", t.namespace, "error", safeText(err))
	}
}

func rolledBack(cause error) error { return wrap(ErrRolledBack, cause) }

// lost is the error of fn whose connection is gone.
func lost(err error) error { return rolledBack(fmt.Errorf("connection lost while fn ran: %w", err)) }

package inbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/pg/internal/guard"
	"github.com/idempotent-go/idempotent/webhook"
)

// An execution is one run of a handler in its transaction.
type execution struct {
	*executor
	key  string
	conn *pgxpool.Conn
	tx   pgx.Tx // nil once it has ended

	attempts int    // what the record adds
	outcome  []byte // nil if the handler ended without one
	failed   error  // why the transaction of a handler that succeeded was rolled back
	kept     bool   // for Settle
}

// claim begins the transaction, takes the lock of the run, and returns what is recorded. All of this is one round trip.
func (r *execution) claim(ctx context.Context, t webhook.Ticket) (before int, outcome []byte, err error) {
	s := r.store
	if r.conn, err = s.pool.Acquire(ctx); err != nil {
		return 0, nil, unavailable(err)
	}
	b := &pgx.Batch{}
	b.BeginTx(pgx.TxOptions{IsoLevel: pgx.ReadCommitted, AccessMode: pgx.ReadWrite})
	b.Queue(lockSQL, s.lockID(r.key), s.idle)
	b.Queue(claimSQL, s.namespace, []byte(r.key), []byte(t.Key), t.Token)
	b.Queue(setSavepoint)
	br := r.conn.SendBatch(ctx, b)
	r.tx = br.Tx()
	var locked, ours bool
	if _, err = br.Exec(); err == nil {
		err = br.QueryRow().Scan(&locked, nil)
	}
	if err == nil {
		err = br.QueryRow().Scan(&before, &outcome, &ours)
	}
	if closeErr := br.Close(); err == nil {
		err = closeErr
	}
	switch {
	case err != nil:
		return 0, nil, unavailable(err)
	case !locked:
		return 0, nil, &idempotent.InProgressError{}
	case t.Token != "" && !ours:
		return 0, nil, webhook.ErrTicketLost
	}
	return before, outcome, nil
}

// unavailable is the error of a handler that did not run because of err.
func unavailable(err error) error {
	return fmt.Errorf("inbox: Execute: %w: %w", idempotent.ErrUnavailable, err)
}

// run calls the handler and decides what of it is to be committed.
func (r *execution) run(ctx context.Context, handler func(context.Context, int) (webhook.Outcome, error), attempt int) (webhook.Outcome, error) {
	tx := &guard.Tx{Tx: r.tx}
	out, err := handler(context.WithValue(ctx, txKey{}, pgx.Tx(tx)), attempt)
	if err == nil {
		switch {
		case tx.Touched:
			r.fail(guard.ErrEnded)
		case r.status() != 'T':
			r.fail(errAborted)
		default:
			r.outcome = r.newRecord(attempt, out, nil)
		}
		return out, nil
	}
	if idempotent.IsRetryable(err) && !isUnknown(ctx, err) {
		r.rollback()
		return out, err
	}
	if isUnknown(ctx, err) {
		r.attempts = 1
	} else {
		r.outcome = r.newRecord(attempt, out, err)
	}
	r.undo(ctx)
	return out, err
}

// status is 'T' in a transaction that can be committed.
func (r *execution) status() byte {
	if r.conn.Conn().IsClosed() {
		return 0
	}
	return r.conn.Conn().PgConn().TxStatus()
}

// undo rolls the handler's writes back and keeps the transaction for the record. Without a connection, the record is
// written by itself: there is nothing else to commit.
func (r *execution) undo(ctx context.Context) {
	ctx, cancel := detached(ctx)
	defer cancel()
	if r.status() != 0 {
		if _, err := r.tx.Exec(ctx, rollbackSavepoint); err == nil {
			return
		}
	}
	r.rollback()
	_, _ = r.store.pool.Exec(ctx, recordSQL, r.recordArgs()...)
}

func (r *execution) recordArgs() []any {
	return []any{r.store.namespace, []byte(r.key), r.attempts, r.outcome, micros(r.ttl)}
}

// fail rolls back a handler that succeeded: its attempt counts, its outcome does not.
func (r *execution) fail(cause error) {
	r.failed = cause
	r.rollback()
}

// rollback ends the transaction, if there is one. Should that fail, the connection is closed, which makes Postgres roll
// back.
func (r *execution) rollback() {
	if r.conn == nil {
		return
	}
	if status := r.status(); status != 0 && status != 'I' {
		ctx, cancel := detached(context.Background())
		defer cancel()
		if _, err := r.conn.Exec(ctx, "ROLLBACK"); err != nil {
			_ = r.conn.Conn().Close(ctx)
		}
	}
	r.conn.Release()
	r.conn, r.tx = nil, nil
}

// commit records the outcome and commits, with further statements before, in one round trip.
func (r *execution) commit(ctx context.Context, more ...func(*pgx.Batch)) error {
	b := &pgx.Batch{}
	b.Queue(recordSQL, r.recordArgs()...)
	for _, queue := range more {
		queue(b)
	}
	b.Queue("COMMIT")
	br := r.tx.SendBatch(ctx, b)
	var tag pgconn.CommandTag
	var err error
	for range b.Len() {
		if err == nil {
			tag, err = br.Exec()
		}
	}
	if closeErr := br.Close(); err == nil {
		err = closeErr
	}
	if err == nil && tag.String() != "COMMIT" {
		err = pgx.ErrTxCommitRollback
	}
	return err
}

// settleOrFailSQL fails, and with it the transaction, if the event is another worker's.
const (
	settleOrFailSQL = settleCTE + ` SELECT 1 / count(*) FROM settled`
	codeLost        = "22012" // division_by_zero
)

// settle commits the handler's writes, its outcome and the event's state.
func (r *execution) settle(ctx context.Context, t webhook.Ticket, to webhook.Settlement) error {
	defer r.rollback()
	if r.failed != nil {
		return r.release(ctx, t, to)
	}
	err := r.commit(ctx, func(b *pgx.Batch) { b.Queue(settleOrFailSQL, r.store.settleArgs(t, to)...) })
	server, refused := errors.AsType[*pgconn.PgError](err)
	refused = refused && server.SeverityUnlocalized == "ERROR" || errors.Is(err, pgx.ErrTxCommitRollback)
	switch {
	case err == nil:
		return nil
	case refused && server != nil && server.Code == codeLost:
		return webhook.ErrTicketLost
	case !refused:
		return r.resolve(ctx, t, to, err)
	}
	r.failed = err
	return r.release(ctx, t, to)
}

// resolve finds out whether a commit took place whose answer is lost: whoever has the lock of the run sees which of the
// two it was.
func (r *execution) resolve(ctx context.Context, t webhook.Ticket, to webhook.Settlement, cause error) error {
	ctx, cancel := detached(ctx)
	defer cancel()
	_ = r.conn.Conn().Close(ctx)
	r.rollback()
	for {
		var token, state string
		err := pgx.BeginFunc(ctx, r.store.pool, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock($1::bigint)`, r.store.lockID(r.key)); err != nil {
				return err
			}
			// With a row lock, COMMIT waits for a synchronous standby: the one that was lost may have been canceled in that
			// wait, after which Postgres shows what a failover would lose.
			return tx.QueryRow(ctx, `SELECT token, state FROM idempotent_inbox_events WHERE namespace = $1 AND key = $2 FOR UPDATE`,
				r.store.namespace, []byte(t.Key)).Scan(&token, &state)
		})
		switch {
		case errors.Is(err, pgx.ErrNoRows), err == nil && token != t.Token:
			return webhook.ErrTicketLost
		case err == nil && state != string(webhook.Running):
			return nil
		case err == nil:
			r.failed = cause
			return r.release(ctx, t, to)
		}
		select {
		case <-ctx.Done():
			return webhook.ErrTicketLost // the event is due when its lease has run out
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// release makes an event whose handler was rolled back due again, after a second for the first attempt, doubled for each
// further one up to a minute. Should this fail, the event is due when its lease has run out.
func (r *execution) release(ctx context.Context, t webhook.Ticket, to webhook.Settlement) error {
	ctx, cancel := detached(ctx)
	defer cancel()
	r.rollback()
	r.attempts, r.outcome = 1, nil
	again := webhook.Settlement{
		State: webhook.Retrying, Attempts: to.Attempts, Cause: webhook.CauseError, Retention: to.Retention,
		Reason: "the handler's transaction was rolled back: " + safeText(r.failed),
		After:  min(time.Second<<min(max(to.Attempts-1, 0), 6), time.Minute),
		Step:   to.Step,
	}
	again.Step.State, again.Step.Note = again.State, string(again.Cause)+": "+again.Reason
	b := &pgx.Batch{}
	b.Queue(recordSQL, r.recordArgs()...)
	b.Queue(settleSQL, r.store.settleArgs(t, again)...)
	_ = r.store.pool.SendBatch(ctx, b).Close()
	return webhook.ErrTicketLost
}

// safeText describes an error without a value: the message of a data exception (SQLSTATE class 22) may quote one.
func safeText(err error) string {
	server, ok := errors.AsType[*pgconn.PgError](err)
	switch {
	case !ok:
		return err.Error()
	case len(server.Code) == 5 && server.Code[:2] == "22":
		return "SQLSTATE " + server.Code
	}
	return fmt.Sprintf("%s (SQLSTATE %s)", server.Message, server.Code)
}

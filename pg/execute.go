package pg

import (
	"context"
	"errors"
	"runtime/debug"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/internal/record"
	"github.com/idempotent-go/idempotent/internal/seam"
	"github.com/idempotent-go/idempotent/pg/internal/guard"
)

// execute runs act in t, and commits or rolls back. A panic of act goes on from the stack it came from, after it was
// recorded.
func (t *transaction) execute(ctx context.Context, act action) (res result) {
	t.observe(ctx, idempotent.Event{Kind: idempotent.EventClaimed, Key: t.op.key, Attempt: 1})
	over := make(chan struct{})
	outer, _ := ctx.Value(runningKey{}).(*running)
	fnCtx, end := context.WithCancel(context.WithValue(seam.WithRunInfo(ctx, t.namespace, t.op.key), runningKey{},
		&running{core: t.core, key: t.op.key, outer: outer, over: over}))
	tx := &guard.Tx{Tx: t.tx}
	began := time.Now()
	returned := false
	stop := func() {
		end()
		close(over)
	}
	defer func() {
		if returned {
			return
		}
		stop()
		value := recover()
		if value == nil { // Goexit
			t.rollback(ctx)
			return
		}
		t.conclude(ctx, tx, fnResult{panicked: &idempotent.PanicError{Value: value, Stack: debug.Stack()}}, began)
		panic(value)
	}()
	fn := act(fnCtx, tx)
	returned = true
	stop()
	return t.conclude(ctx, tx, fn, began)
}

// conclude decides what an ended fn leaves behind.
func (t *transaction) conclude(ctx context.Context, tx *guard.Tx, fn fnResult, began time.Time) result {
	cause := fn.cause()
	t.observe(ctx, idempotent.Event{Kind: idempotent.EventExecuted, Key: t.op.key, Attempt: 1, Duration: time.Since(began), Err: cause})
	switch {
	case tx.Touched:
		return t.finish(ctx, idempotent.EventCommitFailed, rolledBack(errors.Join(guard.ErrEnded, cause)))
	case fn.encodeErr != nil:
		return t.finish(ctx, idempotent.EventCommitFailed, rolledBack(fn.encodeErr))
	case cause == nil:
		return t.commit(ctx, t.newRecord(record.OutcomeValue, fn.payload), nil)
	case isSerialization(cause):
		res := t.finish(ctx, idempotent.EventInterrupted, rolledBack(cause))
		res.again = true
		return res
	case ctx.Err() != nil || seam.IsUnknown(cause) || errors.Is(cause, ErrRolledBack): // of a nested Run
		return t.finish(ctx, idempotent.EventInterrupted, cause)
	case t.tx.Conn().IsClosed():
		return t.finish(ctx, idempotent.EventInterrupted, lost(cause))
	case t.op.cfg.shouldIgnore != nil && t.op.cfg.shouldIgnore(cause):
		return t.finish(ctx, idempotent.EventReleased, cause)
	}
	outcome := record.OutcomeError
	if fn.panicked != nil {
		outcome = record.OutcomePanic
	}
	return t.commit(ctx, t.newRecord(outcome, seam.EncodeError(t.registry, cause, t.errorLost)), cause)
}

func (t *transaction) newRecord(outcome record.Outcome, payload []byte) *record.Record {
	codec := t.codecID
	if outcome != record.OutcomeValue {
		codec = record.CodecMsgpack
	}
	return &record.Record{
		Kind:        record.KindDone,
		Token:       record.NewToken(), // tells this execution's record from one of another call
		Attempt:     1,
		At:          time.UnixMilli(time.Now().UnixMilli()), // as it is read back
		Fingerprint: t.op.cfg.fingerprint,
		Outcome:     outcome,
		Codec:       codec,
		Payload:     payload,
	}
}

// commit inserts rec and commits, in one round trip. fnErr is the error of fn that rec holds, whose writes are rolled back
// first. It does not end with the caller's context: fn has had its say.
func (t *transaction) commit(ctx context.Context, rec *record.Record, fnErr error) result {
	began := time.Now()
	raw := rec.Encode()
	tag, err := t.sendCommit(ctx, rec, raw, fnErr != nil)
	res := result{rec: rec, source: idempotent.Executed, err: fnErr}
	switch {
	case err == nil && t.conn != nil && tag.String() != "COMMIT": // an aborted transaction
		err = pgx.ErrTxCommitRollback
		fallthrough
	case err != nil:
		res = t.commitFailed(ctx, res, err)
	default:
		t.ended = true
	}
	event := idempotent.Event{Kind: idempotent.EventRecorded, Key: t.op.key, Attempt: 1, Duration: time.Since(began), Size: len(raw)}
	switch {
	case res.source == idempotent.Replayed, res.again: // observed already, or to come
		return res
	case res.source == 0:
		event.Kind, event.Size, event.Err = idempotent.EventCommitFailed, 0, res.err
	}
	t.observe(ctx, event)
	return res
}

// sendCommit returns the answer to the last statement: COMMIT, or the release of the savepoint.
func (t *transaction) sendCommit(ctx context.Context, rec *record.Record, raw []byte, undo bool) (tag pgconn.CommandTag, err error) {
	ctx, cancel := t.detached(ctx)
	defer cancel()
	b := &pgx.Batch{}
	switch {
	case !undo:
	case t.tx.Conn().PgConn().TxStatus() == 'E': // nothing can be prepared until this is done
		if tag, err = t.tx.Exec(ctx, rollbackSavepoint); err != nil {
			return tag, err
		}
	default:
		b.Queue(rollbackSavepoint)
	}
	if t.expired {
		b.Queue(expireSQL, t.namespace, t.op.hash)
	}
	b.Queue(insertSQL, t.namespace, t.op.hash, nonEmpty(rec.Fingerprint), kindOf(rec.Outcome), raw, t.op.cfg.recordTTL(rec.Outcome))
	if t.conn != nil {
		b.Queue("COMMIT")
	} else {
		b.Queue(releaseSavepoint)
	}
	br := t.tx.SendBatch(ctx, b)
	for range b.Len() {
		if err == nil {
			tag, err = br.Exec()
		}
	}
	if closeErr := br.Close(); err == nil {
		err = closeErr
	}
	return tag, err
}

// commitFailed returns the result of an execution whose commit failed with err.
func (t *transaction) commitFailed(ctx context.Context, res result, err error) result {
	refused := errors.Is(err, pgx.ErrTxCommitRollback) || isRefused(err)
	switch {
	case t.conn == nil:
		if refused {
			t.rollback(ctx)
		}
		return failure(rolledBack(err))
	case !refused:
		return t.resolve(ctx, res, err)
	}
	closed := t.tx.Conn().IsClosed()
	t.close(ctx)
	failed := failure(rolledBack(err))
	// A record in the way is an outcome that this transaction's snapshot did not show: the next execution finds it.
	failed.again = isSerialization(err) || isOwnTable(err) || closed
	return failed
}

func isOwnTable(err error) bool {
	server, ok := errors.AsType[*pgconn.PgError](err)
	return ok && server.Code == codeUniqueViolation && server.TableName == "idempotent_records"
}

// resolve finds out whether a commit took place whose answer is lost. The session that committed holds the lock until it
// has done so or has rolled back; so whoever has the lock sees which of the two it was.
func (t *transaction) resolve(ctx context.Context, res result, cause error) result {
	t.logger.WarnContext(ctx, "pg: answer to COMMIT lost, reading the record", "key", t.op.key, "namespace", t.namespace, "error", safeText(cause))
	lookCtx, cancel := t.detached(ctx)
	defer cancel()
	_ = t.tx.Conn().Close(lookCtx) // its session may still hold the lock
	t.close(ctx)
	deadline, _ := lookCtx.Deadline()
	for n := 1; ; n++ {
		found, err := t.core.look(lookCtx, &operation{key: t.op.key, hash: t.op.hash, lock: t.op.lock}, deadline)
		switch {
		case err == nil && found == nil:
			failed := failure(rolledBack(cause))
			failed.again = true
			return failed
		case err == nil && found.Token == res.rec.Token:
			return res
		case err == nil:
			return t.core.replayed(ctx, t.op, found)
		case errors.Is(err, idempotent.ErrCorruptRecord):
			return failure(err)
		}
		select {
		case <-lookCtx.Done():
			return failure(wrap(ErrCommitUnknown, cause))
		case <-time.After(pause(n)):
		}
	}
}

// look reads the record of op under its lock. A record that it returns is on the synchronous standby, if there is one: the
// commit that was lost may have been canceled in its wait for the standby, after which Postgres shows what a failover would
// lose. A later commit waits for everything before it.
func (c *core) look(ctx context.Context, op *operation, deadline time.Time) (*record.Record, error) {
	t, err := c.claim(ctx, op, deadline)
	if err != nil {
		return nil, err
	}
	defer t.close(ctx)
	if t.found == nil {
		return nil, nil
	}
	b := &pgx.Batch{}
	b.Queue(confirmSQL, c.namespace, op.hash)
	b.Queue("COMMIT")
	if err := t.tx.SendBatch(ctx, b).Close(); err != nil {
		return nil, unavailable(ctx, err)
	}
	t.ended = true
	return t.found, nil
}

package pg

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/internal/record"
)

// A core is an Executor without its T.
type core struct {
	config
	pool    *pgxpool.Pool
	codecID record.CodecID
	begin   pgx.TxOptions
	idle    string // WithIdleTimeout in milliseconds, as set_config takes it
	gates   gates
	guess   guess
}

func newCore(cfg *config, pool *pgxpool.Pool, codec record.CodecID) *core {
	return &core{
		config:  *cfg,
		pool:    pool,
		codecID: codec,
		begin:   pgx.TxOptions{IsoLevel: cfg.isolation, AccessMode: pgx.ReadWrite},
		idle:    fmt.Sprint(cfg.idleTimeout.Milliseconds()),
	}
}

// An action is fn, whatever its T.
type action func(ctx context.Context, tx pgx.Tx) fnResult

// An fnResult is how fn ended.
type fnResult struct {
	payload   []byte // the encoded value
	err       error
	encodeErr error // fn succeeded, its value cannot be kept
	panicked  *idempotent.PanicError
}

func (r *fnResult) cause() error {
	if r.panicked != nil {
		return r.panicked
	}
	return r.err
}

// An operation is one call: of a key, with its options.
type operation struct {
	key    string
	hash   []byte // in the table
	cfg    runConfig
	inTx   bool // a transaction of the caller's
	waited bool // EventWaitStarted was observed
	began  time.Time
	watch  *watch // nil if nothing observes the call
}

func newOperation(key string, cfg runConfig, now time.Time) *operation {
	hash := sha256.Sum256([]byte(key))
	return &operation{key: key, hash: hash[:], cfg: cfg, began: now}
}

// deadline is when the wait for another call ends.
func (op *operation) deadline() time.Time { return op.began.Add(op.cfg.waitTimeout) }

// lockID names the advisory lock of a key: 64 bits of a hash, because advisory locks have no longer names. Two keys with
// the same lock wait for each other, which costs time and nothing else. A namespace has no colon.
func lockID(namespace, key string) int64 {
	sum := sha256.Sum256([]byte(namespace + ":" + key))
	return int64(binary.BigEndian.Uint64(sum[:8])) //nolint:gosec // all 64 bits are the name, whatever its sign
}

// A result is what one call returns. err comes alone, or together with the source and record of fn's own error.
type result struct {
	rec    *record.Record
	source idempotent.Source // 0 without an outcome
	err    error
	again  bool // fn had no effect because of another transaction or a lost connection, and can be run again
}

func failure(err error) result { return result{err: err} }

// run returns the outcome of op: the recorded one, or that of act.
func (c *core) run(ctx context.Context, op *operation, act action) result {
	for read := op.cfg.noWait || !c.guess.first(); ; read = true {
		if read {
			rec, err := c.read(ctx, op)
			if err != nil {
				return failure(err)
			}
			c.guess.learn(rec != nil)
			if rec != nil {
				return c.replayed(ctx, op, rec)
			}
		}
		leave, busy := c.gates.enter(op.key)
		if busy == nil {
			defer leave()
			return c.execute(ctx, op, act)
		}
		if err := c.waitFor(ctx, op, busy); err != nil {
			return failure(err)
		}
	}
}

// execute runs act in transactions until one is committed, an outcome of another call is found, or trying again is
// pointless.
func (c *core) execute(ctx context.Context, op *operation, act action) result {
	defer c.waitEnded(ctx, op, nil)
	for n := 1; ; n++ {
		res := c.attempt(ctx, op, act)
		if !res.again || n >= c.maxExecutions || ctx.Err() != nil {
			return res
		}
		c.observe(ctx, idempotent.Event{Kind: idempotent.EventCommitRetried, Key: op.key, Attempt: 1, Err: res.err})
		select {
		case <-time.After(pause(n)):
		case <-ctx.Done():
			return res
		}
	}
}

// attempt runs act in one transaction.
func (c *core) attempt(ctx context.Context, op *operation, act action) (res result) {
	t, err := c.claim(ctx, op, op.deadline())
	if err != nil {
		return failure(err)
	}
	defer t.close(ctx) // also if act exits the goroutine
	if t.found != nil {
		c.guess.learn(true)
		return c.replayed(ctx, op, t.found)
	}
	return t.execute(ctx, act)
}

// runIn is run in a transaction of the caller's.
func (c *core) runIn(ctx context.Context, tx pgx.Tx, op *operation, act action) result {
	t := &transaction{core: c, op: op, tx: tx}
	defer c.waitEnded(ctx, op, nil)
	if err := t.take(ctx, &pgx.Batch{}, op.deadline()); err != nil {
		return failure(err)
	}
	if t.found != nil {
		if _, err := tx.Exec(ctx, releaseSavepoint); err != nil {
			return failure(unavailable(ctx, err))
		}
		return c.replayed(ctx, op, t.found)
	}
	return t.execute(ctx, act)
}

// replayed is the result of a call that found a record.
func (c *core) replayed(ctx context.Context, op *operation, rec *record.Record) result {
	if own, other := op.cfg.fingerprint, rec.Fingerprint; len(own) > 0 && len(other) > 0 && string(own) != string(other) {
		return failure(idempotent.ErrKeyReused)
	}
	event := idempotent.Event{
		Kind: idempotent.EventReplayed, Key: op.key, Attempt: 1, Source: idempotent.Replayed, Age: max(0, time.Since(rec.At)), TTL: op.cfg.ttl,
	}
	event.Origin.TraceID, event.Origin.SpanID, event.Origin.Flags = rec.Extensions.Origin()
	c.observe(ctx, event)
	return result{rec: rec, source: idempotent.Replayed}
}

// A running is what the context of fn knows of its execution.
type running struct {
	core  *core
	key   string
	outer *running
	over  <-chan struct{}
}

type runningKey struct{}

// executing reports whether ctx belongs to an fn of this executor and key that has not returned.
func (c *core) executing(ctx context.Context, key string) bool {
	r, _ := ctx.Value(runningKey{}).(*running)
	for ; r != nil; r = r.outer {
		if r.core.namespace != c.namespace || r.core.pool != c.pool || r.key != key {
			continue
		}
		select {
		case <-r.over:
		default:
			return true
		}
	}
	return false
}

func (c *core) errorLost(code string) {
	c.logger.Warn("pg: registered error not stored or not restored", "code", code, "namespace", c.namespace)
}

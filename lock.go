package idempotent

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/idempotent-go/idempotent/internal/lease"
	"github.com/idempotent-go/idempotent/internal/lifecycle"
	"github.com/idempotent-go/idempotent/internal/pipeline"
	"github.com/idempotent-go/idempotent/internal/record"
	"github.com/idempotent-go/idempotent/internal/rediserr"
	"github.com/idempotent-go/idempotent/internal/replaycache"
	"github.com/idempotent-go/idempotent/internal/store"
)

// A locker takes the steps of the protocol: claim, look, take over, give up.
type locker struct {
	*events
	group *lifecycle.Group
	lease time.Duration
	store *store.Store
	cache *replaycache.Cache // nil when off
}

// An operation is one Run on its way to an outcome: what it is called, how it is to be run, and
// the token that makes it the owner.
type operation struct {
	key      string
	name     string // in Redis
	cfg      *runConfig
	via      pipeline.Processor // what claims and commits are sent through
	token    record.Token
	began    time.Time
	closing  <-chan struct{} // nil for a run that close does not end
	followed bool            // it waited for another call before it came to lead
	// fingerprint is what goes into the record: the call's own or, when it has none, that of the
	// execution it takes over from.
	fingerprint []byte

	lead    leadership
	claimed bool // at least once
	buf     claimBuffer
}

// A claimRoom is the memory of one claim, the first. It is not used again, since the client or one
// of its hooks may keep the command.
type claimBuffer struct {
	args    [store.ClaimArgs]any
	running [record.MaxRunningSize]byte
}

// ended says why there is no point in going on, if so.
func (op *operation) err(ctx context.Context) error {
	if ctx.Err() != nil {
		return contextError(ctx)
	}
	select {
	case <-op.closing:
		return ErrClosed
	default:
		return nil
	}
}

// giveUp is when the caller has enough of waiting.
func (op *operation) waitDeadline() time.Time { return op.began.Add(op.cfg.waitTimeout) }

// derive sets what follows from the options.
func (c *runConfig) derive(lease time.Duration) {
	c.retention = max(c.ttl, c.recordTTL(record.OutcomeError)).Truncate(time.Millisecond)
	c.claimPX = (lease + c.retention).Milliseconds()
}

func (c *runConfig) recordTTL(o record.Outcome) time.Duration {
	if c.errorTTLSet && (o == record.OutcomeError || o == record.OutcomePanic) {
		return c.errorTTL
	}
	return c.ttl
}

func (c *locker) running(op *operation, attempt uint32, at time.Time) record.Record {
	return record.Record{
		Kind:        record.KindRunning,
		Token:       op.token,
		Attempt:     attempt,
		At:          at,
		Fingerprint: op.fingerprint,
		Refuse:      op.cfg.interrupted == Refuse,
		Lease:       c.lease,
		Retention:   op.cfg.retention,
	}
}

// claim makes the operation ours if nobody has it, and says who has it otherwise. What is left
// of a lease is not known yet.
func (c *locker) claim(ctx context.Context, op *operation) (claimResult, error) {
	if c.store.Ack.Replicas > 0 {
		// What is there already is not to wait for replicas, nor to suffer when there are none.
		if f, err := c.find(ctx, op, errAbsent); err != errAbsent && (err != nil || f.rec.Token != op.token) {
			return f, err
		}
	}
	sent := op.began
	if op.followed || op.claimed {
		sent = time.Now()
	}
	buf := &op.buf
	if op.claimed {
		op.token = record.NewToken() // an earlier delivery of the last claim may still be under way
		buf = new(claimBuffer)
	}
	op.claimed = true
	stamp := c.cache.Stamp()
	got, err := c.store.Claim(ctx, op.via, op.name, c.claimRecord(op, buf, sent), op.cfg.claimPX, buf.args[:0], stamp.Valid())
	return c.claimed(ctx, op, stamp, sent, got, err)
}

func (c *locker) claimRecord(op *operation, buf *claimBuffer, sent time.Time) []byte {
	mine := c.running(op, 1, sent)
	return mine.AppendTo(buf.running[:0])
}

// claimed is what a claim that was sent at the given time came to.
func (c *locker) claimed(ctx context.Context, op *operation, stamp replaycache.Stamp, sent time.Time, got store.Reading, err error) (claimResult, error) {
	switch {
	case rediserr.IsWrongType(err):
		return claimResult{}, storeError(err)
	case err != nil:
		if f, found := c.findWhenFull(ctx, op, err); found {
			return f, nil
		}
		c.releaseInBackground(ctx, op, 1)
		return claimResult{}, storeError(err)
	}
	if got.Raw == nil {
		return c.newLease(ctx, op, 1, sent)
	}
	rec, err := c.decode(op, got.Raw)
	if err != nil {
		return claimResult{}, err
	}
	if rec.Kind == record.KindRunning && rec.Token == op.token { // an earlier delivery of this claim
		// Nobody knows how long ago that was, and this one wrote nothing that replicas could
		// acknowledge: the lease begins with a renewal.
		return c.newLease(ctx, op, rec.Attempt, time.Time{})
	}
	stamp.Store(op.key, rec, len(got.Raw), got.TTL)
	return claimResult{rec: rec, stored: true}, nil
}

// findWhenFull reads what is stored when Redis refused a claim for lack of memory, so that outcomes
// are still replayed. Our own record can be there: of a delivery before the one that was refused.
// That is not for us to wait for.
func (c *locker) findWhenFull(ctx context.Context, op *operation, refusal error) (f claimResult, found bool) {
	if !redis.HasErrorPrefix(refusal, "OOM") {
		return claimResult{}, false
	}
	f, err := c.find(ctx, op, errAbsent)
	return f, err == nil && f.rec.Token != op.token
}

// own makes the lease of a claim that was sent at the given time.
func (c *locker) newLease(ctx context.Context, op *operation, attempt uint32, sent time.Time) (claimResult, error) {
	l := &lease.Lease{
		Name:      op.name,
		Token:     op.token,
		Attempt:   attempt,
		Duration:  c.lease,
		Retention: op.cfg.retention,
		RenewedAt: sent,
	}
	if time.Since(sent) < c.lease*2/3 {
		return claimResult{lease: l}, nil
	}
	// The lease may be over before fn begins.
	why := errSlow
	for range 3 {
		sent = time.Now()
		batch := []store.Renewal{l.Renewal()}
		c.store.Renew(ctx, batch)
		if batch[0].Err != nil || !batch[0].Mine {
			why = cmp.Or(batch[0].Err, why)
			break
		}
		l.RenewedAt = sent
		if time.Since(sent) < c.lease {
			return claimResult{lease: l}, nil
		}
	}
	c.releaseInBackground(ctx, op, attempt)
	return claimResult{}, redisError(ErrUnavailable, why)
}

var errSlow = errors.New("the server takes longer than the lease to answer")

// disown frees, in the background, an operation that may be ours without our knowing, so that it
// does not stay blocked for a lease: a command that failed may have been executed, whatever the
// error says, since go-redis repeats commands by itself. The operation goes on under another
// token, which neither the late release nor the late command can touch.
func (c *locker) releaseInBackground(ctx context.Context, op *operation, attempt uint32) {
	lost := &operation{name: op.name, cfg: op.cfg, token: op.token, fingerprint: op.fingerprint}
	op.token = record.NewToken()
	c.group.RetryInBackground(ctx, func(ctx context.Context) error { return c.release(ctx, lost, attempt, nil) })
}

// giveUp releases an operation that is ours. The first attempt leaves no trace, unless what it did
// is unknown; from the second on the record stays, for its number. shared is the message in the
// place of the usual one.
func (c *locker) release(ctx context.Context, op *operation, attempt uint32, shared []byte) error {
	message, stays := []byte{store.MessageFree}, (*record.Record)(nil)
	if attempt > 1 {
		message, stays = []byte{store.MessageRead}, c.abandonedRecord(op, attempt)
	}
	if shared != nil {
		message = shared
	}
	return c.store.Release(ctx, op.name, op.token, message, stays)
}

// ownerless is the record of an execution without an outcome: its lease is over, and its token is
// nobody's, so that a renewal still under way does not revive it.
func (c *locker) abandonedRecord(op *operation, attempt uint32) *record.Record {
	rec := c.running(op, attempt, time.Now())
	rec.Token = record.NewToken()
	return &rec
}

// look reads who has the operation, and takes it over if its owner is dead.
func (c *locker) look(ctx context.Context, op *operation) (claimResult, error) {
	f, err := c.find(ctx, op, errAbsent)
	switch {
	case errors.Is(err, errAbsent):
		return c.claim(ctx, op)
	case err != nil || f.final() || f.left > 0:
		return f, err
	}
	return c.takeOver(ctx, op, f)
}

var errAbsent = errors.New("nothing is there")

// find reads what is stored; absent is its error when nothing is.
func (c *locker) find(ctx context.Context, op *operation, absent error) (claimResult, error) {
	stamp := c.cache.Stamp()
	got, err := c.store.Read(ctx, op.name)
	if err != nil {
		return claimResult{}, storeError(err)
	}
	if got.Raw == nil {
		return claimResult{}, absent
	}
	rec, err := c.decode(op, got.Raw)
	if err != nil {
		return claimResult{}, err
	}
	stamp.Store(op.key, rec, len(got.Raw), got.TTL)
	return claimResult{rec: rec, left: got.TTL - rec.Retention, stored: true}, nil
}

// takeOver settles an execution whose lease is over: it becomes ours, or stays refused.
func (c *locker) takeOver(ctx context.Context, op *operation, dead claimResult) (claimResult, error) {
	if err := checkFingerprint(op.cfg.fingerprint, dead.rec.Fingerprint); err != nil {
		return claimResult{}, err
	}
	op.token = record.NewToken() // an earlier delivery of a claim may still be under way
	refuse := dead.rec.Refuse || op.cfg.interrupted == Refuse
	sent := time.Now()
	next := c.running(op, dead.rec.Attempt+1, sent)
	next.Fingerprint = firstNonEmpty(op.cfg.fingerprint, dead.rec.Fingerprint)
	ttl := c.lease + op.cfg.retention
	if refuse {
		next = interrupted(dead.rec, op.token)
		ttl = dead.rec.Retention
	}
	instead, taken, err := c.store.TakeOver(ctx, op.name, dead.rec.Head(), next.Encode(), ttl, dead.rec.Retention, refuse)
	switch {
	case err != nil:
		if !refuse {
			own := op.fingerprint
			op.fingerprint = next.Fingerprint // it stays with the record
			c.releaseInBackground(ctx, op, next.Attempt)
			op.fingerprint = own
		}
		return claimResult{}, storeError(err)
	case taken:
		c.observe(ctx, Event{Kind: EventInterrupted, Key: op.key, Attempt: int(dead.rec.Attempt)})
	}
	switch {
	case taken && refuse:
		return claimResult{rec: &next, stored: true}, nil
	case taken:
		op.fingerprint = next.Fingerprint
		return c.newLease(ctx, op, next.Attempt, sent)
	case len(instead) == 0: // forgotten in between
		return c.claim(ctx, op)
	}
	rec, err := c.decode(op, instead)
	if err != nil {
		return claimResult{}, err
	}
	return claimResult{rec: rec, stored: true}, nil
}

// interrupted is the record of an execution that stays refused.
func interrupted(dead *record.Record, by record.Token) record.Record {
	return record.Record{
		Kind:        record.KindDone,
		Token:       by,
		Attempt:     dead.Attempt,
		At:          time.Now(),
		Fingerprint: dead.Fingerprint,
		Outcome:     record.OutcomeInterrupted,
	}
}

func (c *locker) decode(op *operation, raw []byte) (*record.Record, error) {
	rec, err := record.Decode(raw)
	if err != nil {
		c.logger.Error("idempotent: unreadable record", "key", op.key, "namespace", c.namespace, "error", err.Error())
	}
	return rec, err
}

// storeError says what a failed command means to a caller whose fn did not run.
func storeError(err error) error {
	if rediserr.IsWrongType(err) {
		return record.Corrupt("is not a Redis string")
	}
	return redisError(ErrUnavailable, err)
}

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
	"github.com/idempotent-go/idempotent/internal/release"
	"github.com/idempotent-go/idempotent/internal/replaycache"
	"github.com/idempotent-go/idempotent/internal/store"
)

// A locker takes the protocol's decisions about the lock: claim, look, take over, release. It sends
// the commands through the store, and never runs fn.
type locker struct {
	*events
	keyspace *keyspace
	group    *lifecycle.Group
	lease    time.Duration
	store    *store.Store
	cache    *replaycache.Cache // nil when off
	releases *release.Queue
	owner    record.Extensions // of running records
}

// An operation is one Run on its way to a result: its name, its options, and the token that makes it
// the owner.
type operation struct {
	key      string
	name     string // in Redis
	cfg      *runConfig
	via      pipeline.Processor // what claims and commits are sent through; nil for the store's choice
	token    record.Token
	began    time.Time
	closing  <-chan struct{} // nil for a run that Close does not end
	followed bool            // it waited for another call before it came to lead
	// fingerprint goes into the record: the call's own or, if it has none, that of the execution it
	// takes over from.
	fingerprint []byte
	// extensions are the record's, also with those of an execution it takes over from that this code does
	// not know.
	extensions record.Extensions

	lead    leadership
	claimed bool   // at least once
	running []byte // what the last claim stored, if it was made
	buf     claimBuffer
}

// A claimBuffer is the memory of the first claim. It is not used a second time, since the client or
// one of its hooks may keep the command.
type claimBuffer struct {
	args    [store.ClaimArgs]any
	running [record.MaxRunningSize]byte
}

// err returns why the operation must stop (its context ended, or the executor was closed), or nil.
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

// waitDeadline is when the caller's wait timeout ends.
func (op *operation) waitDeadline() time.Time { return op.began.Add(op.cfg.waitTimeout) }

// derive computes what follows from the options.
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
		Extensions:  op.extensions,
		Refuse:      op.cfg.interrupted == Refuse,
		Lease:       c.lease,
		Retention:   op.cfg.retention,
	}
}

// claim acquires the key if it is free, and returns the record found there otherwise. What is left of
// that record's lease is not known yet.
func (c *locker) claim(ctx context.Context, op *operation) (claimResult, error) {
	if c.store.Ack.Replicas > 0 || c.releases.Full() {
		// With WithReplicaAck, what is recorded already must not wait for replicas, nor fail when there
		// are none. With a full release queue, nothing may be claimed, but finished keys are replayed.
		f, err := c.find(ctx, op, errAbsent)
		if err != errAbsent && (err != nil || f.rec.Token != op.token) { //nolint:errorlint // find returns errAbsent as it is
			return f, err
		}
		if c.releases.Full() {
			return claimResult{}, redisError(ErrUnavailable, errReleasesFull)
		}
	}
	sent := op.began
	if op.followed || op.claimed {
		sent = time.Now()
	}
	buf := &op.buf
	if op.claimed {
		op.token = record.NewToken() // an earlier delivery of the last claim may still arrive
		buf = new(claimBuffer)
	}
	op.claimed = true
	stamp := c.cache.Stamp()
	got, err := c.store.Claim(ctx, op.via, op.name, c.claimRecord(op, buf, sent), op.cfg.claimPX, buf.args[:0], stamp.Valid())
	return c.afterClaim(ctx, op, stamp, sent, got, err)
}

var errReleasesFull = errors.New("too many claims of unknown fate wait for their release")

func (c *locker) claimRecord(op *operation, buf *claimBuffer, sent time.Time) []byte {
	mine := c.running(op, 1, sent)
	op.running = mine.AppendTo(buf.running[:0])
	return op.running
}

// afterClaim turns the reply to a claim that was sent at sent into its result.
func (c *locker) afterClaim(ctx context.Context, op *operation, stamp replaycache.Stamp, sent time.Time, got store.Reading, err error) (claimResult, error) {
	switch {
	case rediserr.IsWrongType(err):
		return claimResult{}, storeError(ctx, err)
	case err != nil:
		if f, found := c.findWhenRefused(ctx, op, err); found {
			return f, nil
		}
		c.releaseInBackground(op, 1)
		return claimResult{}, storeError(ctx, err)
	}
	if got.Raw == nil {
		return c.newLease(ctx, op, 1, sent)
	}
	rec, err := c.decode(ctx, op, got.Raw)
	if err != nil {
		return claimResult{}, err
	}
	if rec.Kind == record.KindRunning && rec.Token == op.token { // an earlier delivery of this claim
		// It is not known how long ago that arrived, and this delivery wrote nothing that replicas
		// could acknowledge. The lease therefore begins with a renewal.
		return c.newLease(ctx, op, rec.Attempt, time.Time{})
	}
	stamp.Store(op.key, rec, len(got.Raw), got.TTL)
	return claimResult{rec: rec, stored: true}, nil
}

// findWhenRefused reads what is stored when the server refused the write, so that a finished key is
// replayed by a server that is full, read-only, or short of replicas. Our own record can be there, of a
// delivery before the refused one; that is no reason to wait.
func (c *locker) findWhenRefused(ctx context.Context, op *operation, refusal error) (f claimResult, found bool) {
	if _, answered := errors.AsType[redis.Error](refusal); !answered || errors.Is(refusal, redis.Nil) {
		return claimResult{}, false
	}
	f, err := c.find(ctx, op, errAbsent)
	return f, err == nil && f.rec.Token != op.token
}

// newLease returns the lease of a claim sent at sent. If the reply took more than two thirds of the
// lease, it renews first: the lease may be over before fn begins.
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
	c.releaseInBackground(op, attempt)
	return claimResult{}, storeError(ctx, why)
}

var errSlow = errors.New("the server takes longer than the lease to answer")

// releaseInBackground releases a claim under which fn does not begin: its fate is unknown, since a
// command that returned an error may have been executed, and go-redis retries by itself; or its caller
// has left. Without this, the key would stay locked for one lease and count an attempt that never was.
// The operation goes on under a new token, which neither the late command nor the late release can
// affect.
func (c *locker) releaseInBackground(op *operation, attempt uint32) {
	// The number goes back to that of the last execution that began.
	c.releases.Add(c.releaseOf(op, attempt-1, nil), true)
	op.token = record.NewToken()
}

// releaseOf describes the release of a key whose last execution was attempt. Nothing stays of a key
// without one. A later number stays with a record that has no owner, because what the executions before
// it did is unknown. shared replaces the usual message to the waiters.
func (c *locker) releaseOf(op *operation, attempt uint32, shared []byte) store.Release {
	r := store.Release{Name: op.name, Token: op.token, Message: []byte{store.MessageFree}}
	if attempt > 0 {
		r.Message, r.Stays = []byte{store.MessageRead}, c.abandonedRecord(op, attempt)
	}
	if shared != nil {
		r.Message = shared
	}
	return r
}

// abandonedRecord is the record of an execution without an outcome. Its lease is over, and no owner has
// its token, so that a renewal that arrives late does not revive it.
func (c *locker) abandonedRecord(op *operation, attempt uint32) *record.Record {
	rec := c.running(op, attempt, time.Now())
	rec.Token = record.NewToken()
	return &rec
}

// look reads who owns the key, and takes it over if the owner's lease is over.
func (c *locker) look(ctx context.Context, op *operation) (claimResult, error) {
	f, err := c.find(ctx, op, errAbsent)
	switch {
	case errors.Is(err, errAbsent):
		return c.claim(ctx, op)
	case err != nil || f.final() || f.left > 0 && !f.endless:
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
		return claimResult{}, storeError(ctx, err)
	}
	if got.Raw == nil {
		return claimResult{}, absent
	}
	rec, err := c.decode(ctx, op, got.Raw)
	if err != nil {
		return claimResult{}, err
	}
	stamp.Store(op.key, rec, len(got.Raw), got.TTL)
	f := claimResult{rec: rec, left: got.TTL - rec.Retention, stored: true}
	if got.TTL < 0 { // without an expiry, as after PERSIST or in a restored dump
		f.left, f.endless = rec.Lease, true
	}
	return f, nil
}

// takeOver settles an execution whose lease is over: it becomes ours, or stays refused. The script
// decides whether the lease is over; it gives a record without an expiry one lease to show that its
// owner lives.
func (c *locker) takeOver(ctx context.Context, op *operation, dead claimResult) (claimResult, error) {
	if err := checkFingerprint(op.cfg.fingerprint, dead.rec.Fingerprint); err != nil {
		return claimResult{}, err
	}
	op.token = record.NewToken() // an earlier delivery of a claim may still arrive
	refuse := dead.rec.Refuse || op.cfg.interrupted == Refuse
	sent := time.Now()
	next := c.running(op, dead.rec.Attempt+1, sent)
	next.Fingerprint = firstNonEmpty(op.cfg.fingerprint, dead.rec.Fingerprint)
	next.Extensions = op.extensions.Inherit(dead.rec.Extensions)
	ttl := c.lease + op.cfg.retention
	if refuse {
		next = interrupted(dead.rec, op.token)
		ttl = dead.rec.Retention
	}
	instead, taken, err := c.store.TakeOver(ctx, op.name, dead.rec.Head(), next.Encode(), ttl, dead.rec, refuse)
	switch {
	case err != nil:
		if !refuse {
			fingerprint, extensions := op.fingerprint, op.extensions
			op.fingerprint, op.extensions = next.Fingerprint, next.Extensions // they stay with the record
			c.releaseInBackground(op, next.Attempt)
			op.fingerprint, op.extensions = fingerprint, extensions
		}
		return claimResult{}, storeError(ctx, err)
	case taken:
		c.observe(ctx, Event{Kind: EventInterrupted, Key: op.key}.about(dead.rec))
	}
	switch {
	case taken && refuse:
		return claimResult{rec: &next, stored: true}, nil
	case taken:
		op.fingerprint, op.extensions = next.Fingerprint, next.Extensions
		return c.newLease(ctx, op, next.Attempt, sent)
	case len(instead) == 0: // forgotten in between
		return c.claim(ctx, op)
	}
	rec, err := c.decode(ctx, op, instead)
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
		Extensions:  dead.Extensions,
		Outcome:     record.OutcomeInterrupted,
	}
}

func (c *locker) decode(ctx context.Context, op *operation, raw []byte) (*record.Record, error) {
	rec, err := record.Decode(raw)
	if err != nil {
		c.logger.ErrorContext(ctx, "idempotent: unreadable record", "key", op.key, "namespace", c.namespace, "error", err.Error())
	}
	return rec, err
}

// storeError returns what a failed command means to a caller whose fn did not run. If the caller's
// context ended, that is its error and no more: an outage is something else, and a deadline that the
// caller set says nothing about Redis.
func storeError(ctx context.Context, err error) error {
	if rediserr.IsWrongType(err) {
		return record.Corrupt("is not a Redis string")
	}
	if ended := contextEnd(ctx, err); ended != nil {
		return ended
	}
	return redisError(ErrUnavailable, err)
}

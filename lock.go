package idempotent

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/redis/go-redis/v9"
)

// An operation is one Run on its way to an outcome: what it is called, how it is to be run, and
// the token that makes it the owner.
type operation struct {
	key      string
	name     string // in Redis
	cfg      *runConfig
	via      processor // what claims and commits are sent through
	token    token
	began    time.Time
	closing  <-chan struct{} // nil for a run that close does not end
	followed bool            // it waited for another call before it came to lead
	// fingerprint is what goes into the record: the call's own or, when it has none, that of the
	// execution it takes over from.
	fingerprint []byte

	leading leading
	claimed bool // at least once
	room    claimRoom
}

// A claimRoom is the memory of one claim, the first. It is not used again, since the client or one
// of its hooks may keep the command.
type claimRoom struct {
	args    [claimArgs]any
	running [maxRunningSize]byte
}

// ended says why there is no point in going on, if so.
func (op *operation) ended(ctx context.Context) error {
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
func (op *operation) giveUp() time.Time { return op.began.Add(op.cfg.waitTimeout) }

// derive sets what follows from the options.
func (c *runConfig) derive(lease time.Duration) {
	c.retention = max(c.ttl, c.recordTTL(outcomeError)).Truncate(time.Millisecond)
	c.claimPX = (lease + c.retention).Milliseconds()
}

func (c *runConfig) recordTTL(o outcome) time.Duration {
	if c.errorTTLSet && (o == outcomeError || o == outcomePanic) {
		return c.errorTTL
	}
	return c.ttl
}

func (c *core) running(op *operation, attempt uint32, at time.Time) record {
	return record{
		kind:        kindRunning,
		token:       op.token,
		attempt:     attempt,
		at:          at,
		fingerprint: op.fingerprint,
		refuse:      op.cfg.interrupted == Refuse,
		lease:       c.lease,
		retention:   op.cfg.retention,
	}
}

// A finding is what an attempt to own an operation came to; exactly one of lease and rec is set.
type finding struct {
	lease *lease  // the operation is ours
	rec   *record // running by somebody else, or done
	left  time.Duration
	// stored is false for an ignored error that its owner shares.
	stored bool
	waited bool // for it
}

// final reports whether there is nothing to wait for.
func (f *finding) final() bool { return f.lease != nil || f.rec.kind == kindDone }

// settlement is what a finding that is final and not ours is to callers.
func (f *finding) settlement() settlement {
	s := settlement{rec: f.rec, stored: f.stored, source: Replayed}
	if f.waited {
		s.source = Waited
	}
	return s
}

// claim makes the operation ours if nobody has it, and says who has it otherwise. What is left
// of a lease is not known yet.
func (c *core) claim(ctx context.Context, op *operation) (finding, error) {
	if c.store.ack.replicas > 0 {
		// What is there already is not to wait for replicas, nor to suffer when there are none.
		if f, err := c.find(ctx, op, errAbsent); err != errAbsent && (err != nil || f.rec.token != op.token) {
			return f, err
		}
	}
	sent := op.began
	if op.followed || op.claimed {
		sent = time.Now()
	}
	room := &op.room
	if op.claimed {
		op.token = newToken() // an earlier delivery of the last claim may still be under way
		room = new(claimRoom)
	}
	op.claimed = true
	mark := c.cache.mark()
	got, err := c.store.claim(ctx, op.via, op.name, c.claimRecord(op, room, sent), op.cfg.claimPX, room.args[:0], mark.valid())
	return c.claimed(ctx, op, mark, sent, got, err)
}

func (c *core) claimRecord(op *operation, room *claimRoom, sent time.Time) []byte {
	mine := c.running(op, 1, sent)
	return mine.appendTo(room.running[:0])
}

// claimed is what a claim that was sent at the given time came to.
func (c *core) claimed(ctx context.Context, op *operation, mark mark, sent time.Time, got reading, err error) (finding, error) {
	switch {
	case wrongType(err):
		return finding{}, storeError(err)
	case err != nil:
		if f, found := c.findWhenFull(ctx, op, err); found {
			return f, nil
		}
		c.disown(ctx, op, 1)
		return finding{}, storeError(err)
	}
	if got.raw == nil {
		return c.own(ctx, op, 1, sent)
	}
	rec, err := c.decode(op, got.raw)
	if err != nil {
		return finding{}, err
	}
	if rec.kind == kindRunning && rec.token == op.token { // an earlier delivery of this claim
		// Nobody knows how long ago that was, and this one wrote nothing that replicas could
		// acknowledge: the lease begins with a renewal.
		return c.own(ctx, op, rec.attempt, time.Time{})
	}
	mark.keep(op.key, rec, len(got.raw), got.ttl)
	return finding{rec: rec, stored: true}, nil
}

// findWhenFull reads what is stored when Redis refused a claim for lack of memory, so that outcomes
// are still replayed. Our own record can be there: of a delivery before the one that was refused.
// That is not for us to wait for.
func (c *core) findWhenFull(ctx context.Context, op *operation, refusal error) (f finding, found bool) {
	if !redis.HasErrorPrefix(refusal, "OOM") {
		return finding{}, false
	}
	f, err := c.find(ctx, op, errAbsent)
	return f, err == nil && f.rec.token != op.token
}

// own makes the lease of a claim that was sent at the given time.
func (c *core) own(ctx context.Context, op *operation, attempt uint32, sent time.Time) (finding, error) {
	l := &lease{
		name:      op.name,
		token:     op.token,
		attempt:   attempt,
		duration:  c.lease,
		retention: op.cfg.retention,
		renewed:   sent,
	}
	if time.Since(sent) < c.lease*2/3 {
		return finding{lease: l}, nil
	}
	// The lease may be over before fn begins.
	why := errSlow
	for range 3 {
		sent = time.Now()
		batch := []renewal{{lease: l}}
		c.store.renew(ctx, batch)
		if batch[0].err != nil || !batch[0].mine {
			why = cmp.Or(batch[0].err, why)
			break
		}
		l.renewed = sent
		if time.Since(sent) < c.lease {
			return finding{lease: l}, nil
		}
	}
	c.disown(ctx, op, attempt)
	return finding{}, redisError(ErrUnavailable, why)
}

var errSlow = errors.New("the server takes longer than the lease to answer")

// disown frees, in the background, an operation that may be ours without our knowing, so that it
// does not stay blocked for a lease: a command that failed may have been executed, whatever the
// error says, since go-redis repeats commands by itself. The operation goes on under another
// token, which neither the late release nor the late command can touch.
func (c *core) disown(ctx context.Context, op *operation, attempt uint32) {
	lost := &operation{name: op.name, cfg: op.cfg, token: op.token, fingerprint: op.fingerprint}
	op.token = newToken()
	c.inBackground(ctx, func(ctx context.Context) error { return c.giveUp(ctx, lost, attempt, nil) })
}

// giveUp releases an operation that is ours. The first attempt leaves no trace, unless what it did
// is unknown; from the second on the record stays, for its number. shared is the message in the
// place of the usual one.
func (c *core) giveUp(ctx context.Context, op *operation, attempt uint32, shared []byte) error {
	message, stays := []byte{messageFree}, (*record)(nil)
	if attempt > 1 {
		message, stays = []byte{messageRead}, c.ownerless(op, attempt)
	}
	if shared != nil {
		message = shared
	}
	return c.store.release(ctx, op.name, op.token, message, stays)
}

// ownerless is the record of an execution without an outcome: its lease is over, and its token is
// nobody's, so that a renewal still under way does not revive it.
func (c *core) ownerless(op *operation, attempt uint32) *record {
	rec := c.running(op, attempt, time.Now())
	rec.token = newToken()
	return &rec
}

// look reads who has the operation, and takes it over if its owner is dead.
func (c *core) look(ctx context.Context, op *operation) (finding, error) {
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
func (c *core) find(ctx context.Context, op *operation, absent error) (finding, error) {
	mark := c.cache.mark()
	got, err := c.store.read(ctx, op.name)
	if err != nil {
		return finding{}, storeError(err)
	}
	if got.raw == nil {
		return finding{}, absent
	}
	rec, err := c.decode(op, got.raw)
	if err != nil {
		return finding{}, err
	}
	mark.keep(op.key, rec, len(got.raw), got.ttl)
	return finding{rec: rec, left: got.ttl - rec.retention, stored: true}, nil
}

// takeOver settles an execution whose lease is over: it becomes ours, or stays refused.
func (c *core) takeOver(ctx context.Context, op *operation, dead finding) (finding, error) {
	if err := checkFingerprint(op.cfg.fingerprint, dead.rec.fingerprint); err != nil {
		return finding{}, err
	}
	op.token = newToken() // an earlier delivery of a claim may still be under way
	refuse := dead.rec.refuse || op.cfg.interrupted == Refuse
	sent := time.Now()
	next := c.running(op, dead.rec.attempt+1, sent)
	next.fingerprint = firstFingerprint(op.cfg.fingerprint, dead.rec.fingerprint)
	ttl := c.lease + op.cfg.retention
	if refuse {
		next = interrupted(dead.rec, op.token)
		ttl = dead.rec.retention
	}
	instead, taken, err := c.store.takeOver(ctx, op.name, dead.rec.head(), next.encode(), ttl, dead.rec.retention, refuse)
	switch {
	case err != nil:
		if !refuse {
			own := op.fingerprint
			op.fingerprint = next.fingerprint // it stays with the record
			c.disown(ctx, op, next.attempt)
			op.fingerprint = own
		}
		return finding{}, storeError(err)
	case taken:
		c.observe(ctx, Event{Kind: EventInterrupted, Key: op.key, Attempt: int(dead.rec.attempt)})
	}
	switch {
	case taken && refuse:
		return finding{rec: &next, stored: true}, nil
	case taken:
		op.fingerprint = next.fingerprint
		return c.own(ctx, op, next.attempt, sent)
	case len(instead) == 0: // forgotten in between
		return c.claim(ctx, op)
	}
	rec, err := c.decode(op, instead)
	if err != nil {
		return finding{}, err
	}
	return finding{rec: rec, stored: true}, nil
}

// interrupted is the record of an execution that stays refused.
func interrupted(dead *record, by token) record {
	return record{
		kind:        kindDone,
		token:       by,
		attempt:     dead.attempt,
		at:          time.Now(),
		fingerprint: dead.fingerprint,
		outcome:     outcomeInterrupted,
	}
}

func checkFingerprint(own, other []byte) error {
	if len(own) > 0 && len(other) > 0 && !bytes.Equal(own, other) {
		return ErrKeyReused
	}
	return nil
}

// firstFingerprint is the first fingerprint that says something.
func firstFingerprint(a, b []byte) []byte {
	if len(a) > 0 {
		return a
	}
	return b
}

func (c *core) decode(op *operation, raw []byte) (*record, error) {
	rec, err := decodeRecord(raw)
	if err != nil {
		c.logger.Error("idempotent: unreadable record", "key", op.key, "namespace", c.namespace, "error", err.Error())
	}
	return rec, err
}

// storeError says what a failed command means to a caller whose fn did not run.
func storeError(err error) error {
	if wrongType(err) {
		return corrupt("is not a Redis string")
	}
	return redisError(ErrUnavailable, err)
}

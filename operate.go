package idempotent

import (
	"bytes"
	"context"
	"errors"
	"time"
)

// enter is begin for the methods that do not run fn.
func (c *core) enter(ctx context.Context, key string) error {
	if ctx == nil {
		return invalid("Executor", "ctx", "nil", "a context")
	}
	if err := checkKey(key); err != nil {
		return err
	}
	_, err := c.admit(ctx, "") // fn may look at its own key
	return err
}

func (c *core) peek(ctx context.Context, key string) (Status, error) {
	if err := c.enter(ctx, key); err != nil {
		return Status{}, err
	}
	defer c.active.leave()
	got, err := c.store.read(ctx, redisName(c.namespace, key))
	if err != nil {
		return Status{}, storeError(err)
	}
	if got.raw == nil {
		return Status{}, nil
	}
	rec, err := decodeRecord(got.raw)
	if err != nil {
		return Status{}, err
	}
	s := Status{
		State:   StateFailed,
		Attempt: int(rec.attempt),
		Age:     max(0, time.Since(rec.at)),
		TTLLeft: max(0, got.ttl),
		Size:    len(got.raw),
	}
	switch {
	case rec.kind == kindRunning && got.ttl > rec.retention:
		s.State, s.LeaseLeft = StateRunning, got.ttl-rec.retention
	case rec.kind == kindRunning:
		s.State = StateAbandoned
	case rec.outcome == outcomeInterrupted:
		s.State = StateInterrupted
	case rec.outcome == outcomeValue:
		s.State = StateSucceeded
	}
	return s, nil
}

// get is a run that runs nothing.
func (c *core) get(ctx context.Context, key string, cfg *runConfig) settlement {
	nested, err := c.begin(ctx, key)
	if err != nil {
		return failure(err)
	}
	defer c.active.leave()
	if s, hit := c.cached(key); hit {
		return c.replay(ctx, key, cfg, s)
	}
	op := c.newOperation(key, cfg, nested, time.Now())
	f, err := c.lookUp(ctx, op)
	switch {
	case err != nil:
		return failure(err)
	case f.final():
	case checkFingerprint(op.cfg.fingerprint, f.rec.fingerprint) != nil:
		return failure(ErrKeyReused)
	case cfg.noWait:
		return failure(&InProgressError{RetryAfter: f.left})
	default:
		w := &wait{core: c, op: op, owner: f.rec.token, read: (*core).lookUp, claim: (*core).lookUp}
		if f, err = w.run(ctx); err != nil {
			return failure(err)
		}
	}
	return c.replay(ctx, key, cfg, f.settlement())
}

// lookUp is look for those who only want to know.
func (c *core) lookUp(ctx context.Context, op *operation) (finding, error) {
	f, err := c.find(ctx, op, ErrNotFound)
	switch {
	case err != nil || f.final() || f.left > 0:
		return f, err
	case checkFingerprint(op.cfg.fingerprint, f.rec.fingerprint) != nil:
		return finding{}, ErrKeyReused
	}
	return finding{}, ErrInterrupted
}

func (c *core) forget(ctx context.Context, key string) error {
	if err := c.enter(ctx, key); err != nil {
		return err
	}
	defer c.active.leave()
	name := redisName(c.namespace, key)
	defer c.flights.Detach(key) // an answer under way may be the forgotten one
	defer c.cache.forget(key)   // also when what became of the command is not known
	if err := c.remove(ctx, name); err != nil {
		return redisError(ErrUnavailable, err)
	}
	return nil
}

// remove deletes what is stored, and nothing else: when a deletion without a reply is repeated, or
// arrives late, somebody may have run fn anew, and that must not run a third time.
func (c *core) remove(ctx context.Context, name string) error {
	got, err := c.store.read(ctx, name)
	strange := wrongType(err)
	if err != nil && !strange {
		return err
	}
	seen, doubtful := headOf(got.raw), false
	pause := backoff{first: 10 * time.Millisecond, limit: time.Second}
	for failures := 0; ; {
		there, err := c.store.forget(ctx, name, seen, strange)
		switch {
		case err == nil && (doubtful || len(there) == 0 || bytes.Equal(there, seen)):
			return nil
		case err == nil: // it went on since it was read
			if seen = there; ctx.Err() != nil {
				return ctx.Err()
			}
			continue
		}
		if failures++; failures == maxForgetting {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause.next()):
		}
		doubtful = true
		got, failed := c.store.read(ctx, name)
		switch {
		case failed != nil && !wrongType(failed):
			return err
		case !sameExecution(headOf(got.raw), seen):
			return nil
		}
		seen = headOf(got.raw)
	}
}

// maxForgetting is how often a deletion that fails is sent.
const maxForgetting = 4

// sameExecution reports whether two records are of one owner.
func sameExecution(a, b []byte) bool {
	return bytes.Equal(a, b) || len(a) == headSize && len(b) == headSize && bytes.Equal(a[2:], b[2:])
}

// resolve puts an outcome in the place of whatever is not one. It looks again when the record
// changes in between.
func (c *core) resolve(ctx context.Context, key string, cfg *runConfig, payload []byte) error {
	if err := c.enter(ctx, key); err != nil {
		return err
	}
	defer c.active.leave()
	name := redisName(c.namespace, key)
	defer c.flights.Detach(key)
	defer c.cache.forget(key)
	settled := &record{kind: kindDone, token: newToken(), outcome: outcomeValue, codec: c.codec, payload: payload}
	got, err := c.store.read(ctx, name)
	if err != nil {
		return storeError(err)
	}
	seen := got.raw
	for {
		settled.at, settled.attempt, settled.fingerprint = time.Now(), 1, cfg.fingerprint
		if seen != nil {
			rec, err := decodeRecord(seen)
			if err != nil {
				return err
			}
			if rec.kind == kindDone && rec.outcome != outcomeInterrupted {
				return ErrAlreadyRecorded
			}
			settled.attempt = rec.attempt
			settled.fingerprint = firstFingerprint(cfg.fingerprint, rec.fingerprint)
		}
		instead, taken, err := c.store.takeOver(ctx, name, seen, settled.encode(), cfg.ttl, -1, true)
		switch {
		case errors.Is(err, errFewReplicas):
			return redisError(ErrNotRecorded, err)
		case err != nil:
			return storeError(err)
		}
		if taken {
			return nil
		}
		if ctx.Err() != nil {
			return contextError(ctx)
		}
		if seen = instead; len(seen) == 0 { // forgotten in between
			seen = nil
		}
	}
}

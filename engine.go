package idempotent

import (
	"context"
	"errors"
	"time"

	"github.com/idempotent-go/idempotent/internal/checkup"
	"github.com/idempotent-go/idempotent/internal/errtree"
	"github.com/idempotent-go/idempotent/internal/guard"
	"github.com/idempotent-go/idempotent/internal/lease"
	"github.com/idempotent-go/idempotent/internal/lifecycle"
	"github.com/idempotent-go/idempotent/internal/pipeline"
	"github.com/idempotent-go/idempotent/internal/pubsub"
	"github.com/idempotent-go/idempotent/internal/record"
	"github.com/idempotent-go/idempotent/internal/release"
	"github.com/idempotent-go/idempotent/internal/replaycache"
	"github.com/idempotent-go/idempotent/internal/seam"
	"github.com/idempotent-go/idempotent/internal/store"
)

// core is an executor without its T: it works on bytes.
type core struct {
	*locker
	waiting  waiting
	runner   runner
	crowd    crowd
	checker  *checkup.Checker
	defaults runConfig
	stopped  chan struct{} // closed when close is done
}

func newCore(cfg *config, s *store.Store, codec record.CodecID, encode func(any) ([]byte, error)) *core {
	duration := cfg.lease.Truncate(time.Millisecond)
	s.CacheChannel = replaycache.Channel(cfg.namespace)
	logger := guard.Logger(cfg.logger)
	observers := cfg.observers
	if o, ok := cfg.tracer.(Observer); ok {
		observers = append([]Observer{o}, observers...)
	}
	l := &locker{
		events:   &events{namespace: cfg.namespace, observers: observers, tracer: cfg.tracer, logger: logger},
		keyspace: &keyspace{namespace: cfg.namespace, identity: s.Identity},
		group:    lifecycle.NewGroup(),
		lease:    duration,
		store:    s,
		releases: release.New(s, duration, logger),
		owner:    record.Extensions(nil).With(record.FieldOwner, []byte(cfg.owner)),
	}
	sharded := s.Publish == "SPUBLISH"
	c := &core{
		locker:   l,
		waiting:  waiting{locker: l, hub: pubsub.NewHub(s.Servers, sharded, logger)},
		runner:   runner{locker: l, codec: codec, encode: encode, errors: cfg.errors},
		crowd:    crowd{events: l.events, closing: l.group.Closing},
		defaults: cfg.run,
		stopped:  make(chan struct{}),
		checker: &checkup.Checker{
			Servers: s.Servers, Namespace: cfg.namespace, Lease: duration, MessageLimit: s.MessageLimit,
			Replicas: s.Ack.Replicas, Sharded: sharded, Cached: cfg.cached,
		},
	}
	c.defaults.derive(duration)
	c.runner.renewer = lease.NewRenewer(s, duration, &c.runner, logger)
	if cfg.cached {
		l.cache = replaycache.New(cfg.cacheEntries, s, logger)
	}
	return c
}

// run is one Run below the typed shell: it joins the flight for its key and leads or follows.
func (c *core) run(ctx context.Context, key string, cfg *runConfig, fn untypedFn, via pipeline.Processor) (res result) {
	nested, err := c.begin(ctx, key)
	if err != nil {
		res.err = err
		return res
	}
	defer c.group.Leave()
	if s, hit := c.cached(key); hit {
		res.sharedResult = c.replay(ctx, key, cfg, s)
		return res
	}
	f := joiner{began: time.Now(), nested: nested}
	call, follower, joined := c.crowd.flights.Enter(key, c.crowd.joinOptions(cfg, f.began))
	if joined {
		f.Follower = follower
		if c.crowd.follow(ctx, key, cfg, &f, &res.sharedResult) {
			return res
		}
	}
	op := c.newOperation(key, cfg, nested, f.began)
	op.via, op.followed, op.lead.call = via, joined, call
	if c.tracer != nil {
		op.extensions = c.withOrigin(ctx, key, op.extensions)
	}
	return c.lead(ctx, op, &op.lead, fn)
}

func (c *core) newOperation(key string, cfg *runConfig, nested bool, began time.Time) *operation {
	return &operation{
		key:         key,
		name:        record.Name(c.namespace, key),
		cfg:         cfg,
		token:       record.NewToken(),
		began:       began,
		closing:     c.crowd.closingOf(nested),
		fingerprint: cfg.fingerprint,
		extensions:  c.owner,
	}
}

// begin admits a run, or says why not. The caller must call active.leave. A run that is nested in
// an fn of this executor is part of that fn: close lets it go on.
func (c *core) begin(ctx context.Context, key string) (nested bool, err error) {
	if err := checkKey(key); err != nil {
		return false, err
	}
	if ctx.Err() != nil {
		return false, contextError(ctx)
	}
	return c.admit(ctx, key)
}

// admit counts a run in, unless the executor is closed or the run would wait for itself.
func (c *core) admit(ctx context.Context, key string) (nested bool, err error) {
	nested, same := c.keyspace.executing(ctx, key)
	switch {
	case same:
		return nested, &InProgressError{}
	case !c.group.Enter(nested):
		return nested, ErrClosed
	}
	return nested, nil
}

// close ends the waits, and returns when every run has.
func (c *core) close() {
	first := c.group.Close()
	c.crowd.flights.WakeAll()
	<-c.group.Drained
	if first {
		c.stop()
		close(c.stopped)
	}
	<-c.stopped
}

// stop ends the executor's goroutines. One that waits for a server that hangs, without a timeout of the
// client, is left behind after a while.
func (c *core) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), c.runner.commitRetryWindow())
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.waiting.hub.Close()
		c.runner.renewer.Close()
		c.cache.Close()
		c.releases.Close(ctx)
		c.store.Close()
	}()
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// lead brings the operation to an outcome, or leaves that to the next caller in line; also when a
// hook of the client panics, say, and a function above Run recovers: the flight would have no leader otherwise.
func (c *core) lead(ctx context.Context, op *operation, lead *leadership, fn untypedFn) result {
	returned := false
	defer func() {
		if !returned {
			lead.handOver(flightState{})
		}
	}()
	res := c.tryToLead(ctx, op, lead, fn)
	returned = true
	return res
}

func (c *core) tryToLead(ctx context.Context, op *operation, lead *leadership, fn untypedFn) result {
	if err := op.err(ctx); err != nil {
		lead.handOver(flightState{})
		return result{sharedResult: failure(err)}
	}
	f, err := c.waiting.acquire(ctx, op, lead)
	return c.acquired(ctx, op, lead, fn, f, err)
}

// acquired is what comes of an attempt to own the operation.
func (c *core) acquired(ctx context.Context, op *operation, lead *leadership, fn untypedFn, f claimResult, err error) result {
	if err == nil && f.lease != nil && ctx.Err() != nil { // fn would begin with a dead context
		c.releaseInBackground(op, f.lease.Attempt)
		err = contextError(ctx)
	}
	switch {
	case err != nil && concernsAll(err) && ctx.Err() == nil:
		lead.settle(failure(err))
		return result{sharedResult: failure(err)}
	case err != nil:
		lead.handOver(stateAfter(op, err))
		return result{sharedResult: failure(err)}
	case f.rec != nil:
		s := f.shared()
		lead.settle(s)
		return result{sharedResult: c.replay(ctx, op.key, op.cfg, s)}
	}
	return c.runner.execute(ctx, op, lead, f.lease, fn)
}

// concernsAll reports whether err says something about Redis or the record, and so to every
// caller of the key, and not about the caller that met it.
func concernsAll(err error) bool {
	return errorsIsAny(err, ErrUnavailable, ErrCorruptRecord) && !errors.Is(err, errWaitTimeout)
}

// cached is what the cache answers, if it can.
func (c *core) cached(key string) (s sharedResult, hit bool) {
	rec := c.cache.Get(key)
	return sharedResult{rec: rec, stored: true, shared: true, source: Cached}, rec != nil
}

// Package pg records errors as this package does.
func init() {
	seam.CheckRegistry = func(registry any) error { return registry.(*ErrorRegistry).err }
	seam.EncodeError = func(registry any, err error, lost func(string)) []byte {
		return registry.(*ErrorRegistry).encode(err, lost)
	}
	seam.DecodeError = func(registry any, rec *record.Record, lost func(string)) error {
		return registry.(*ErrorRegistry).decode(rec, lost)
	}
	seam.CodecID = codecOf
	seam.IsUnknown = func(err error) bool {
		marked := false
		errtree.Walk(err, func(node error) bool {
			_, marked = node.(*unknownError) //nolint:errorlint // one node of the tree that Walk visits
			return !marked
		})
		return marked || errtree.Contains(err, notOutcomes...)
	}
	seam.WithRunInfo = func(ctx context.Context, namespace, key string) context.Context {
		x := &runContext{info: RunInfo{Namespace: namespace, Key: key, Attempt: 1}}
		x.outer, _ = ctx.Value(runContextKey{}).(*runContext)
		return context.WithValue(ctx, runContextKey{}, x)
	}
}

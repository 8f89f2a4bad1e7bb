// Package idempotent runs a function once for each key, across all processes that share a Redis,
// and gives every caller its outcome.
//
// A payment must be made once, a job done once, a webhook handled once; but clients retry, queues
// deliver twice, and two servers get the same request at the same moment. [Executor.Run] lets one
// caller run the function. The others wait, are notified, and get the same value or the same
// error, replayed; so does every later caller, until the TTL is over.
//
//	charges, err := idempotent.New[Charge](rdb, "payments",
//		idempotent.WithTTL(24*time.Hour),
//		idempotent.WithShouldIgnoreError(idempotent.IsRetryable))
//
//	charge, err := charges.Run(ctx, "order-42", func(ctx context.Context) (Charge, error) {
//		return provider.Charge(ctx, order)
//	})
//
// An [Executor] is made once for each kind of result, and used by any number of goroutines. It
// works on any [github.com/redis/go-redis/v9.UniversalClient]: a single server, Sentinel, Cluster,
// Ring, and AutoPipeliner.
//
// # The key
//
// A key names one operation, in the namespace of its executor ([New]), and is chosen by the caller: the
// number of an order, the id of a webhook, what a client sent as its Idempotency-Key. [HashKey]
// makes one out of several parts. With [WithFingerprint], the same key for another request is
// refused with [ErrKeyReused] instead of being answered with another request's result.
//
// # Outcomes
//
// A value, an error and a panic of fn are outcomes alike: they are recorded, and replayed. An error
// for which [WithShouldIgnoreError] is true is not, and frees the key. A replayed error prints the
// original text, matches [ErrReplayed], and matches the errors registered with [WithErrors] as the
// original did. All who did not run fn get a decoded copy of their own.
//
// An error with which fn reports the end of its own context is never recorded, nor is one that it
// marks with [OutcomeUnknown]: it is not known what fn did, and the execution counts as interrupted,
// see below. [WithDetached] lets fn go on when its caller leaves.
//
// # Who runs, and for how long
//
// The caller that runs fn holds a lease ([WithLease]), which is renewed while fn runs. fn may
// therefore take as long as it likes, and a process that dies blocks its keys for one lease at most.
// When the lease is lost, fn's context ends with [ErrLeaseLost] as its cause.
//
// The owner died, and what it did is not known. Under [Rerun], the default, the next caller runs fn with
// a [RunInfo] whose Attempt is 2, and with the same [RunInfo.DownstreamKey], which a provider takes as its
// own idempotency key. Under [Refuse], it does not run, and every caller gets [ErrInterrupted] until
// [Executor.Resolve] or [Executor.Forget].
//
// # What holds
//
//   - While an owner holds its lease, no other caller runs fn for the key.
//   - What is recorded is never run again within its TTL: not after an error of Redis, a corrupt
//     record, another codec or another T. Those are errors to the caller.
//   - An owner that lost its lease does not overwrite what came after it.
//   - Every caller gets the one recorded outcome.
//   - fn succeeded, Redis failed: the commit is repeated, whatever the caller's context does; if that
//     fails, the value comes with [ErrNotRecorded].
//   - A waiter does not depend on its notification: it reads again when the owner's lease is over,
//     and whenever the subscription was lost.
//
// # What does not
//
// No library can make a call to a provider and a write to Redis one step. A process that dies after
// the call and before the write leaves an effect without a record. What one has then is the attempt
// number, the downstream key, and Refuse. A process that is paused for longer than its lease may
// still be inside fn when the next one runs; its result is refused, its effects are not undone. And
// a Redis that forgets (a failover to a replica that lags, an eviction, a flush) forgets that
// something was done. docs/guarantees.md in the repository has the full table, with the test that
// shows each line of it.
//
// # Errors
//
// Match them with [errors.Is]. fn did not run: [ErrInProgress], [ErrKeyReused], [ErrInterrupted],
// [ErrUnavailable], [ErrCorruptRecord], [ErrInvalidKey], [ErrInvalidOption], [ErrClosed]. fn ran, and
// the value is beside the error: [ErrNotRecorded], [ErrLeaseLost]. Everything else is fn's own, that
// of the caller's context, or a *[HookError].
//
// # Cost
//
// Two round trips for a first run, one for a replay; an fn shorter than a third of the lease is not
// renewed. Callers of one key in one process share one conversation with Redis: a thousand of them
// cost two commands. From its first wait for another process on, an executor has a subscription
// connection: one in all, or one for each master of a Cluster or shard of a Ring. The leases it
// holds cost it one timer and no goroutine.
//
// # Testing
//
// Package [github.com/idempotent-go/idempotent/idemtest] has a Redis in memory, which follows the
// clock of a testing/synctest bubble, an [Observer] to wait on, and a check for codecs.
package idempotent

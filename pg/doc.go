// Package pg keeps idempotency records in Postgres, in the transaction of the effect.
//
// An [Executor] is to a Postgres transaction what idempotent.Executor is to a function: fn's writes and the record of its
// outcome are committed together, or neither is. For an effect that is a write to one's own database this is exactly
// once, whatever dies or pauses: there is no second attempt that has to ask whether the first one had its effect.
//
//	orders, err := pg.New[Order](pool, "orders", pg.WithTTL(72*time.Hour))
//	...
//	order, err := orders.Run(ctx, key, func(ctx context.Context, tx pgx.Tx) (Order, error) {
//		return insertOrder(ctx, tx, request)
//	})
//
// # How it works
//
// Run reads the record of the key. If there is none, it begins a transaction, takes a transaction-level advisory lock of
// the key, reads again, calls fn, inserts the record and commits. Other calls with the key wait for the lock, which
// Postgres frees when the transaction ends in any way. An error of fn is recorded after a rollback to a savepoint. If the
// answer to COMMIT is lost, Run takes the lock again, which its old session holds until it has committed or rolled back,
// and reads the record.
//
// Effects outside of the database cannot be part of a transaction: use idempotent.Executor for these, or an outbox.
// docs/postgres.md compares the three, and has sizes and costs.
//
// # Redis in front
//
// [Through] lets callers wait by Redis's pub/sub, and replays without the database. Redis may be lost at any time.
//
// # Connection poolers
//
// Everything that this package sets lasts for a transaction, so pgbouncer's transaction mode works. A pgbouncer that does
// not keep prepared statements (before 1.21, or without max_prepared_statements) needs default_query_exec_mode=exec in the
// pool's connection string.
package pg

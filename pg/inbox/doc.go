// Package inbox keeps the events of a webhook.Inbox in Postgres, next to the rows that their handlers write.
//
//	store, err := inbox.New(pool, "shop")
//	...
//	router.Handle("stripe", "charge.succeeded", func(ctx context.Context, j *webhook.Job) error {
//		_, err := inbox.Tx(ctx).Exec(ctx, `UPDATE orders SET paid = true WHERE id = $1`, j.Object)
//		return err
//	})
//	in, err := webhook.New(ctx, store, sources, router)
//
// The handler's writes through [Tx], its outcome and the event's new state are one transaction, so each event has its
// effect exactly once, whatever dies or pauses. pg.Migrate creates the tables.
//
// # How it works
//
// Accept inserts the event and its payload in one statement. Take locks due events with FOR UPDATE SKIP LOCKED and gives
// each a token and a lease. The executor begins a transaction, takes an advisory lock of the event's run, and calls the
// handler; Settle updates the event's row in the same transaction, if the row still has the worker's token, and commits. A
// worker that lost its event, or that is paused longer than its idle timeout, is rolled back.
//
// Payloads are in daily partitions, by the day on which they are dropped. [Store.Prune] drops them, moves the payloads that
// are still needed (dead letters, unsettled events) to a later day, and deletes what is past its retention.
package inbox

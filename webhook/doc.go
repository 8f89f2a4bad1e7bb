// Package webhook receives the events of webhook providers: it verifies each request, stores its events before it answers,
// and runs a handler for each event, whose effect takes place once.
//
// Providers deliver at least once, out of order, and for days. An [Inbox] turns that into effects that happen exactly once,
// as far as the receiver of the effect lets it: see Attempt and Reference of [Job].
//
//   - A [Source] is a provider at one URL, with a [Scheme] that verifies the signature over the raw body ([Stripe],
//     [GitHub], [StandardWebhooks] and others, or a custom one).
//   - [Inbox.ServeHTTP] stores the events and answers 2xx, or answers 503 with Retry-After if they could not be stored in
//     time. An event that was answered with 2xx reaches a final state; what it survives depends on the store, which reports
//     it at start ([Durability]).
//   - A [Router] selects the [Handler] of an event. [Inbox.Work] runs handlers through an idempotent.Executor, retries with
//     backoff, and gives up with a dead letter.
//   - [Ordered] applies the events of one object in the order of its states, however they arrive.
//   - [Inbox.Get] and [Inbox.Find] answer what was received, what happened to it and what it changed; [Inbox.Redrive] runs
//     dead letters again, and [Inbox.Admin] serves both to operators.
//
// [NewRedisStore] keeps the events in Redis. Any number of processes may share a store, on a Cluster as well.
package webhook

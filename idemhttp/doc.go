// Package idemhttp gives an HTTP API its Idempotency-Key, and a client retries that are safe.
//
// On the server, a Middleware runs the handler once for each key and answers every repetition of
// the request with the recorded response, across any number of processes that share a Redis:
//
//	mw, err := idemhttp.New(rdb, idemhttp.WithScope(tenant))
//	...
//	defer mw.Close()
//	mux.Handle("POST /payments", mw.Wrap(createPayment))
//
// It implements the IETF draft "The Idempotency-Key HTTP Header Field"
// (draft-ietf-httpapi-idempotency-key-header-07) and, where the draft leaves room, does what
// people know from Stripe. The one thing it does differently by default: a request that comes
// while the first one is still running waits for it, and gets its answer; WithNoWait answers
// 409 at once, as the draft has it.
//
// What holds:
//
//   - The client gets its answer only after the response is recorded. No retry of a client that
//     has an answer, and keeps its key, runs the handler again until the TTL is over.
//   - A client that disconnects does not stop the handler; its response is recorded.
//   - Nothing is looked up, and no key is held, before the whole request has been read.
//   - A response is replayed only to the same caller (WithScope) for the same request
//     (WithFingerprint).
//   - A status of 4xx from this package says that the request had no effect, with one exception:
//     409 says that the same request, with the same key, is to be sent again. A request that may
//     have had an effect, and whose response cannot be given, is answered with 500.
//
// Inside a handler, idempotent.RunInfoFromContext(r.Context()) tells the attempt (above 1, an
// earlier one died and may have done its work) and a key for the idempotency header of a provider.
// A handler that cannot tell whether it did its work calls OutcomeUnknown.
//
// On the client, a Transport gives each POST and PATCH a key, keeps it over retries, and retries
// when that can help:
//
//	rt, err := idemhttp.NewTransport(nil)
//	...
//	client := &http.Client{Transport: rt}
//
// docs/http.md has the draft's requirements and Stripe's behaviour, each with the test that shows
// it, and how to use the package with chi, echo and gin.
package idemhttp

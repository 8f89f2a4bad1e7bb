package idemhttp

import (
	"context"
	"time"

	"github.com/idempotent-go/idempotent"
)

// Instance returns the name of the operation that a key belongs to, for Peek, Forget and Resolve: 64
// hexadecimal digits. scope is what the Scope returned for the caller, and route the pattern of the
// route, such as "POST /payments/{id}": method and names of wildcards do not matter. Problems
// and log lines of the middleware carry it as instance. Nothing in it can be read back.
func (m *Middleware) Instance(scope, route, key string) string { return instance(scope, route, key) }

// Peek returns what is stored for an operation. See Executor.Peek.
func (m *Middleware) Peek(ctx context.Context, instance string) (idempotent.Status, error) {
	if err := checkInstance(instance); err != nil {
		return idempotent.Status{}, err
	}
	return m.executor.Peek(ctx, instance)
}

// Forget removes what is stored for an operation, so that the next request with its key runs the
// handler. See Executor.Forget.
func (m *Middleware) Forget(ctx context.Context, instance string) error {
	if err := checkInstance(instance); err != nil {
		return err
	}
	return m.executor.Forget(ctx, instance)
}

// Resolve records a response for an operation whose execution ended without one, after an operator has
// found out what it did, and returns what was there before. Later requests with its key get that
// response as a replay, until the TTL of New ends. A response that is recorded already stays:
// idempotent.ErrAlreadyRecorded. An operation that was never begun is idempotent.ErrNotFound, because
// its name may be mistyped. See Executor.Resolve.
func (m *Middleware) Resolve(ctx context.Context, instance string, response Recorded) (was idempotent.Status, err error) {
	if err := checkInstance(instance); err != nil {
		return was, err
	}
	res, err := response.response(m.private)
	if err != nil {
		return was, err
	}
	res.expires = time.Now().Add(m.ttl).Unix()
	return m.executor.Resolve(ctx, instance, res)
}

// Package runctx finds values of a request's context in contexts of frameworks that do not pass it on:
// a gin.Context looks up strings in its own map and, by default, nothing in its request.
package runctx

import "context"

// Key is the name under which an adapter puts the context of the request into that of its framework.
const Key = "github.com/idempotent-go/idempotent/request-context"

// Value returns ctx.Value(key) or, where ctx does not have it, that of the context under Key.
func Value(ctx context.Context, key any) any {
	if value := ctx.Value(key); value != nil {
		return value
	}
	if inner, ok := ctx.Value(Key).(context.Context); ok {
		return inner.Value(key)
	}
	return nil
}

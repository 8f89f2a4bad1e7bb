package runctx_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/idempotent-go/idempotent/internal/runctx"
)

// A framework is a context that knows strings only.
type framework struct {
	context.Context
	keys map[string]any
}

func (f framework) Value(key any) any {
	name, _ := key.(string)
	return f.keys[name]
}

type key struct{}

func TestValue(t *testing.T) {
	request := context.WithValue(t.Context(), key{}, 1)
	assert.Equal(t, 1, runctx.Value(request, key{}))
	assert.Equal(t, 1, runctx.Value(framework{t.Context(), map[string]any{runctx.Key: request}}, key{}))
	assert.Nil(t, runctx.Value(framework{t.Context(), nil}, key{}))
	assert.Nil(t, runctx.Value(framework{t.Context(), map[string]any{runctx.Key: "no context"}}, key{}))
}

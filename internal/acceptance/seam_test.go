package acceptance

import (
	"context"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/idemtest"
	"github.com/idempotent-go/idempotent/internal/seam"
)

// An execution of package pg is no execution of an Executor: a Run inside it is not refused as nested.
func TestRunInfoOfAnotherPackage(t *testing.T) {
	ctx := seam.WithRunInfo(t.Context(), "orders", "key")
	info, ok := idempotent.RunInfoFromContext(ctx)
	assert.True(t, ok)
	assert.Equal(t, idempotent.RunInfo{Namespace: "orders", Key: "key", Attempt: 1}, info)

	executor, err := idempotent.New[int](idemtest.NewRedis(t), "orders")
	require.NoError(t, err)
	defer executor.Close()
	value, err := executor.Run(ctx, "key", func(ctx context.Context) (int, error) {
		_, err := executor.Run(ctx, "key", func(context.Context) (int, error) { return 0, nil })
		assert.ErrorIs(t, err, idempotent.ErrInProgress)
		return 7, nil
	})
	assert.NoError(t, err)
	assert.Equal(t, 7, value)
}

package redistest_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent/internal/redistest"
)

func TestSentinel(t *testing.T) {
	s := redistest.StartSentinel(t)
	ctx := t.Context()
	client := s.Client(t)
	require.NoError(t, client.Set(ctx, "key", "value", 0).Err())
	require.EqualValues(t, 2, client.Wait(ctx, 2, 0).Val())

	first, err := s.Master(ctx)
	require.NoError(t, err)
	assert.Same(t, s.Servers[0], first)
	second, err := s.Failover(ctx)
	require.NoError(t, err)
	assert.NotSame(t, first, second)
	assert.Equal(t, "value", second.Client(t).Get(ctx, "key").Val())

	second.Kill()
	third, err := s.Promoted(ctx, second)
	require.NoError(t, err)
	assert.NotSame(t, second, third)
	assert.Equal(t, "value", third.Client(t).Get(ctx, "key").Val())
	require.NoError(t, second.Run())
	require.NoError(t, s.Settled(ctx))
	assert.Equal(t, "value", client.Get(ctx, "key").Val())
}

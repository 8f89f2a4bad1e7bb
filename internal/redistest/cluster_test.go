package redistest_test

import (
	"fmt"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent/internal/redistest"
	"github.com/idempotent-go/idempotent/internal/slot"
)

func TestCluster(t *testing.T) {
	c := redistest.StartCluster(t)
	ctx := t.Context()
	client := c.Client(t)
	for i := range 30 {
		require.NoError(t, client.Set(ctx, fmt.Sprint(i), i, 0).Err())
	}
	masters, err := c.Masters(ctx)
	require.NoError(t, err)
	require.Len(t, masters, 3)
	for i := range 30 {
		has, err := client.ClusterKeySlot(ctx, fmt.Sprint(i)).Result()
		require.NoError(t, err)
		require.EqualValues(t, has, slot.Of(fmt.Sprint(i)))
	}

	from, err := c.MasterOf(ctx, "1")
	require.NoError(t, err)
	to := masters[0]
	if to == from {
		to = masters[1]
	}
	m, err := c.BeginMigration(ctx, slot.Of("1"), to)
	require.NoError(t, err)
	require.NoError(t, m.MoveKey(ctx, "1"))
	assert.True(t, redis.HasErrorPrefix(from.Client().Get(ctx, "1").Err(), "ASK"))
	require.NoError(t, m.MoveKeys(ctx))
	require.NoError(t, m.Finish(ctx))
	assert.True(t, redis.HasErrorPrefix(from.Client().Get(ctx, "1").Err(), "MOVED"))
	now, err := c.MasterOf(ctx, "1")
	require.NoError(t, err)
	assert.Same(t, to, now)

	successor, err := c.Failover(ctx, to)
	require.NoError(t, err)
	assert.Same(t, c.Partner(to), successor)
	now, err = c.MasterOf(ctx, "1")
	require.NoError(t, err)
	require.Same(t, successor, now)

	require.NoError(t, successor.Client().Set(ctx, "1", "new", 0).Err())
	require.NoError(t, successor.Client().Wait(ctx, 1, 0).Err())
	successor.Kill()
	again, err := c.Promoted(ctx, successor)
	require.NoError(t, err)
	assert.Same(t, to, again)
	require.NoError(t, successor.Run())
	require.NoError(t, c.Settled(ctx))
	assert.Equal(t, "new", client.Get(ctx, "1").Val())
	assert.Equal(t, "2", client.Get(ctx, "2").Val())
}

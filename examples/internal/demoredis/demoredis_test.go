package demoredis

import (
	"net"
	"testing"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// unusedAddress returns an address at which no server listens.
func unusedAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().String()
}

func TestConnectChoosesARedis(t *testing.T) {
	named, local := miniredis.RunT(t), miniredis.RunT(t)
	for name, c := range map[string]struct {
		url, local string
		want       *miniredis.Miniredis // nil for the one in memory
	}{
		"REDIS_URL":       {url: "redis://" + named.Addr(), local: local.Addr(), want: named},
		"localhost":       {local: local.Addr(), want: local},
		"none, so inside": {local: unusedAddress(t)},
	} {
		t.Run(name, func(t *testing.T) {
			rdb, stop, err := connect(t.Context(), c.url, c.local)
			require.NoError(t, err)
			require.NoError(t, rdb.Set(t.Context(), name, "here", 0).Err())
			for _, server := range []*miniredis.Miniredis{named, local} {
				assert.Equal(t, server == c.want, server.Exists(name))
			}
			stop()
			assert.ErrorIs(t, rdb.Ping(t.Context()).Err(), redis.ErrClosed)
		})
	}
}

func TestConnectRefusesAnotherRedisThanTheNamedOne(t *testing.T) {
	addr := unusedAddress(t)
	_, _, err := connect(t.Context(), "redis://:secret@"+addr, miniredis.RunT(t).Addr())
	require.ErrorContains(t, err, "the Redis at REDIS_URL, "+addr)
	assert.NotContains(t, err.Error(), "secret")
	_, _, err = connect(t.Context(), "nonsense", "")
	require.ErrorContains(t, err, "REDIS_URL")
}

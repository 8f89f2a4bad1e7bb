package redisproc

import (
	"net"
	"os"
	"os/exec"
	"testing"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) {
	Main()
	os.Exit(m.Run())
}

func TestStartsARedisServer(t *testing.T) {
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Skip("no redis-server on PATH")
	}
	t.Setenv("REDIS_URL", "")
	server, err := Start(t.Context())
	require.NoError(t, err)
	assert.Regexp(t, `^redis-server [0-9.]+ at 127\.0\.0\.1:\d+, started for this demo$`, server.Description)
	assertAnswers(t, server)
	server.Stop()
	assertGone(t, server)
}

func TestNeedsNothingButGo(t *testing.T) {
	t.Setenv("REDIS_URL", "")
	t.Setenv("PATH", t.TempDir())
	server, err := Start(t.Context())
	require.NoError(t, err)
	assert.Contains(t, server.Description, "miniredis")
	assertAnswers(t, server)
	server.Stop()
	assertGone(t, server)
}

func TestUsesAGivenRedis(t *testing.T) {
	given := miniredis.RunT(t)
	t.Setenv("REDIS_URL", "redis://"+given.Addr())
	server, err := Start(t.Context())
	require.NoError(t, err)
	server.Stop()
	assertAnswers(t, server) // it is not ours to end
}

func TestNamesAGivenRedisThatDoesNotAnswer(t *testing.T) {
	given := miniredis.RunT(t)
	addr := given.Addr()
	given.Close()
	t.Setenv("REDIS_URL", "redis://:secret@"+addr)
	_, err := Start(t.Context())
	require.ErrorContains(t, err, "the Redis that REDIS_URL names, at "+addr+", does not answer")
	assert.NotContains(t, err.Error(), "secret")
	t.Setenv("REDIS_URL", "http://nonsense")
	_, err = Start(t.Context())
	require.ErrorContains(t, err, "REDIS_URL cannot be read")
}

func assertAnswers(t *testing.T, s *Server) {
	t.Helper()
	opts, err := redis.ParseURL(s.URL)
	require.NoError(t, err)
	rdb := redis.NewClient(opts)
	defer rdb.Close()
	assert.NoError(t, rdb.Set(t.Context(), "k", "v", 0).Err())
}

func assertGone(t *testing.T, s *Server) {
	t.Helper()
	opts, err := redis.ParseURL(s.URL)
	require.NoError(t, err)
	conn, err := net.Dial("tcp", opts.Addr)
	if err == nil {
		conn.Close()
	}
	assert.Error(t, err, "it is still there")
}

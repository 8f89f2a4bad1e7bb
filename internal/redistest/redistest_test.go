package redistest

import (
	"errors"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A server that does not log that it is ready does not hold up its test, and does not stay.
func TestStartIsBounded(t *testing.T) {
	addr := ""
	_, err := start(func(s *Server) error {
		s.ready, s.limit, s.args = "a line that no server logs", 200*time.Millisecond, s.basics()
		addr = s.Addr()
		return nil
	})
	if errors.Is(err, ErrNoServer) {
		must(t, err)
	}
	require.ErrorContains(t, err, `did not log "a line that no server logs" within 200ms`)
	client := redis.NewClient(&redis.Options{Addr: addr, MaxRetries: -1})
	defer client.Close()
	assert.Error(t, client.Ping(t.Context()).Err())
}

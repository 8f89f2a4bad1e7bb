package behaviour_test

import (
	"os"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent/internal/behaviour"
	"github.com/idempotent-go/idempotent/internal/redistest"
)

func TestMain(m *testing.M) {
	code := m.Run()
	redistest.Cleanup()
	os.Exit(code)
}

func TestSingleServer(t *testing.T) {
	options, err := redis.ParseURL(redistest.URL(t))
	require.NoError(t, err)
	client := func() *redis.Client {
		c := redis.NewClient(options)
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	behaviour.Run(t, client(), client())
}

package integration

import (
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent/internal/behaviour"
)

// Each server image does what every server must do, through each kind of client, and also for a
// user who may do what docs/redis.md says and nothing else.
func TestServers(t *testing.T) {
	d := connect(t)
	for _, image := range d.images {
		t.Run(image, func(t *testing.T) {
			d.need(t, image)
			t.Run("single", func(t *testing.T) { testSingle(t, d.start(t, image)) })
			t.Run("cluster", func(t *testing.T) { testCluster(t, d.start(t, image, "--cluster-enabled", "yes")) })
		})
	}
}

func testSingle(t *testing.T, s *server) {
	client := func(t *testing.T, change func(*redis.Options)) *redis.Client {
		options := &redis.Options{Addr: s.addr}
		change(options)
		c := redis.NewClient(options)
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	for name, change := range map[string]func(*redis.Options){
		"RESP3": func(*redis.Options) {},
		"RESP2": func(o *redis.Options) { o.Protocol = 2 },
	} {
		t.Run(name, func(t *testing.T) { behaviour.Run(t, client(t, change), client(t, change)) })
	}
	t.Run("AutoPipeliner", func(t *testing.T) {
		pipeliner := func() *redis.AutoPipeliner {
			p, err := client(t, func(*redis.Options) {}).AutoPipeline()
			require.NoError(t, err)
			t.Cleanup(func() { _ = p.Close() })
			return p
		}
		behaviour.Run(t, pipeliner(), pipeliner())
	})
	t.Run("user with the least rights", func(t *testing.T) {
		user := s.restrict(t, 0)
		login := func(o *redis.Options) { o.Username, o.Password = user.name, user.password }
		behaviour.Run(t, client(t, login), client(t, login))
		s.refusedNothing(t, user)
	})
}

func testCluster(t *testing.T, s *server) {
	s.makeCluster(t)
	client := func(t *testing.T, change func(*redis.ClusterOptions)) *redis.ClusterClient {
		// The server knows the address it has in its container, which may not be reached from here.
		options := &redis.ClusterOptions{Addrs: []string{s.addr}, Dialer: s.dial}
		change(options)
		c := redis.NewClusterClient(options)
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	t.Run("ClusterClient", func(t *testing.T) {
		none := func(*redis.ClusterOptions) {}
		behaviour.Run(t, client(t, none), client(t, none))
	})
	t.Run("user with the least rights", func(t *testing.T) {
		user := s.restrict(t, 1)
		login := func(o *redis.ClusterOptions) { o.Username, o.Password = user.name, user.password }
		behaviour.Run(t, client(t, login), client(t, login))
		s.refusedNothing(t, user)
	})
}

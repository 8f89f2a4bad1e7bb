package redistest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// MasterName is what the Sentinels call the master.
const MasterName = "idempotent"

const quorum = 2

// A Sentinel is a master with two replicas, and three Sentinels that watch them. The servers keep
// nothing on disk but their roles: a master that is killed must not run again before Promoted has
// returned, or it may come back empty and its data is gone.
type Sentinel struct {
	Servers   []*Server // the first is the master at the beginning
	Sentinels []*Server
}

// LaunchSentinel starts such a set, with further arguments for each server. It lives until Close
// or the end of this process. A master that does not answer for 1 s is failed over.
func LaunchSentinel(args ...string) (*Sentinel, error) {
	s := &Sentinel{Servers: make([]*Server, 3), Sentinels: make([]*Server, 3)}
	err := s.launch(context.Background(), args)
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// StartSentinel starts a set of the test's own and stops it when the test ends.
func StartSentinel(t testing.TB, args ...string) *Sentinel {
	t.Helper()
	s, err := LaunchSentinel(args...)
	must(t, err)
	t.Cleanup(s.Close)
	return s
}

func (s *Sentinel) launch(ctx context.Context, args []string) error {
	err := together(len(s.Servers), func(i int) (err error) {
		s.Servers[i], err = launchServer(args)
		return err
	})
	if err != nil {
		return err
	}
	for _, replica := range s.Servers[1:] {
		if err := replica.follow(ctx, s.Servers[0]); err != nil {
			return err
		}
	}
	err = together(len(s.Sentinels), func(i int) (err error) {
		s.Sentinels[i], err = launchSentinel(ctx, s.Servers[0])
		return err
	})
	if err != nil {
		return err
	}
	return s.Settled(ctx)
}

// launchServer starts a server that Sentinels can tell to follow another one, also across a
// restart: they write that into its configuration file.
func launchServer(args []string) (*Server, error) {
	return start(func(s *Server) error {
		s.args = append([]string{filepath.Join(s.dir, "redis.conf")}, args...)
		return s.configure("redis.conf", "save \"\"", "appendonly no", "repl-diskless-sync-delay 0", "repl-ping-replica-period 1")
	})
}

func launchSentinel(ctx context.Context, master *Server) (*Server, error) {
	s, err := start(func(s *Server) error {
		s.ready = "+monitor"
		s.args = []string{filepath.Join(s.dir, "sentinel.conf"), "--sentinel"}
		return s.configure("sentinel.conf",
			fmt.Sprintf("sentinel monitor %s 127.0.0.1 %d %d", MasterName, master.port, quorum),
			"sentinel down-after-milliseconds "+MasterName+" 1000",
			"sentinel failover-timeout "+MasterName+" 5000",
			"sentinel parallel-syncs "+MasterName+" 2")
	})
	if err != nil {
		return nil, err
	}
	// They look around every 10 s by default, and do nothing for 30 s when the machine stutters.
	return s, s.ask(func(c *redis.Client) error {
		return c.Do(ctx, "SENTINEL", "DEBUG", "info-period", 500, "publish-period", 200, "tilt-trigger", 5000, "tilt-period", 1000).Err()
	})
}

func (s *Server) configure(file string, lines ...string) error {
	lines = append([]string{"port " + strconv.Itoa(s.port), "bind 127.0.0.1", "dir " + s.dir}, lines...)
	return os.WriteFile(filepath.Join(s.dir, file), []byte(strings.Join(lines, "\n")+"\n"), 0o600)
}

func (s *Server) follow(ctx context.Context, master *Server) error {
	return s.ask(func(c *redis.Client) error {
		return errors.Join(c.ReplicaOf(ctx, "127.0.0.1", strconv.Itoa(master.port)).Err(), c.ConfigRewrite(ctx).Err())
	})
}

// ask lends a client for one question.
func (s *Server) ask(question func(*redis.Client) error) error {
	c := redis.NewClient(&redis.Options{Addr: s.Addr(), MaxRetries: -1})
	defer c.Close()
	return question(c)
}

// Close kills all servers for good.
func (s *Sentinel) Close() {
	for _, server := range append(s.Sentinels, s.Servers...) {
		if server != nil {
			server.Close()
		}
	}
}

// Addrs returns host:port of each Sentinel, for a client's FailoverOptions.SentinelAddrs.
func (s *Sentinel) Addrs() []string {
	addrs := make([]string, len(s.Sentinels))
	for i, sentinel := range s.Sentinels {
		addrs[i] = sentinel.Addr()
	}
	return addrs
}

// Client returns a client, which follows failovers, that is closed when the test ends.
func (s *Sentinel) Client(t testing.TB) *redis.Client {
	t.Helper()
	c := redis.NewFailoverClient(&redis.FailoverOptions{MasterName: MasterName, SentinelAddrs: s.Addrs()})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// Master returns the server that a Sentinel says is the master.
func (s *Sentinel) Master(ctx context.Context) (*Server, error) {
	for _, sentinel := range s.Sentinels {
		if sentinel.Alive() {
			return s.masterBy(ctx, sentinel)
		}
	}
	return nil, errors.New("redistest: no Sentinel is alive")
}

func (s *Sentinel) masterBy(ctx context.Context, sentinel *Server) (*Server, error) {
	var at []string
	err := sentinel.ask(func(c *redis.Client) (err error) {
		at, err = c.Do(ctx, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", MasterName).StringSlice()
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, server := range s.Servers {
		if len(at) == 2 && net.JoinHostPort(at[0], at[1]) == server.Addr() {
			return server, nil
		}
	}
	return nil, fmt.Errorf("redistest: the master is at %q, which is no server here", at)
}

// Settled returns when all Sentinels alive agree on a master that is alive, know each other, and
// every other server that is alive is a replica in step with the master.
func (s *Sentinel) Settled(ctx context.Context) error {
	return poll(ctx, "the Sentinels to settle", s.unsettled)
}

func (s *Sentinel) unsettled(ctx context.Context) error {
	master, err := s.Master(ctx)
	if err != nil {
		return err
	}
	if !master.Alive() {
		return fmt.Errorf("the master %s is not alive", master.Addr())
	}
	replicas := 0
	for _, server := range s.Servers {
		if server != master && server.Alive() {
			replicas++
		}
	}
	replication, err := master.info(ctx, "replication")
	if err != nil {
		return err
	}
	if !strings.Contains(replication, "role:master") || strings.Count(replication, "state=online") != replicas {
		return fmt.Errorf("%s is no master of %d replicas", master.Addr(), replicas)
	}
	for _, sentinel := range s.Sentinels {
		if !sentinel.Alive() {
			continue
		}
		sees, err := s.masterBy(ctx, sentinel)
		if err != nil {
			return err
		}
		if sees != master {
			return fmt.Errorf("sentinel %s disagrees on the master", sentinel.Addr())
		}
		if err := s.ready(ctx, sentinel, replicas); err != nil {
			return err
		}
	}
	return nil
}

// ready says what keeps a Sentinel from a failover.
func (s *Sentinel) ready(ctx context.Context, sentinel *Server, replicas int) error {
	return sentinel.ask(func(c *redis.Client) error {
		sees, err := c.Do(ctx, "SENTINEL", "MASTER", MasterName).Result()
		if err != nil {
			return err
		}
		about := pairs(sees)
		if about["flags"] != "master" || about["num-other-sentinels"] != strconv.Itoa(len(s.Sentinels)-1) {
			return fmt.Errorf("sentinel %s sees a master with flags %q and %s other Sentinels", sentinel.Addr(), about["flags"], about["num-other-sentinels"])
		}
		all, err := c.Do(ctx, "SENTINEL", "REPLICAS", MasterName).Slice()
		if err != nil {
			return err
		}
		linked := 0
		for _, one := range all {
			if about := pairs(one); about["flags"] == "slave" && about["master-link-status"] == "ok" {
				linked++
			}
		}
		if linked != replicas {
			return fmt.Errorf("sentinel %s sees %d replicas of %d", sentinel.Addr(), linked, replicas)
		}
		return nil
	})
}

// pairs reads a map, which RESP2 and RESP3 send differently.
func pairs(reply any) map[string]string {
	m := make(map[string]string)
	switch reply := reply.(type) {
	case map[any]any:
		for k, v := range reply {
			m[fmt.Sprint(k)] = fmt.Sprint(v)
		}
	case []any:
		for i := 0; i+1 < len(reply); i += 2 {
			m[fmt.Sprint(reply[i])] = fmt.Sprint(reply[i+1])
		}
	}
	return m
}

func (s *Server) info(ctx context.Context, section string) (text string, err error) {
	err = s.ask(func(c *redis.Client) error {
		text, err = c.Info(ctx, section).Result()
		return err
	})
	return text, err
}

// Failover makes a Sentinel put a replica in the master's place, and returns the new master when
// everybody knows it. The old one does not help: it may lose its newest writes.
func (s *Sentinel) Failover(ctx context.Context) (*Server, error) {
	old, err := s.Master(ctx)
	if err != nil {
		return nil, err
	}
	var asked time.Time
	return s.successor(ctx, old, func() error {
		if time.Since(asked) < 10*time.Second { // an attempt is given up after 5 s
			return nil
		}
		asked = time.Now()
		return s.Sentinels[0].ask(func(c *redis.Client) error {
			return c.Do(ctx, "SENTINEL", "FAILOVER", MasterName).Err()
		})
	})
}

// Promoted returns the server that took the place of a master that was killed, when everybody
// knows it.
func (s *Sentinel) Promoted(ctx context.Context, killed *Server) (*Server, error) {
	return s.successor(ctx, killed, func() error { return nil })
}

func (s *Sentinel) successor(ctx context.Context, old *Server, urge func() error) (successor *Server, err error) {
	err = poll(ctx, "a replica to be promoted", func(ctx context.Context) error {
		if successor, err = s.Master(ctx); err != nil {
			return err
		}
		if successor == old {
			return errors.Join(errors.New("the master is the old one"), urge())
		}
		return s.unsettled(ctx)
	})
	return successor, err
}

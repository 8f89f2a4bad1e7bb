// Package redistest gives tests a real Redis: the one at REDIS_URL, or redis-server processes of
// their own: one, a Cluster, or a set behind Sentinels. What begins with Start or takes a
// testing.TB is for tests; the rest returns errors and serves other programs as well.
package redistest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// ErrNoServer says that there is no redis-server to start.
var ErrNoServer = errors.New("needs a redis-server on PATH (apt-get install redis-server, dnf install redis, brew install redis)")

// URL returns the address of a Redis that tests share: REDIS_URL, or a server that lives until
// Cleanup. Use names of your own in it, and do not count its commands.
func URL(t testing.TB) string {
	t.Helper()
	if url := os.Getenv("REDIS_URL"); url != "" {
		return url
	}
	shared.Lock()
	defer shared.Unlock()
	if shared.server == nil {
		shared.server = launch(t)
	}
	return shared.server.URL()
}

var shared struct {
	sync.Mutex
	server *Server
}

// Cleanup stops the shared server; TestMain calls it.
func Cleanup() {
	shared.Lock()
	defer shared.Unlock()
	if shared.server != nil {
		shared.server.Close()
		shared.server = nil
	}
}

// A Server is a redis-server process.
type Server struct {
	port  int
	args  []string
	dir   string
	ready string        // what its log says when it takes connections
	limit time.Duration // how long Run waits for that line

	mu   sync.Mutex
	cmd  *exec.Cmd
	life io.Closer // the server lives until this is closed, or this process ends
}

// minder ends the server when its own standard input ends, so that none is left behind by a test
// binary that was killed.
const minder = `redis-server "$@" & server=$!; exec >/dev/null; cat; kill -9 $server; wait $server 2>/dev/null`

// Start starts a server of the test's own, with further arguments such as "--cluster-enabled",
// "yes", and stops it when the test ends.
func Start(t testing.TB, args ...string) *Server {
	t.Helper()
	s := launch(t, args...)
	t.Cleanup(s.Close)
	return s
}

func launch(t testing.TB, args ...string) *Server {
	t.Helper()
	s, err := Launch(args...)
	must(t, err)
	return s
}

// must ends a test that got no server. Without a redis-server it is skipped, but not on CI.
func must(t testing.TB, err error) {
	t.Helper()
	switch {
	case errors.Is(err, ErrNoServer) && os.Getenv("CI") == "":
		t.Skip(err)
	case err != nil:
		t.Fatal(err)
	}
}

// Launch starts a server, with further arguments, that lives until Close or the end of this
// process.
func Launch(args ...string) (*Server, error) {
	return start(func(s *Server) error {
		s.args = append(s.basics(), args...)
		return nil
	})
}

func (s *Server) basics() []string {
	return []string{"--port", strconv.Itoa(s.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", s.dir}
}

// start starts a server as configure says, which is told its port and directory.
func start(configure func(*Server) error) (*Server, error) {
	if _, err := exec.LookPath("redis-server"); err != nil {
		return nil, ErrNoServer
	}
	dir, err := os.MkdirTemp("", "redistest")
	if err != nil {
		return nil, err
	}
	s := &Server{dir: dir, ready: "eady to accept connections", limit: time.Minute}
	for range 5 { // the port may be taken between its choice and its use
		if s.port, err = freePort(); err != nil {
			break
		}
		if err = configure(s); err != nil {
			break
		}
		if err = s.Run(); err == nil {
			return s, nil
		}
	}
	_ = os.RemoveAll(dir)
	return nil, err
}

// Close kills the server for good.
func (s *Server) Close() {
	s.Kill()
	_ = os.RemoveAll(s.dir)
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// Run starts the process, also again after Kill, and returns when it takes connections.
func (s *Server) Run() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd != nil {
		return nil
	}
	s.cmd = exec.Command("sh", append([]string{"-c", minder, "redis-server"}, s.args...)...)
	var err error
	if s.life, err = s.cmd.StdinPipe(); err != nil {
		return err
	}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := s.cmd.Start(); err != nil {
		s.cmd = nil
		return err
	}
	var log strings.Builder
	life := s.life
	limit := time.AfterFunc(s.limit, func() { _ = life.Close() }) // ends the server, and with it its log
	defer limit.Stop()
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if strings.Contains(lines.Text(), s.ready) && limit.Stop() {
			go drain(out)
			return nil
		}
		log.WriteString(lines.Text() + "\n")
	}
	s.kill()
	return fmt.Errorf("redis-server did not log %q within %v:\n%s", s.ready, s.limit, &log)
}

// drain reads what the server has to say for as long as it lives.
func drain(out io.Reader) { _, _ = io.Copy(io.Discard, out) }

// Stall stops the process with SIGSTOP, as a long pause of its machine would, and returns what lets it
// go on.
func (s *Server) Stall(t testing.TB) (resume func()) {
	t.Helper()
	client := redis.NewClient(&redis.Options{Addr: s.Addr()})
	defer client.Close()
	info, err := client.InfoMap(context.Background(), "server").Result()
	must(t, err)
	pid, err := strconv.Atoi(info["Server"]["process_id"])
	must(t, err)
	must(t, syscall.Kill(pid, syscall.SIGSTOP))
	resume = sync.OnceFunc(func() { _ = syscall.Kill(pid, syscall.SIGCONT) })
	t.Cleanup(resume)
	return resume
}

// Kill ends the process with SIGKILL.
func (s *Server) Kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kill()
}

func (s *Server) kill() {
	if s.cmd != nil {
		_ = s.life.Close()
		_ = s.cmd.Wait()
		s.cmd = nil
	}
}

// Alive reports whether the process was started and not killed since.
func (s *Server) Alive() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cmd != nil
}

// Addr returns host:port.
func (s *Server) Addr() string { return "127.0.0.1:" + strconv.Itoa(s.port) }

// URL returns the address as go-redis parses it.
func (s *Server) URL() string { return "redis://" + s.Addr() }

// Client returns a client that is closed when the test ends.
func (s *Server) Client(t testing.TB) *redis.Client {
	t.Helper()
	c := redis.NewClient(&redis.Options{Addr: s.Addr()})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// setup are the commands by which a client makes a connection usable.
var setup = map[string]bool{"hello": true, "client|setinfo": true, "client|maint_notifications": true, "ping": true, "info": true, "config|resetstat": true}

// Commands counts the calls of each command while do runs, without those that set up a
// connection. Redis counts what a script calls under its own names beside the EVALSHA.
func (s *Server) Commands(t testing.TB, do func()) map[string]int {
	t.Helper()
	c := s.Client(t)
	if err := c.ConfigResetStat(context.Background()).Err(); err != nil {
		t.Fatal(err)
	}
	do()
	info, err := c.Info(context.Background(), "commandstats").Result()
	if err != nil {
		t.Fatal(err)
	}
	counts := make(map[string]int)
	for line := range strings.Lines(info) {
		name, rest, ok := strings.Cut(strings.TrimPrefix(line, "cmdstat_"), ":calls=")
		if !ok || setup[name] {
			continue
		}
		calls, _, _ := strings.Cut(rest, ",")
		n, err := strconv.Atoi(calls)
		if err != nil {
			t.Fatalf("unexpected line in INFO commandstats: %q", line)
		}
		counts[name] = n
	}
	return counts
}

// MakeCluster turns a server started with "--cluster-enabled", "yes" into a Cluster of one.
func (s *Server) MakeCluster(t testing.TB) *redis.ClusterClient {
	t.Helper()
	node := s.Client(t)
	ctx := context.Background()
	if err := node.ClusterAddSlotsRange(ctx, 0, 16383).Err(); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(30 * time.Second)
	for { // the node has no event for this
		if info, err := node.ClusterInfo(ctx).Result(); err == nil && strings.Contains(info, "cluster_state:ok") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the cluster did not come up in 30s")
		}
		time.Sleep(10 * time.Millisecond)
	}
	c := redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{s.Addr()}})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

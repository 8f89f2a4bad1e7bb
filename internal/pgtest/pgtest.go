// Package pgtest gives tests PostgreSQL servers of their own, standbys of these, and a proxy that loses answers. What
// begins with Start or takes a testing.TB is for tests; the rest returns errors and serves other programs as well.
package pgtest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// patience limits each wait for a server's program, so that a test fails with that program's output instead of waiting.
const patience = time.Minute

// ErrNoServer says that there is no PostgreSQL to start.
var ErrNoServer = errors.New("needs PostgreSQL (scripts/ensure-postgres, or apt-get install postgresql)")

// A Server is a PostgreSQL server that lives until Close or the end of this process.
type Server struct {
	port int
	bin  string
	dir  string
	args []string

	mu   sync.Mutex
	cmd  *exec.Cmd
	life io.Closer
}

// minder ends the server when its own standard input ends, so that none is left behind by a process that was killed.
const minder = `"$@" & server=$!; exec >/dev/null; cat; kill -QUIT $server 2>/dev/null; wait $server 2>/dev/null`

// quick are settings for servers whose data need not survive the machine.
var quick = []string{"-c", "fsync=off", "-c", "full_page_writes=off"}

// Start starts a server of the test's own, with further arguments such as "-c", "max_connections=200", and stops it when
// the test ends. Without PostgreSQL the test is skipped, but not on CI.
func Start(t testing.TB, args ...string) *Server {
	t.Helper()
	s, err := Launch(append(slices.Clone(quick), args...)...)
	must(t, err)
	t.Cleanup(s.Close)
	return s
}

func must(t testing.TB, err error) {
	t.Helper()
	switch {
	case errors.Is(err, ErrNoServer) && os.Getenv("CI") == "":
		t.Skip(err)
	case err != nil:
		t.Fatal(err)
	}
}

var shared struct {
	sync.Mutex
	server *Server
	number atomic.Int64
}

// Database returns the URL of a new database on a server that tests share until Cleanup.
func Database(t testing.TB) string {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	if shared.server == nil {
		s, err := Launch(append(slices.Clone(quick), "-c", "max_connections=300")...)
		must(t, err)
		shared.server = s
	}
	url, err := shared.server.CreateDatabase(fmt.Sprintf("test%d", shared.number.Add(1)))
	must(t, err)
	return url
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

// Launch starts a server with an empty cluster.
func Launch(args ...string) (*Server, error) {
	s, err := newServer(args)
	if err != nil {
		return nil, err
	}
	err = s.tool("initdb", "-D", s.data(), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
	if err == nil {
		err = s.Run()
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// Standby starts a copy of the server that follows it under the given application_name.
func (s *Server) Standby(name string, args ...string) (*Server, error) {
	standby, err := newServer(args)
	if err != nil {
		return nil, err
	}
	source := fmt.Sprintf("host=127.0.0.1 port=%d user=postgres application_name=%s", s.port, name)
	err = standby.tool("pg_basebackup", "-d", source, "-D", standby.data(), "-R", "-X", "stream", "-c", "fast", "--no-sync")
	if err == nil {
		err = standby.Run()
	}
	if err != nil {
		standby.Close()
		return nil, err
	}
	return standby, nil
}

// Promote makes a standby a primary, and returns when it takes writes.
func (s *Server) Promote() error {
	return s.tool("pg_ctl", "promote", "-D", s.data(), "-w")
}

func newServer(args []string) (*Server, error) {
	bin, err := binaries()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "pgtest")
	if err != nil {
		return nil, err
	}
	s := &Server{bin: bin, dir: dir, args: args}
	if s.port, err = freePort(); err != nil {
		return nil, err
	}
	if owner := ServerUser(); owner != nil {
		err = os.Chown(dir, int(owner.Uid), int(owner.Gid))
	}
	return s, err
}

// binaries finds the server's programs where Debian puts them, or on PATH.
func binaries() (string, error) {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if path, err := exec.LookPath("initdb"); err == nil && len(found) == 0 {
		found = []string{path}
	}
	if len(found) == 0 {
		return "", ErrNoServer
	}
	return filepath.Dir(found[len(found)-1]), nil
}

// ServerUser is who runs the server when this process is root, whom PostgreSQL refuses.
func ServerUser() *syscall.Credential {
	if os.Getuid() != 0 {
		return nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

// tool runs one of PostgreSQL's programs to its end.
func (s *Server) tool(name string, args ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(s.bin, name), args...)
	cmd.Dir = s.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: ServerUser()}
	cmd.WaitDelay = time.Second // for a child that has inherited its output
	out, err := cmd.CombinedOutput()
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("%s has not ended within %v:\n%s", name, patience, out)
	case err != nil:
		return fmt.Errorf("%s: %w\n%s", name, err, out)
	}
	return nil
}

// Run starts the process, also again after Stop, and returns when it takes connections.
func (s *Server) Run() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd != nil {
		return nil
	}
	args := append([]string{"-c", minder, "postgres", filepath.Join(s.bin, "postgres"), "-D", s.data(), "-p", strconv.Itoa(s.port),
		"-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "max_prepared_transactions=0"}, s.args...)
	cmd := exec.Command("sh", args...)
	cmd.Dir = s.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: ServerUser(), Setpgid: true}
	var err error
	if s.life, err = cmd.StdinPipe(); err != nil {
		return err
	}
	out, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	s.cmd = cmd
	ready := make(chan error, 1)
	go follow(out, ready)
	select {
	case err = <-ready:
	case <-time.After(patience):
		err = fmt.Errorf("postgres takes no connections after %v", patience)
	}
	if err != nil {
		s.stop("immediate")
	}
	return err
}

// follow reads the server's log to its end, and sends nil when the server takes connections, or an error if it never does.
func follow(out io.Reader, ready chan<- error) {
	var log strings.Builder
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if strings.Contains(lines.Text(), "ready to accept") {
			ready <- nil
			_, _ = io.Copy(io.Discard, out) // until the server has ended
			return
		}
		log.WriteString(lines.Text() + "\n")
	}
	ready <- fmt.Errorf("postgres did not start:\n%s", &log)
}

// Stop shuts the server down as pg_ctl does: mode is smart, fast or immediate, which is a crash.
func (s *Server) Stop(mode string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stop(mode)
}

func (s *Server) stop(mode string) {
	if s.cmd == nil {
		return
	}
	_ = s.tool("pg_ctl", "stop", "-D", s.data(), "-m", mode, "-w")
	_ = s.life.Close()
	kill := time.AfterFunc(patience, func() { _ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL) })
	_ = s.cmd.Wait()
	kill.Stop()
	s.cmd = nil
}

// Close ends the server for good.
func (s *Server) Close() {
	s.Stop("immediate")
	_ = os.RemoveAll(s.dir)
}

// Addr returns host:port.
func (s *Server) Addr() string { return "127.0.0.1:" + strconv.Itoa(s.port) }

// URL returns the connection string of the database postgres.
func (s *Server) URL() string { return URL(s.Addr(), "postgres") }

// URL returns the connection string of a database at addr.
func URL(addr, database string) string {
	return fmt.Sprintf("postgres://postgres@%s/%s?sslmode=disable&connect_timeout=10", addr, database)
}

// CreateDatabase creates a database and returns its connection string.
func (s *Server) CreateDatabase(name string) (string, error) {
	if err := s.tool("createdb", "-h", "127.0.0.1", "-p", strconv.Itoa(s.port), "-U", "postgres", name); err != nil {
		return "", err
	}
	return URL(s.Addr(), name), nil
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

package redisproc

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// A minder is a process between an example and its redis-server: the example's own program, run
// once more. It ends the server when its standard input ends, which happens even when the example
// is killed.
type minder struct {
	cmd    *exec.Cmd
	output bytes.Buffer // to be read once gone is closed
	hold   func()       // ends its standard input
	gone   chan struct{}
}

// roleMinder is the first argument of a minder.
const roleMinder = "redis-minder"

// Main makes this process a minder, and does not return, if it was started as one. It belongs at
// the very start of main, and of TestMain in a test that calls Start.
func Main() {
	if len(os.Args) == 4 && os.Args[1] == roleMinder {
		os.Exit(mindRedis(os.Args[2], os.Args[3]))
	}
}

func startMinder(path, addr string) (*minder, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	m := &minder{cmd: exec.Command(self, roleMinder, path, port), gone: make(chan struct{})}
	m.cmd.Stdout, m.cmd.Stderr = &m.output, &m.output
	stdin, err := m.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := m.cmd.Start(); err != nil {
		return nil, err
	}
	m.hold = func() { _ = stdin.Close() }
	go func() {
		_ = m.cmd.Wait()
		close(m.gone)
	}()
	return m, nil
}

// await returns, with the version, once a Redis answers at addr.
func (m *minder) await(ctx context.Context, addr string) (version string, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		var dialer net.Dialer
		conn, err := dialer.DialContext(ctx, "tcp", addr)
		if err == nil {
			conn.Close()
			return greet(ctx, &redis.Options{Addr: addr})
		}
		select {
		case <-m.gone:
			said := strings.TrimSpace(m.output.String())
			return "", errors.New(cmp.Or(said, "it ended at once"))
		case <-ctx.Done():
			return "", fmt.Errorf("it does not listen at %s: %w", addr, ctx.Err())
		case <-time.After(10 * time.Millisecond): // there is no signal for this
		}
	}
}

func (m *minder) stop() {
	m.hold()
	select {
	case <-m.gone:
	case <-time.After(patience):
		_ = m.cmd.Process.Kill()
		<-m.gone
	}
}

func mindRedis(path, port string) int {
	signal.Ignore(os.Interrupt) // the parent decides when it is over
	if err := mind(os.Stdin, path, port); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// mind runs a redis-server that keeps nothing, until hold ends or the server does.
func mind(hold io.Reader, path, port string) error {
	dir, err := os.MkdirTemp("", "demo-redis-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	server := exec.Command(path, "--port", port, "--bind", "127.0.0.1",
		"--save", "", "--appendonly", "no", "--dir", dir, "--loglevel", "warning")
	server.Stdout, server.Stderr = os.Stderr, os.Stderr
	if err := server.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Wait() }()
	over := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, hold)
		close(over)
	}()
	select {
	case err := <-ended:
		return err
	case <-over:
		_ = server.Process.Kill() // it has nothing to save
		<-ended                   //nolint:errcheck // it was killed
		return nil
	}
}

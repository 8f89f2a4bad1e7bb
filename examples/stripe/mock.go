package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"time"

	"github.com/stripe/stripe-mock/embedded"
	"github.com/stripe/stripe-mock/server"
)

// mockPatience is how long stripe-mock may take to read Stripe's API description, 8 MB of JSON.
const mockPatience = 40 * time.Second

// A mock is stripe-mock in a process of its own: this program, run once more.
type mock struct {
	url  string
	cmd  *exec.Cmd
	hold io.Closer // its standard input: it ends when that ends, even if the parent is killed
	gone chan struct{}
}

// startMock returns once stripe-mock is ready.
func startMock(ctx context.Context) (*mock, error) {
	m, said, err := launchMock()
	if err != nil {
		return nil, fmt.Errorf("starting stripe-mock: %w", err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, mockPatience, fmt.Errorf("it is not ready after %v", mockPatience))
	defer cancel()
	select {
	case line, ok := <-said:
		if !ok {
			m.stop()
			return nil, errors.New("starting stripe-mock: it ended at once")
		}
		m.url = "http://" + line
		return m, nil
	case <-ctx.Done():
		m.stop()
		return nil, fmt.Errorf("starting stripe-mock: %w", context.Cause(ctx))
	}
}

// launchMock starts the process. said gets the first line it prints, and is closed without one.
func launchMock() (m *mock, said <-chan string, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	m = &mock{cmd: exec.Command(self, roleMock), gone: make(chan struct{})}
	m.cmd.Stderr = os.Stderr
	stdin, err := m.cmd.StdinPipe()
	if err != nil {
		return nil, nil, err
	}
	stdout, err := m.cmd.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	if err := m.cmd.Start(); err != nil {
		return nil, nil, err
	}
	m.hold = stdin
	lines := make(chan string, 1)
	go func() {
		defer close(m.gone)
		out := bufio.NewReader(stdout)
		if line, err := out.ReadString('\n'); err == nil {
			lines <- strings.TrimSpace(line)
		}
		close(lines)
		_, _ = io.Copy(io.Discard, out)
		_ = m.cmd.Wait()
	}()
	return m, lines, nil
}

func (m *mock) stop() {
	_ = m.hold.Close()
	select {
	case <-m.gone:
	case <-time.After(2 * time.Second): // it may be reading still
		_ = m.cmd.Process.Kill()
		<-m.gone
	}
}

// mockProcess is stripe-mock's main function with a port that the system chooses, and an end.
func mockProcess() int {
	signal.Ignore(os.Interrupt) // the parent decides when it is over
	if err := serveMock(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "stripe-mock:", err)
		return 1
	}
	return 0
}

func serveMock(hold io.Reader, out io.Writer) error {
	quiet, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	os.Stdout = quiet // stripe-mock prints every request there
	handler, err := newMock()
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second}
	defer s.Close()
	go func() { _ = s.Serve(listener) }()
	fmt.Fprintln(out, listener.Addr())
	_, _ = io.Copy(io.Discard, hold)
	return nil
}

func newMock() (http.Handler, error) {
	spec, err := server.LoadSpec(embedded.OpenAPISpec, "")
	if err != nil {
		return nil, err
	}
	fixtures, err := server.LoadFixtures(embedded.OpenAPIFixtures, "")
	if err != nil {
		return nil, err
	}
	stub, err := server.NewStubServer(fixtures, spec, false, false)
	if err != nil {
		return nil, err
	}
	return http.HandlerFunc(stub.HandleRequest), nil
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"time"

	"github.com/idempotent-go/idempotent/demo/internal/stage"
	"github.com/stripe/stripe-mock/embedded"
	"github.com/stripe/stripe-mock/server"
)

// mockPatience is how long stripe-mock may take to read Stripe's API description, 8 MB of JSON.
const mockPatience = 40 * time.Second

// A mock is stripe-mock in a process of its own: this program, run once more.
type mock struct {
	*stage.Child
	url string
}

// startMock returns once stripe-mock is ready.
func startMock(ctx context.Context) (*mock, error) {
	m, err := awaitMock(ctx)
	if err != nil {
		return nil, fmt.Errorf("starting stripe-mock: %w", err)
	}
	return m, nil
}

func awaitMock(ctx context.Context) (*mock, error) {
	cmd, err := stage.Self(roleMock)
	if err != nil {
		return nil, err
	}
	child, said, err := stage.StartSpeaker(cmd)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, mockPatience, fmt.Errorf("it is not ready after %v", mockPatience))
	defer cancel()
	select {
	case line, ok := <-said:
		if ok {
			return &mock{child, "http://" + line}, nil
		}
		err = errors.New("it ended at once")
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	child.Stop(stopLimit) // it may be reading still
	return nil, err
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

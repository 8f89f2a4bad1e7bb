package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/idempotent-go/idempotent/idemui"

	"github.com/idempotent-go/idempotent/internal/present"
)

func openFile(name string) (*os.File, error) { return os.Open(name) } //nolint:gosec // the operator names it

func (a *app) serve() *cobra.Command {
	var address string
	var readOnly, payloads bool
	c := &cobra.Command{
		Use:   "serve",
		Short: "Serve the same as a page, on this machine",
		Long: "Serve package idemui on this machine alone, to everybody who can open a connection to it. On a machine that others\n" +
			"use, mount idemui.Handler behind a login instead.",
		Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			return a.serveOn(c.Context(), address, readOnly, payloads)
		},
	}
	c.Flags().StringVar(&address, "listen", "127.0.0.1:8090", "address of this machine to listen on")
	c.Flags().BoolVar(&readOnly, "read-only", false, "without forget and resolve")
	c.Flags().BoolVar(&payloads, "payload", false, "allow to show payloads, which may hold personal data")
	return c
}

func (a *app) serveOn(ctx context.Context, address string, readOnly, payloads bool) error {
	host, _, err := net.SplitHostPort(address)
	if ip := net.ParseIP(host); err != nil || host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return usagef("--listen is %q; allowed: a loopback address and a port, such as 127.0.0.1:8090", address)
	}
	opts := []idemui.Option{idemui.WithAudit(a.audited)}
	if readOnly {
		opts = append(opts, idemui.WithReadOnly())
	}
	handler, err := idemui.Handler(a.client, func(r *http.Request, action idemui.Action) (string, error) {
		if !localHost(r.Host) { // a name that another site made point here
			return "", errors.New("the Host is not this machine")
		}
		if action == idemui.ActionPayload && !payloads {
			return "", errors.New("start with --payload")
		}
		return "local", nil
	}, opts...)
	if err != nil {
		return err
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return err
	}
	fmt.Fprintf(a.out, "http://%s/\n", listener.Addr())
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second, BaseContext: func(net.Listener) context.Context { return ctx }}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func localHost(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// audited writes what was done on stderr.
func (a *app) audited(_ context.Context, e idemui.Event) {
	text := ""
	if e.Err != nil {
		text = ": " + present.Error(e.Err)
	}
	fmt.Fprintf(a.err, "%s %s %s %s: %v -> %v%s\n", time.Now().UTC().Format(time.RFC3339), e.Action, present.Text(e.Namespace), present.Text(e.Key), e.Before.State, e.After.State, present.Text(text))
}

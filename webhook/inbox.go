package webhook

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"
)

// An Inbox is one process's part of receiving and handling events. Any number of processes may share a store. It is safe
// for concurrent use.
type Inbox struct {
	cfg      config
	store    Store
	executor Executor
	sources  map[string]*Source
	router   *Router
	refusals refusals
	report   *reporter

	held    atomic.Int64  // bytes of bodies
	wake    chan struct{} // an event may be due
	working atomic.Bool
	closed  atomic.Bool
}

// New returns an Inbox for the sources, with the handlers of the router. It asks the store how durable events are, logs
// the answer, and refuses a store that loses events when it restarts (see WithUnsafeStore). It refuses sources and options
// that would let forged events in, lose events or never end; the error names each of them. The caller closes the Inbox,
// and then the store's client.
func New(ctx context.Context, store Store, sources []Source, router *Router, opts ...Option) (*Inbox, error) {
	in := &Inbox{
		cfg: defaultConfig(), store: store, router: router, sources: map[string]*Source{}, wake: make(chan struct{}, 1),
	}
	var errs []error
	for i, o := range opts {
		if o == nil {
			errs = append(errs, fmt.Errorf("webhook: New: option %d is nil; allowed: an Option", i))
			continue
		}
		o(&in.cfg)
	}
	in.report = &in.cfg.reporter
	if store == nil || router == nil {
		return nil, errors.New("webhook: New: the store or the router is nil; allowed: one of each")
	}
	if len(sources) == 0 {
		errs = append(errs, errors.New("webhook: New: there are no sources; allowed: 1 or more"))
	}
	for _, s := range sources {
		errs = append(errs, s.prepare())
		if in.sources[s.Name] != nil {
			errs = append(errs, fmt.Errorf("webhook: New: two sources are named %q; allowed: each its own name", s.Name))
		}
		in.sources[s.Name] = &s
	}
	if err := errors.Join(append(errs, in.cfg.check(), router.check(in.sources, in.cfg.retention))...); err != nil {
		return nil, err
	}
	if err := in.checkStore(ctx); err != nil {
		return nil, err
	}
	var err error
	in.executor, err = store.Executor(ExecutorConfig{TTL: in.cfg.retention.Events, Lease: in.cfg.lease, Logger: in.cfg.reporter.logger})
	return in, err
}

// checkStore refuses a store that loses accepted events.
func (in *Inbox) checkStore(ctx context.Context) error {
	d, err := in.store.Check(ctx)
	if err != nil {
		return fmt.Errorf("webhook: New: the store cannot be used: %w", err)
	}
	if d.Unsafe && !in.cfg.unsafeStore {
		return fmt.Errorf("webhook: New: an accepted event survives %s; allowed: a store that survives a restart, or WithUnsafeStore. Advice: %q", d.Survives, d.Advice)
	}
	in.report.logger.InfoContext(ctx, "webhook: an event that is answered with 2xx survives "+d.Survives, "advice", d.Advice)
	return nil
}

// Check reports how durable an accepted event is.
func (in *Inbox) Check(ctx context.Context) (Durability, error) { return in.store.Check(ctx) }

// Ready returns nil if this process can accept events: it is not closed and its store answers.
func (in *Inbox) Ready(ctx context.Context) error {
	if in.closed.Load() {
		return errors.New("webhook: the inbox is closed")
	}
	_, err := in.store.Backlog(ctx)
	return err
}

// readyTimeout bounds the question to the store that Probes asks.
const readyTimeout = 2 * time.Second

// Probes returns a handler for the probes of an orchestrator: GET /livez is 200 as long as the process serves, GET /readyz
// is 200 if Ready returns nil, and otherwise 503.
func (in *Inbox) Probes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), readyTimeout)
		defer cancel()
		if err := in.Ready(ctx); err != nil {
			http.Error(w, http.StatusText(http.StatusServiceUnavailable), http.StatusServiceUnavailable)
		}
	})
	return mux
}

// Close ends intake: requests are answered with 503. Work must have returned. The store's client stays open.
func (in *Inbox) Close() error {
	if in.closed.Swap(true) {
		return nil
	}
	return in.executor.Close()
}

// signal wakes Work, because an event may be due.
func (in *Inbox) signal() {
	select {
	case in.wake <- struct{}{}:
	default:
	}
}

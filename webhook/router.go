package webhook

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/idempotent-go/idempotent"
)

// Defaults of a handler.
const (
	DefaultAttempts = 8
	DefaultTimeout  = 30 * time.Second
	DefaultBackoff  = 2 * time.Second
	MaxBackoff      = 15 * time.Minute
	// DefaultCircuit is how many failures in a row open the circuit, DefaultCircuitPause how long it stays open.
	DefaultCircuit      = 10
	DefaultCircuitPause = 30 * time.Second
)

// A Router selects the handler of an event by its source and type. All processes that work on one inbox must have the
// same handlers: an event without a handler is skipped. Register all handlers before New.
type Router struct {
	routes []*route
	errs   []error
}

// NewRouter returns a Router without handlers.
func NewRouter() *Router { return &Router{} }

// A HandleOption configures one handler.
type HandleOption func(*route) error

// A route is a handler and how it is run.
type route struct {
	source, pattern string
	handler         Handler
	attempts        int
	timeout         time.Duration
	backoff         backoff
	refuse          bool
	order           *order
	circuit         circuit
}

// Handle registers a handler for events of a source whose type matches the pattern: a type, or the beginning of one
// followed by "*". Of several patterns that match, the longest is used. New reports what is wrong.
func (r *Router) Handle(source, pattern string, h Handler, opts ...HandleOption) {
	rt := &route{
		source: source, pattern: pattern, handler: h, attempts: DefaultAttempts, timeout: DefaultTimeout,
		backoff: backoff{first: DefaultBackoff, limit: MaxBackoff},
		circuit: circuit{threshold: DefaultCircuit, pause: DefaultCircuitPause},
	}
	fail := func(err error) {
		r.errs = append(r.errs, fmt.Errorf("webhook: handler of source %q, pattern %q: %w", source, pattern, err))
	}
	if h == nil {
		fail(errors.New("the handler is nil; allowed: a function"))
	}
	if i := strings.IndexByte(pattern, '*'); pattern == "" || i >= 0 && i != len(pattern)-1 {
		fail(errors.New(`allowed: a type, or the beginning of one followed by "*"`))
	}
	for _, other := range r.routes {
		if other.source == source && other.pattern == pattern {
			fail(errors.New("it is registered twice; allowed: once"))
		}
	}
	for i, o := range opts {
		if o == nil {
			fail(fmt.Errorf("option %d is nil; allowed: a HandleOption", i))
			continue
		}
		if err := o(rt); err != nil {
			fail(err)
		}
	}
	r.routes = append(r.routes, rt)
}

// find returns the route of an event, nil if it has none.
func (r *Router) find(source, typ string) (best *route) {
	for _, rt := range r.routes {
		if rt.source == source && matchesType(rt.pattern, typ) && (best == nil || len(rt.pattern) > len(best.pattern)) {
			best = rt
		}
	}
	return best
}

// check returns what is wrong with the handlers, given the sources and the retention.
func (r *Router) check(sources map[string]*Source, keep Retention) error {
	errs := r.errs
	graphs := map[[2]string]string{}
	for _, rt := range r.routes {
		if _, ok := sources[rt.source]; !ok {
			errs = append(errs, fmt.Errorf("webhook: a handler is registered for source %q; allowed: the sources given to New", rt.source))
		}
		if rt.order == nil {
			continue
		}
		if rt.order.parkFor >= keep.Events {
			errs = append(errs, fmt.Errorf("webhook: handler of source %q, pattern %q: ParkFor is %v; allowed: less than the retention of events, %v", rt.source, rt.pattern, rt.order.parkFor, keep.Events))
		}
		of := [2]string{rt.source, rt.order.name}
		if graph, ok := graphs[of]; ok && graph != rt.order.graph {
			errs = append(errs, fmt.Errorf("webhook: source %q has two orders named %q with different transitions; allowed: another OrderOptions.Name for each", rt.source, rt.order.name))
		}
		graphs[of] = rt.order.graph
	}
	return errors.Join(errs...)
}

// Attempts sets how many executions an event gets before it becomes a dead letter: 1 or more, 8 by default. A redrive
// gives it as many again.
func Attempts(n int) HandleOption {
	return func(r *route) error {
		if n < 1 {
			return fmt.Errorf("webhook: Attempts is %d; allowed: 1 or more", n)
		}
		r.attempts = n
		return nil
	}
}

// Timeout sets how long one execution may take: 1 ms or more, 30 s by default. The handler's context ends then, and the
// execution counts as one whose effect is unknown. A handler that ignores its context goes on.
func Timeout(d time.Duration) HandleOption {
	return func(r *route) error {
		if d < time.Millisecond {
			return fmt.Errorf("webhook: Timeout is %v; allowed: 1 ms or more", d)
		}
		r.timeout = d
		return nil
	}
}

// Backoff sets the time before another attempt: first after the first failure, twice as long after each further one, up
// to limit. Half of it is random, so that events that failed together are not tried together. The default is 2 s up to
// 15 min: with 8 attempts, about 4 min in all.
func Backoff(first, limit time.Duration) HandleOption {
	return func(r *route) error {
		if first < time.Millisecond || limit < first {
			return fmt.Errorf("webhook: Backoff is %v up to %v; allowed: 1 ms or more, and a limit that is not shorter", first, limit)
		}
		r.backoff = backoff{first: first, limit: limit}
		return nil
	}
}

// Interrupted sets what happens if an execution ends without an outcome: its process died, or the handler's error does not
// say whether the effect took place. With idempotent.Rerun, the default, the event is tried again and the handler sees an
// Attempt above 1. With idempotent.Refuse it becomes a dead letter, and only a redrive runs the handler again.
func Interrupted(policy idempotent.InterruptedPolicy) HandleOption {
	return func(r *route) error {
		if policy != idempotent.Rerun && policy != idempotent.Refuse {
			return fmt.Errorf("webhook: Interrupted is %d; allowed: idempotent.Rerun and idempotent.Refuse", policy)
		}
		r.refuse = policy == idempotent.Refuse
		return nil
	}
}

// Circuit sets after how many failures in a row, of all events of this handler in this process, the handler is not run for
// a while: 1 or more, 10 by default. After the pause, 1 ms or more, 30 s by default, one event is tried; if it fails, the
// next pause begins. Events that come meanwhile wait, without an attempt. Permanent errors and Skip are no failures.
func Circuit(failures int, pause time.Duration) HandleOption {
	return func(r *route) error {
		if failures < 1 || pause < time.Millisecond {
			return fmt.Errorf("webhook: Circuit is %d failures, %v; allowed: 1 or more, and 1 ms or more", failures, pause)
		}
		r.circuit.threshold, r.circuit.pause = failures, pause
		return nil
	}
}

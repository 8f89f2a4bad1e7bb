package endpoint

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"github.com/idempotent-go/idempotent"
	"github.com/redis/go-redis/v9"
)

// A handler does what an event asks for. It is called again only if it failed with an error that
// is marked as idempotent.Retryable, if its process died, or if somebody replays a dead letter.
type handler func(ctx context.Context, t task) (Change, error)

// A task is one execution of a handler.
type task struct {
	Payload
	// Reference is the same for all executions.
	Reference string
	// Again: an earlier execution may have had its effect. Ask before you do it again.
	Again bool
}

// Workers take events from the queue and handle them.
type workers struct {
	cfg      *Config
	store    *store
	executor *idempotent.Executor[Change]
	handle   handler
	logger   *slog.Logger
}

func newWorkers(rdb redis.UniversalClient, cfg *Config, s *store, handle handler) (*workers, error) {
	executor, err := idempotent.New[Change](rdb, cfg.Namespace,
		idempotent.WithTTL(cfg.Keep), // longer than any provider sends the same event again
		idempotent.WithLease(cfg.Lease),
		idempotent.WithShouldIgnoreError(idempotent.IsRetryable),
		// A worker has better things to do than to wait for another one's event.
		idempotent.WithNoWait(),
		idempotent.WithLogger(cfg.Logger))
	if err != nil {
		return nil, err
	}
	return &workers{cfg: cfg, store: s, executor: executor, handle: handle, logger: cfg.Logger}, nil
}

// run handles events until ctx ends, and those that it had begun by then to their end.
func (w *workers) run(ctx context.Context) {
	var all sync.WaitGroup
	all.Go(func() { w.wake(ctx) })
	for range w.cfg.Workers {
		all.Go(func() { w.serve(ctx) })
	}
	all.Wait()
}

func (w *workers) serve(ctx context.Context) {
	for ctx.Err() == nil {
		e, ok, err := w.store.next(ctx)
		if err != nil && ctx.Err() == nil {
			w.logger.Error("no event from the queue", "error", err)
			pause(ctx, w.cfg.Wake)
		}
		if ok {
			w.work(context.WithoutCancel(ctx), e)
		}
	}
}

// wake gives out again what was left behind and what is due.
func (w *workers) wake(ctx context.Context) {
	for ctx.Err() == nil {
		if err := w.store.again(ctx, w.cfg.Stale); err != nil && ctx.Err() == nil {
			w.logger.Error("what is due stays where it is", "error", err)
		}
		pause(ctx, w.cfg.Wake)
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// work handles one entry of the queue. Whatever goes wrong before the entry is settled leaves it
// there, and wake gives it out again.
func (w *workers) work(ctx context.Context, e entry) {
	ctx, cancel := context.WithTimeout(ctx, w.cfg.HandlerTimeout)
	defer cancel()
	ev, err := w.store.load(ctx, e.key)
	switch {
	case err != nil:
	case ev == nil:
		w.logger.Error("an event was kept for so long that it is gone", "key", e.key)
		err = w.store.drop(ctx, e)
	case !ev.due.IsZero(): // delivered once more while it waits for its retry, which takes care of it
		err = w.store.drop(ctx, e)
	default:
		o := w.execute(ctx, ev)
		err = w.settle(context.WithoutCancel(ctx), e, ev, o)
	}
	if err != nil {
		w.logger.Error("an event is left for later", "key", e.key, "error", err)
	}
}

// An outcome is what came of an event.
type outcome struct {
	change Change
	report idempotent.Report
	err    error
}

// execute has the event handled once, whoever has it too: deliveries of the same event, a worker
// that was thought dead, a process that was killed in the middle.
func (w *workers) execute(ctx context.Context, ev *stored) (o outcome) {
	o.change, o.err = w.executor.Run(ctx, ev.runKey(), func(ctx context.Context) (Change, error) {
		change, err := w.attempt(ctx, ev)
		if isUnclear(err) { // the next one is told that it is not the first, and asks before it does anything
			err = idempotent.OutcomeUnknown(err)
		}
		return change, err
	}, idempotent.WithReport(&o.report))
	return o
}

// attempt is one execution. After a retryable error, which leaves no record, Attempt begins at 1
// again, unless an execution before that never ended; the event counts those that did end.
func (w *workers) attempt(ctx context.Context, ev *stored) (Change, error) {
	info, _ := idempotent.RunInfoFromContext(ctx)
	number := ev.number(info.Attempt)
	if number > w.cfg.Attempts { // it kills its process, or takes for ever
		return Change{}, fmt.Errorf("given up after %d attempts: the last one did not end", number-1)
	}
	change, err := w.call(ctx, ev, info.Attempt > 1 || ev.replays > 0)
	if idempotent.IsRetryable(err) && number == w.cfg.Attempts {
		// Not to be retried, so not marked any more: recorded, and the same for every duplicate.
		return Change{}, fmt.Errorf("given up after %d attempts: %v", number, err) //nolint:errorlint // wrapped, it would still be Retryable
	}
	return change, err
}

// number is how many executions of the event there have been, with the one of this Attempt.
func (e *stored) number(attempt int) int { return max(e.attempts, attempt-1) + 1 }

func (w *workers) call(ctx context.Context, ev *stored, again bool) (_ Change, err error) {
	defer func() {
		if v := recover(); v != nil { // one bad event must not end the process for all the others
			w.logger.Error("handler panicked", "key", ev.key, "stack", string(debug.Stack()))
			err = fmt.Errorf("handler panicked: %v", v)
		}
	}()
	t := task{Reference: ev.key, Again: again}
	if err := json.Unmarshal(ev.body, &t.Payload); err != nil {
		return Change{}, err
	}
	return w.handle(ctx, t)
}

// A verdict says what becomes of an entry.
type verdict int

const (
	leave    verdict = iota // nothing is known yet: look again later
	finished                // by this execution or an earlier one
	retry                   // after a pause
	dead                    // until somebody replays it
)

func judge(err error) verdict {
	switch {
	case err == nil:
		return finished
	case errors.Is(err, idempotent.ErrReplayed): // an earlier execution's verdict, still to be noted
		return dead
	case errors.Is(err, idempotent.ErrCorruptRecord): // it stays so: a case for people
		return dead
	case errors.Is(err, idempotent.ErrInProgress), errors.Is(err, idempotent.ErrUnavailable),
		errors.Is(err, idempotent.ErrLeaseLost), errors.Is(err, idempotent.ErrNotRecorded),
		errors.Is(err, idempotent.ErrClosed),
		errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), isUnclear(err):
		return leave
	case idempotent.IsRetryable(err):
		return retry
	}
	return dead
}

func (w *workers) settle(ctx context.Context, e entry, ev *stored, o outcome) error {
	ctx, cancel := context.WithTimeout(ctx, w.cfg.HandlerTimeout)
	defer cancel()
	attempts := ev.attempts
	if o.report.Attempt > 0 {
		attempts = ev.number(o.report.Attempt)
	}
	switch judge(o.err) {
	case finished:
		changed, err := json.Marshal(o.change)
		if err != nil {
			return err
		}
		return w.store.finish(ctx, e, attempts, changed)
	case retry:
		return w.store.postpone(ctx, e, attempts, o.err, w.cfg.Backoff.After(attempts))
	case dead:
		return w.store.bury(ctx, e, attempts, o.err, ev.replays)
	}
	if errors.Is(o.err, idempotent.ErrInProgress) { // another one is at it, as it should be
		return nil
	}
	return o.err
}

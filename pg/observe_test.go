package pg_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/internal/record"
	"github.com/idempotent-go/idempotent/pg"
)

// An observer sees each step, and its panics harm nothing.
func TestObserver(t *testing.T) {
	w := newWorld(t)
	var kinds []idempotent.EventKind
	e := newExecutor[int](w, pg.WithIsolation(pgx.ReadCommitted), pg.WithObserver(observerFunc(func(event idempotent.Event) {
		assert.Equal(t, "orders", event.Namespace)
		assert.Equal(t, "a", event.Key)
		kinds = append(kinds, event.Kind)
		panic("observer")
	})))
	for range 2 {
		_, err := e.Run(t.Context(), "a", newCharge("a").run)
		require.NoError(t, err)
	}
	assert.Equal(t, []idempotent.EventKind{
		idempotent.EventClaimed, idempotent.EventExecuted, idempotent.EventRecorded, idempotent.EventReturned,
		idempotent.EventReplayed, idempotent.EventReturned,
	}, kinds)
}

// spans is a Tracer that keeps what it is told.
type spans struct{ told []string }

type spanKey struct{}

func (s *spans) add(ctx context.Context, what string, event idempotent.Event) {
	span, _ := ctx.Value(spanKey{}).(string)
	s.told = append(s.told, fmt.Sprintf("%s in %q: attempt %d, %v, %v", what, span, event.Attempt, event.Source, event.Err))
}

func (s *spans) StartRun(ctx context.Context, run idempotent.RunInfo) context.Context {
	return context.WithValue(ctx, spanKey{}, "run "+run.Key)
}

func (s *spans) EndRun(ctx context.Context, end idempotent.Event) { s.add(ctx, "run", end) }

func (s *spans) StartExecution(ctx context.Context, run idempotent.RunInfo) context.Context {
	return context.WithValue(ctx, spanKey{}, fmt.Sprint("execution ", run.Attempt))
}

func (s *spans) EndExecution(ctx context.Context, end idempotent.Event) { s.add(ctx, "execution", end) }

func (s *spans) Origin(context.Context) idempotent.Origin {
	return idempotent.Origin{TraceID: [16]byte{1}, SpanID: [8]byte{2}, Flags: 1}
}

func TestTracer(t *testing.T) {
	w := newWorld(t)
	s := &spans{}
	var replayed idempotent.Event
	e := newExecutor[int](w, pg.WithTracer(s), pg.WithObserver(observerFunc(func(event idempotent.Event) {
		if event.Kind == idempotent.EventReplayed {
			replayed = event
		}
	})))
	c := newCharge("a")
	c.then = func(ctx context.Context, _ pgx.Tx, call int) (int, error) {
		assert.Equal(t, "execution 1", ctx.Value(spanKey{}))
		return call, nil
	}
	for range 2 {
		_, err := e.Run(t.Context(), "a", c.run)
		require.NoError(t, err)
	}
	p := newCharge("p")
	p.then = func(context.Context, pgx.Tx, int) (int, error) { panic("boom") }
	assert.Panics(t, func() { _, _ = e.Run(t.Context(), "p", p.run) })
	_, err := e.Run(t.Context(), "", c.run)
	require.ErrorIs(t, err, idempotent.ErrInvalidKey)
	require.Len(t, s.told, 6)
	assert.Equal(t, []string{
		`execution in "execution 1": attempt 1, ` + idempotent.Source(0).String() + `, <nil>`,
		`run in "run a": attempt 1, ` + idempotent.Executed.String() + `, <nil>`,
		`run in "run a": attempt 1, ` + idempotent.Replayed.String() + `, <nil>`,
	}, s.told[:3])
	assert.Contains(t, s.told[4], `run in "run p": attempt 1, `+idempotent.Executed.String())
	assert.Contains(t, s.told[5], "idempotent: ")
	assert.Equal(t, s.Origin(t.Context()), replayed.Origin)

	var raw []byte
	require.NoError(t, w.pool.QueryRow(t.Context(), `SELECT outcome FROM idempotent_records WHERE kind = 'value'`).Scan(&raw))
	rec, err := record.Decode(raw)
	require.NoError(t, err)
	id, _, _ := rec.Extensions.Origin()
	assert.Equal(t, [16]byte{1}, id)
}

func TestUnknownErrorsAreNotRecorded(t *testing.T) {
	w := newWorld(t)
	other := errors.New("unavailable")
	is := func(want error) func(error) bool { return func(err error) bool { return errors.Is(err, want) } }
	e := newExecutor[int](w, pg.WithUnknownErrors(is(errDeclined)))
	for _, unknown := range []error{errDeclined, other} {
		c := newCharge("a")
		c.then = func(context.Context, pgx.Tx, int) (int, error) { return 0, unknown }
		for range 2 {
			_, err := e.Run(t.Context(), "a", c.run, pg.WithUnknownErrors(is(other)))
			assert.Equal(t, unknown, err)
		}
		assert.EqualValues(t, 2, c.calls.Load())
	}
	assert.Equal(t, 0, w.effects("a")+w.records())
}

func TestReportIsFinal(t *testing.T) {
	w := newWorld(t)
	e := newExecutor[int](w, pg.WithShouldIgnoreError(idempotent.IsRetryable))
	retryable, declined, fine := newCharge("a"), newCharge("a"), newCharge("b")
	retryable.then = func(context.Context, pgx.Tx, int) (int, error) { return 0, idempotent.Retryable(errDeclined) }
	declined.then = failing
	one, two := pg.WithFingerprint([]byte("one")), pg.WithFingerprint([]byte("two"))
	for i, call := range []struct {
		key   *charge
		opt   pg.RunOption
		final bool
	}{{retryable, one, false}, {declined, one, true}, {declined, one, true}, {declined, two, true}, {fine, one, true}} {
		var report idempotent.Report
		_, _ = e.Run(t.Context(), call.key.key, call.key.run, call.opt, pg.WithReport(&report))
		assert.Equal(t, call.final, report.Final, i)
	}
	var report idempotent.Report
	_, err := e.RunTx(t.Context(), w.begin(pgx.TxOptions{}), "c", newCharge("c").run, pg.WithReport(&report))
	require.NoError(t, err)
	assert.False(t, report.Final, "before the caller commits")
}

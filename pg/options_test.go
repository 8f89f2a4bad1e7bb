package pg_test

import (
	"context"
	"math"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/pg"
)

func TestInvalidOptions(t *testing.T) {
	w := newWorld(t)
	for text, opt := range map[string]pg.Option{
		"WithTTL: ttl is 0s":             pg.WithTTL(0),
		"WithTTL: ttl is 2562047h":       pg.WithTTL(math.MaxInt64 - 1),
		"WithErrorTTL: ttl is -1ns":      pg.WithErrorTTL(-1),
		"WithWaitTimeout: timeout is 0s": pg.WithWaitTimeout(0),
		"WithIdleTimeout: timeout is 0s": pg.WithIdleTimeout(0),
		"WithCommitTimeout: timeout is":  pg.WithCommitTimeout(25 * 24 * time.Hour),
		"WithMaxExecutions: n is 0":      pg.WithMaxExecutions(0),
		`WithIsolation: level is "x"`:    pg.WithIsolation("x"),
		"WithErrors: registry is nil":    pg.WithErrors(nil),
		"ErrorRegistry: code is":         pg.WithErrors(idempotent.NewErrorRegistry(idempotent.Sentinel("", errDeclined))),
		"WithObserver: observer is nil":  pg.WithObserver(nil),
		"WithLogger: logger is nil":      pg.WithLogger(nil),
		"WithReport: report is given":    pg.WithReport(new(idempotent.Report)),
		"WithCodec: codec is a <nil>":    pg.WithCodec[int](nil),
		"WithCodec: codec is a idem":     pg.WithCodec(idempotent.Msgpack[string]()),
		"Through: executor is a *idem":   pg.Through[string](nil),
		"New: option 0 is nil":           nil,
	} {
		_, err := pg.New[int](w.pool, "orders", opt)
		assert.ErrorIs(t, err, idempotent.ErrInvalidOption, text)
		assert.ErrorContains(t, err, text)
		assert.ErrorContains(t, err, "allowed: ")
	}
	_, err := pg.New[int](nil, "a:b")
	assert.ErrorContains(t, err, "pool is nil")
	assert.ErrorContains(t, err, `namespace is "a:b"`)
}

func TestInvalidArguments(t *testing.T) {
	e := newExecutor[int](newWorld(t))
	run := newCharge("a").run
	for text, call := range map[string]func() error{
		"ctx is nil":      func() error { _, err := e.Run(nil, "a", run); return err }, //nolint:staticcheck // the test is about it
		"fn is nil":       func() error { _, err := e.Run(t.Context(), "a", nil); return err },
		"option 0 is nil": func() error { _, err := e.Run(t.Context(), "a", run, nil); return err },
		"report is nil":   func() error { _, err := e.Run(t.Context(), "a", run, pg.WithReport(nil)); return err },
		"tx is nil":       func() error { _, err := e.RunTx(t.Context(), nil, "a", run); return err },
		"limit is 0":      func() error { _, err := e.Prune(t.Context(), 0); return err },
	} {
		err := call()
		assert.ErrorIs(t, err, idempotent.ErrInvalidOption, text)
		assert.ErrorContains(t, err, text)
	}
	for _, key := range []string{"", string(make([]byte, idempotent.MaxKeySize+1))} {
		_, err := e.Run(t.Context(), key, run)
		assert.ErrorIs(t, err, idempotent.ErrInvalidKey)
	}
}

func TestMigrateByManyAndAgain(t *testing.T) {
	w := newWorld(t)
	_, err := w.pool.Exec(t.Context(), `DROP TABLE idempotent_records, idempotent_migrations`)
	require.NoError(t, err)
	done := make(chan error)
	for range 8 {
		go func() { done <- pg.Migrate(w.ctx, w.pool) }()
	}
	for range 8 {
		assert.NoError(t, await(w, done, "all migrations"))
	}
	_, err = newExecutor[int](w).Run(t.Context(), "a", newCharge("a").run)
	assert.NoError(t, err)
	assert.ErrorIs(t, pg.Migrate(t.Context(), nil), idempotent.ErrInvalidOption)
}

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
	assert.Equal(t, []idempotent.EventKind{idempotent.EventClaimed, idempotent.EventExecuted, idempotent.EventRecorded, idempotent.EventReplayed}, kinds)
}

// A T of which the codec would drop a part is refused, as in the root.
func TestTypeThatIsNotCarriedIsRefused(t *testing.T) {
	w := newWorld(t)
	type order struct {
		ID   string
		note string
	}
	_, err := pg.New[order](w.pool, "orders")
	assert.ErrorIs(t, err, idempotent.ErrInvalidOption)
	assert.ErrorContains(t, err, "note")
	e, err := pg.New[order](w.pool, "orders", pg.WithUncheckedType())
	require.NoError(t, err)
	_, err = e.Run(t.Context(), "a", func(context.Context, pgx.Tx) (order, error) { return order{"1", "kept here only"}, nil })
	assert.NoError(t, err)
}

package pg

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/internal/record"
	"github.com/idempotent-go/idempotent/internal/seam"
)

// An Executor runs functions that return a T in Postgres transactions, once for each key: fn's writes and the record of
// its outcome are committed together. It may be used by any number of goroutines, and needs no Close. A COMMIT that is not
// answered in time keeps its connection of the pool until it is.
type Executor[T any] struct {
	*core
	codec     idempotent.Codec[T]
	unchecked bool
	front     *front[T] // nil without Through
}

// New returns an Executor on a pool, which stays the caller's. It sends nothing to Postgres; [Migrate] creates the tables.
//
// namespace keeps executors apart that share a database: 1 to 64 of the characters A-Z a-z 0-9 . _ / and -. Executors with
// the same namespace share their results, so give each kind of result its own. Options that are not allowed are
// idempotent.ErrInvalidOption, each named with its value and what is allowed.
//
// A Run that executes fn needs one connection. Callers in this process that wait for the same key share one more.
func New[T any](pool *pgxpool.Pool, namespace string, opts ...Option) (*Executor[T], error) {
	cfg := defaultConfig(namespace)
	for i, o := range opts {
		if o == nil {
			return nil, invalid("New", fmt.Sprintf("option %d", i), "nil", "an Option")
		}
		o.apply(&cfg)
	}
	err := cfg.validate()
	if pool == nil {
		err = errors.Join(invalid("New", "pool", "nil", "a pool"), err)
	}
	codec, codecErr := codecOf[T](&cfg)
	front, frontErr := frontOf[T](&cfg)
	if err := errors.Join(err, codecErr, frontErr); err != nil {
		return nil, err
	}
	return &Executor[T]{
		core:      newCore(&cfg, pool, seam.CodecID(codec)),
		codec:     codec,
		unchecked: cfg.unchecked,
		front:     front,
	}, nil
}

// codecOf returns the configured codec, if it is one of T's and carries T.
func codecOf[T any](cfg *config) (idempotent.Codec[T], error) {
	codec := idempotent.Msgpack[T]()
	if cfg.codecSet {
		var ok bool
		if codec, ok = cfg.codec.(idempotent.Codec[T]); !ok || isNil(codec) && reflect.TypeOf(codec).Kind() == reflect.Pointer {
			return nil, invalid("WithCodec", "codec", fmt.Sprintf("a %T", cfg.codec), fmt.Sprintf("a %v", reflect.TypeFor[idempotent.Codec[T]]()))
		}
	}
	checker, ok := codec.(interface{ CheckType() error })
	if !ok || cfg.unchecked {
		return codec, nil
	}
	if err := checker.CheckType(); err != nil {
		return nil, fmt.Errorf("%w: New: codec %v would not bring a %v back as it was: %w; WithUncheckedType accepts that",
			idempotent.ErrInvalidOption, seam.CodecID(codec), reflect.TypeFor[T](), err)
	}
	return codec, nil
}

// Run returns the outcome of fn for key. Of all calls with this key, in every process, one runs fn; the others wait for it
// and get the same value or the same error, as do later calls until the TTL is over. A key is 1 to idempotent.MaxKeySize
// bytes, any bytes.
//
// fn writes through the transaction it is given, and must not end it: Run commits it together with the outcome. What fn
// does elsewhere is not part of that. fn may be called more than once, each time after its transaction was rolled back; see
// WithMaxExecutions. Its context carries an idempotent.RunInfo, and ends when fn has returned.
//
// fn's error is an outcome like any other: fn's writes are rolled back and the error is committed as the record, unless
// WithShouldIgnoreError says otherwise. Its text is stored as it is, so keep secrets out of it. An error that fn returns
// after its context has ended, that is marked with idempotent.OutcomeUnknown, or with which the transaction is lost, is not
// recorded: everything is rolled back and the key is free. A panic rolls fn's writes back, is recorded as an
// idempotent.PanicError, and goes on to the caller. A value that fn returns together with an error is dropped.
//
// Run returns fn's outcome, or zero and an error of this package, of package idempotent, or of ctx.
func (e *Executor[T]) Run(ctx context.Context, key string, fn func(ctx context.Context, tx pgx.Tx) (T, error), opts ...RunOption) (T, error) {
	return watched(e.core, ctx, key, func(ctx context.Context, w *watch) (value T, err error) {
		op, err := e.operation("Run", ctx, key, fn == nil, opts, w)
		if err != nil {
			return value, err
		}
		if e.front != nil {
			return e.runThrough(ctx, op, fn)
		}
		res := e.core.run(ctx, op, e.action(fn, &value))
		return e.deliver(op, &res, value)
	})
}

// RunTx is Run in a transaction of the caller's, who commits it: until then nothing is recorded, and calls with the same
// key in other transactions wait. It must be at read committed, or Postgres rolls it back when a call waited for another
// transaction. fn gets a savepoint of it, to which its writes are rolled back if its error is recorded or ignored. The
// caller must roll back when RunTx returns an error that matches ErrRolledBack.
//
// RunTx never calls fn twice, and does not use the executor of Through. Several keys in one transaction can deadlock with
// those of another one; run them in one order everywhere, sorted for instance.
func (e *Executor[T]) RunTx(ctx context.Context, tx pgx.Tx, key string, fn func(ctx context.Context, tx pgx.Tx) (T, error), opts ...RunOption) (T, error) {
	return watched(e.core, ctx, key, func(ctx context.Context, w *watch) (value T, err error) {
		op, err := e.operation("RunTx", ctx, key, fn == nil, opts, w)
		if err == nil && isNil(tx) {
			err = invalid("RunTx", "tx", "nil", "a transaction")
		}
		if err != nil {
			return value, err
		}
		op.inTx = true
		res := e.runIn(ctx, tx, op, e.action(fn, &value))
		return e.deliver(op, &res, value)
	})
}

// Get returns the recorded outcome of key: its value, or its error. Without a record, the error is idempotent.ErrNotFound.
func (e *Executor[T]) Get(ctx context.Context, key string) (T, error) {
	return watched(e.core, ctx, key, func(ctx context.Context, w *watch) (value T, err error) {
		op, err := e.operation("Get", ctx, key, false, nil, w)
		if err != nil {
			return value, err
		}
		rec, err := e.read(ctx, op)
		switch {
		case err != nil:
			return value, err
		case rec == nil:
			return value, idempotent.ErrNotFound
		}
		res := result{rec: rec, source: idempotent.Replayed}
		return e.deliver(op, &res, value)
	})
}

// Forget deletes the record of key, here and in the executor of Through, so that the next Run calls fn. While a call runs
// fn for the key, Forget returns idempotent.ErrInProgress. Without a record, it returns nil.
//
// When Redis cannot be asked, the record is gone from Postgres and may still be replayed from there: Forget returns the
// error, and can be repeated. A Run at the same time may leave the record that it found in Redis.
func (e *Executor[T]) Forget(ctx context.Context, key string) error {
	op, err := e.operation("Forget", ctx, key, false, nil, nil)
	if err != nil {
		return err
	}
	if err := e.forget(ctx, op); err != nil {
		return err
	}
	if e.front != nil {
		return e.front.forget(ctx, key)
	}
	return nil
}

// action returns fn as the core runs it. It leaves fn's value in value.
func (e *Executor[T]) action(fn func(context.Context, pgx.Tx) (T, error), value *T) action {
	return func(ctx context.Context, tx pgx.Tx) (res fnResult) {
		v, err := fn(ctx, tx)
		if err != nil {
			return fnResult{err: err}
		}
		*value = v
		res.payload, res.encodeErr = e.encode(v)
		return res
	}
}

// deliver returns what the caller of Run gets. value is what this call's fn returned last.
func (e *Executor[T]) deliver(op *operation, res *result, value T) (out T, err error) {
	switch {
	case res.err != nil:
		err = res.err
	case res.source == idempotent.Executed && res.rec.Outcome == record.OutcomeValue:
		out = value
	default:
		out, err = e.replay(res.rec)
	}
	op.returned(res.report(op, err))
	return out, err
}

// report has no source for a call that has no outcome of fn. What fn did in a transaction of the caller's is final when that
// is committed.
func (r *result) report(op *operation, err error) idempotent.Report {
	corrupt := errors.Is(err, idempotent.ErrCorruptRecord)
	if r.source == 0 || corrupt {
		return idempotent.Report{Final: corrupt || errors.Is(err, idempotent.ErrKeyReused)}
	}
	report := idempotent.Report{Source: r.source, Attempt: 1, Final: !op.inTx || r.source == idempotent.Replayed}
	if r.rec != nil {
		report.RecordedAt = r.rec.At
	}
	return report
}

// replay makes the outcome of a record.
func (e *Executor[T]) replay(rec *record.Record) (value T, err error) {
	if rec.Outcome != record.OutcomeValue {
		return value, seam.DecodeError(e.registry, rec, e.errorLost)
	}
	return e.decode(rec)
}

// encode and decode keep a codec that panics from ending the process. Their texts hold no part of the value.

func (e *Executor[T]) encode(v T) (data []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			data, err = nil, e.codecError("panicked while it encoded", panicCause(p))
		}
	}()
	data, err = e.codec.Encode(v)
	if checker, ok := e.codec.(interface{ CheckValue(T, []byte) error }); ok && err == nil && !e.unchecked {
		err = checker.CheckValue(v, data)
	}
	if err != nil {
		return nil, e.codecError("cannot keep", err)
	}
	return data, nil
}

func (e *Executor[T]) decode(rec *record.Record) (v T, err error) {
	if rec.Codec != e.codecID {
		return v, fmt.Errorf("%w: it was written with the %v codec, this executor has %v", idempotent.ErrCorruptRecord, rec.Codec, e.codecID)
	}
	var zero T
	defer func() {
		if p := recover(); p != nil {
			v, err = zero, wrap(idempotent.ErrCorruptRecord, e.codecError("panicked while it decoded", panicCause(p)))
		}
	}()
	if v, err = e.codec.Decode(rec.Payload); err != nil {
		return zero, wrap(idempotent.ErrCorruptRecord, e.codecError("cannot decode", err))
	}
	return v, nil
}

func (e *Executor[T]) codecError(problem string, cause error) error {
	return &causeError{text: fmt.Sprintf("codec %v %s a %v", e.codecID, problem, reflect.TypeFor[T]()), causes: []error{cause}}
}

// panicCause turns a recovered value into an error.
func panicCause(v any) error {
	if err, ok := v.(error); ok {
		return err
	}
	return fmt.Errorf("panic: %v", v)
}

// operation validates a call and collects what it is about.
func (e *Executor[T]) operation(method string, ctx context.Context, key string, nilFn bool, opts []RunOption, w *watch) (*operation, error) {
	switch {
	case ctx == nil:
		return nil, invalid(method, "ctx", "nil", "a context")
	case nilFn:
		return nil, invalid(method, "fn", "nil", "a function")
	case len(key) == 0 || len(key) > idempotent.MaxKeySize:
		return nil, fmt.Errorf("%w: %d bytes long; allowed: 1 to %d bytes", idempotent.ErrInvalidKey, len(key), idempotent.MaxKeySize)
	}
	cfg := e.config.run
	for i, o := range opts {
		if o == nil {
			return nil, invalid(method, fmt.Sprintf("option %d", i), "nil", "a RunOption")
		}
		o.applyRun(&cfg)
	}
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if e.executing(ctx, key) { // it would wait for itself
		return nil, &idempotent.InProgressError{}
	}
	op := newOperation(key, cfg, time.Now())
	if op.watch = w; w != nil {
		w.ttl = cfg.ttl
	}
	return op, nil
}

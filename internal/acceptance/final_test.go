package acceptance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
)

// What is taken for final, and what is not.

// A typedNil panics in every method when it is nil.
type typedNil struct{ err error }

func (e *typedNil) Error() string        { return e.err.Error() }
func (e *typedNil) Unwrap() error        { return e.err }
func (e *typedNil) Is(target error) bool { return e.err == target }

// attemptAfter returns the attempt of the execution that follows, 0 if none does.
func attemptAfter(w *world, x *executor, key string, opts ...idempotent.RunOption) (attempt int) {
	w.Helper()
	_, _ = x.Run(w.Context(), key, func(ctx context.Context) (string, error) {
		info, _ := idempotent.RunInfoFromContext(ctx)
		attempt = info.Attempt
		return "second", nil
	}, opts...)
	return attempt
}

// After the end of fn's context, an error is unknown, whatever it says.
func TestErrorsAfterTheEndOfTheContext(t *testing.T) {
	declined := errors.New("declined")
	registry := idempotent.WithErrors(idempotent.NewErrorRegistry(append(idempotent.StandardErrors(), idempotent.Sentinel("declined", declined))...))
	grpcLike := errors.New("rpc error: code = DeadlineExceeded desc = context deadline exceeded")
	for name, test := range map[string]struct {
		err    error
		replay bool
	}{
		"a status":                       {grpcLike, false},
		"a killed command":               {errors.New("signal: killed"), false},
		"a driver's words":               {errors.New("canceling statement due to user request"), false},
		"the context's error as text":    {fmt.Errorf("query: %v", context.Canceled), false},
		"a closed socket":                {&net.OpError{Op: "read", Net: "tcp", Err: net.ErrClosed}, false},
		"one of the standard library":    {&url.Error{Op: "Post", URL: "https://example.com", Err: io.EOF}, false},
		"its own words for business":     {errors.New("insufficient funds"), false},
		"registered":                     {fmt.Errorf("charge: %w", declined), true},
		"registered, with the context's": {fmt.Errorf("%w: %w", declined, context.Canceled), false},
		"registered, with a timeout":     {fmt.Errorf("%w: %w", declined, os.ErrDeadlineExceeded), false},
	} {
		t.Run(name, func(t *testing.T) {
			inFakeTime(t, func(w *world) {
				x := w.executor(registry)
				ctx, cancel := context.WithCancel(w.Context())
				_, err := x.Run(ctx, "order-1", func(context.Context) (string, error) {
					cancel()
					return "", test.err
				})
				require.ErrorIs(w, err, test.err)
				if test.replay {
					assert.Zero(w, attemptAfter(w, x, "order-1"))
					return
				}
				assert.Equal(w, 2, attemptAfter(w, x, "order-1"))
			})
		})
	}
}

// A value is recorded, whatever has become of the context.
func TestValueAfterTheEndOfTheContext(t *testing.T) {
	everywhere(t, func(w *world) {
		x := w.executor()
		ctx, cancel := context.WithCancel(w.Context())
		v, err := x.Run(ctx, "order-1", func(context.Context) (string, error) {
			cancel()
			return "charged", nil
		})
		require.NoError(w, err)
		assert.Equal(w, "charged", v)
		assert.Zero(w, attemptAfter(w, x, "order-1"))
	})
}

// A driver's own timer, set from the deadline, can fire a moment before the context ends.
func TestDriversWithTimersOfTheirOwn(t *testing.T) {
	for name, test := range map[string]struct {
		early   time.Duration
		err     error
		unknown bool
	}{
		"an invalid connection, at once before":    {time.Millisecond, errors.New("invalid connection"), true},
		"a text, at once before":                   {20 * time.Millisecond, fmt.Errorf("dial: %v", context.DeadlineExceeded), true},
		"a timeout in whole seconds":               {900 * time.Millisecond, os.ErrDeadlineExceeded, true},
		"a dial timeout":                           {10 * time.Millisecond, &net.OpError{Op: "dial", Err: os.ErrDeadlineExceeded}, true},
		"a business error, long before":            {5 * time.Second, errors.New("declined"), false},
		"a business error, a second before":        {time.Second, errors.New("declined"), false},
		"a timeout of the provider's, long before": {5 * time.Second, os.ErrDeadlineExceeded, false},
	} {
		t.Run(name, func(t *testing.T) {
			inFakeTime(t, func(w *world) {
				x := w.executor()
				ctx, cancel := context.WithTimeout(w.Context(), 10*time.Second)
				defer cancel()
				_, err := x.Run(ctx, "order-1", func(ctx context.Context) (string, error) {
					deadline, _ := ctx.Deadline()
					time.Sleep(time.Until(deadline) - test.early)
					return "", test.err
				})
				require.ErrorIs(w, err, test.err)
				assert.Equal(w, test.unknown, attemptAfter(w, x, "order-1") == 2)
			})
		})
	}
}

// A short deadline does not make everything before it unknown.
func TestErrorsUnderAShortDeadline(t *testing.T) {
	inFakeTime(t, func(w *world) {
		x := w.executor()
		ctx, cancel := context.WithTimeout(w.Context(), 20*time.Millisecond)
		defer cancel()
		_, err := x.Run(ctx, "order-1", func(context.Context) (string, error) { return "", os.ErrDeadlineExceeded })
		require.Error(w, err)
		assert.Zero(w, attemptAfter(w, x, "order-1"))
	})
}

// A real command that the end of fn's context kills says so in its own words.
func TestKilledCommandIsUnknown(t *testing.T) {
	onRealRedis(t, func(w *world) {
		x := w.executor()
		ctx, cancel := context.WithCancel(w.Context())
		defer cancel()
		_, err := x.Run(ctx, "order-1", func(ctx context.Context) (string, error) {
			cmd := exec.CommandContext(ctx, "cat")
			stdin, err := cmd.StdinPipe()
			require.NoError(w, err)
			defer stdin.Close()
			require.NoError(w, cmd.Start())
			cancel()
			return "", cmd.Wait()
		})
		require.Error(w, err)
		assert.Equal(w, 2, attemptAfter(w, x, "order-1"))
	})
}

// The lease is lost, fn returns a driver's words for that: no outcome.
func TestErrorsAfterTheLossOfTheLease(t *testing.T) {
	inFakeTime(t, func(w *world) {
		x := w.executor()
		_, err := x.Run(w.Context(), "order-1", func(ctx context.Context) (string, error) {
			require.NoError(w, w.client(nil).Del(w.Context(), w.name("order-1")).Err())
			<-ctx.Done()
			return "", errors.New("driver: bad connection")
		})
		require.ErrorIs(w, err, idempotent.ErrLeaseLost)
		assert.NotZero(w, attemptAfter(w, x, "order-1"))
	})
}

// A nested Run that did not run its fn says nothing final about the outer one, also where the program
// ignores retryable errors or has registered them.
func TestErrorsOfNestedRuns(t *testing.T) {
	for _, own := range []error{
		idempotent.ErrUnavailable, idempotent.ErrInProgress, idempotent.ErrClosed, idempotent.ErrKeyReused, idempotent.ErrInterrupted,
		idempotent.ErrCorruptRecord, idempotent.ErrInvalidKey, idempotent.ErrInvalidOption, idempotent.ErrNotFound,
		idempotent.ErrLeaseLost, idempotent.ErrNotRecorded, idempotent.ErrValueNotKept,
	} {
		t.Run(own.Error(), func(t *testing.T) {
			inFakeTime(t, func(w *world) {
				x := w.executor(idempotent.WithErrors(idempotent.NewErrorRegistry(idempotent.Sentinel("own", own))),
					idempotent.WithShouldIgnoreError(idempotent.IsRetryable))
				_, err := x.Run(w.Context(), "order-1", func(context.Context) (string, error) {
					return "", idempotent.Retryable(fmt.Errorf("nested: %w", own))
				})
				require.ErrorIs(w, err, own)
				assert.Equal(w, 2, attemptAfter(w, x, "order-1"))
			})
		})
	}
	inFakeTime(t, func(w *world) {
		x := w.executor()
		_, err := x.Run(w.Context(), "order-2", func(ctx context.Context) (string, error) {
			return x.Run(ctx, "order-2", charged)
		})
		var busy *idempotent.InProgressError
		require.ErrorAs(w, err, &busy)
		assert.Equal(w, 2, attemptAfter(w, x, "order-2"))
	})
}

// What stands beside OutcomeUnknown changes nothing.
func TestUnknownBesideOthers(t *testing.T) {
	var broken *typedNil
	reset := errors.New("connection reset")
	for name, err := range map[string]error{
		"a typed nil behind":   errors.Join(idempotent.OutcomeUnknown(reset), broken),
		"a typed nil in front": errors.Join(broken, idempotent.OutcomeUnknown(reset)),
		"nil":                  errors.Join(nil, idempotent.OutcomeUnknown(reset), nil),
		"wrapped in both":      fmt.Errorf("%w %w", broken, fmt.Errorf("x: %w", idempotent.OutcomeUnknown(reset))),
		"a typed nil marked":   idempotent.OutcomeUnknown(broken),
	} {
		t.Run(name, func(t *testing.T) {
			inFakeTime(t, func(w *world) {
				x := w.executor()
				_, got := x.Run(w.Context(), "order-1", func(context.Context) (string, error) { return "", err })
				require.Error(w, got)
				assert.Equal(w, 2, attemptAfter(w, x, "order-1"))
			})
		})
	}
}

// WithUnknownErrors adds up, and a predicate that panics or exits makes nothing final.
func TestWithUnknownErrors(t *testing.T) {
	reset, gone := errors.New("connection reset"), errors.New("gone")
	is := func(target error) idempotent.RunOption {
		return idempotent.WithUnknownErrors(func(err error) bool { return errors.Is(err, target) })
	}
	run := func(w *world, x *executor, key string, err error, opts ...idempotent.RunOption) error {
		_, got := x.Run(w.Context(), key, func(context.Context) (string, error) { return "", err }, opts...)
		return got
	}
	everywhere(t, func(w *world) {
		x := w.executor(is(reset))
		require.ErrorIs(w, run(w, x, "reset", reset, is(gone)), reset)
		require.ErrorIs(w, run(w, x, "gone", gone, is(gone)), gone)
		require.ErrorIs(w, run(w, x, "gone elsewhere", gone), gone)
		assert.Equal(w, 2, attemptAfter(w, x, "reset"))
		assert.Equal(w, 2, attemptAfter(w, x, "gone"))
		assert.Zero(w, attemptAfter(w, x, "gone elsewhere"))

		var hook *idempotent.HookError
		err := run(w, x, "panics", gone, idempotent.WithUnknownErrors(func(error) bool { panic("no") }))
		require.ErrorAs(w, err, &hook)
		assert.Equal(w, "UnknownErrors", hook.Hook)
		require.ErrorIs(w, err, gone)
		assert.Equal(w, 2, attemptAfter(w, x, "panics"))
		err = run(w, x, "nil", gone, idempotent.WithUnknownErrors(nil))
		require.ErrorIs(w, err, idempotent.ErrInvalidOption)
	})
}

// Report.Final answers whether the next delivery gets the same.
func TestFinal(t *testing.T) {
	declined, busy := errors.New("declined"), errors.New("busy")
	everywhere(t, func(w *world) {
		x := w.executor(idempotent.WithShouldIgnoreError(func(err error) bool { return errors.Is(err, busy) }))
		final := func(key string, fn func(context.Context) (string, error), opts ...idempotent.RunOption) bool {
			var one, two idempotent.Report
			_, _ = x.Run(w.Context(), key, fn, append(opts, idempotent.WithReport(&one), idempotent.WithReport(&two))...)
			assert.Equal(w, one, two, "each report is filled in")
			return one.Final
		}
		for range 2 {
			assert.True(w, final("value", charged))
			assert.True(w, final("error", func(context.Context) (string, error) { return "", declined }))
			assert.False(w, final("ignored", func(context.Context) (string, error) { return "", busy }))
			assert.False(w, final("unknown", func(context.Context) (string, error) { return "", idempotent.OutcomeUnknown(busy) }))
		}
		assert.True(w, final("reused", charged, idempotent.WithFingerprint([]byte("a"))))
		assert.True(w, final("reused", charged, idempotent.WithFingerprint([]byte("b"))))
		assert.False(w, final("in progress", func(ctx context.Context) (string, error) {
			assert.False(w, final("in progress", charged, idempotent.WithNoWait()))
			return "", busy
		}))
	})
}

// Errors whose type has no exported fields, or wraps an interface, come back as themselves.
func TestCustomErrors(t *testing.T) {
	defs := append(idempotent.StandardErrors(), idempotent.CustomError("status", func(err error) ([]byte, bool) {
		s, ok := err.(*status)
		if !ok {
			return nil, false
		}
		return []byte(s.code + "\x00" + s.text), true
	}, func(data []byte) (error, error) {
		code, text, ok := strings.Cut(string(data), "\x00")
		if !ok {
			return nil, errors.New("no code")
		}
		return &status{code, text}, nil
	}))
	inFakeTime(t, func(w *world) {
		x := w.executor(idempotent.WithErrors(idempotent.NewErrorRegistry(defs...)))
		replayed := func(key string, err error) error {
			fn := func(context.Context) (string, error) { return "", err }
			_, first := x.Run(w.Context(), key, fn)
			require.Equal(w, err, first)
			_, second := x.Run(w.Context(), key, fn)
			require.ErrorIs(w, second, idempotent.ErrReplayed)
			require.Equal(w, first.Error(), second.Error())
			return second
		}
		got, ok := errors.AsType[*status](replayed("status", fmt.Errorf("charge: %w", &status{"card_declined", "no"})))
		require.True(w, ok)
		assert.Equal(w, &status{"card_declined", "no"}, got)

		urlErr, ok := errors.AsType[*url.Error](replayed("url", &url.Error{Op: "Get", URL: "https://example.com", Err: io.ErrUnexpectedEOF}))
		require.True(w, ok)
		assert.Equal(w, "Get https://example.com", urlErr.Op+" "+urlErr.URL)
		op := replayed("op", &net.OpError{Op: "dial", Net: "tcp", Addr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}, Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)})
		require.ErrorIs(w, op, syscall.ECONNREFUSED)
		opErr, ok := errors.AsType[*net.OpError](op)
		require.True(w, ok)
		assert.Equal(w, "127.0.0.1:1", opErr.Addr.String())
		require.ErrorIs(w, replayed("path", &fs.PathError{Op: "open", Path: "x", Err: syscall.ENOENT}), fs.ErrNotExist)
	})
	for _, def := range []idempotent.ErrorDef{
		idempotent.CustomError("x", nil, func([]byte) (error, error) { return nil, nil }),
		idempotent.CustomError("x", func(error) ([]byte, bool) { return nil, false }, nil),
	} {
		inFakeTime(t, func(w *world) {
			_, err := idempotent.New[string](w.client(nil), w.namespace, idempotent.WithErrors(idempotent.NewErrorRegistry(def)))
			require.ErrorIs(w, err, idempotent.ErrInvalidOption)
			require.ErrorContains(w, err, "CustomError")
		})
	}
}

// A status has no exported fields.
type status struct{ code, text string }

func (s *status) Error() string { return s.code + ": " + s.text }

// A definition that panics or restores nothing costs its match, not the replay.
func TestCustomErrorsThatFail(t *testing.T) {
	gone := errors.New("gone")
	for name, def := range map[string]idempotent.ErrorDef{
		"encode panics":  idempotent.CustomError("x", func(error) ([]byte, bool) { panic("no") }, func([]byte) (error, error) { return gone, nil }),
		"decode panics":  idempotent.CustomError("x", func(error) ([]byte, bool) { return nil, true }, func([]byte) (error, error) { panic("no") }),
		"decode fails":   idempotent.CustomError("x", func(error) ([]byte, bool) { return nil, true }, func([]byte) (error, error) { return nil, gone }),
		"decodes to nil": idempotent.CustomError("x", func(error) ([]byte, bool) { return nil, true }, func([]byte) (error, error) { return nil, nil }),
	} {
		t.Run(name, func(t *testing.T) {
			inFakeTime(t, func(w *world) {
				x := w.executor(idempotent.WithErrors(idempotent.NewErrorRegistry(def)))
				_, _ = x.Run(w.Context(), "order-1", func(context.Context) (string, error) { return "", gone })
				_, err := x.Run(w.Context(), "order-1", charged)
				require.ErrorIs(w, err, idempotent.ErrReplayed)
				require.EqualError(w, err, "gone")
			})
		})
	}
}

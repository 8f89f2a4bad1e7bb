package acceptance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/vmihailenco/msgpack/v5"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/idemtest"
)

// executorOn makes an executor that is closed with the test.
func executorOn[T any](t testing.TB, client redis.UniversalClient, opts ...idempotent.Option) *idempotent.Executor[T] {
	t.Helper()
	return executorIn[T](t, client, "default", opts...)
}

// executorIn is executorOn in a namespace.
func executorIn[T any](t testing.TB, client redis.UniversalClient, namespace string, opts ...idempotent.Option) *idempotent.Executor[T] {
	t.Helper()
	e, err := idempotent.New[T](client, namespace, opts...)
	require.NoError(t, err)
	t.Cleanup(func() { _ = e.Close() })
	return e
}

// returning makes an fn.
func returning[T any](value T, err error) func(context.Context) (T, error) {
	return func(context.Context) (T, error) { return value, err }
}

// forbidden makes an fn that must not run.
func forbidden[T any](t testing.TB) func(context.Context) (T, error) {
	return func(context.Context) (T, error) {
		t.Error("fn ran")
		var zero T
		return zero, nil
	}
}

// secret stands for what must not show in the texts of errors and in logs.
const secret = "4242-4242-4242-4242"

// A codecOf is a Codec made of two functions.
type codecOf[T any] struct {
	encode func(T) ([]byte, error)
	decode func([]byte) (T, error)
}

func (c codecOf[T]) Encode(v T) ([]byte, error)    { return c.encode(v) }
func (c codecOf[T]) Decode(data []byte) (T, error) { return c.decode(data) }

// logTo makes an option that logs everything to the buffer it returns.
func logTo() (*bytes.Buffer, idempotent.Option) {
	var out bytes.Buffer
	return &out, idempotent.WithLogger(slog.New(slog.NewJSONHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug})))
}

func TestCodecsRefuseTrailingData(t *testing.T) {
	for _, tail := range []string{"\x00", "\xc0", "1", "}", "\xc1"} {
		t.Run(fmt.Sprintf("msgpack/%q", tail), func(t *testing.T) {
			data, err := idempotent.Msgpack[money]().Encode(money{1, "EUR"})
			require.NoError(t, err)
			_, err = idempotent.Msgpack[money]().Decode(append(data, tail...))
			require.Error(t, err)
		})
		t.Run(fmt.Sprintf("JSON/%q", tail), func(t *testing.T) {
			data, err := idempotent.JSON[money]().Encode(money{1, "EUR"})
			require.NoError(t, err)
			_, err = idempotent.JSON[money]().Decode(append(data, tail...))
			require.Error(t, err)
		})
	}
}

func TestCodecsRefuseTruncatedData(t *testing.T) {
	for name, codec := range map[string]idempotent.Codec[receipt]{"msgpack": idempotent.Msgpack[receipt](), "JSON": idempotent.JSON[receipt]()} {
		t.Run(name, func(t *testing.T) {
			data, err := codec.Encode(fullReceipt)
			require.NoError(t, err)
			for n := range data {
				_, err := codec.Decode(data[:n])
				require.Error(t, err, "the first %d of %d bytes", n, len(data))
			}
		})
	}
}

func TestRecordOfAnotherCodecIsNotRead(t *testing.T) {
	plain := codecOf[string]{
		encode: func(v string) ([]byte, error) { return []byte(v), nil },
		decode: func(data []byte) (string, error) { return string(data), nil },
	}
	tests := []struct {
		name   string
		writes idempotent.Codec[string]
		reads  idempotent.Codec[string]
		texts  []string
	}{
		{"JSON, read by msgpack", idempotent.JSON[string](), idempotent.Msgpack[string](), []string{"JSON", "msgpack"}},
		{"msgpack, read by JSON", idempotent.Msgpack[string](), idempotent.JSON[string](), []string{"JSON", "msgpack"}},
		{"msgpack, read by raw", idempotent.Msgpack[string](), idempotent.Raw[string](), []string{"msgpack", "raw"}},
		{"raw, read by one from outside", idempotent.Raw[string](), plain, []string{"raw", "custom"}},
		{"one from outside, read by raw", plain, idempotent.Raw[string](), []string{"raw", "custom"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rdb := idemtest.NewRedis(t)
				logs, logger := logTo()
				_, err := executorOn[string](t, rdb, idempotent.WithCodec(test.writes)).Run(t.Context(), "key", returning(secret, nil))
				require.NoError(t, err)
				reader := executorOn[string](t, rdb, idempotent.WithCodec(test.reads), logger)
				for range 2 {
					v, err := reader.Run(t.Context(), "key", forbidden[string](t))
					require.ErrorIs(t, err, idempotent.ErrCorruptRecord)
					assert.Empty(t, v)
					for _, text := range test.texts {
						assert.ErrorContains(t, err, text)
					}
					assert.NotContains(t, err.Error(), secret)
				}
				require.NoError(t, reader.Close())
				assert.NotContains(t, logs.String(), secret)
			})
		})
	}
}

func TestRecordOfAnotherTypeIsNotRead(t *testing.T) {
	t.Run("msgpack", func(t *testing.T) { wrongType(t, idempotent.Msgpack[string](), idempotent.Msgpack[money]()) })
	t.Run("JSON", func(t *testing.T) { wrongType(t, idempotent.JSON[string](), idempotent.JSON[money]()) })
	// This one's cause quotes the payload.
	t.Run("JSON time", func(t *testing.T) { wrongType(t, idempotent.JSON[string](), idempotent.JSON[time.Time]()) })
}

func wrongType[T any](t *testing.T, writes idempotent.Codec[string], reads idempotent.Codec[T]) {
	synctest.Test(t, func(t *testing.T) {
		rdb := idemtest.NewRedis(t)
		_, err := executorOn[string](t, rdb, idempotent.WithCodec(writes)).Run(t.Context(), "key", returning(secret, nil))
		require.NoError(t, err)
		logs, logger := logTo()
		reader := executorOn[T](t, rdb, idempotent.WithCodec(reads), logger)
		v, err := reader.Run(t.Context(), "key", forbidden[T](t))
		require.ErrorIs(t, err, idempotent.ErrCorruptRecord)
		assert.Zero(t, v)
		assert.NotContains(t, err.Error(), secret)
		require.NoError(t, reader.Close())
		assert.NotContains(t, logs.String(), secret)
	})
}

var errCodec = errors.New("codec broke on " + secret)

func TestValueThatDoesNotEncodeIsReturned(t *testing.T) {
	failures := map[string]func(string) ([]byte, error){
		"error":             func(string) ([]byte, error) { return nil, errCodec },
		"panic":             func(string) ([]byte, error) { panic(errCodec) },
		"panic with a text": func(v string) ([]byte, error) { panic("cannot do " + v) },
		"error with bytes":  func(v string) ([]byte, error) { return []byte(v), errCodec },
	}
	for name, encode := range failures {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rdb := idemtest.NewRedis(t)
				logs, logger := logTo()
				e := executorOn[string](t, rdb, logger, idempotent.WithCodec[string](codecOf[string]{encode: encode}))
				v, err := e.Run(t.Context(), "key", returning(secret, nil))
				require.ErrorIs(t, err, idempotent.ErrNotRecorded)
				assert.Equal(t, secret, v)
				assert.NotContains(t, err.Error(), secret)
				if name != "panic with a text" {
					assert.ErrorIs(t, err, errCodec)
				}

				status, err := e.Peek(t.Context(), "key")
				require.NoError(t, err)
				assert.Equal(t, idempotent.StateValueNotKept, status.State)
				other := executorOn[string](t, rdb)
				_, err = other.Run(t.Context(), "key", forbidden[string](t))
				require.ErrorIs(t, err, idempotent.ErrValueNotKept)
				notKept, ok := errors.AsType[*idempotent.ValueNotKeptError](err)
				require.True(t, ok)
				assert.Equal(t, 1, notKept.Attempt)
				assert.WithinDuration(t, time.Now(), notKept.At, time.Millisecond)

				require.NoError(t, resolve(other, t.Context(), "key", "resolved"))
				v, err = other.Run(t.Context(), "key", forbidden[string](t))
				require.NoError(t, err)
				assert.Equal(t, "resolved", v)
				require.NoError(t, e.Close())
				assert.NotContains(t, logs.String(), secret)
			})
		})
	}
}

func TestValueThatDoesNotEncodeIsRefusedByResolve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, encode := range map[string]func(string) ([]byte, error){
			"error": func(string) ([]byte, error) { return nil, errCodec },
			"panic": func(string) ([]byte, error) { panic(errCodec) },
		} {
			e := executorOn[string](t, idemtest.NewRedis(t), idempotent.WithCodec[string](codecOf[string]{encode: encode}))
			err := resolve(e, t.Context(), "key", secret)
			require.ErrorIs(t, err, errCodec, name)
			assert.NotContains(t, err.Error(), secret, name)
			status, err := e.Peek(t.Context(), "key")
			require.NoError(t, err)
			assert.Equal(t, idempotent.StateAbsent, status.State, name)
		}
	})
}

func TestRecordThatDoesNotDecodeIsAnError(t *testing.T) {
	failures := map[string]func([]byte) (string, error){
		"error":              func([]byte) (string, error) { return "", errCodec },
		"error with a value": func(data []byte) (string, error) { return string(data), errCodec },
		"panic":              func([]byte) (string, error) { panic(errCodec) },
		"panic with bytes":   func(data []byte) (string, error) { panic(string(data)) },
	}
	for name, decode := range failures {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rdb := idemtest.NewRedis(t)
				logs, logger := logTo()
				e := executorOn[string](t, rdb, logger, idempotent.WithCodec[string](codecOf[string]{
					encode: func(v string) ([]byte, error) { return []byte(v), nil },
					decode: decode,
				}))
				v, err := e.Run(t.Context(), "key", returning(secret, nil))
				require.NoError(t, err)
				assert.Equal(t, secret, v, "the one that ran fn needs no decoding")
				for range 2 {
					v, err = e.Run(t.Context(), "key", forbidden[string](t))
					require.ErrorIs(t, err, idempotent.ErrCorruptRecord)
					assert.Empty(t, v)
					assert.NotContains(t, err.Error(), secret)
				}
				status, err := e.Peek(t.Context(), "key")
				require.NoError(t, err)
				assert.Equal(t, idempotent.StateSucceeded, status.State, "the record stays")
				require.NoError(t, e.Close())
				assert.NotContains(t, logs.String(), secret)
			})
		})
	}
}

// A Redis that does not know a command quotes its arguments.
func TestUnstoredValueIsNotQuoted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := idemtest.NewRedis(t)
		logs, logger := logTo()
		e := executorOn[string](t, rdb, logger)
		v, err := e.Run(t.Context(), "key", func(context.Context) (string, error) {
			rdb.Fail("ERR unknown command 'EVALSHA', with args beginning with: '" + secret + "'")
			return secret, nil
		})
		require.ErrorIs(t, err, idempotent.ErrNotRecorded)
		assert.Equal(t, secret, v)
		assert.NotContains(t, err.Error(), secret)
		rdb.Fail("")
		require.NoError(t, e.Close())
		assert.NotEmpty(t, logs.String())
		assert.NotContains(t, logs.String(), secret)
	})
}

func TestPanicOfADetachedFnIsLoggedWithoutItsValue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logs, logger := logTo()
		e := executorOn[string](t, idemtest.NewRedis(t), logger, idempotent.WithDetached())
		assert.PanicsWithValue(t, secret, func() {
			_, _ = e.Run(t.Context(), "key", func(context.Context) (string, error) { panic(secret) })
		})
		require.NoError(t, e.Close())
		assert.NotEmpty(t, logs.String())
		assert.NotContains(t, logs.String(), secret)
	})
}

// What is stored under the name and is no record is an error for as long as it is there.
func TestForeignBytesAreCorrupt(t *testing.T) {
	ctx := context.Background()
	packed, err := msgpack.Marshal(map[string]string{"card": secret})
	require.NoError(t, err)
	set := func(value string) func(*idemtest.Redis, string) error {
		return func(rdb *idemtest.Redis, name string) error { return rdb.Set(ctx, name, value, time.Hour).Err() }
	}
	foreign := map[string]func(rdb *idemtest.Redis, name string) error{
		"text":                  set("hello " + secret),
		"empty":                 set(""),
		"JSON":                  set(`{"card":"` + secret + `"}`),
		"msgpack":               set(string(packed)),
		"a number":              set("1"),
		"version byte alone":    set("\x01"),
		"newer version":         set("\x02R" + secret + secret),
		"right version, no sum": set("\x01D" + secret + secret),
		"list": func(rdb *idemtest.Redis, name string) error {
			return rdb.RPush(ctx, name, secret).Err()
		},
		"hash": func(rdb *idemtest.Redis, name string) error {
			return rdb.HSet(ctx, name, "card", secret).Err()
		},
	}
	for name, put := range foreign {
		for mode, opts := range map[string][]idempotent.RunOption{"wait": nil, "no wait": {idempotent.WithNoWait()}} {
			t.Run(name+"/"+mode, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					rdb := idemtest.NewRedis(t)
					logs, logger := logTo()
					e := executorIn[string](t, rdb, "ns", logger)
					require.NoError(t, put(rdb, "idempotent:ns:key"))
					before := stored(t, rdb, "idempotent:ns:key")
					for range 2 {
						v, err := e.Run(t.Context(), "key", forbidden[string](t), opts...)
						require.ErrorIs(t, err, idempotent.ErrCorruptRecord)
						assert.Empty(t, v)
						assert.NotContains(t, err.Error(), secret)
					}
					_, err := e.Peek(t.Context(), "key")
					require.ErrorIs(t, err, idempotent.ErrCorruptRecord)
					if name != "empty" { // for an operator, nothing is there
						require.ErrorIs(t, resolve(e, t.Context(), "key", "settled"), idempotent.ErrCorruptRecord)
					}
					assert.Equal(t, before, stored(t, rdb, "idempotent:ns:key"))

					require.NoError(t, e.Forget(t.Context(), "key"))
					v, err := e.Run(t.Context(), "key", returning("ran", nil))
					require.NoError(t, err)
					assert.Equal(t, "ran", v)
					require.NoError(t, e.Close())
					assert.NotContains(t, logs.String(), secret)
				})
			})
		}
	}
}

// stored describes what is stored under name.
func stored(t testing.TB, rdb redis.UniversalClient, name string) (values []string) {
	t.Helper()
	ctx := context.Background()
	kind, err := rdb.Type(ctx, name).Result()
	require.NoError(t, err)
	switch kind {
	case "string":
		values = []string{rdb.Get(ctx, name).Val()}
	case "list":
		values = rdb.LRange(ctx, name, 0, -1).Val()
	case "hash":
		values = rdb.HKeys(ctx, name).Val()
	}
	return append(values, kind, rdb.PTTL(ctx, name).Val().String())
}

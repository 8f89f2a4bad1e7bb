package acceptance

import (
	"bytes"
	"context"
	"encoding/json"
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

type money struct {
	Amount   int64
	Currency string
}

type receipt struct {
	ID     string
	Total  money
	Tax    *money
	Lines  []money
	Labels map[string]string
	Proof  []byte
	Paid   bool
}

var (
	fullReceipt = receipt{
		ID:     "r-1",
		Total:  money{1200, "EUR"},
		Tax:    &money{200, "EUR"},
		Lines:  []money{{1000, "EUR"}, {200, "EUR"}},
		Labels: map[string]string{"a": "b", "": "empty"},
		Proof:  []byte{0, 1, 0xff},
		Paid:   true,
	}
	emptyReceipt = receipt{Tax: &money{}, Lines: []money{}, Labels: map[string]string{}, Proof: []byte{}}
)

func comesBack[T any](t *testing.T, name string, codec idempotent.Codec[T], want T) {
	t.Helper()
	t.Run(name, func(t *testing.T) {
		data, err := codec.Encode(want)
		require.NoError(t, err)
		got, err := codec.Decode(data)
		require.NoError(t, err)
		require.Equal(t, want, got)
	})
}

// everyValue holds for codecs that can carry any T.
func everyValue(t *testing.T, text idempotent.Codec[string], number idempotent.Codec[int], yes idempotent.Codec[bool],
	raw idempotent.Codec[[]byte], list idempotent.Codec[[]string], table idempotent.Codec[map[string]int],
	ref idempotent.Codec[*receipt], tree idempotent.Codec[receipt], anything idempotent.Codec[any], nothing idempotent.Codec[struct{}],
) {
	comesBack(t, "empty string", text, "")
	comesBack(t, "text", text, "chargé ✓ \x00")
	comesBack(t, "zero", number, 0)
	comesBack(t, "negative number", number, -1<<62)
	comesBack(t, "false", yes, false)
	comesBack(t, "true", yes, true)
	comesBack(t, "bytes", raw, []byte{0, 0xc1, 0xff})
	comesBack(t, "empty bytes", raw, []byte{})
	comesBack(t, "nil bytes", raw, nil)
	comesBack(t, "list", list, []string{"a", ""})
	comesBack(t, "empty list", list, []string{})
	comesBack(t, "nil list", list, nil)
	comesBack(t, "map", table, map[string]int{"": 0, "a": 1})
	comesBack(t, "empty map", table, map[string]int{})
	comesBack(t, "nil map", table, nil)
	comesBack(t, "nil pointer", ref, nil)
	comesBack(t, "pointer to zero struct", ref, &receipt{})
	comesBack(t, "pointer", ref, &fullReceipt)
	comesBack(t, "zero struct", tree, receipt{})
	comesBack(t, "nested struct", tree, fullReceipt)
	comesBack(t, "struct of empty fields", tree, emptyReceipt)
	comesBack(t, "nil interface", anything, nil)
	comesBack(t, "interface", anything, any("text"))
	comesBack(t, "empty struct", nothing, struct{}{})
}

func TestMsgpackBringsEveryValueBack(t *testing.T) {
	everyValue(t, idempotent.Msgpack[string](), idempotent.Msgpack[int](), idempotent.Msgpack[bool](), idempotent.Msgpack[[]byte](),
		idempotent.Msgpack[[]string](), idempotent.Msgpack[map[string]int](), idempotent.Msgpack[*receipt](),
		idempotent.Msgpack[receipt](), idempotent.Msgpack[any](), idempotent.Msgpack[struct{}]())
	comesBack(t, "not UTF-8", idempotent.Msgpack[string](), "\xff\xfe")
	comesBack(t, "numbers in an interface", idempotent.Msgpack[any](), any([]any{int64(1), 1.5}))
}

func TestJSONBringsEveryValueBack(t *testing.T) {
	everyValue(t, idempotent.JSON[string](), idempotent.JSON[int](), idempotent.JSON[bool](), idempotent.JSON[[]byte](),
		idempotent.JSON[[]string](), idempotent.JSON[map[string]int](), idempotent.JSON[*receipt](),
		idempotent.JSON[receipt](), idempotent.JSON[any](), idempotent.JSON[struct{}]())
}

func TestRawBringsBytesBack(t *testing.T) {
	type blob []byte
	type id string
	comesBack(t, "bytes", idempotent.Raw[[]byte](), []byte{0, 1, 0xff})
	comesBack(t, "empty bytes", idempotent.Raw[[]byte](), []byte{})
	comesBack(t, "text", idempotent.Raw[string](), "a\x00\xff")
	comesBack(t, "empty text", idempotent.Raw[string](), "")
	comesBack(t, "type made of bytes", idempotent.Raw[blob](), blob("b"))
	comesBack(t, "type made of text", idempotent.Raw[id](), id("i"))
	t.Run("nil bytes come back empty", func(t *testing.T) {
		data, err := idempotent.Raw[[]byte]().Encode(nil)
		require.NoError(t, err)
		got, err := idempotent.Raw[[]byte]().Decode(data)
		require.NoError(t, err)
		require.Equal(t, []byte{}, got)
	})
}

func TestCodecsBringTimesBack(t *testing.T) {
	times := map[string]time.Time{
		"zero":         {},
		"nanoseconds":  time.Date(2026, 11, 21, 20, 15, 0, 123456789, time.UTC),
		"before epoch": time.Date(1901, 1, 1, 0, 0, 0, 0, time.UTC),
		"zone":         time.Date(2026, 6, 1, 12, 0, 0, 0, time.FixedZone("somewhere", 5*3600+1800)),
	}
	codecs := map[string]idempotent.Codec[time.Time]{"msgpack": idempotent.Msgpack[time.Time](), "JSON": idempotent.JSON[time.Time]()}
	for codecName, codec := range codecs {
		for name, want := range times {
			t.Run(codecName+"/"+name, func(t *testing.T) {
				data, err := codec.Encode(want)
				require.NoError(t, err)
				got, err := codec.Decode(data)
				require.NoError(t, err)
				require.True(t, want.Equal(got), "want %v, got %v", want, got)
			})
		}
	}
}

// Values that are nothing in other languages are values here: they are replayed as themselves, and
// fn does not run again.
func TestNothingIsAValue(t *testing.T) {
	replays(t, "empty string", "")
	replays(t, "zero", 0)
	replays(t, "false", false)
	replays(t, "nil pointer", (*receipt)(nil))
	replays(t, "nil slice", []string(nil))
	replays(t, "empty slice", []string{})
	replays(t, "nil map", map[string]int(nil))
	replays(t, "nil interface", any(nil))
	replays(t, "empty struct", struct{}{})
	replays(t, "empty bytes, raw", []byte{}, idempotent.WithCodec(idempotent.Raw[[]byte]()))
	replays(t, "null, JSON", (*receipt)(nil), idempotent.WithCodec(idempotent.JSON[*receipt]()))
}

func replays[T any](t *testing.T, name string, want T, opts ...idempotent.Option) {
	t.Helper()
	t.Run(name, func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			rdb := idemtest.NewRedis(t)
			first, err := executorOn[T](t, rdb, opts...).Run(t.Context(), "key", returning(want, nil))
			require.NoError(t, err)
			require.Equal(t, want, first)
			again, err := executorOn[T](t, rdb, opts...).Run(t.Context(), "key", forbidden[T](t))
			require.NoError(t, err)
			require.Equal(t, want, again)
		})
	})
}

// A pin writes itself by methods of its pointer, which a value has only where it can be
// addressed.
type pin struct{ digits string }

func (p *pin) MarshalJSON() ([]byte, error)           { return json.Marshal(p.digits) }
func (p *pin) UnmarshalJSON(data []byte) error        { return json.Unmarshal(data, &p.digits) }
func (p *pin) EncodeMsgpack(e *msgpack.Encoder) error { return e.EncodeString(p.digits) }
func (p *pin) DecodeMsgpack(d *msgpack.Decoder) (err error) {
	p.digits, err = d.DecodeString()
	return err
}

func TestCodecsCallTheMethodsOfPointers(t *testing.T) {
	type card struct{ Pin pin }
	comesBack(t, "msgpack", idempotent.Msgpack[pin](), pin{"1234"})
	comesBack(t, "msgpack, zero", idempotent.Msgpack[pin](), pin{})
	comesBack(t, "msgpack, field", idempotent.Msgpack[card](), card{pin{"1234"}})
	comesBack(t, "msgpack, pointer", idempotent.Msgpack[*pin](), &pin{"1234"})
	comesBack(t, "JSON", idempotent.JSON[pin](), pin{"1234"})
	comesBack(t, "JSON, zero", idempotent.JSON[pin](), pin{})
	comesBack(t, "JSON, field", idempotent.JSON[card](), card{pin{"1234"}})
	comesBack(t, "JSON, pointer", idempotent.JSON[*pin](), &pin{"1234"})
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

func TestDecodedValuesShareNoMemoryWithTheRecord(t *testing.T) {
	type blob []byte
	type packed struct {
		Proof []byte
		Raw   msgpack.RawMessage
	}
	copies(t, "msgpack bytes", idempotent.Msgpack[[]byte](), []byte("proof"), func(v []byte) []byte { return v })
	copies(t, "msgpack type made of bytes", idempotent.Msgpack[blob](), blob("proof"), func(v blob) []byte { return v })
	copies(t, "msgpack array of bytes", idempotent.Msgpack[*[5]byte](), &[5]byte{1, 2, 3, 4, 5}, func(v *[5]byte) []byte { return v[:] })
	copies(t, "msgpack field", idempotent.Msgpack[packed](), packed{Proof: []byte("proof"), Raw: msgpack.RawMessage{0xa1, 'a'}}, func(v packed) []byte { return v.Proof })
	copies(t, "msgpack raw message", idempotent.Msgpack[packed](), packed{Raw: msgpack.RawMessage{0xa1, 'a'}}, func(v packed) []byte { return v.Raw })
	copies(t, "JSON raw message", idempotent.JSON[json.RawMessage](), json.RawMessage(`"proof"`), func(v json.RawMessage) []byte { return v })
	copies(t, "raw bytes", idempotent.Raw[[]byte](), []byte("proof"), func(v []byte) []byte { return v })
	copies(t, "raw type made of bytes", idempotent.Raw[blob](), blob("proof"), func(v blob) []byte { return v })
}

// copies checks that neither side sees what the other one writes.
func copies[T any](t *testing.T, name string, codec idempotent.Codec[T], value T, bytesOf func(T) []byte) {
	t.Helper()
	t.Run(name, func(t *testing.T) {
		data, err := codec.Encode(value)
		require.NoError(t, err)
		before := bytes.Clone(data)
		got, err := codec.Decode(data)
		require.NoError(t, err)
		own := bytesOf(got)
		require.NotEmpty(t, own)
		for i := range own {
			own[i] ^= 0xff
		}
		require.Equal(t, before, data, "the value writes into the record")
		mine := bytes.Clone(own)
		for i := range data {
			data[i] = 0x5a
		}
		require.Equal(t, mine, own, "the record writes into the value")
	})
}

// The one that ran fn may do as it likes with its value, even with a codec that encodes nothing.
func TestJoinedCallerDoesNotSeeWhatTheFirstDoesWithItsValue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		changed := make(chan struct{})
		e := executorOn[[]byte](t, idemtest.NewRedis(t), idempotent.WithCodec[[]byte](codecOf[[]byte]{
			encode: func(v []byte) ([]byte, error) { return v, nil },
			decode: func(data []byte) ([]byte, error) {
				<-changed
				return bytes.Clone(data), nil
			},
		}))
		joined := make(chan []byte, 1)
		v, err := e.Run(t.Context(), "key", func(context.Context) ([]byte, error) {
			go func() {
				v, err := e.Run(t.Context(), "key", forbidden[[]byte](t))
				assert.NoError(t, err)
				joined <- v
			}()
			synctest.Wait()
			return []byte("charged"), nil
		})
		require.NoError(t, err)
		copy(v, "CHANGED")
		close(changed)
		assert.Equal(t, "charged", string(<-joined))
	})
}

// Those who joined share what one of them decoded, where assignment copies all of a T.
func TestJoinedCallersDecodeOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		texts, n := countDecodings(idempotent.Msgpack[string]())
		next, answer := make(chan struct{}), make(chan struct{})
		e := executorOn[string](t, idemtest.NewRedis(t), idempotent.WithCodec[string](texts),
			idempotent.WithObserver(idempotent.ObserverFunc(func(_ context.Context, e idempotent.Event) {
				if e.Kind == idempotent.EventReplayed {
					<-next
				}
			})))
		const joined = 5
		for range 1 + joined {
			go func() {
				v, err := e.Run(t.Context(), "key", func(context.Context) (string, error) {
					<-answer
					return "charged", nil
				})
				assert.NoError(t, err)
				assert.Equal(t, "charged", v)
			}()
		}
		synctest.Wait()
		close(answer)
		for range joined {
			next <- struct{}{}
			synctest.Wait()
		}
		assert.EqualValues(t, 1, n.Load())
	})
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

				was, err := other.Resolve(t.Context(), "key", "resolved")
				require.NoError(t, err)
				assert.Equal(t, idempotent.StateValueNotKept, was.State)
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

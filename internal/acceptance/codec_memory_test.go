package acceptance

import (
	"bytes"
	"context"
	"encoding/json"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/vmihailenco/msgpack/v5"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/idemtest"
)

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

// Joined callers share what one of them decoded, where assignment copies all of a T.
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

package acceptance

import (
	"encoding/json"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vmihailenco/msgpack/v5"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/idemtest"
)

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

func (p *pin) MarshalJSON() ([]byte, error) { return json.Marshal(p.digits) }

func (p *pin) UnmarshalJSON(data []byte) error { return json.Unmarshal(data, &p.digits) }

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

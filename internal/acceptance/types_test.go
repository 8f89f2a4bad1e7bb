package acceptance

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/idemtest"
)

// What happens to a value of a type: it is replayed as it was, New refuses the type and names a part of
// it, or the value is not kept.
const (
	kept   = "kept"
	unkept = "not kept"
)

func refusedFor(what string) string { return "refused: " + what }

// A typeTable runs fn with values of many types under both codecs.
type typeTable struct {
	*testing.T
	rdb  *idemtest.Redis
	rows int
}

func newTypeTable(t *testing.T) *typeTable { return &typeTable{T: t, rdb: idemtest.NewRedis(t)} }

// add checks what happens to value under msgpack and under JSON. same compares, if not
// reflect.DeepEqual.
func add[T any](table *typeTable, name string, value T, underMsgpack, underJSON string, same ...func(was, is T) bool) {
	table.Helper()
	table.rows++
	equal := func(was, is T) bool { return reflect.DeepEqual(was, is) }
	if len(same) > 0 {
		equal = same[0]
	}
	table.Run(name+"/msgpack", func(t *testing.T) {
		addUnder(t, table, "msgpack", idempotent.Msgpack[T](), value, underMsgpack, equal)
	})
	table.Run(name+"/JSON", func(t *testing.T) {
		addUnder(t, table, "JSON", idempotent.JSON[T](), value, underJSON, equal)
	})
}

func addUnder[T any](t *testing.T, table *typeTable, codecName string, codec idempotent.Codec[T], value T, want string, equal func(was, is T) bool) {
	namespace := fmt.Sprintf("%d-%s", table.rows, codecName)
	x, err := idempotent.New[T](table.rdb, namespace, idempotent.WithCodec(codec))
	if path, ok := strings.CutPrefix(want, "refused: "); ok {
		require.ErrorIs(t, err, idempotent.ErrInvalidOption)
		assert.ErrorContains(t, err, path)
		return
	}
	require.NoError(t, err)
	defer x.Close()
	runs := 0
	fn := func(context.Context) (T, error) { runs++; return value, nil }
	_, err = x.Run(t.Context(), "key", fn)
	if want == unkept {
		require.ErrorIs(t, err, idempotent.ErrNotRecorded)
	} else {
		require.NoError(t, err)
	}
	got, err := x.Run(t.Context(), "key", fn)
	require.Equal(t, 1, runs)
	if want == unkept {
		require.ErrorIs(t, err, idempotent.ErrValueNotKept)
		return
	}
	require.NoError(t, err)
	if !equal(value, got) {
		t.Errorf("came back changed:\nwas %#v\n is %#v", value, got)
	}
}

// A stringer is an interface with a method.
type stringer interface{ String() string }

type jsonOnly struct{ cents int64 }

func (m jsonOnly) MarshalJSON() ([]byte, error)     { return json.Marshal(m.cents) }
func (m *jsonOnly) UnmarshalJSON(data []byte) error { return json.Unmarshal(data, &m.cents) }

type marshalOnly struct{ cents int64 }

func (m marshalOnly) MarshalJSON() ([]byte, error) { return json.Marshal(m.cents) }

type textOnly int

func (c textOnly) MarshalText() ([]byte, error) { return []byte("red"), nil }

type textPair struct{ name string }

func (c textPair) MarshalText() ([]byte, error) { return []byte(c.name), nil }
func (c *textPair) UnmarshalText(b []byte) error {
	c.name = string(b)
	return nil
}

// A redacted text says of itself that it is another one.
type redacted string

func (redacted) MarshalText() ([]byte, error) { return []byte("***"), nil }
func (r *redacted) UnmarshalText(b []byte) error {
	*r = redacted(b)
	return nil
}

// A binaryText is written by one kind of method and read by another.
type binaryText struct{ name string }

func (c binaryText) MarshalBinary() ([]byte, error) { return []byte(c.name), nil }
func (c *binaryText) UnmarshalText(b []byte) error {
	c.name = string(b)
	return nil
}

// A zeroMoney calls itself zero when its currency matters.
type zeroMoney struct {
	Cents    int
	Currency string
}

func (m zeroMoney) IsZero() bool { return m.Cents == 0 }

type tree struct {
	Name     string
	Children []*tree
}

type pairOf[A, B any] struct {
	First  A
	Second B
}

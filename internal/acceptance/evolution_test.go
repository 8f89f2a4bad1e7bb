package acceptance

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
)

// A change of T: a value is written as From and read as To. read is what both codecs read, nil if they
// refuse it.
type change struct {
	name string
	try  func(t *testing.T)
}

func reads[From, To any](name string, was From, is To) change {
	return change{name, func(t *testing.T) {
		for codec, read := range readAs[From, To](t, was) {
			v, err := read()
			require.NoError(t, err, codec)
			assert.Equal(t, is, v, codec)
		}
	}}
}

func refusesAs[To, From any](name string, was From) change {
	return change{name, func(t *testing.T) {
		for codec, read := range readAs[From, To](t, was) {
			v, err := read()
			assert.Error(t, err, "%s read %#v", codec, v)
		}
	}}
}

func readAs[From, To any](t *testing.T, was From) map[string]func() (To, error) {
	packed, err := idempotent.Msgpack[From]().Encode(was)
	require.NoError(t, err)
	text, err := idempotent.JSON[From]().Encode(was)
	require.NoError(t, err)
	return map[string]func() (To, error){
		"msgpack": func() (To, error) { return idempotent.Msgpack[To]().Decode(packed) },
		"JSON":    func() (To, error) { return idempotent.JSON[To]().Decode(text) },
	}
}

func TestChangesOfT(t *testing.T) {
	type old struct {
		ID     string
		Amount int64
	}
	type renamed struct {
		ID          string
		AmountCents int64
	}
	type renamedOptional struct {
		ID          string
		AmountCents int64 `json:",omitempty"`
	}
	type added struct {
		ID     string
		Amount int64
		Note   string
	}
	type removed struct{ ID string }
	type optional struct {
		ID   string
		Note string `json:",omitempty"`
	}
	type moved struct {
		ID    string
		Price struct{ Amount int64 }
	}
	type nested struct {
		A, B *old
		L    []old
		M    map[string]old
	}
	type nestedRenamed struct {
		A, B *old
		L    []renamed
		M    map[string]old
	}
	type outer struct {
		In struct{ X int }
		Y  int
	}
	type movedIn struct{ In struct{ X, Y int } }
	type floats struct{ V float64 }
	const large = 1<<53 + 1
	v := old{"ch_1", 4242}
	changes := []change{
		reads("same", v, v),
		reads("other name of the type", v, struct {
			ID     string
			Amount int64
		}{"ch_1", 4242}),
		reads("fields in another order", v, struct {
			Amount int64
			ID     string
		}{4242, "ch_1"}),
		reads("field added", v, added{"ch_1", 4242, ""}),
		reads("field removed", v, removed{"ch_1"}),
		refusesAs[renamed]("field renamed", v),
		refusesAs[renamedOptional]("field renamed to an optional one", v),
		refusesAs[moved]("field moved into a struct", v),
		refusesAs[*renamed]("renamed behind a pointer", &v),
		refusesAs[[]renamed]("renamed in a slice", []old{v}),
		refusesAs[[1]renamed]("renamed in an array", [1]old{v}),
		refusesAs[map[string]renamed]("renamed in a map", map[string]old{"a": v}),
		refusesAs[map[string][]*renamed]("renamed below", map[string][]*old{"a": {nil, &v}}),
		refusesAs[nestedRenamed]("renamed in a nested slice", nested{L: []old{v}}),
		refusesAs[movedIn]("field moved to another level", outer{Y: 1}),
		refusesAs[struct{ A, B string }]("no field in common", v),
		reads("optional field that was empty", optional{ID: "a"}, optional{ID: "a"}),
		reads("value behind a pointer", v, &v),
		reads("pointer to value", &v, v),
		refusesAs[old]("nil pointer to value", (*old)(nil)),
		refusesAs[int]("nil pointer to number", (*int)(nil)),
		refusesAs[string]("nil pointer to text", (*string)(nil)),
		refusesAs[struct{ A int }]("nil in a field", struct{ A *int }{}),
		reads("nil slice", []int(nil), []int64(nil)),
		reads("wider number", int8(-7), int64(-7)),
		reads("narrower number that fits", int64(7), int8(7)),
		refusesAs[int8]("narrower number", 128),
		refusesAs[int32]("narrower number, negative", int64(-1<<31-1)),
		refusesAs[uint64]("negative number", -1),
		refusesAs[int64]("number above int64", uint64(1<<63)),
		refusesAs[int]("fraction", 1.5),
		reads("integer as float", 7, 7.0),
		refusesAs[floats]("large integer as float", struct{ V int64 }{large}),
		refusesAs[[]float64]("large negative integer as float", []int64{-large}),
		refusesAs[map[string]float32]("integer as float32", map[string]int{"a": 1<<24 + 1}),
		refusesAs[float32]("double as float32", 1.123456789),
		refusesAs[string]("number as text", 7),
		refusesAs[int]("text as number", "7"),
		refusesAs[bool]("number as bool", 1),
		refusesAs[old]("text as struct", "a"),
		refusesAs[string]("struct as text", v),
		refusesAs[[]old]("struct as slice", v),
		refusesAs[old]("slice as struct", []old{v}),
		refusesAs[old]("list as struct, by position", []any{"ch_1", int64(1)}),
		refusesAs[old]("list as struct, of none", []any{}),
		refusesAs[[2]int]("slice as shorter array", []int{1, 2, 3}),
		refusesAs[[4]int]("slice as longer array", []int{1, 2, 3}),
		refusesAs[[3]int]("array as longer array", [2]int{1, 2}),
		refusesAs[[1]int]("array as shorter array", [2]int{1, 2}),
		refusesAs[struct{ A [1]string }]("shorter array in a field", struct{ A []string }{[]string{"a", "b"}}),
		reads("slice as array", []int{1, 2}, [2]int{1, 2}),
		reads("array as slice", [2]int{1, 2}, []int{1, 2}),
		reads("map as struct", map[string]int64{"A": 1}, struct{ A int64 }{1}),
		refusesAs[struct{ A, B int64 }]("map as struct with other fields", map[string]int64{"A": 1, "C": 2}),
		refusesAs[map[string]int]("map of other values", map[string]string{"a": "b"}),
		refusesAs[time.Time]("number as time", 7),
		reads("duration as number", time.Second, int64(time.Second)),
	}
	for _, c := range changes {
		t.Run(c.name, c.try)
	}
	assert.GreaterOrEqual(t, len(changes), 50)
}

// The integers of a JSON record are exact where they are read into an interface, or refused.
func TestJSONIntegersInInterfaces(t *testing.T) {
	for text, exact := range map[string]bool{
		"9007199254740992": true, "9007199254740993": false, "-9007199254740993": false, "9223372036854775807": false,
		"1e400": false, "0.1": true, "1E+2": true, "-0": true, "0.10000000000000000001": false, "123456789012345678900000": false, "1e23": true,
	} {
		_, err := idempotent.JSON[any]().Decode([]byte(`{"a":[` + text + `]}`))
		assert.Equal(t, exact, err == nil, "%s: %v", text, err)
	}
}

// One record has both spellings of a name that encoding/json takes for one.
func TestJSONFieldGivenTwice(t *testing.T) {
	_, err := idempotent.JSON[struct{ ID string }]().Decode([]byte(`{"ID":"a","id":"b"}`))
	require.ErrorContains(t, err, "twice")
}

// Tags of encoding/json hold under msgpack where there are none of its own.
func TestJSONTagsHoldUnderMsgpack(t *testing.T) {
	type account struct {
		Name     string `json:"name"`
		Password string `json:"-"`
		Note     string `json:"note,omitempty"`
		ID       string `json:"ignored" msgpack:"id"`
	}
	data, err := idempotent.Msgpack[account]().Encode(account{"a", secret, "", "7"})
	require.NoError(t, err)
	assert.NotContains(t, string(data), secret)
	fields, err := idempotent.Msgpack[map[string]string]().Decode(data)
	require.NoError(t, err)
	assert.Equal(t, map[string]string{"name": "a", "id": "7"}, fields)
	got, err := idempotent.Msgpack[account]().Decode(data)
	require.NoError(t, err)
	assert.Equal(t, account{Name: "a", ID: "7"}, got)
}

package acceptance

import (
	"bytes"
	"database/sql"
	"encoding/json"
	"errors"
	"io"
	"math"
	"math/big"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/google/uuid"
	"github.com/shopspring/decimal"
	"github.com/vmihailenco/msgpack/v5"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// omitsEmpty has a tag that encoding/json ignores for structs.
type omitsEmpty[T any] struct {
	M T `json:",omitempty"`
}

// Plain types come back as they were.
func TestPlainTypesComeBack(t *testing.T) {
	table := newTypeTable(t)
	type id string
	type cents int64
	type list []id
	type inner struct{ A, B int }
	add(table, "bool", true, kept, kept)
	add(table, "int", -7, kept, kept)
	add(table, "int8", int8(math.MinInt8), kept, kept)
	add(table, "int16", int16(math.MinInt16), kept, kept)
	add(table, "int32", int32(math.MinInt32), kept, kept)
	add(table, "int64", int64(math.MinInt64), kept, kept)
	add(table, "uint", uint(7), kept, kept)
	add(table, "uint8", uint8(math.MaxUint8), kept, kept)
	add(table, "uint16", uint16(math.MaxUint16), kept, kept)
	add(table, "uint32", uint32(math.MaxUint32), kept, kept)
	add(table, "uint64", uint64(math.MaxUint64), kept, kept)
	add(table, "uintptr", uintptr(7), refusedFor("uintptr"), kept)
	add(table, "float32", float32(1.1), kept, kept)
	add(table, "float64", 1.1, kept, kept)
	add(table, "largest float64", math.MaxFloat64, kept, kept)
	add(table, "NaN", math.NaN(), kept, unkept, func(_, is float64) bool { return math.IsNaN(is) })
	add(table, "infinity", math.Inf(-1), kept, unkept)
	add(table, "string", "chargé ✓ <&>  \x00 \ufffd", kept, kept)
	add(table, "string that is not UTF-8", "\xff", kept, unkept)
	add(table, "key that is not UTF-8", map[string]int{"\xff": 1, "\xfe": 2}, kept, unkept)
	add(table, "text like an escape", `\ufffd`, kept, kept)
	add(table, "named string", id("a"), kept, kept)
	add(table, "named number", cents(7), kept, kept)
	add(table, "duration", time.Minute, kept, kept)
	add(table, "bytes", []byte{0, 0xff}, kept, kept)
	add(table, "nil bytes", []byte(nil), kept, kept)
	add(table, "empty bytes", []byte{}, kept, kept)
	add(table, "byte array", [4]byte{1, 2}, kept, kept)
	add(table, "array", [3]string{"a"}, kept, kept)
	add(table, "array of arrays", [2][2]int{{1, 2}, {3, 4}}, kept, kept)
	add(table, "slice", []string{"a", ""}, kept, kept)
	add(table, "named slice", list{"a"}, kept, kept)
	add(table, "slice of nil slices", [][]int{nil, {}, {1}}, kept, kept)
	add(table, "slice of pointers", []*int{nil, new(1)}, kept, kept)
	add(table, "map", map[string]int{"a": 1}, kept, kept)
	add(table, "map with int keys", map[int]string{-1: "a"}, kept, kept)
	add(table, "map with uint8 keys", map[uint8]string{255: "a"}, kept, kept)
	add(table, "map with named keys", map[id]cents{"a": 1}, kept, kept)
	add(table, "map with bool keys", map[bool]int{true: 1}, kept, refusedFor("keys of type bool"))
	add(table, "map with float keys", map[float64]int{1.5: 1}, kept, refusedFor("keys of type float64"))
	add(table, "map with NaN keys", map[float64]int{math.NaN(): 1}, unkept, refusedFor("keys of type float64"))
	add(table, "map with array keys", map[[2]int]int{{1, 2}: 1}, kept, refusedFor("keys of type [2]int"))
	add(table, "map with struct keys", map[inner]int{{1, 2}: 3}, kept, refusedFor("keys of type"))
	add(table, "map with pointer keys", map[*int]int{new(1): 1}, refusedFor("keys of type *int"), refusedFor("keys of type *int"))
	add(table, "map with text keys", map[netip.Addr]int{netip.MustParseAddr("::1"): 1}, kept, kept)
	add(table, "map of maps", map[string]map[string]int{"a": {"b": 1}, "c": nil}, kept, kept)
	add(table, "map of structs", map[string]inner{"a": {1, 2}}, kept, kept)
	add(table, "set", map[string]struct{}{"a": {}}, kept, kept)
	add(table, "empty struct", struct{}{}, kept, kept)
	add(table, "struct", inner{1, 2}, kept, kept)
	add(table, "anonymous struct", struct{ A struct{ B int } }{struct{ B int }{1}}, kept, kept)
	add(table, "pointer to struct", &inner{1, 2}, kept, kept)
	add(table, "nil pointer", (*inner)(nil), kept, kept)
	add(table, "pointer to zero", new(0), kept, kept)
	add(table, "pointer to pointer", new(new(1)), kept, kept)
	add(table, "pointer to nil pointer", new((*int)(nil)), unkept, unkept)
	add(table, "pointer to nil slice", new([]int(nil)), unkept, unkept)
	add(table, "pointer to slice", new([]int{1}), kept, kept)
	add(table, "pointer to nil map", new(map[string]int(nil)), unkept, unkept)
	add(table, "recursive", &tree{"a", []*tree{{"b", nil}}}, kept, kept)
	add(table, "generic", pairOf[string, *int]{"a", new(1)}, kept, kept)
	add(table, "omitted fields", struct {
		A int    `json:",omitempty"`
		B *int   `json:",omitempty"`
		C string `msgpack:"c,omitempty" json:"cc,omitempty"`
	}{B: new(0)}, kept, kept)
	add(table, "number as text", struct {
		A int64 `json:",string"`
	}{math.MaxInt64}, kept, kept)
	add(table, "field that is left out", struct {
		A int
		b int `msgpack:"-" json:"-"`
	}{A: 1}, kept, kept)
	add(table, "blank field", struct {
		_ [0]func()
		A int
	}{A: 1}, kept, kept)
	if table.rows < 55 {
		t.Errorf("%d types", table.rows)
	}
}

// Types of the standard library and of others.
func TestLibraryTypesComeBackOrAreRefused(t *testing.T) {
	table := newTypeTable(t)
	sameTime := func(a, b time.Time) bool { return a.Equal(b) }
	utc := time.Date(2026, 12, 31, 23, 30, 0, 1, time.UTC)
	add(table, "time in UTC", utc, kept, kept)
	add(table, "zero time", time.Time{}, kept, kept)
	add(table, "time now", time.Now(), kept, kept, sameTime)
	add(table, "time in a zone", utc.In(time.FixedZone("CET", 3600)), kept, kept, sameTime)
	add(table, "time in a zone with seconds", utc.In(time.FixedZone("LMT", 1172)), kept, unkept, sameTime)
	add(table, "time after 9999", time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC), kept, unkept)
	add(table, "time before 1970", time.Date(1, 2, 3, 4, 5, 6, 7, time.UTC), kept, kept)
	add(table, "times", map[string][]*time.Time{"a": {nil, &utc}}, kept, kept)
	add(table, "times as keys", map[time.Time]time.Time{utc: utc}, kept, kept)
	add(table, "time in an interface", any(utc), kept, unkept)
	add(table, "times in interfaces", map[string]any{"a": []any{utc}}, kept, unkept)
	add(table, "embedded time", struct{ time.Time }{utc}, kept, kept)
	type named time.Time
	add(table, "named time", named(utc), refusedFor("wall"), refusedFor("wall"))
	add(table, "big.Int", *big.NewInt(7), kept, kept)
	add(table, "pointer to big.Int", new(big.Int).Lsh(big.NewInt(1), 100), kept, kept)
	add(table, "zero big.Int", new(big.Int), kept, kept, func(a, b *big.Int) bool { return a.Cmp(b) == 0 })
	add(table, "map of big.Int", map[string]big.Int{"a": *big.NewInt(7)}, refusedFor("MarshalText"), refusedFor("neg"))
	add(table, "map of *big.Int", map[string]*big.Int{"a": big.NewInt(7)}, kept, kept)
	add(table, "big.Rat", big.NewRat(1, 3), kept, kept, func(a, b *big.Rat) bool { return a.Cmp(b) == 0 })
	add(table, "big.Float", big.NewFloat(1.5), kept, kept, func(a, b *big.Float) bool { return a.Cmp(b) == 0 })
	add(table, "precise big.Float", new(big.Float).SetPrec(500).Quo(big.NewFloat(1), big.NewFloat(3)), unkept, unkept)
	add(table, "decimal", decimal.RequireFromString("10.50"), kept, kept, func(a, b decimal.Decimal) bool { return a.Equal(b) })
	add(table, "decimals", []decimal.Decimal{decimal.New(1, -30)}, kept, kept, func(a, b []decimal.Decimal) bool { return a[0].Equal(b[0]) })
	add(table, "uuid", uuid.MustParse("6ba7b810-9dad-11d1-80b4-00c04fd430c8"), kept, kept)
	add(table, "uuid.NullUUID", uuid.NullUUID{}, kept, kept)
	add(table, "netip.Addr", netip.MustParseAddr("10.0.0.1"), kept, kept)
	add(table, "netip.Prefix", netip.MustParsePrefix("10.0.0.0/8"), kept, kept)
	add(table, "net.IP", net.ParseIP("10.0.0.1"), kept, kept, func(a, b net.IP) bool { return a.Equal(b) })
	add(table, "url", url.URL{Scheme: "https", Host: "example.com", Path: "/a b"}, kept, refusedFor("User.username"))
	add(table, "regexp", regexp.MustCompile("a+"), kept, kept, func(a, b *regexp.Regexp) bool { return a.String() == b.String() })
	add(table, "sql.NullString", sql.NullString{String: "a", Valid: true}, kept, kept)
	add(table, "sql.Null", sql.Null[int64]{V: 1, Valid: true}, kept, kept)
	add(table, "sql.NullTime", sql.NullTime{Time: utc, Valid: true}, kept, kept)
	add(table, "json.RawMessage", json.RawMessage(`{"a":1}`), kept, kept)
	add(table, "json.RawMessage with space", json.RawMessage(`{"a": "<"}`), kept, kept,
		func(a, b json.RawMessage) bool { return strings.HasPrefix(string(b), `{"a":`) })
	add(table, "json.Number", json.Number("1.50"), kept, kept)
	add(table, "empty json.Number", json.Number(""), kept, unkept)
	add(table, "msgpack.RawMessage", msgpack.RawMessage{0xa1, 'a'}, kept, kept)
	add(table, "bytes.Buffer", bytes.NewBufferString("a"), refusedFor("buf"), refusedFor("buf"))
	add(table, "strings.Builder", &strings.Builder{}, refusedFor("addr"), refusedFor("addr"))
	add(table, "sync.Mutex", &struct{ mu sync.Mutex }{}, refusedFor("mu"), refusedFor("mu"))
	add(table, "exported sync.Mutex", &struct{ Mu sync.Mutex }{}, refusedFor("Mu."), refusedFor("Mu."))
	add(table, "atomic.Int64", &struct{ N atomic.Int64 }{}, refusedFor("N."), refusedFor("N."))
	add(table, "context", struct{ R io.Reader }{}, refusedFor("io.Reader"), refusedFor("io.Reader"))
	add(table, "structpb", structpb.NewStringValue("a"), refusedFor("proto"), refusedFor("proto"))
	add(table, "protobuf message", timestamppb.Now(), refusedFor("proto.Marshal"), refusedFor("proto.Marshal"))
	add(table, "field with a protobuf message", struct{ At []*timestamppb.Timestamp }{}, refusedFor("At[]"), refusedFor("At[]"))
	add(table, "proto.Message", proto.Message(timestamppb.Now()), refusedFor("protobuf"), refusedFor("protobuf"))
	add(table, "protobuf message in an interface", any(timestamppb.Now()), unkept, unkept)
	add(table, "error", struct{ Err error }{errors.New("a")}, refusedFor("Err"), refusedFor("Err"))
	if table.rows < 50 {
		t.Errorf("%d types", table.rows)
	}
}

// What a codec would drop or change is refused.
func TestDoubtfulTypesComeBackOrAreRefused(t *testing.T) {
	table := newTypeTable(t)
	type hidden struct{ Name string }
	type Shown struct{ Name string }
	type base struct{ ID string }
	type name string
	add(table, "unexported field", struct{ cents int }{1}, refusedFor("field cents"), refusedFor("field cents"))
	add(table, "unexported field below", struct {
		Prices []map[string]*struct{ cents int }
	}{}, refusedFor("Prices[][].cents"), refusedFor("Prices[][].cents"))
	add(table, "channel", make(chan int), refusedFor("chan int"), refusedFor("chan int"))
	add(table, "func", struct{ F func() }{}, refusedFor("F is a func"), refusedFor("F is a func"))
	add(table, "complex", struct{ C complex128 }{}, refusedFor("C is a complex128"), refusedFor("C is a complex128"))
	add(table, "unsafe.Pointer", struct{ P unsafe.Pointer }{}, refusedFor("P"), refusedFor("P"))
	add(table, "interface with a method", struct{ S stringer }{}, refusedFor("stringer"), refusedFor("stringer"))
	add(table, "JSON methods", jsonOnly{7}, refusedFor("cents"), kept)
	add(table, "JSON methods in a map", map[string]jsonOnly{"a": {7}}, refusedFor("cents"), kept)
	add(table, "MarshalJSON alone", marshalOnly{7}, refusedFor("cents"), refusedFor("cents"))
	add(table, "MarshalText alone", textOnly(1), refusedFor("MarshalText"), refusedFor("MarshalText"))
	add(table, "text methods", textPair{"a"}, kept, kept)
	add(table, "redacted", redacted("secret"), unkept, unkept)
	add(table, "MarshalBinary and UnmarshalText", binaryText{"a"}, refusedFor("MarshalBinary"), refusedFor("MarshalText"))
	add(table, "pointer methods", pin{"1"}, kept, kept)
	add(table, "pointer methods in a map", map[string]pin{"a": {"1"}}, refusedFor("EncodeMsgpack"), refusedFor("digits"))
	add(table, "pointer methods in a slice", []pin{{"1"}}, kept, kept)
	add(table, "IsZero, not zero", omitsEmpty[zeroMoney]{zeroMoney{0, "EUR"}}, unkept, kept)
	add(table, "omitzero, not zero", struct {
		M zeroMoney `json:",omitzero"`
	}{zeroMoney{0, "EUR"}}, kept, unkept)
	add(table, "embedded struct", struct {
		Shown
		A int
	}{Shown{"a"}, 1}, kept, kept)
	add(table, "embedded unexported struct", struct {
		hidden
		A int
	}{hidden{"a"}, 1}, kept, kept)
	add(table, "embedded pointer", struct {
		*Shown
		A int
	}{&Shown{"a"}, 1}, kept, kept)
	add(table, "nil embedded pointer", struct {
		*Shown
		A int
	}{nil, 1}, unkept, kept)
	add(table, "embedded unexported pointer", struct{ *hidden }{&hidden{"a"}}, refusedFor("hidden"), refusedFor("hidden"))
	add(table, "embedded unexported string", struct{ name }{"a"}, refusedFor("name"), refusedFor("name"))
	add(table, "embedded time and a field", struct {
		time.Time
		A int
	}{A: 1}, refusedFor("A is left out"), refusedFor("A is left out"))
	add(table, "name in two embedded structs", struct {
		Shown
		hidden
	}{Shown{"a"}, hidden{"b"}}, kept, refusedFor("Name"))
	add(table, "name hidden by the outer struct", struct {
		base
		ID string
	}{base{"a"}, "b"}, refusedFor("ID"), refusedFor("ID"))
	add(table, "one name by tags", struct {
		A int `json:"B"`
		B int
	}{1, 2}, refusedFor(`"B"`), refusedFor(`"B"`))
	add(table, "names that differ in case", struct{ Ab, AB int }{1, 2}, kept, kept)
	add(table, "tuple", struct {
		_msgpack struct{} `msgpack:",as_array"`
		A, B     int
	}{A: 1, B: 2}, kept, kept)
	for kind, v := range map[string]any{"nil": nil, "string": "a", "bool": true, "float64": 1.5, "list": []any{"a", nil}, "map": map[string]any{"a": 1.5}} {
		add(table, "any with "+kind, v, kept, kept)
	}
	add(table, "any with int64", any(int64(1)), kept, unkept)
	add(table, "any with uint64", any(uint64(1)), kept, unkept)
	add(table, "any with large int64", any(int64(1<<53+1)), kept, unkept)
	for kind, v := range map[string]any{
		"int": 1, "int8": int8(1), "float32": float32(1), "bytes": []byte("a"), "struct": Shown{"a"}, "pointer": new(1),
		"strings": []string{"a"}, "map of ints": map[string]int{"a": 1}, "map with int keys": map[int]any{1: "a"},
		"map with struct keys": map[Shown]string{{"a"}: "b"}, "uuid": uuid.Nil, "duration": time.Second,
		"array": [1]string{"a"}, "func": func() {}, "chan": make(chan int), "named string": name("a"), "nested int": map[string]any{"a": []any{1}},
	} {
		add(table, "any with "+kind, v, unkept, unkept)
	}
	add(table, "map[any]any", map[any]any{"a": "b"}, kept, refusedFor("interface"))
	add(table, "map[any]any with int", map[any]any{1: "b"}, unkept, refusedFor("interface"))
	add(table, "any in a slice", []any{int8(1)}, unkept, unkept)
	add(table, "any in a struct", struct{ Meta map[string]any }{map[string]any{"a": "b"}}, kept, kept)
	add(table, "generic any", pairOf[any, string]{"a", "b"}, kept, kept)
	if table.rows < 55 {
		t.Errorf("%d types", table.rows)
	}
}

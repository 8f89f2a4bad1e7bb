package msgpackx

import (
	"encoding/binary"
	"math"
	"reflect"

	"github.com/vmihailenco/msgpack/v5/msgpcode"

	"github.com/idempotent-go/idempotent/internal/safetext"
	"github.com/idempotent-go/idempotent/internal/shape"
)

// msgpack reads a record into another type than it was written from as well as it can, without a
// word: 5,000,000,000 cents become 705,032,704 in an int32, a renamed field becomes zero. So what was
// decoded is compared with what the type would have been written as. Only what msgpack itself writes
// is looked at, and nothing that a type encodes itself.

// ErrNarrow: a number in a record does not fit into its field.
var ErrNarrow = safetext.Errorf("a number does not fit into its field")

var errMalformed = safetext.Errorf("it is not msgpack")

// check reports why data, which msgpack could decode into a value of n, was not written as one.
func check(data []byte, n *shape.Node) error {
	r := reader{data: data}
	if err := r.value(n, false); err != nil {
		return err
	}
	if r.bad {
		return errMalformed
	}
	return nil
}

type reader struct {
	data    []byte
	bad     bool // data ended too early
	reading shape.Reading
}

func (r *reader) take(n int) []byte {
	if n < 0 || n > len(r.data) {
		r.bad, r.data = true, nil
		return nil
	}
	out := r.data[:n]
	r.data = r.data[n:]
	return out
}

// number takes an unsigned big-endian number of some bytes.
func (r *reader) number(bytes int) uint64 {
	b := r.take(bytes)
	switch len(b) {
	case 1:
		return uint64(b[0])
	case 2:
		return uint64(binary.BigEndian.Uint16(b))
	case 4:
		return uint64(binary.BigEndian.Uint32(b))
	case 8:
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (r *reader) code() byte { return byte(r.number(1)) }

// value checks the next value. mayBeNil is for fields of embedded pointers.
func (r *reader) value(n *shape.Node, mayBeNil bool) error {
	if len(r.data) == 0 {
		r.bad = true
		return nil
	}
	for n != nil && n.Type.Kind() == reflect.Pointer && !n.Opaque {
		mayBeNil, n = true, n.Elem
	}
	if n == nil || n.Opaque || n.Type.Kind() == reflect.Interface {
		r.skip()
		return nil
	}
	c := r.data[0]
	kind := n.Type.Kind()
	if c == msgpcode.Nil {
		r.code()
		if mayBeNil || kind == reflect.Slice || kind == reflect.Map {
			return nil
		}
		return safetext.Errorf("it was written as another type: it is nil, and a %v cannot be", n.Type)
	}
	switch kind {
	case reflect.Struct:
		return r.structure(n)
	case reflect.Map:
		return r.dictionary(n)
	case reflect.Slice, reflect.Array:
		return r.list(n)
	case reflect.String, reflect.Bool:
		r.skip()
		return nil
	}
	return r.numberFor(n)
}

// length takes the head of a list or a map and returns how many elements follow, or -1.
func (r *reader) length(fixedMin, fixedMax, c16, c32 byte) int {
	c := r.data[0]
	switch {
	case fixedMin <= c && c <= fixedMax:
		r.code()
		return int(c & 0x0f)
	case c == c16:
		r.code()
		return int(r.number(2))
	case c == c32:
		r.code()
		return int(r.number(4))
	}
	return -1
}

func (r *reader) mapLength() int {
	return r.length(msgpcode.FixedMapLow, msgpcode.FixedMapHigh, msgpcode.Map16, msgpcode.Map32)
}

func (r *reader) listLength() int {
	return r.length(msgpcode.FixedArrayLow, msgpcode.FixedArrayHigh, msgpcode.Array16, msgpcode.Array32)
}

func (r *reader) structure(n *shape.Node) error {
	if n.Type == timeType {
		return r.time(n)
	}
	if length := r.listLength(); length >= 0 {
		if !n.Tuple || length != len(n.Fields) {
			return safetext.Errorf("it was written as another type: a list of %d is no %v", length, n.Type)
		}
		for _, f := range n.Fields {
			if err := r.value(f.Node, f.ViaPointer); err != nil {
				return err
			}
		}
		return nil
	}
	length := r.mapLength()
	if length < 0 {
		r.skip()
		return nil
	}
	object := n.Object()
	for ; length > 0 && !r.bad; length-- {
		i, known := n.Field(r.text())
		if !known {
			object.SawUnknown()
			r.skip()
			continue
		}
		if !object.Saw(i) {
			return safetext.Errorf("it was written as another type: it has a field of %v twice", n.Type)
		}
		if err := r.value(n.Fields[i].Node, n.Fields[i].ViaPointer); err != nil {
			return err
		}
	}
	return r.reading.Done(&object)
}

func (r *reader) time(n *shape.Node) error {
	if c := r.data[0]; !msgpcode.IsExt(c) {
		return safetext.Errorf("it was written as another type: it has no timestamp for a %v", n.Type)
	}
	r.skip()
	return nil
}

func (r *reader) dictionary(n *shape.Node) error {
	length := r.mapLength()
	if length < 0 {
		r.skip()
		return nil
	}
	for ; length > 0 && !r.bad; length-- {
		if err := r.value(n.Key, false); err != nil {
			return err
		}
		if err := r.value(n.Elem, false); err != nil {
			return err
		}
	}
	return nil
}

func (r *reader) list(n *shape.Node) error {
	length := r.listLength()
	if length < 0 {
		if length = r.bytes(); length < 0 {
			r.skip()
			return nil
		}
		r.take(length)
		return sameLength(n, length)
	}
	if err := sameLength(n, length); err != nil {
		return err
	}
	for ; length > 0 && !r.bad; length-- {
		if err := r.value(n.Elem, false); err != nil {
			return err
		}
	}
	return nil
}

func sameLength(n *shape.Node, length int) error {
	if n.Type.Kind() == reflect.Array && n.Type.Len() != length {
		return safetext.Errorf("it was written as another type: a list of %d is no %v", length, n.Type)
	}
	return nil
}

// bytes takes the head of bytes or a text and returns how many follow, or -1.
func (r *reader) bytes() int {
	switch c := r.data[0]; {
	case msgpcode.IsFixedString(c):
		r.code()
		return int(c & msgpcode.FixedStrMask)
	case c == msgpcode.Str8, c == msgpcode.Bin8:
		r.code()
		return int(r.number(1))
	case c == msgpcode.Str16, c == msgpcode.Bin16:
		r.code()
		return int(r.number(2))
	case c == msgpcode.Str32, c == msgpcode.Bin32:
		r.code()
		return int(r.number(4))
	}
	return -1
}

// text takes a text, such as the name of a field.
func (r *reader) text() []byte {
	if len(r.data) == 0 {
		r.bad = true
		return nil
	}
	length := r.bytes()
	if length < 0 {
		r.skip()
		return nil
	}
	return r.take(length)
}

// numberFor takes a number and checks that the type holds it.
func (r *reader) numberFor(n *shape.Node) error {
	c := r.code()
	switch {
	case msgpcode.IsFixedNum(c):
		return fitsInt(n, int64(int8(c)))
	case c >= msgpcode.Uint8 && c <= msgpcode.Uint64:
		return fitsUint(n, r.number(1<<(c-msgpcode.Uint8)))
	case c >= msgpcode.Int8 && c <= msgpcode.Int64:
		size := 1 << (c - msgpcode.Int8)
		shift := 64 - 8*size
		return fitsInt(n, int64(r.number(size)<<shift)>>shift)
	case c == msgpcode.Float:
		return fitsFloat(n, float64(math.Float32frombits(uint32(r.number(4)))))
	case c == msgpcode.Double:
		return fitsFloat(n, math.Float64frombits(r.number(8)))
	}
	return safetext.Errorf("it was written as another type: it has no number for a %v", n.Type)
}

func narrow(fits bool) error {
	if fits {
		return nil
	}
	return ErrNarrow
}

func fitsInt(n *shape.Node, v int64) error {
	switch zero := reflect.Zero(n.Type); {
	case zero.CanInt():
		return narrow(!zero.OverflowInt(v))
	case zero.CanUint():
		return narrow(v >= 0 && !zero.OverflowUint(uint64(v)))
	}
	f := float64(v)
	return narrow(f < 1<<63 && int64(f) == v && holds(n, f))
}

func fitsUint(n *shape.Node, v uint64) error {
	switch zero := reflect.Zero(n.Type); {
	case zero.CanInt():
		return narrow(v <= math.MaxInt64 && !zero.OverflowInt(int64(v)))
	case zero.CanUint():
		return narrow(!zero.OverflowUint(v))
	}
	f := float64(v)
	return narrow(f < 1<<64 && uint64(f) == v && holds(n, f))
}

func fitsFloat(n *shape.Node, f float64) error {
	switch zero := reflect.Zero(n.Type); {
	case zero.CanFloat():
		return narrow(f != f || holds(n, f))
	case f >= 0 && f < 1<<64 && f == math.Trunc(f):
		return fitsUint(n, uint64(f))
	case f < 0 && f >= -1<<63 && f == math.Trunc(f):
		return fitsInt(n, int64(f))
	}
	return ErrNarrow
}

// holds reports whether a float of the type has the very value.
func holds(n *shape.Node, f float64) bool {
	return n.Type.Bits() == 64 || float64(float32(f)) == f
}

// skip takes a value of any kind.
func (r *reader) skip() {
	for left := 1; left > 0 && !r.bad; left-- {
		if len(r.data) == 0 {
			r.bad = true
			return
		}
		if n := r.mapLength(); n >= 0 {
			left += 2 * n
			continue
		}
		if n := r.listLength(); n >= 0 {
			left += n
			continue
		}
		if n := r.bytes(); n >= 0 {
			r.take(n)
			continue
		}
		r.scalar()
	}
}

func (r *reader) scalar() {
	switch c := r.code(); {
	case c >= msgpcode.Uint8 && c <= msgpcode.Uint64:
		r.take(1 << (c - msgpcode.Uint8))
	case c >= msgpcode.Int8 && c <= msgpcode.Int64:
		r.take(1 << (c - msgpcode.Int8))
	case c == msgpcode.Float:
		r.take(4)
	case c == msgpcode.Double:
		r.take(8)
	case c >= msgpcode.FixExt1 && c <= msgpcode.FixExt16:
		r.take(1 + 1<<(c-msgpcode.FixExt1))
	case c == msgpcode.Ext8:
		r.take(1 + int(r.number(1)))
	case c == msgpcode.Ext16:
		r.take(1 + int(r.number(2)))
	case c == msgpcode.Ext32:
		r.take(1 + int(r.number(4)))
	}
}

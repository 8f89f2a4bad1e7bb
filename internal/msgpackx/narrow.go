package msgpackx

import (
	"bytes"
	"errors"
	"reflect"

	"github.com/vmihailenco/msgpack/v5"
)

// msgpack cuts a number down to the field it is read into, without a word: 5,000,000,000 cents
// become 705,032,704 in an int32. So what was read into a type with fields that may be too narrow
// is written again, and its numbers are compared with those of the record.

var ErrNarrow = errors.New("a number does not fit into its field")

// mayNarrow reports whether a number in a record may not fit into a value of typ. outer are the
// types it is part of.
func MayNarrow(typ reflect.Type, outer map[reflect.Type]bool) bool {
	if outer[typ] || encodesItself(typ) {
		return false
	}
	outer[typ] = true
	defer delete(outer, typ)
	switch typ.Kind() {
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32:
		return typ.Bits() < 64
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr, reflect.Float32:
		return true
	case reflect.Slice, reflect.Array:
		return typ.Elem().Kind() != reflect.Uint8 && MayNarrow(typ.Elem(), outer) // bytes are no numbers
	case reflect.Pointer:
		return MayNarrow(typ.Elem(), outer)
	case reflect.Map:
		return MayNarrow(typ.Key(), outer) || MayNarrow(typ.Elem(), outer)
	case reflect.Struct:
		for field := range typ.Fields() {
			if (field.IsExported() || field.Anonymous) && MayNarrow(field.Type, outer) {
				return true
			}
		}
	}
	return false
}

// narrowed reports whether v, which was read from data, has another number than that.
func Narrowed(data []byte, v any) bool {
	again, err := msgpack.Marshal(v)
	if err != nil || bytes.Equal(again, data) {
		return false
	}
	var was, is any // numbers are int64, uint64 or float64 in these
	if Decoders.Decode(data, &was) != nil || Decoders.Decode(again, &is) != nil {
		return false // a map whose keys are not strings, say
	}
	return numbersDiffer(was, is)
}

// numbersDiffer compares the numbers that both values have in the same place.
func numbersDiffer(was, is any) bool {
	switch was := was.(type) {
	case map[string]any:
		is, _ := is.(map[string]any)
		for key, value := range is {
			if before, there := was[key]; there && numbersDiffer(before, value) {
				return true
			}
		}
	case []any:
		is, _ := is.([]any)
		for i := range min(len(was), len(is)) {
			if numbersDiffer(was[i], is[i]) {
				return true
			}
		}
	case int64, uint64, float64:
		switch is.(type) {
		case int64, uint64, float64:
			return !sameNumber(was, is)
		}
	}
	return false
}

// sameNumber compares numbers of the three types that msgpack reads into an interface.
func sameNumber(a, b any) bool {
	if a == b || a != a && b != b { // NaN
		return true
	}
	switch a := a.(type) {
	case int64:
		switch b := b.(type) {
		case uint64:
			return a >= 0 && uint64(a) == b
		case float64:
			return float64(a) == b
		}
	case uint64:
		switch b := b.(type) {
		case int64:
			return b >= 0 && a == uint64(b)
		case float64:
			return float64(a) == b
		}
	case float64:
		switch b := b.(type) {
		case int64:
			return a == float64(b)
		case uint64:
			return a == float64(b)
		}
	}
	return false
}

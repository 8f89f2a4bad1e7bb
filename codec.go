package idempotent

import (
	"encoding/json"
	"fmt"
	"reflect"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/idempotent-go/idempotent/internal/msgpackx"
	"github.com/idempotent-go/idempotent/internal/record"
)

// A Codec turns results into bytes and back. Every caller but the one that ran fn gets a value
// that went through Encode and Decode, so what a codec does not carry (unexported fields, for
// most) is lost on replay; idemtest.CodecRoundTrip tests that.
//
// A Codec is called by many goroutines at once. Encode must not keep v; Decode must neither
// keep nor change data, which other callers read at the same time. Callers of one process share what
// Decode made of a record where T consists of booleans, numbers, strings, and arrays and structs of
// these; of any other T, each gets a value of its own. Changing the codec, or T, in a way that makes
// records unreadable does not make an operation run again: Run returns ErrCorruptRecord until the
// record expires or is forgotten.
type Codec[T any] interface {
	Encode(v T) ([]byte, error)
	Decode(data []byte) (T, error)
}

func codecOf(c any) record.CodecID {
	if known, ok := c.(interface{ codecID() record.CodecID }); ok {
		return known.codecID()
	}
	return record.CodecCustom
}

// Msgpack is the default codec: MessagePack as github.com/vmihailenco/msgpack/v5 writes it, with
// its struct tags. Inside an interface value, numbers come back as int64, uint64 or float64, and
// bytes as a string. A value that refers to itself is an error, as is a number in a record that does not
// fit into its field.
func Msgpack[T any]() Codec[T] {
	typ := reflect.TypeFor[T]()
	return msgpackCodec[T]{
		mayCycle:  msgpackx.MayCycle(typ, make(map[reflect.Type]bool)),
		mayNarrow: msgpackx.MayNarrow(typ, make(map[reflect.Type]bool)),
	}
}

type msgpackCodec[T any] struct{ mayCycle, mayNarrow bool }

func (msgpackCodec[T]) codecID() record.CodecID { return record.CodecMsgpack }

func (c msgpackCodec[T]) Encode(v T) ([]byte, error) {
	if c.mayCycle && msgpackx.Cycles(reflect.ValueOf(&v), make(map[msgpackx.Place]bool)) {
		return nil, msgpackx.ErrCycle
	}
	return msgpack.Marshal(&v)
}

func (c msgpackCodec[T]) Decode(data []byte) (T, error) {
	var v T
	err := msgpackx.Decoders.Decode(data, &v)
	if err == nil && c.mayNarrow && msgpackx.Narrowed(data, &v) {
		err = msgpackx.ErrNarrow
	}
	return v, err
}

// JSON is the codec of encoding/json. It is larger and slower than msgpack, and can be read by
// people and other languages.
func JSON[T any]() Codec[T] { return jsonCodec[T]{} }

type jsonCodec[T any] struct{}

func (jsonCodec[T]) codecID() record.CodecID { return record.CodecJSON }

func (jsonCodec[T]) Encode(v T) ([]byte, error) { return json.Marshal(&v) }

func (jsonCodec[T]) Decode(data []byte) (T, error) {
	var v T
	err := json.Unmarshal(data, &v)
	return v, err
}

// Raw stores bytes as they are. A nil slice comes back empty.
func Raw[T ~[]byte | ~string]() Codec[T] { return rawCodec[T]{} }

type rawCodec[T ~[]byte | ~string] struct{}

func (rawCodec[T]) codecID() record.CodecID { return record.CodecRaw }

func (rawCodec[T]) Encode(v T) ([]byte, error) { return []byte(v), nil }

func (rawCodec[T]) Decode(data []byte) (T, error) {
	if reflect.TypeFor[T]().Kind() == reflect.String {
		return T(string(data)), nil // one copy
	}
	return T(append([]byte{}, data...)), nil
}

// encodeValue and decodeValue keep a codec that panics from taking the process, or an
// execution's outcome, with it. Their texts hold no part of the value.

func encodeValue[T any](c Codec[T], v T) (data []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			data, err = nil, &causeError{text: fmt.Sprintf("codec %v panicked encoding a %T", codecOf(c), v), cause: panicCause(p)}
		}
	}()
	data, err = c.Encode(v)
	if err != nil {
		return nil, &causeError{text: fmt.Sprintf("codec %v cannot encode a %T", codecOf(c), v), cause: err}
	}
	return data, nil
}

func decodeValue[T any](c Codec[T], rec *record.Record) (v T, err error) {
	if id := codecOf(c); id != rec.Codec {
		return v, fmt.Errorf("%w: it was written with the %v codec, this executor has %v", ErrCorruptRecord, rec.Codec, id)
	}
	defer func() {
		if p := recover(); p != nil {
			err = &causeError{text: fmt.Sprintf("%v: codec %v panicked decoding a %T", ErrCorruptRecord, codecOf(c), v), sentinel: ErrCorruptRecord, cause: panicCause(p)}
		}
	}()
	v, err = c.Decode(rec.Payload)
	if err != nil {
		var zero T
		return zero, &causeError{text: fmt.Sprintf("%v: codec %v cannot decode it as a %T", ErrCorruptRecord, codecOf(c), v), sentinel: ErrCorruptRecord, cause: err}
	}
	return v, nil
}

// copied reports whether assignment copies all of a value of the type: it holds no references but
// strings, which do not change.
func isPlainData(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Array:
		return isPlainData(t.Elem())
	case reflect.Struct:
		for field := range t.Fields() {
			if !isPlainData(field.Type) {
				return false
			}
		}
		return true
	case reflect.String:
		return true
	}
	return reflect.Bool <= t.Kind() && t.Kind() <= reflect.Complex128
}

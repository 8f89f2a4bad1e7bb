package idempotent

import (
	"fmt"
	"reflect"

	"github.com/idempotent-go/idempotent/internal/jsonx"
	"github.com/idempotent-go/idempotent/internal/msgpackx"
	"github.com/idempotent-go/idempotent/internal/record"
	"github.com/idempotent-go/idempotent/internal/safetext"
)

// A Codec turns results into bytes and back. The caller that ran fn has its value; every other one
// gets a value that went through Encode and Decode. docs/values.md says what Msgpack and JSON carry,
// and has codecs for protobuf and CBOR.
//
// A Codec is called by many goroutines at once. Encode must not keep v; Decode must neither
// keep nor change data, which other callers read at the same time. Callers of one process share what
// Decode made of a record where T consists of booleans, numbers, strings, and arrays and structs of
// these; of any other T, each gets a value of its own. Changing the codec, or T, in a way that makes
// records unreadable does not make an operation run again: Run returns ErrCorruptRecord until the
// record expires or is forgotten.
//
// A Codec may also be a TypeChecker and a ValueChecker. One that is neither is trusted with every T.
type Codec[T any] interface {
	Encode(v T) ([]byte, error)
	Decode(data []byte) (T, error)
}

// A TypeChecker is a Codec that knows which types it carries. New calls CheckType and returns its
// error as ErrInvalidOption; name the part of the type that would be lost, and what to do about it.
// WithUncheckedType leaves the call out.
type TypeChecker interface {
	CheckType() error
}

// A ValueChecker is a Codec that can tell whether Decode restores a value. CheckValue is called with
// each value that fn returned and what Encode made of it. A value with an error is not stored, see
// ErrValueNotKept. WithUncheckedType leaves the call out.
type ValueChecker[T any] interface {
	CheckValue(v T, data []byte) error
}

func codecOf(c any) record.CodecID {
	if known, ok := c.(interface{ codecID() record.CodecID }); ok {
		return known.codecID()
	}
	return record.CodecCustom
}

// Msgpack is the default codec: MessagePack as github.com/vmihailenco/msgpack/v5 writes it, with its
// struct tags, and json tags where a field has no msgpack tag. Times come back in UTC.
//
// It refuses what it would change: as a TypeChecker, types of which it would drop a part; as a
// ValueChecker, values in interfaces, and of types that encode themselves, that would come back as
// others; when it decodes, numbers that do not fit into their field and records of another type.
func Msgpack[T any]() Codec[T] { return msgpackCodec[T]{msgpackx.For(reflect.TypeFor[T]())} }

type msgpackCodec[T any] struct{ *msgpackx.Codec }

func (msgpackCodec[T]) codecID() record.CodecID { return record.CodecMsgpack }

func (c msgpackCodec[T]) Encode(v T) ([]byte, error) { return c.Codec.Encode(&v) }

func (c msgpackCodec[T]) Decode(data []byte) (v T, err error) {
	err = c.Codec.Decode(data, &v)
	return v, err
}

func (c msgpackCodec[T]) CheckValue(v T, data []byte) error { return c.Codec.CheckValue(&v, data) }

// JSON is the codec of encoding/json. It is larger and slower than msgpack, and can be read by
// people and other languages. It refuses what it would change, as Msgpack does, and text that is not
// UTF-8.
func JSON[T any]() Codec[T] { return jsonCodec[T]{jsonx.For(reflect.TypeFor[T]())} }

type jsonCodec[T any] struct{ *jsonx.Codec }

func (jsonCodec[T]) codecID() record.CodecID { return record.CodecJSON }

func (c jsonCodec[T]) Encode(v T) ([]byte, error) { return c.Codec.Encode(&v) }

func (c jsonCodec[T]) Decode(data []byte) (v T, err error) {
	err = c.Codec.Decode(data, &v)
	return v, err
}

func (c jsonCodec[T]) CheckValue(v T, data []byte) error { return c.Codec.CheckValue(&v, data) }

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

// checkType asks the codec, if it can say, whether it carries T.
func checkType[T any](c Codec[T]) error {
	checker, ok := c.(TypeChecker)
	if !ok {
		return nil
	}
	err := checker.CheckType()
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: New: codec %v would not bring a %s back as it was: %w; WithUncheckedType accepts that",
		ErrInvalidOption, codecOf(c), typeName[T](), err)
}

// encodeValue and decodeValue keep a codec that panics from taking the process, or an
// execution's outcome, with it. Their texts hold no part of the value.

func encodeValue[T any](c Codec[T], v T, unchecked bool) (data []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			data, err = nil, &causeError{text: fmt.Sprintf("codec %v panicked encoding a %s", codecOf(c), typeName[T]()), cause: panicCause(p)}
		}
	}()
	data, err = c.Encode(v)
	if checker, ok := c.(ValueChecker[T]); ok && err == nil && !unchecked {
		err = checker.CheckValue(v, data)
	}
	if err != nil {
		return nil, &causeError{text: fmt.Sprintf("codec %v cannot encode a %s%s", codecOf(c), typeName[T](), safetext.Of(err)), cause: err}
	}
	return data, nil
}

func decodeValue[T any](c Codec[T], rec *record.Record) (v T, err error) {
	if id := codecOf(c); id != rec.Codec {
		return v, fmt.Errorf("%w: it was written with the %v codec, this executor has %v", ErrCorruptRecord, rec.Codec, id)
	}
	defer func() {
		if p := recover(); p != nil {
			err = &causeError{text: fmt.Sprintf("%v: codec %v panicked decoding a %s", ErrCorruptRecord, codecOf(c), typeName[T]()), sentinel: ErrCorruptRecord, cause: panicCause(p)}
		}
	}()
	v, err = c.Decode(rec.Payload)
	if err != nil {
		var zero T
		return zero, &causeError{text: fmt.Sprintf("%v: codec %v cannot decode it as a %s%s", ErrCorruptRecord, codecOf(c), typeName[T](), safetext.Of(err)), sentinel: ErrCorruptRecord, cause: err}
	}
	return v, nil
}

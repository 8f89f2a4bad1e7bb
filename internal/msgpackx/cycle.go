// Package msgpackx owns the guards around msgpack: cycles, which would overflow the stack, numbers that a
// changed type would narrow, and the pool of decoders. It never reads or writes a record.
package msgpackx

import (
	"encoding"
	"errors"
	"reflect"

	"github.com/vmihailenco/msgpack/v5"
)

// msgpack follows pointers until the stack is full, which ends the process: with fn's effect in
// place, and no record of it. So values that may refer to themselves are looked through before.

var ErrCycle = errors.New("the value refers to itself, or is nested more than 10,000 deep")

const maxDepth = 10_000

var ownEncoders = []reflect.Type{
	reflect.TypeFor[msgpack.CustomEncoder](),
	reflect.TypeFor[msgpack.Marshaler](),
	reflect.TypeFor[encoding.BinaryMarshaler](),
	reflect.TypeFor[encoding.TextMarshaler](),
}

// encodesItself reports whether msgpack leaves values of typ to their own methods.
func encodesItself(typ reflect.Type) bool {
	for _, encoder := range ownEncoders {
		if typ.Implements(encoder) || reflect.PointerTo(typ).Implements(encoder) {
			return true
		}
	}
	return false
}

// mayCycle reports whether a value of typ can refer to itself. outer are the types it is part of.
func MayCycle(typ reflect.Type, outer map[reflect.Type]bool) bool {
	if outer[typ] || typ.Kind() == reflect.Interface {
		return true
	}
	if encodesItself(typ) {
		return false
	}
	outer[typ] = true
	defer delete(outer, typ)
	switch typ.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Array, reflect.Map:
		return MayCycle(typ.Elem(), outer)
	case reflect.Struct:
		for field := range typ.Fields() {
			if (field.IsExported() || field.Anonymous) && MayCycle(field.Type, outer) {
				return true
			}
		}
	}
	return false
}

// A place is something that is referred to, on the way from the value to what is looked at.
type Place struct {
	at  uintptr
	len int
	typ reflect.Type
}

// cycles reports whether v refers to itself.
func Cycles(v reflect.Value, way map[Place]bool) bool {
	if !v.IsValid() || len(way) > maxDepth {
		return v.IsValid()
	}
	if v.Kind() != reflect.Interface && encodesItself(v.Type()) {
		return false
	}
	switch v.Kind() {
	case reflect.Interface:
		return Cycles(v.Elem(), way)
	case reflect.Pointer, reflect.Map, reflect.Slice:
		if v.IsNil() {
			return false
		}
		here := Place{at: v.Pointer(), typ: v.Type()}
		if v.Kind() == reflect.Slice {
			here.len = v.Len()
		}
		if way[here] {
			return here.len > 0 || v.Kind() != reflect.Slice
		}
		way[here] = true
		defer delete(way, here)
		return cyclesIn(v, way)
	case reflect.Array, reflect.Struct:
		return cyclesIn(v, way)
	}
	return false
}

func cyclesIn(v reflect.Value, way map[Place]bool) bool {
	switch v.Kind() {
	case reflect.Pointer:
		return Cycles(v.Elem(), way)
	case reflect.Map, reflect.Slice, reflect.Array:
		for _, element := range v.Seq2() {
			if Cycles(element, way) {
				return true
			}
		}
	case reflect.Struct:
		for field, value := range v.Fields() {
			if (field.IsExported() || field.Anonymous) && Cycles(value, way) {
				return true
			}
		}
	}
	return false
}

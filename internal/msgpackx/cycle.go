package msgpackx

import (
	"reflect"

	"github.com/idempotent-go/idempotent/internal/safetext"
	"github.com/idempotent-go/idempotent/internal/shape"
)

// ErrCycle: msgpack would follow the pointers of the value until the stack is full, which ends the
// process, with fn's effect in place and no record of it.
var ErrCycle = safetext.Errorf("the value refers to itself, or is nested more than 10,000 deep")

const maxDepth = 10_000

// A place is a reference on the path from the value to the part that is looked at.
type place struct {
	at  uintptr
	len int
	typ reflect.Type
}

// cycles reports whether what msgpack writes of v contains v. path holds the references above it.
func cycles(n *shape.Node, v reflect.Value, path map[place]bool) bool {
	switch {
	case len(path) > maxDepth:
		return true
	case n == nil || n.Opaque:
		return false
	}
	switch v.Kind() {
	case reflect.Interface:
		if v.IsNil() {
			return false
		}
		return cycles(shape.Of(v.Elem().Type(), shape.Msgpack).Root, v.Elem(), path)
	case reflect.Pointer, reflect.Map, reflect.Slice:
		if v.IsNil() {
			return false
		}
		here := place{at: v.Pointer(), typ: v.Type()}
		if v.Kind() == reflect.Slice {
			if here.len = v.Len(); here.len == 0 {
				return false
			}
		}
		if path[here] {
			return true
		}
		path[here] = true
		defer delete(path, here)
		return cyclesIn(n, v, path)
	case reflect.Array, reflect.Struct:
		return cyclesIn(n, v, path)
	}
	return false
}

func cyclesIn(n *shape.Node, v reflect.Value, path map[place]bool) bool {
	switch v.Kind() {
	case reflect.Pointer:
		return cycles(n.Elem, v.Elem(), path)
	case reflect.Map:
		for key, element := range v.Seq2() {
			if cycles(n.Key, key, path) || cycles(n.Elem, element, path) {
				return true
			}
		}
	case reflect.Slice, reflect.Array:
		if !mayRefer(n.Elem) {
			return false
		}
		for i := range v.Len() {
			if cycles(n.Elem, v.Index(i), path) {
				return true
			}
		}
	case reflect.Struct:
		for i := range n.Fields {
			if field, err := v.FieldByIndexErr(n.Fields[i].Index); err == nil && cycles(n.Fields[i].Node, field, path) {
				return true
			}
		}
	}
	return false
}

func mayRefer(n *shape.Node) bool {
	return n != nil && (n.Elem != nil || n.Fields != nil || n.Type.Kind() == reflect.Interface)
}

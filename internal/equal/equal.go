// Package equal compares values as the user of a value would: by its type's own Equal or Cmp method,
// times by their instant, NaN with NaN. It owns that comparison, and never changes a value.
package equal

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"unsafe"
)

// Options say how to compare. The zero Options compare everything.
type Options struct {
	// Skip reports whether a field does not count.
	Skip func(reflect.StructField) bool
	// EmptyIsNil: empty slices and maps equal nil ones.
	EmptyIsNil bool
	// Custom compares values of types it knows.
	Custom func(a, b any) (same, known bool)
}

// Difference returns where the values that two pointers of one type point to differ first, as a path
// of fields and why; "" if they are equal. It contains no part of a value.
func (o Options) Difference(a, b any) string {
	c := comparison{Options: o, visited: make(map[visit]bool)}
	if c.same(reflect.ValueOf(a).Elem(), reflect.ValueOf(b).Elem(), "") {
		return ""
	}
	return c.found
}

type comparison struct {
	Options
	visited map[visit]bool
	found   string
}

// A visit is of two references that are being compared, and so equal unless something else differs.
type visit struct {
	a, b unsafe.Pointer
	typ  reflect.Type
}

func (c *comparison) differ(path, why string) bool {
	if c.found == "" {
		if path == "" {
			path = "the value"
		}
		c.found = path + " " + why
	}
	return false
}

// same compares two values that are addressable and not read-only.
func (c *comparison) same(a, b reflect.Value, path string) bool {
	if a.Kind() == reflect.Interface {
		return c.sameInterface(a, b, path)
	}
	if nilable(a.Kind()) && (a.IsNil() || b.IsNil()) {
		return c.sameNil(a, b, path)
	}
	if same, known := c.byMethod(a, b); known {
		return same || c.differ(path, fmt.Sprintf("is another %v", a.Type()))
	}
	switch a.Kind() {
	case reflect.Pointer:
		v := visit{a.UnsafePointer(), b.UnsafePointer(), a.Type()}
		if v.a == v.b || c.visited[v] {
			return true
		}
		c.visited[v] = true
		return c.same(a.Elem(), b.Elem(), path)
	case reflect.Slice, reflect.Array:
		return c.sameList(a, b, path)
	case reflect.Map:
		return c.sameMap(a, b, path)
	case reflect.Struct:
		return c.sameStruct(a, b, path)
	case reflect.Func:
		return c.differ(path, "is a function")
	case reflect.Float32, reflect.Float64:
		return a.Float() == b.Float() || a.Float() != a.Float() && b.Float() != b.Float() || c.differ(path, "is another number")
	}
	return a.Equal(b) || c.differ(path, fmt.Sprintf("is another %v", a.Type()))
}

func nilable(kind reflect.Kind) bool {
	switch kind {
	case reflect.Pointer, reflect.Map, reflect.Slice, reflect.Func, reflect.Chan:
		return true
	}
	return false
}

var rawJSON = reflect.TypeFor[json.RawMessage]()

func (c *comparison) sameNil(a, b reflect.Value, path string) bool {
	switch {
	case a.IsNil() && b.IsNil():
		return true
	case a.Type() == rawJSON:
		return sameJSON(a.Bytes(), b.Bytes()) || c.differ(path, "is other JSON")
	case c.EmptyIsNil && (a.Kind() == reflect.Slice || a.Kind() == reflect.Map) && a.Len() == b.Len():
		return true
	}
	return c.differ(path, "is nil in one of the values")
}

func (c *comparison) sameInterface(a, b reflect.Value, path string) bool {
	if a.IsNil() || b.IsNil() {
		return a.IsNil() == b.IsNil() || c.differ(path, "is nil in one of the values")
	}
	if was, is := a.Elem().Type(), b.Elem().Type(); was != is {
		return c.differ(path, fmt.Sprintf("holds a %v and comes back as a %v", was, is))
	}
	return c.same(addressable(a.Elem()), addressable(b.Elem()), path)
}

func (c *comparison) sameList(a, b reflect.Value, path string) bool {
	if a.Type() == rawJSON {
		return sameJSON(a.Bytes(), b.Bytes()) || c.differ(path, "is other JSON")
	}
	if a.Len() != b.Len() {
		return c.differ(path, "has another length")
	}
	if a.Kind() == reflect.Slice && a.Type().Elem().Kind() == reflect.Uint8 {
		return bytes.Equal(a.Bytes(), b.Bytes()) || c.differ(path, "has other bytes")
	}
	for i := range a.Len() {
		if !c.same(a.Index(i), b.Index(i), path+"[]") {
			return false
		}
	}
	return true
}

func (c *comparison) sameMap(a, b reflect.Value, path string) bool {
	if a.Len() != b.Len() {
		return c.differ(path, "has another length")
	}
	v := visit{a.UnsafePointer(), b.UnsafePointer(), a.Type()}
	if v.a == v.b || c.visited[v] {
		return true
	}
	c.visited[v] = true
	for key, value := range a.Seq2() {
		other := b.MapIndex(key)
		if !other.IsValid() {
			return c.differ(path, "has another key")
		}
		if !c.same(addressable(value), addressable(other), path+"[]") {
			return false
		}
	}
	return true
}

func (c *comparison) sameStruct(a, b reflect.Value, path string) bool {
	for i, field := range fields(a.Type()) {
		if field.Name == "_" || c.Skip != nil && c.Skip(field) {
			continue
		}
		at := field.Name
		if path != "" {
			at = path + "." + at
		}
		if !c.same(reachable(a.Field(i)), reachable(b.Field(i)), at) {
			return false
		}
	}
	return true
}

func fields(typ reflect.Type) func(func(int, reflect.StructField) bool) {
	return func(yield func(int, reflect.StructField) bool) {
		for i := range typ.NumField() {
			if !yield(i, typ.Field(i)) {
				return
			}
		}
	}
}

// byMethod compares by a method of the type or of a pointer to it. One that panics knows nothing.
func (c *comparison) byMethod(a, b reflect.Value) (same, known bool) {
	defer func() {
		if recover() != nil {
			same, known = false, false
		}
	}()
	if c.Custom != nil {
		if same, known := c.Custom(a.Interface(), b.Interface()); known {
			return same, true
		}
	}
	if a.Kind() == reflect.Pointer {
		return call(a, b)
	}
	if a.Type().PkgPath() == "" {
		return false, false // no type with methods
	}
	if same, known := call(a, b); known {
		return same, true
	}
	return call(a.Addr(), b.Addr())
}

func call(a, b reflect.Value) (same, known bool) {
	if m := a.MethodByName("Equal"); m.IsValid() && takes(m.Type(), a.Type(), reflect.Bool) {
		return m.Call(argument(m.Type(), b))[0].Bool(), true
	}
	if m := a.MethodByName("Cmp"); m.IsValid() && takes(m.Type(), a.Type(), reflect.Int) {
		return m.Call(argument(m.Type(), b))[0].Int() == 0, true
	}
	return false, false
}

// takes reports whether a method compares its receiver with another value of its type.
func takes(method, receiver reflect.Type, result reflect.Kind) bool {
	if method.NumIn() != 1 || method.NumOut() != 1 || method.Out(0).Kind() != result || method.IsVariadic() {
		return false
	}
	return method.In(0) == receiver || receiver.Kind() == reflect.Pointer && method.In(0) == receiver.Elem()
}

func argument(method reflect.Type, b reflect.Value) []reflect.Value {
	if method.In(0) != b.Type() {
		b = b.Elem()
	}
	return []reflect.Value{b}
}

// sameJSON compares texts as encoding/json hands them on: without space, with <, > and & escaped.
func sameJSON(a, b []byte) bool {
	var was, is bytes.Buffer
	return bytes.Equal(canonical(&was, a), canonical(&is, b))
}

func canonical(out *bytes.Buffer, text []byte) []byte {
	if len(text) == 0 {
		return []byte("null") // which is how nil is written
	}
	var compact bytes.Buffer
	if json.Compact(&compact, text) != nil {
		return text
	}
	json.HTMLEscape(out, compact.Bytes())
	return out.Bytes()
}

// addressable returns a copy that has an address, as reachable and methods of pointers want it.
func addressable(v reflect.Value) reflect.Value {
	p := reflect.New(v.Type()).Elem()
	p.Set(v)
	return p
}

// reachable makes an unexported field readable like others.
func reachable(field reflect.Value) reflect.Value {
	if field.CanInterface() {
		return field
	}
	return reflect.NewAt(field.Type(), unsafe.Pointer(field.UnsafeAddr())).Elem() //nolint:gosec // read only
}

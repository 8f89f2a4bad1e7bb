package shape

import (
	"encoding"
	"fmt"
	"reflect"
	"slices"
)

// A candidate is a field that encoding/json may write, at some depth of embedding.
type candidate struct {
	Field
	path  string
	given bool
}

// jsonFields follows encoding/json: of the fields with one name, the least nested is written, and
// the others are not; of several at one depth, none, unless one alone has a tag.
func (b *builder) jsonFields(typ reflect.Type, addressable bool, path string) (fields []Field) {
	found := b.candidates(typ, nil, addressable, path, map[reflect.Type]bool{})
	for i, c := range found {
		if hidden := slices.IndexFunc(found, func(other candidate) bool { return other.Name == c.Name }); hidden != i {
			b.refuse(c.path, fmt.Sprintf("has the name %q in the record, as %s has", c.Name, found[hidden].path), "give each a name of its own by a tag")
			continue
		}
		fields = append(fields, c.Field)
	}
	return fields
}

func (b *builder) candidates(typ reflect.Type, index []int, addressable bool, path string, outer map[reflect.Type]bool) (found []candidate) {
	if outer[typ] {
		return nil // it is embedded in itself, where its fields are hidden
	}
	outer[typ] = true
	defer delete(outer, typ)
	for field := range typ.Fields() {
		t := b.tagOf(field)
		if t.skip || b.unwritable(field, path) {
			continue
		}
		at := slices.Concat(index, field.Index)
		inner, pointer := field.Type, false
		if inner.Kind() == reflect.Pointer && inner.Name() == "" {
			inner, pointer = inner.Elem(), true
		}
		if !field.Anonymous || t.given || inner.Kind() != reflect.Struct {
			if !field.IsExported() && field.Anonymous { // an embedded struct with a name
				b.refuse(join(path, field.Name), "is an embedded unexported struct with a name in its tag, which cannot be restored", "export its name")
				continue
			}
			found = append(found, candidate{b.newField(field, t, at, addressable, path), join(path, field.Name), t.given})
			continue
		}
		if pointer {
			b.doubt() // one to an empty struct may come back nil
			if outer[inner] {
				b.refuse(join(path, field.Name), "embeds a struct in itself", "give the field a name")
			}
		}
		for _, c := range b.candidates(inner, at, addressable || pointer, join(path, field.Name), outer) {
			if pointer {
				c.ViaPointer, c.Omitted = true, true
			}
			found = append(found, c)
		}
	}
	return found
}

// mapKey looks at the keys of a map.
func (b *builder) mapKey(n *Node, path string) {
	typ := n.Type.Key()
	if b.format == Msgpack {
		b.msgpackKey(n, typ, path)
		return
	}
	text := typ.Implements(reflect.TypeFor[encoding.TextMarshaler]())
	parses := reflect.PointerTo(typ).Implements(reflect.TypeFor[encoding.TextUnmarshaler]())
	kind := typ.Kind()
	number := reflect.Int <= kind && kind <= reflect.Uintptr
	switch {
	case kind == reflect.Pointer || kind == reflect.Interface:
		b.refuse(path, fmt.Sprintf("is a map with keys of type %v, which JSON cannot restore", typ), "use strings as keys")
	case text && parses, kind == reflect.String && parses:
		b.doubt()
	case text && kind != reflect.String, parses, kind != reflect.String && !number:
		b.refuse(path, fmt.Sprintf("is a map with keys of type %v, which JSON cannot restore", typ), "use strings as keys, or give the type MarshalText and UnmarshalText")
	}
}

func (b *builder) msgpackKey(n *Node, typ reflect.Type, path string) {
	switch typ.Kind() {
	case reflect.Pointer, reflect.Chan:
		b.refuse(path, fmt.Sprintf("is a map with keys of type %v, which come back as other keys", typ), "use what they point to as keys")
		n.Key = &Node{Type: typ, Opaque: true}
		return
	case reflect.Float32, reflect.Float64, reflect.Array, reflect.Struct, reflect.Interface:
		b.doubt()
	}
	n.Key = b.node(typ, false, path+"[key]")
}

package shape

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"unicode"
)

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// A tag is what the struct tag of a field says.
type tag struct {
	name    string
	given   bool // the name is from the tag
	options []string
	skip    bool
}

func (t tag) has(option string) bool { return slices.Contains(t.options, option) }

func (b *builder) tagOf(field reflect.StructField) tag {
	text := field.Tag.Get(b.tag())
	if b.format == Msgpack && text == "" {
		text = field.Tag.Get("json")
	}
	parts := strings.Split(text, ",")
	t := tag{name: strings.TrimSpace(parts[0]), skip: text == "-"}
	if b.format == Msgpack {
		t.skip = t.name == "-"
	} else if t.name = parts[0]; !validName(t.name) {
		t.name = ""
	}
	for _, option := range parts[1:] {
		t.options = append(t.options, strings.TrimSpace(option))
	}
	if t.given = t.name != ""; !t.given {
		t.name = field.Name
	}
	return t
}

// validName is the rule of encoding/json.
func validName(name string) bool {
	for _, c := range name {
		if !strings.ContainsRune("!#$%&()*+-./:;<=>?@[]^_{|}~ ", c) && !unicode.IsLetter(c) && !unicode.IsDigit(c) {
			return false
		}
	}
	return name != ""
}

// LeavesOut reports whether the tag of a field says that the format leaves it out.
func (f Format) LeavesOut(field reflect.StructField) bool {
	b := builder{format: f}
	return b.tagOf(field).skip
}

func (b *builder) structFields(n *Node, addressable bool, path string) {
	if b.format == JSON {
		n.Fields = b.jsonFields(n.Type, addressable, path)
	} else {
		n.Fields = b.msgpackFields(n, n.Type, addressable, path)
	}
	n.names = make(map[string]int, len(n.Fields))
	for i, f := range n.Fields {
		if _, taken := n.names[f.Name]; taken {
			b.refuse(join(path, n.Type.FieldByIndex(f.Index).Name), fmt.Sprintf("has the name %q in the record, as another field has", f.Name), "give each a name of its own by a tag")
		}
		n.names[f.Name] = i
	}
}

// unwritable handles a field that cannot be written, and reports whether it is one.
func (b *builder) unwritable(field reflect.StructField, path string) bool {
	if field.IsExported() {
		return false
	}
	if field.Anonymous {
		typ := field.Type
		if typ.Kind() == reflect.Pointer && typ.Elem().Kind() == reflect.Struct {
			b.refuse(join(path, field.Name), fmt.Sprintf("is an embedded pointer to the unexported %v, which cannot be restored", typ.Elem()), "embed the struct itself, or export its name")
			return true
		}
		if typ.Kind() == reflect.Struct {
			return false
		}
	}
	if field.Type.Size() > 0 && field.Name != "_" {
		b.refuse(join(path, field.Name), fmt.Sprintf("is not exported, and %v leaves it out", b.format),
			fmt.Sprintf("export it, give its struct the methods %s, or %s", b.methods(), b.leaveOut()))
	}
	return true
}

func (b *builder) methods() string {
	p := pairs[b.format][0]
	return p.encode() + " and " + p.decode()
}

// zeroer is what both formats ask whether a field is to be omitted.
var zeroer = reflect.TypeFor[interface{ IsZero() bool }]()

func (b *builder) newField(field reflect.StructField, t tag, index []int, addressable bool, path string) Field {
	f := Field{Name: t.name, Index: index}
	f.Omitted = t.has("omitempty") || t.has("omitzero")
	if f.Omitted && field.Type != timeType && (field.Type.Implements(zeroer) || reflect.PointerTo(field.Type).Implements(zeroer)) {
		b.doubt() // it may call zero what is not
	}
	f.Quoted = b.format == JSON && t.has("string")
	f.Node = b.node(field.Type, addressable, join(path, field.Name))
	return f
}

// msgpackFields follows getFields of msgpack.
func (b *builder) msgpackFields(n *Node, typ reflect.Type, addressable bool, path string) (fields []Field) {
	omitAll := false
	for field := range typ.Fields() {
		t := b.tagOf(field)
		if t.skip {
			continue
		}
		if field.Name == "_msgpack" {
			n.Tuple = n.Tuple || t.has("as_array") || t.has("asArray")
			omitAll = omitAll || t.has("omitempty")
			continue
		}
		if b.unwritable(field, path) {
			continue
		}
		if omitAll {
			t.options = append(t.options, "omitempty")
		}
		if t.has("intern") {
			b.doubt()
			fields = append(fields, Field{Name: t.name, Index: field.Index, Node: &Node{Type: field.Type, Opaque: true}, Omitted: t.has("omitempty")})
			continue
		}
		if inner, ok := b.inlined(field, t, fields, addressable, path); ok {
			fields = append(fields, inner...)
			continue
		}
		if field.Anonymous && !field.IsExported() && b.opaque(field.Type) {
			b.refuse(join(path, field.Name), fmt.Sprintf("is the embedded unexported %v, which encodes itself", field.Type), "export its name")
		}
		fields = append(fields, b.newField(field, t, field.Index, addressable, path))
	}
	return fields
}

func (b *builder) opaque(typ reflect.Type) bool {
	encoder, _ := b.method(typ, func(p pair) reflect.Type { return p.encoder })
	decoder, _ := b.method(typ, func(p pair) reflect.Type { return p.decoder })
	return encoder != nil || decoder != nil || typ == timeType
}

// inlined returns the fields of an embedded struct that msgpack writes as fields of the outer one.
// Where names are shared, it keeps the struct as a field.
func (b *builder) inlined(field reflect.StructField, t tag, before []Field, addressable bool, path string) (fields []Field, ok bool) {
	typ, pointer := field.Type, false
	if typ.Kind() == reflect.Pointer {
		typ, pointer = typ.Elem(), true
	}
	if !field.Anonymous || t.has("noinline") || typ.Kind() != reflect.Struct || b.opaque(typ) || isProto(typ) {
		return nil, false
	}
	k := nodeKey{typ, false}
	if b.open[k] && pointer {
		b.refuse(join(path, field.Name), "embeds a struct in itself", "give the field a name")
		return nil, true
	}
	b.open[k] = true
	defer delete(b.open, k)
	inner := b.msgpackFields(new(Node), typ, addressable || pointer, join(path, field.Name))
	for _, f := range inner {
		if shared := slices.ContainsFunc(before, func(other Field) bool { return other.Name == f.Name }); shared {
			if t.has("inline") {
				b.refuse(join(path, field.Name), fmt.Sprintf("is inlined, and its field %q is hidden by another one", f.Name), "give each a name of its own by a tag")
			}
			return nil, false
		}
	}
	for _, f := range inner {
		f.Index = slices.Concat(field.Index, f.Index)
		if pointer {
			f.ViaPointer, f.Omitted = true, true
		}
		fields = append(fields, f)
	}
	if pointer {
		b.doubt() // nil comes back as a pointer to zero
	}
	return fields, true
}

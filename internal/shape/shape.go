// Package shape describes how an encoding writes the values of a Go type, and says what of them it
// cannot carry. It owns the rules of tags, embedded structs and types that encode themselves. It
// never encodes or decodes a value.
package shape

import (
	"encoding/json"
	"fmt"
	"reflect"
	"sync"
	"time"

	"github.com/idempotent-go/idempotent/internal/safetext"
)

// A Format is an encoding whose rules are known.
type Format uint8

const (
	// Msgpack is github.com/vmihailenco/msgpack/v5 with json tags where there is no msgpack tag.
	Msgpack Format = iota
	// JSON is encoding/json.
	JSON
)

func (f Format) String() string {
	if f == JSON {
		return "JSON"
	}
	return "msgpack"
}

// A Shape is what a Format makes of a type.
type Shape struct {
	Root *Node
	// Problem says why values of the type do not come back as they were; nil if they do, or may.
	Problem error
	// Doubtful: whether a value comes back as it was depends on the value.
	Doubtful bool
	// MayCycle: a value may refer to itself.
	MayCycle bool
}

// A Node describes the values of one type.
type Node struct {
	Type reflect.Type
	// Opaque values are written or read by methods of the type: nothing is known of the bytes.
	Opaque bool
	// Elem and Key are of pointers, slices, arrays and maps.
	Elem, Key *Node
	// Fields are of structs. Tuple structs are written as an array of them.
	Fields []Field
	Tuple  bool
	// HasTime: a time.Time may be in the value.
	HasTime bool

	names map[string]int
}

// A Field is a field of a struct, or of a struct that is embedded in it.
type Field struct {
	Name  string // in the record
	Index []int
	Node  *Node
	// Omitted: the field may be absent from a record of the very type.
	Omitted bool
	// ViaPointer: the field belongs to an embedded pointer, which may be nil.
	ViaPointer bool
	// Quoted: JSON writes the value as a string.
	Quoted bool
}

// Field finds a field by its name in a record.
func (n *Node) Field(name []byte) (i int, ok bool) {
	i, ok = n.names[string(name)]
	return i, ok
}

type key struct {
	typ    reflect.Type
	format Format
}

var known sync.Map // key: *Shape

// Of returns the shape of a type.
func Of(typ reflect.Type, format Format) *Shape {
	if s, ok := known.Load(key{typ, format}); ok {
		return s.(*Shape)
	}
	b := builder{format: format, shape: new(Shape), nodes: make(map[nodeKey]*Node), open: make(map[nodeKey]bool)}
	b.shape.Root = b.node(typ, true, "")
	b.spreadTimes()
	s, _ := known.LoadOrStore(key{typ, format}, b.shape)
	return s.(*Shape)
}

// A builder visits each type that is part of another one once, so types may be recursive.
type builder struct {
	format Format
	shape  *Shape
	nodes  map[nodeKey]*Node
	open   map[nodeKey]bool // being visited
}

type nodeKey struct {
	typ reflect.Type
	// addressable values are written by methods of the pointer, too.
	addressable bool
}

// refuse records the first problem: the path of a field, what is wrong with it, and what to do.
func (b *builder) refuse(path, what, do string) {
	if b.shape.Problem != nil {
		return
	}
	subject := "it"
	if path != "" {
		subject = "its field " + path
	}
	b.shape.Problem = safetext.Errorf("%s %s; %s", subject, what, do)
}

func (b *builder) doubt() { b.shape.Doubtful = true }

func (b *builder) node(typ reflect.Type, addressable bool, path string) *Node {
	k := nodeKey{typ, addressable}
	if n := b.nodes[k]; n != nil {
		b.shape.MayCycle = b.shape.MayCycle || b.open[k]
		return n
	}
	n := &Node{Type: typ}
	b.nodes[k] = n
	b.open[k] = true
	defer delete(b.open, k)
	if b.leaf(n, path) || b.encodesItself(n, addressable, path) {
		return n
	}
	switch typ.Kind() {
	case reflect.Pointer:
		n.Elem = b.node(typ.Elem(), true, path)
		if nilable(typ.Elem().Kind()) {
			b.doubt() // a pointer to nil is written as nil
		}
	case reflect.Slice:
		n.Elem = b.node(typ.Elem(), true, path+"[]")
	case reflect.Array:
		n.Elem = b.node(typ.Elem(), addressable, path+"[]")
	case reflect.Map:
		b.mapKey(n, path)
		n.Elem = b.node(typ.Elem(), false, path+"[]")
	case reflect.Struct:
		b.structFields(n, addressable, path)
	}
	return n
}

var (
	timeType   = reflect.TypeFor[time.Time]()
	numberType = reflect.TypeFor[json.Number]()
)

// leaf handles the types that are not looked into, and reports whether n is one.
func (b *builder) leaf(n *Node, path string) bool {
	if n.Type == timeType {
		n.HasTime = true
		if b.format == JSON {
			b.doubt() // a zone with seconds, a year above 9999
		}
		return true
	}
	if n.Type == numberType && b.format == JSON {
		b.doubt() // an empty one is written as 0
	}
	if isProto(n.Type) {
		n.Opaque = true
		b.refuse(path, fmt.Sprintf("is the protobuf message %v, which %v does not carry", n.Type, b.format),
			"give WithCodec a codec that calls proto.Marshal; docs/values.md has one in ten lines")
		return true
	}
	switch kind := n.Type.Kind(); kind {
	case reflect.Interface:
		n.HasTime, b.shape.MayCycle = true, true
		b.doubt()
		if n.Type.NumMethod() > 0 {
			n.Opaque = true
			b.refuse(path, fmt.Sprintf("is the interface %v, and a record does not say which type to restore", n.Type),
				"use a struct, or a codec that knows the types")
		}
		return true
	case reflect.Func, reflect.Chan, reflect.UnsafePointer, reflect.Complex64, reflect.Complex128:
		if b.encodesItself(n, true, path) {
			return true
		}
		n.Opaque = true
		b.refuse(path, fmt.Sprintf("is a %v (%v), which %v does not carry", kind, n.Type, b.format), b.leaveOut())
		return true
	case reflect.Uintptr:
		if b.format == Msgpack {
			n.Opaque = true
			b.refuse(path, "is a uintptr, which msgpack does not carry", "use a uint64")
		}
		return true
	}
	return false
}

// leaveOut says how to have a field left out on purpose.
func (b *builder) leaveOut() string {
	return fmt.Sprintf("tag it `%s:\"-\"` if later callers can do without it", b.tag())
}

func (b *builder) tag() string {
	if b.format == JSON {
		return "json"
	}
	return "msgpack"
}

// isProto reports whether typ, or a pointer to it, is a protobuf message.
func isProto(typ reflect.Type) bool {
	_, reflects := typ.MethodByName("ProtoReflect")
	if !reflects && typ.Kind() != reflect.Interface && typ.Kind() != reflect.Pointer {
		_, reflects = reflect.PointerTo(typ).MethodByName("ProtoReflect")
	}
	return reflects || typ.Kind() == reflect.Struct && reflect.PointerTo(typ).Implements(reflect.TypeFor[interface{ ProtoMessage() }]())
}

func nilable(kind reflect.Kind) bool {
	switch kind {
	case reflect.Pointer, reflect.Slice, reflect.Map, reflect.Interface:
		return true
	}
	return false
}

// spreadTimes marks what a time.Time may be in.
func (b *builder) spreadTimes() {
	for changed := true; changed; {
		changed = false
		for _, n := range b.nodes {
			if !n.HasTime && n.timeBelow() {
				n.HasTime, changed = true, true
			}
		}
	}
}

func (n *Node) timeBelow() bool {
	if n.Elem != nil && n.Elem.HasTime || n.Key != nil && n.Key.HasTime {
		return true
	}
	for _, f := range n.Fields {
		if f.Node.HasTime {
			return true
		}
	}
	return false
}

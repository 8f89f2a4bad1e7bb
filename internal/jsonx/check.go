package jsonx

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strconv"
	"strings"

	"github.com/idempotent-go/idempotent/internal/safetext"
	"github.com/idempotent-go/idempotent/internal/shape"
)

// encoding/json reads a record into another type than it was written from as well as it can, without
// a word: a renamed field becomes zero, a list is cut to the length of an array, a large integer is
// rounded to a float64. So the text is compared with what the type would have been written as.

// ErrInexact: a number in a record does not fit into its field.
var ErrInexact = safetext.Errorf("a number does not fit into its field")

// check reports why data, which encoding/json could decode into a value of n, was not written as one.
func check(data []byte, n *shape.Node) error {
	s := scanner{data: data}
	return s.value(n, false)
}

// A scanner goes through JSON that is known to be valid.
type scanner struct {
	data    []byte
	reading shape.Reading
}

// peek skips space and returns the next byte, or 0.
func (s *scanner) peek() byte {
	for len(s.data) > 0 {
		switch c := s.data[0]; c {
		case ' ', '\t', '\r', '\n', ',', ':':
			s.data = s.data[1:]
		default:
			return c
		}
	}
	return 0
}

// value checks the next value. mayBeNil is for fields of embedded pointers.
func (s *scanner) value(n *shape.Node, mayBeNil bool) error {
	for n != nil && n.Type.Kind() == reflect.Pointer && !n.Opaque {
		mayBeNil, n = true, n.Elem
	}
	switch c := s.peek(); {
	case n == nil || n.Opaque:
		s.skip()
		return nil
	case c == 'n':
		s.literal()
		if kind := n.Type.Kind(); mayBeNil || kind == reflect.Slice || kind == reflect.Map || kind == reflect.Interface {
			return nil
		}
		return safetext.Errorf("it was written as another type: it is null, and a %v cannot be", n.Type)
	case c == '{':
		return s.object(n)
	case c == '[':
		return s.list(n)
	case c == '"':
		s.text()
		return nil
	case c == 't', c == 'f':
		s.literal()
		return nil
	}
	return fits(n.Type, s.literal())
}

func (s *scanner) object(n *shape.Node) error {
	s.data = s.data[1:]
	if n.Type.Kind() != reflect.Struct {
		element := n.Elem
		if n.Type.Kind() == reflect.Interface {
			element = n
		}
		for s.peek() != '}' {
			s.text()
			if err := s.value(element, false); err != nil {
				return err
			}
		}
		s.data = s.data[1:]
		return nil
	}
	object := n.Object()
	for s.peek() != '}' {
		i, known := field(n, s.text())
		if !known {
			object.SawUnknown()
			s.skip()
			continue
		}
		if !object.Saw(i) {
			return safetext.Errorf("it was written as another type: it has a field of %v twice", n.Type)
		}
		f := &n.Fields[i]
		if f.Quoted {
			s.skip()
		} else if err := s.value(f.Node, f.ViaPointer); err != nil {
			return err
		}
	}
	s.data = s.data[1:]
	return s.reading.Done(&object)
}

// field finds a field as encoding/json does: by its name or, if there is none, in any case.
func field(n *shape.Node, quoted []byte) (int, bool) {
	name := quoted[1 : len(quoted)-1]
	if bytes.IndexByte(name, '\\') >= 0 {
		var plain string
		if json.Unmarshal(quoted, &plain) == nil {
			name = []byte(plain)
		}
	}
	if i, ok := n.Field(name); ok {
		return i, true
	}
	for i := range n.Fields {
		if strings.EqualFold(n.Fields[i].Name, string(name)) {
			return i, true
		}
	}
	return 0, false
}

func (s *scanner) list(n *shape.Node) error {
	s.data = s.data[1:]
	element, length := n.Elem, 0
	if n.Type.Kind() == reflect.Interface {
		element = n
	}
	for s.peek() != ']' {
		if err := s.value(element, false); err != nil {
			return err
		}
		length++
	}
	s.data = s.data[1:]
	if n.Type.Kind() == reflect.Array && n.Type.Len() != length {
		return safetext.Errorf("it was written as another type: a list of %d is no %v", length, n.Type)
	}
	return nil
}

// text takes a string, with its quotes.
func (s *scanner) text() []byte {
	s.peek()
	for i := 1; i < len(s.data); i++ {
		switch s.data[i] {
		case '\\':
			i++
		case '"':
			out := s.data[:i+1]
			s.data = s.data[i+1:]
			return out
		}
	}
	s.data = nil
	return []byte(`""`)
}

// literal takes a number, true, false or null.
func (s *scanner) literal() []byte {
	end := bytes.IndexAny(s.data, " \t\r\n,:]}")
	if end < 0 {
		end = len(s.data)
	}
	out := s.data[:end]
	s.data = s.data[end:]
	return out
}

// skip takes a value of any kind.
func (s *scanner) skip() {
	for depth := 0; ; {
		switch s.peek() {
		case 0:
			return
		case '{', '[':
			depth++
			s.data = s.data[1:]
		case '}', ']':
			depth--
			s.data = s.data[1:]
		case '"':
			s.text()
		default:
			s.literal()
		}
		if depth == 0 {
			return
		}
	}
}

// fits reports ErrInexact for a number that is rounded where it is read into a float of the type, or
// into an interface, where it becomes a float64. encoding/json itself refuses what does not fit into
// an integer.
func fits(typ reflect.Type, number []byte) error {
	bits := 64
	switch typ.Kind() {
	case reflect.Interface, reflect.Float64:
	case reflect.Float32:
		bits = 32
	default:
		return nil
	}
	f, err := strconv.ParseFloat(string(number), bits)
	if err != nil {
		return err
	}
	var buf [32]byte
	shortest := strconv.AppendFloat(buf[:0], f, 'e', -1, bits)
	if sameDecimal(number, shortest) {
		return nil
	}
	return ErrInexact
}

// sameDecimal compares two decimal numbers, as JSON and strconv write them.
func sameDecimal(a, b []byte) bool {
	digitsA, pointA := decimal(a)
	digitsB, pointB := decimal(b)
	return digitsA == digitsB && (pointA == pointB || digitsA == "" || digitsA == "-")
}

// decimal returns the sign and the digits of a number, without zeros at both ends, and where its
// decimal point is, counted from the first digit.
func decimal(number []byte) (digits string, point int) {
	text := string(number)
	sign := ""
	if strings.HasPrefix(text, "-") {
		sign, text = "-", text[1:]
	}
	if i := strings.IndexAny(text, "eE"); i >= 0 {
		point, _ = strconv.Atoi(text[i+1:])
		text = text[:i]
	}
	whole, fraction, _ := strings.Cut(text, ".")
	digits = whole + fraction
	trimmed := strings.TrimLeft(digits, "0")
	point += len(whole) - (len(digits) - len(trimmed))
	return sign + strings.TrimRight(trimmed, "0"), point
}

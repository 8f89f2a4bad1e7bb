package idempotent

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"

	"github.com/vmihailenco/msgpack/v5"
)

// An ErrorRegistry says which errors come back as themselves when they are replayed. It knows
// them by codes, which are stored in Redis: a code must keep its meaning for as long as records
// live, across versions of a program and between programs that share keys.
type ErrorRegistry struct {
	defs map[string]ErrorDef
	list []ErrorDef
	err  error
}

// An ErrorDef is one error, or one type of errors, of an ErrorRegistry. Sentinel and ErrorType
// make them.
type ErrorDef struct {
	code string
	err  error
	// find returns the errors in the tree of err that this definition covers, as stored data.
	find func(err error) [][]byte
	// restore makes the error of one such datum.
	restore func(data []byte) (error, error)
}

// NewErrorRegistry makes a registry. A definition that cannot be used (an empty or repeated code,
// a nil sentinel, a type that cannot be restored) is reported by New, as ErrInvalidOption.
func NewErrorRegistry(defs ...ErrorDef) *ErrorRegistry {
	r := &ErrorRegistry{defs: make(map[string]ErrorDef, len(defs)), list: defs}
	for _, d := range defs {
		switch _, taken := r.defs[d.code]; {
		case d.code == "":
			r.err = errors.Join(r.err, invalid("ErrorRegistry", "code", `""`, "a text that is not empty"))
		case d.err != nil:
			r.err = errors.Join(r.err, d.err)
		case taken:
			r.err = errors.Join(r.err, invalid("ErrorRegistry", "code", fmt.Sprintf("%q, used twice", d.code), "one definition for each code"))
		}
		r.defs[d.code] = d
	}
	return r
}

// Sentinel registers one error value, such as var ErrDeclined = errors.New("declined"). A replayed
// error matches it, by errors.Is, when the error that fn returned did.
func Sentinel(code string, err error) ErrorDef {
	d := ErrorDef{code: code}
	switch {
	case err == nil:
		d.err = invalid("Sentinel", code, "nil", "an error")
	case !reflect.TypeOf(err).Comparable():
		d.err = invalid("Sentinel", code, fmt.Sprintf("a %T", err), "an error that can be compared; ErrorType registers a type")
	}
	d.find = func(in error) [][]byte {
		if errors.Is(in, err) {
			return [][]byte{nil}
		}
		return nil
	}
	d.restore = func([]byte) (error, error) { return err, nil }
	return d
}

// ErrorType registers the error type E, a struct or a pointer to one. Its exported fields travel
// as encoding/json writes them, so `json` tags apply. A replayed error yields, by errors.As, an E
// with these fields for each E in the error that fn returned.
func ErrorType[E error](code string) ErrorDef {
	d := ErrorDef{code: code}
	typ := reflect.TypeFor[E]()
	if problem := unrestorable(typ); problem != "" {
		d.err = invalid("ErrorType", code, fmt.Sprintf("%v, %s", typ, problem), `a struct, or a pointer to one, whose exported fields encoding/json restores; tag others with json:"-"`)
	}
	d.find = func(in error) (found [][]byte) {
		walkErrors(in, 0, func(node error) {
			e, ok := node.(E)
			if !ok || isNil(reflect.ValueOf(e)) {
				return
			}
			if data, err := json.Marshal(e); err == nil {
				found = append(found, data)
			}
		})
		if found == nil { // an As method may make an E of another type
			if e, ok := errors.AsType[E](in); ok && !isNil(reflect.ValueOf(e)) {
				if data, err := json.Marshal(e); err == nil {
					found = append(found, data)
				}
			}
		}
		return found
	}
	d.restore = func(data []byte) (error, error) {
		var e E
		if err := json.Unmarshal(data, &e); err != nil {
			return nil, err
		}
		if isNil(reflect.ValueOf(e)) {
			return nil, errors.New("a nil error was stored")
		}
		return e, nil
	}
	return d
}

// unrestorable says why values of typ do not survive encoding/json, or "".
func unrestorable(typ reflect.Type) string {
	if typ.Kind() == reflect.Interface {
		return "an interface"
	}
	if typ.Implements(reflect.TypeFor[json.Unmarshaler]()) || reflect.PointerTo(typ).Implements(reflect.TypeFor[json.Unmarshaler]()) {
		return ""
	}
	if typ.Kind() == reflect.Pointer {
		typ = typ.Elem()
	}
	if typ.Kind() != reflect.Struct {
		return "" // a string, a number: json restores it
	}
	for field := range typ.Fields() {
		if !field.IsExported() || field.Tag.Get("json") == "-" {
			continue
		}
		switch t := field.Type; {
		case t.Kind() == reflect.Interface && t.NumMethod() > 0, t.Kind() == reflect.Func, t.Kind() == reflect.Chan:
			return fmt.Sprintf("whose field %s is a %v", field.Name, t)
		}
	}
	return ""
}

func isNil(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Pointer, reflect.Map, reflect.Slice, reflect.Interface, reflect.Func, reflect.Chan:
		return v.IsNil()
	}
	return false
}

// maxErrorDepth keeps an error that wraps itself from taking the process down.
const maxErrorDepth = 1000

// walkErrors visits err and what it wraps, in the order errors.As does.
func walkErrors(err error, depth int, visit func(error)) {
	if err == nil || depth > maxErrorDepth {
		return
	}
	visit(err)
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		walkErrors(e.Unwrap(), depth+1, visit)
	case interface{ Unwrap() []error }:
		for _, inner := range e.Unwrap() {
			walkErrors(inner, depth+1, visit)
		}
	}
}

// A storedError is the payload of an outcomeError or outcomePanic.
type storedError struct {
	Text  string        `msgpack:"t"`
	Stack []byte        `msgpack:"s,omitempty"`
	Known []storedMatch `msgpack:"k,omitempty"`
}

// A storedMatch is one registered error found in the tree. A flat list will do: errors.Is and
// errors.As look for matches, not for the shape of the tree.
type storedMatch struct {
	Code string `msgpack:"c"`
	Data []byte `msgpack:"d,omitempty"`
}

const maxStoredStack = 4 << 10

func (r *ErrorRegistry) encode(err error) []byte {
	s := storedError{Text: errorText(err), Known: r.find(err)}
	if p, ok := err.(*PanicError); ok {
		s.Text = fmt.Sprint(p.Value)
		s.Stack = p.Stack[:min(len(p.Stack), maxStoredStack)]
	}
	data, encErr := msgpack.Marshal(&s)
	if encErr != nil { // strings and bytes always encode
		panic(encErr)
	}
	return data
}

// find lists the registered errors in err. Methods of foreign errors that panic hide their
// matches, and no more than that.
func (r *ErrorRegistry) find(err error) (known []storedMatch) {
	for _, d := range r.list {
		func() {
			defer func() { _ = recover() }()
			for _, data := range d.find(err) {
				known = append(known, storedMatch{Code: d.code, Data: data})
			}
		}()
	}
	return known
}

// decode makes the error of a recorded one. A registered error that is not registered any more,
// or that cannot be restored, costs its matches; text and ErrReplayed remain.
func (r *ErrorRegistry) decode(rec *record) error {
	var s storedError
	if err := msgpack.Unmarshal(rec.payload, &s); err != nil {
		return &causeError{text: fmt.Sprintf("%v: its error does not decode", ErrCorruptRecord), sentinel: ErrCorruptRecord, cause: err}
	}
	e := &replayedError{text: s.Text}
	if rec.outcome == outcomePanic {
		p := &PanicError{Value: s.Text, Stack: s.Stack}
		e.text = p.Error()
		e.known = append(e.known, p)
	}
	for _, m := range s.Known {
		d, ok := r.defs[m.Code]
		if !ok {
			continue
		}
		if known, err := restore(d, m.Data); err == nil {
			e.known = append(e.known, known)
		}
	}
	return e
}

func restore(d ErrorDef, data []byte) (known, err error) {
	defer func() {
		if p := recover(); p != nil {
			known, err = nil, panicCause(p)
		}
	}()
	return d.restore(data)
}

// replayedError has the text of a recorded error and wraps the registered errors found in it.
type replayedError struct {
	text  string
	known []error
}

func (e *replayedError) Error() string        { return e.text }
func (e *replayedError) Is(target error) bool { return target == ErrReplayed }
func (e *replayedError) Unwrap() []error      { return e.known }

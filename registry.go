package idempotent

import (
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/idempotent-go/idempotent/internal/errtree"
	"github.com/idempotent-go/idempotent/internal/record"
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
	// match stores the node of an error tree, if this definition covers it.
	match func(node error) (data []byte, ok bool, err error)
	// foreign says that the error is another package's, and not a statement of the program's own about
	// what its fn did.
	foreign bool
	// once says that one match is as good as many.
	once bool
	// restore makes the error of what match stored.
	restore func(data []byte) (error, error)
}

// NewErrorRegistry makes a registry. A definition that cannot be used (an empty or repeated code,
// a nil sentinel, a type that cannot be restored) is reported by New, as ErrInvalidOption.
func NewErrorRegistry(defs ...ErrorDef) *ErrorRegistry {
	r := &ErrorRegistry{defs: make(map[string]ErrorDef, len(defs)), list: slices.Clone(defs)}
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
	d := ErrorDef{code: code, once: true}
	switch {
	case err == nil:
		d.err = invalid("Sentinel", code, "nil", "an error")
	case !reflect.ValueOf(err).Comparable():
		d.err = invalid("Sentinel", code, fmt.Sprintf("a %T", err), "an error that can be compared; ErrorType registers a type")
	}
	d.match = func(node error) ([]byte, bool, error) { return nil, errtree.Matches(node, err), nil }
	d.restore = func([]byte) (error, error) { return err, nil }
	return d
}

// ErrorType registers the error type E, a struct or a pointer to one. Its exported fields travel
// as encoding/json writes them, so `json` tags apply; what is not exported is lost, and so are
// methods that need it. A replayed error yields, by errors.As, an E with these fields for each E
// in the error that fn returned.
func ErrorType[E error](code string) ErrorDef {
	d := ErrorDef{code: code}
	typ := reflect.TypeFor[E]()
	if problem := unrestorable(typ); problem != "" {
		d.err = invalid("ErrorType", code, fmt.Sprintf("%v, %s", typ, problem), `a struct, or a pointer to one, whose exported fields encoding/json restores; tag others with json:"-"`)
	}
	d.match = func(node error) ([]byte, bool, error) {
		e, ok := node.(E) //nolint:errorlint // one node of the tree that Walk visits
		if as, own := node.(interface{ As(any) bool }); !ok && own {
			ok = as.As(&e)
		}
		if !ok || isNil(reflect.ValueOf(e)) {
			return nil, false, nil
		}
		data, err := json.Marshal(e)
		return data, true, err
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
func unrestorable(typ reflect.Type) string { return unrestorableIn(typ, make(map[reflect.Type]bool)) }

func unrestorableIn(typ reflect.Type, seen map[reflect.Type]bool) string {
	if seen[typ] {
		return ""
	}
	seen[typ] = true
	if reflect.PointerTo(typ).Implements(reflect.TypeFor[json.Unmarshaler]()) || reflect.PointerTo(typ).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()) {
		return ""
	}
	switch typ.Kind() {
	case reflect.Func, reflect.Chan, reflect.UnsafePointer, reflect.Complex64, reflect.Complex128:
		return fmt.Sprintf("which is or has a %v", typ)
	case reflect.Interface:
		if typ.NumMethod() > 0 {
			return fmt.Sprintf("which is or has the interface %v", typ)
		}
	case reflect.Pointer, reflect.Slice, reflect.Array, reflect.Map:
		return unrestorableIn(typ.Elem(), seen)
	case reflect.Struct:
		return unrestorableField(typ, seen)
	}
	return ""
}

func unrestorableField(typ reflect.Type, seen map[reflect.Type]bool) string {
	for field := range typ.Fields() {
		if !field.IsExported() || field.Tag.Get("json") == "-" {
			continue
		}
		if problem := unrestorableIn(field.Type, seen); problem != "" {
			return fmt.Sprintf("field %s of which %s", field.Name, strings.TrimPrefix(problem, "which "))
		}
	}
	return ""
}

// maxMatches is how many errors of one type are stored; errors.As finds the first one.
const maxMatches = 100

// A storedError is the payload of an outcomeError or outcomePanic.
type storedError struct {
	Text  string        `msgpack:"t"`
	Stack []byte        `msgpack:"s,omitempty"`
	Known []storedMatch `msgpack:"k,omitempty"`
	Retry bool          `msgpack:"r,omitempty"` // IsRetryable; such an error is shared, if at all
}

// A storedMatch is one registered error found in the tree. A flat list will do: errors.Is and
// errors.As look for matches, not for the shape of the tree.
type storedMatch struct {
	Code string `msgpack:"c"`
	Data []byte `msgpack:"d,omitempty"`
}

const maxStoredStack = 4 << 10

// lost is told of registered errors that cannot be stored.
func (r *ErrorRegistry) encode(err error, lost func(code string)) []byte {
	s := storedError{Text: errorText(err), Known: r.find(err, lost), Retry: IsRetryable(err)}
	if p, ok := err.(*PanicError); ok { //nolint:errorlint // an error that wraps one is an error
		s.Text = fmt.Sprint(p.Value)
		s.Stack = p.Stack[:min(len(p.Stack), maxStoredStack)]
	}
	data, encErr := msgpack.Marshal(&s)
	if encErr != nil { // strings and bytes always encode
		panic(encErr)
	}
	return data
}

// covers reports whether err holds a registered error, which by that has a known meaning.
func (r *ErrorRegistry) covers(err error) (found bool) {
	for _, d := range r.list {
		if d.foreign {
			continue
		}
		errtree.Walk(err, func(node error) bool {
			_, found, _ = d.match(node)
			return !found
		})
		if found {
			return true
		}
	}
	return false
}

// find lists the registered errors in err.
func (r *ErrorRegistry) find(err error, lost func(code string)) (known []storedMatch) {
	for _, d := range r.list {
		left := maxMatches
		errtree.Walk(err, func(node error) bool {
			data, ok, err := d.match(node)
			switch {
			case err != nil:
				lost(d.code)
			case ok:
				known = append(known, storedMatch{Code: d.code, Data: data})
				left--
			}
			return !ok || !d.once && left > 0
		})
	}
	return known
}

// decode makes the error of a recorded one. A registered error that is not registered any more,
// or that cannot be restored, costs its matches, of which lost is told; text and ErrReplayed
// remain.
func (r *ErrorRegistry) decode(rec *record.Record, lost func(code string)) error {
	var s storedError
	if err := msgpack.Unmarshal(rec.Payload, &s); err != nil {
		return &causeError{text: fmt.Sprintf("%v: its error does not decode", ErrCorruptRecord), sentinel: ErrCorruptRecord, cause: err}
	}
	e := &replayedError{text: s.Text, retryable: s.Retry}
	if rec.Outcome == record.OutcomePanic {
		p := &PanicError{Value: s.Text, Stack: s.Stack}
		e.text = p.Error()
		e.known = append(e.known, p)
	}
	for _, m := range s.Known {
		d, ok := r.defs[m.Code]
		if !ok {
			lost(m.Code)
			continue
		}
		known, err := restore(d, m.Data)
		if err != nil {
			lost(m.Code)
			continue
		}
		e.known = append(e.known, known)
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
	text      string
	known     []error
	retryable bool
}

func (e *replayedError) Error() string        { return e.text }
func (e *replayedError) Is(target error) bool { return target == ErrReplayed }
func (e *replayedError) Unwrap() []error      { return e.known }
func (e *replayedError) Retryable() bool      { return e.retryable }

package idempotent

import (
	"errors"
	"fmt"
	"reflect"

	"github.com/idempotent-go/idempotent/internal/errreg"
	"github.com/idempotent-go/idempotent/internal/errtree"
	"github.com/idempotent-go/idempotent/internal/record"
)

// An ErrorRegistry says which errors come back as themselves when they are replayed. It knows
// them by codes, which are stored in Redis: a code must keep its meaning for as long as records
// live, across versions of a program and between programs that share keys.
type ErrorRegistry struct {
	known *errreg.Registry
	err   error // of the definitions
}

// An ErrorDef is one error, or one type of errors, of an ErrorRegistry. Sentinel and ErrorType
// make them.
type ErrorDef struct {
	def errreg.Def
	err error
}

// NewErrorRegistry makes a registry. A definition that cannot be used (an empty or repeated code,
// a nil sentinel, a type that cannot be restored) is reported by New, as ErrInvalidOption.
func NewErrorRegistry(defs ...ErrorDef) *ErrorRegistry {
	r := new(ErrorRegistry)
	all := make([]errreg.Def, len(defs))
	for i, d := range defs {
		if all[i] = d.def; d.def.Code == "" {
			d.err = invalid("ErrorRegistry", "code", `""`, "a text that is not empty")
		}
		r.err = errors.Join(r.err, d.err)
	}
	var twice []string
	r.known, twice = errreg.New(all)
	for _, code := range twice {
		if code != "" {
			r.err = errors.Join(r.err, invalid("ErrorRegistry", "code", fmt.Sprintf("%q, used twice", code), "one definition for each code"))
		}
	}
	return r
}

// Sentinel registers one error value, such as var ErrDeclined = errors.New("declined"). A replayed
// error matches it, by errors.Is, when the error that fn returned did.
func Sentinel(code string, err error) ErrorDef {
	d := ErrorDef{def: errreg.Sentinel(code, err)}
	switch {
	case err == nil:
		d.err = invalid("Sentinel", code, "nil", "an error")
	case !reflect.ValueOf(err).Comparable():
		d.err = invalid("Sentinel", code, fmt.Sprintf("a %T", err), "an error that can be compared; ErrorType registers a type")
	}
	return d
}

// ErrorType registers the error type E, a struct or a pointer to one. Its exported fields travel
// as encoding/json writes them, so `json` tags apply; what is not exported is lost, and so are
// methods that need it. A replayed error yields, by errors.As, an E with these fields for each E
// in the error that fn returned.
func ErrorType[E error](code string) ErrorDef {
	d := ErrorDef{def: errreg.Type[E](code)}
	if problem := errreg.Unrestorable(reflect.TypeFor[E]()); problem != "" {
		d.err = invalid("ErrorType", code, fmt.Sprintf("%s, %s", typeName[E](), problem), `a struct, or a pointer to one, whose exported fields encoding/json restores; tag others with json:"-"`)
	}
	return d
}

// CustomError registers errors whose type cannot be named to ErrorType, or that encoding/json does not
// carry: gRPC's *status.Error, *url.Error, a driver's own. encode gets each error of the tree that fn
// returned, in the order of errors.Is, and returns its bytes, or false if the error is not one of these.
// decode makes an error of these bytes; an error of decode costs the match, not the replay. Both may be
// called from many goroutines at once, and one that panics counts as one that does not know the error.
//
//	idempotent.CustomError("grpc", func(err error) ([]byte, bool) {
//		s, ok := err.(interface{ GRPCStatus() *status.Status })
//		if !ok {
//			return nil, false
//		}
//		data, err := proto.Marshal(s.GRPCStatus().Proto())
//		return data, err == nil
//	}, func(data []byte) (error, error) {
//		s := new(spb.Status)
//		if err := proto.Unmarshal(data, s); err != nil {
//			return nil, err
//		}
//		return status.ErrorProto(s), nil
//	})
func CustomError(code string, encode func(error) ([]byte, bool), decode func([]byte) (error, error)) ErrorDef {
	d := ErrorDef{def: errreg.Custom(code, encode, decode)}
	if encode == nil || decode == nil {
		d.err = invalid("CustomError", code, "without encode or decode", "both functions")
	}
	return d
}

// StandardErrors returns definitions for the errors of the standard library that carry data:
// *url.Error, *net.OpError, *net.DNSError, *fs.PathError, *os.LinkError, *os.SyscallError,
// *strconv.NumError and syscall.Errno. What such an error wraps comes back by its text, and by
// errors.Is and errors.As if it is registered too. They only describe a failure: after the end of fn's
// context, an error counts as a statement about its effect only if it matches another definition.
func StandardErrors() []ErrorDef {
	standard := errreg.Standard()
	defs := make([]ErrorDef, len(standard))
	for i, d := range standard {
		defs[i].def = d
	}
	return defs
}

// encode returns the payload of a recorded error. lost is told of registered errors that cannot be stored.
func (r *ErrorRegistry) encode(err error, lost func(code string)) []byte {
	s := errreg.Stored{Text: errtree.Text(err), Retry: IsRetryable(err)}
	if p, ok := err.(*PanicError); ok { //nolint:errorlint // an error that wraps one is an error
		s.Text, s.Stack = fmt.Sprint(p.Value), p.Stack
	}
	return r.known.Encode(s, err, lost)
}

// decode makes the error of a recorded one. A registered error that lost is told of costs its match; text
// and ErrReplayed remain.
func (r *ErrorRegistry) decode(rec *record.Record, lost func(code string)) error {
	s, known, err := r.known.Decode(rec.Payload, lost)
	if err != nil {
		return &causeError{text: fmt.Sprintf("%v: its error does not decode", ErrCorruptRecord), sentinel: ErrCorruptRecord, cause: err}
	}
	e := &replayedError{text: s.Text, known: known, retryable: s.Retry}
	if rec.Outcome == record.OutcomePanic {
		p := &PanicError{Value: s.Text, Stack: s.Stack}
		e.text, e.known = p.Error(), append([]error{p}, known...)
	}
	return e
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

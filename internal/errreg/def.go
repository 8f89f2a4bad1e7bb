package errreg

import (
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/idempotent-go/idempotent/internal/errtree"
)

// Sentinel defines one error value.
func Sentinel(code string, err error) Def {
	return Def{
		Code: code, Once: true,
		Match:   func(node error) ([]byte, bool, error) { return nil, errtree.Matches(node, err), nil },
		Restore: func([]byte) (error, error) { return err, nil },
	}
}

// Type defines the errors of type E, which encoding/json carries.
func Type[E error](code string) Def {
	return Def{Code: code, Match: matchType[E], Restore: restoreType[E]}
}

func matchType[E error](node error) ([]byte, bool, error) {
	e, ok := node.(E) //nolint:errorlint // one node of the tree that Walk visits
	if as, own := node.(interface{ As(any) bool }); !ok && own {
		ok = as.As(&e)
	}
	if !ok || isNil(e) {
		return nil, false, nil
	}
	data, err := json.Marshal(e)
	return data, true, err
}

func restoreType[E error](data []byte) (error, error) {
	var e E
	if err := json.Unmarshal(data, &e); err != nil {
		return nil, err
	}
	if isNil(e) {
		return nil, errors.New("a nil error was stored")
	}
	return e, nil
}

func isNil(err error) bool {
	v := reflect.ValueOf(err)
	switch v.Kind() {
	case reflect.Invalid:
		return true
	case reflect.Pointer, reflect.Map, reflect.Slice, reflect.Func, reflect.Chan:
		return v.IsNil()
	}
	return false
}

// Custom defines errors that functions of the program store and restore.
func Custom(code string, encode func(error) ([]byte, bool), decode func([]byte) (error, error)) Def {
	return Def{
		Code: code,
		Match: func(node error) ([]byte, bool, error) {
			data, ok := encode(node)
			return data, ok, nil
		},
		Restore: func(data []byte) (error, error) {
			err, failed := decode(data)
			if failed == nil && err == nil {
				failed = errors.New("decode returned no error")
			}
			return err, failed
		},
	}
}

// Unrestorable says why values of typ do not survive encoding/json, or "".
func Unrestorable(typ reflect.Type) string { return unrestorableIn(typ, make(map[reflect.Type]bool)) }

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

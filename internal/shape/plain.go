package shape

import "reflect"

// IsPlain reports whether assigning a value of the type copies all of it: no pointers, slices, maps or
// interfaces. Strings are immutable.
func IsPlain(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Array:
		return IsPlain(t.Elem())
	case reflect.Struct:
		for field := range t.Fields() {
			if !IsPlain(field.Type) {
				return false
			}
		}
		return true
	case reflect.String:
		return true
	}
	return reflect.Bool <= t.Kind() && t.Kind() <= reflect.Complex128
}

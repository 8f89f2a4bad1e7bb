package msgpackx

import (
	"reflect"
	"time"

	"github.com/idempotent-go/idempotent/internal/shape"
)

var timeType = reflect.TypeFor[time.Time]()

// toUTC puts the times in v into UTC. A record holds the instant alone, and msgpack reads that into
// the zone of the machine: two machines would get different days.
func toUTC(n *shape.Node, v reflect.Value) {
	if n.Type == timeType {
		if v.CanSet() {
			at := v.Addr().Interface().(*time.Time)
			*at = at.UTC()
		}
		return
	}
	switch {
	case !n.HasTime || n.Opaque:
	case v.Kind() == reflect.Interface:
		if !v.IsNil() && v.CanSet() {
			v.Set(reflect.ValueOf(anyToUTC(v.Elem().Interface())))
		}
	case v.Kind() == reflect.Pointer:
		if !v.IsNil() {
			toUTC(n.Elem, v.Elem())
		}
	case v.Kind() == reflect.Slice, v.Kind() == reflect.Array:
		for i := range v.Len() {
			toUTC(n.Elem, v.Index(i))
		}
	case v.Kind() == reflect.Map:
		mapToUTC(n, v)
	case v.Kind() == reflect.Struct:
		for _, f := range n.Fields {
			if f.Node.HasTime {
				if field, err := v.FieldByIndexErr(f.Index); err == nil {
					toUTC(f.Node, field)
				}
			}
		}
	}
}

func mapToUTC(n *shape.Node, v reflect.Value) {
	if v.IsNil() {
		return
	}
	fixed := reflect.MakeMapWithSize(v.Type(), v.Len())
	for key, element := range v.Seq2() {
		k, e := reflect.New(key.Type()).Elem(), reflect.New(element.Type()).Elem()
		k.Set(key)
		e.Set(element)
		toUTC(n.Key, k)
		toUTC(n.Elem, e)
		fixed.SetMapIndex(k, e)
	}
	v.Set(fixed)
}

// anyToUTC does the same for what msgpack decodes into an interface.
func anyToUTC(v any) any {
	switch v := v.(type) {
	case time.Time:
		return v.UTC()
	case map[string]any:
		for key, element := range v {
			v[key] = anyToUTC(element)
		}
	case []any:
		for i := range v {
			v[i] = anyToUTC(v[i])
		}
	}
	return v
}

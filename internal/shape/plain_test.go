package shape

import (
	"reflect"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/assert"
)

func TestPlainTypesAreCopiedByAssignment(t *testing.T) {
	type plain struct {
		ID     string
		Amount [2]int64
		at     struct{ unix float64 } //nolint:unused // only its type matters
		ok     bool                   //nolint:unused // only its type matters
	}
	for _, v := range []any{true, -1, uint8(1), 1.5, 1i, "x", time.Second, plain{}, [0]string{}, struct{}{}} {
		assert.True(t, IsPlain(reflect.TypeOf(v)), "%T", v)
	}
	for _, v := range []any{
		[]byte{}, map[string]int{}, &plain{}, time.Time{}, [1][]int{}, struct{ plain *plain }{}, struct{ v any }{},
		func() {}, make(chan int), unsafe.Pointer(nil),
	} {
		assert.False(t, IsPlain(reflect.TypeOf(v)), "%T", v)
	}
	assert.False(t, IsPlain(reflect.TypeFor[any]()))
}

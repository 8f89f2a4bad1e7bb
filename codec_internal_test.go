package idempotent

import (
	"reflect"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/assert"

	"github.com/idempotent-go/idempotent/internal/record"
)

// Each codec writes its own number into the record. Custom codecs share one.
func TestCodecNumbers(t *testing.T) {
	assert.Equal(t, record.CodecMsgpack, codecOf(Msgpack[int]()))
	assert.Equal(t, record.CodecJSON, codecOf(JSON[int]()))
	assert.Equal(t, record.CodecRaw, codecOf(Raw[string]()))
	assert.Equal(t, record.CodecCustom, codecOf(struct{ Codec[int] }{JSON[int]()}))
}

func TestCopied(t *testing.T) {
	type plain struct {
		ID     string
		Amount [2]int64
		at     struct{ unix float64 } //nolint:unused // only its type matters
		ok     bool                   //nolint:unused // only its type matters
	}
	for _, v := range []any{true, -1, uint8(1), 1.5, 1i, "x", time.Second, plain{}, [0]string{}, struct{}{}} {
		assert.True(t, isPlainData(reflect.TypeOf(v)), "%T", v)
	}
	for _, v := range []any{
		[]byte{}, map[string]int{}, &plain{}, time.Time{}, [1][]int{}, struct{ plain *plain }{}, struct{ v any }{},
		func() {}, make(chan int), unsafe.Pointer(nil),
	} {
		assert.False(t, isPlainData(reflect.TypeOf(v)), "%T", v)
	}
	assert.False(t, isPlainData(reflect.TypeFor[any]()))
}

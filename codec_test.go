package idempotent

import (
	"testing"

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

package slot_test

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/idempotent-go/idempotent/internal/slot"
)

func TestOf(t *testing.T) {
	assert.Equal(t, 0x31C3, slot.Of("123456789")) // of the Cluster specification
	assert.Equal(t, slot.Of("user"), slot.Of("{user}.order"))
	assert.Equal(t, slot.Of("user"), slot.Of("order.{user}{other}"))
	assert.NotEqual(t, slot.Of(""), slot.Of("{}.order"))
	assert.NotEqual(t, slot.Of("user"), slot.Of("{user.order"))
}

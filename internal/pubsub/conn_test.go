package pubsub

import (
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/idempotent-go/idempotent/internal/slot"
)

// Where a server refuses a subscription, it refuses to end it as well. When it ends one on its own
// account later, that is no answer.
func TestRefusedSubscriptionLeavesNothingToAnswer(t *testing.T) {
	l := &conn{
		hub:     &Hub{channels: make(map[string]*channel)},
		wanted:  make(map[string]struct{}),
		dropped: map[string]int{"moved": 1, "other": 1},
		changed: make(chan struct{}, 1),
	}
	moved := fmt.Errorf("MOVED %d 127.0.0.1:1", slot.Of("moved"))
	assert.True(t, l.redirected(moved, "127.0.0.1:1"))
	assert.Equal(t, map[int]string{slot.Of("moved"): "127.0.0.1:1"}, l.takeMoved())
	assert.False(t, l.redirected(errors.New("MOVED"), ""))

	for _, name := range []string{"moved", "other"} {
		l.wanted[name] = struct{}{}
		l.hub.channels[name] = &channel{conn: l, confirmed: true}
		l.unsubscribed(name)
	}
	assert.Equal(t, []string{"moved"}, l.ended)
	assert.False(t, l.hub.channels["moved"].confirmed)
	assert.True(t, l.hub.channels["other"].confirmed, "that was an answer")
}

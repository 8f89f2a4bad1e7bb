package pubsub

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"

	"github.com/idempotent-go/idempotent/internal/topology"
)

// memory is a client of a server in this bubble. An IP address keeps go-redis from a lookup.
func memory(t *testing.T) *redis.Client {
	server := miniredis.NewMiniRedis()
	server.ClockTTL(true)
	client := redis.NewClient(&redis.Options{
		Addr:   "127.0.0.1:1",
		Dialer: func(context.Context, string, string) (net.Conn, error) { return server.Dial() },
	})
	t.Cleanup(func() {
		_ = client.Close()
		server.Close()
	})
	return client
}

func inFakeTime(t *testing.T, test func(t *testing.T, h *Hub, client *redis.Client)) {
	synctest.Test(t, func(t *testing.T) {
		client := memory(t)
		h := NewHub(topology.Of(client), false, slog.New(slog.DiscardHandler))
		defer h.Close()
		test(t, h, client)
	})
}

func (h *Hub) connections() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.conns)
}

func TestWaiterIsWokenByItsSubscriptionAndByMessages(t *testing.T) {
	inFakeTime(t, func(t *testing.T, h *Hub, client *redis.Client) {
		w, other := h.Watch(t.Context(), "a"), h.Watch(t.Context(), "b")
		<-w.Wake
		message, confirmed := h.Take(w)
		assert.Nil(t, message, "it must read: what was published before is lost")
		assert.True(t, confirmed)
		<-other.Wake
		client.Publish(t.Context(), "a", "first")
		client.Publish(t.Context(), "a", "second")
		synctest.Wait()
		<-w.Wake
		message, _ = h.Take(w)
		assert.Equal(t, "second", string(message), "the later one knows more")
		assert.Empty(t, w.Wake)
		assert.Empty(t, other.Wake)
		assert.Equal(t, 1, h.connections(), "shared")
		h.Unwatch(w)
		h.Unwatch(other)
	})
}

func TestSecondWaiterOfAChannelIsWokenAtOnce(t *testing.T) {
	inFakeTime(t, func(t *testing.T, h *Hub, client *redis.Client) {
		first := h.Watch(t.Context(), "a")
		<-first.Wake
		second := h.Watch(t.Context(), "a")
		assert.Len(t, second.Wake, 1)
		<-second.Wake
		h.Unwatch(first)
		client.Publish(t.Context(), "a", "done")
		<-second.Wake
		message, _ := h.Take(second)
		assert.Equal(t, "done", string(message))
		h.Unwatch(second)
	})
}

func TestIdleConnectionCloses(t *testing.T) {
	inFakeTime(t, func(t *testing.T, h *Hub, _ *redis.Client) {
		w := h.Watch(t.Context(), "a")
		<-w.Wake
		time.Sleep(2 * idleChecks * healthInterval)
		synctest.Wait()
		assert.Equal(t, 1, h.connections(), "a channel keeps it")
		h.Unwatch(w)
		time.Sleep((idleChecks + 1) * healthInterval)
		synctest.Wait()
		assert.Zero(t, h.connections())
		w = h.Watch(t.Context(), "a")
		<-w.Wake
		assert.Equal(t, 1, h.connections())
		h.Unwatch(w)
	})
}

// What ends a subscription by itself must be told from the reply to an unsubscribe.
func TestSubscriptionThatTheServerEndsIsNotConfirmed(t *testing.T) {
	h := NewHub(nil, true, slog.New(slog.DiscardHandler))
	c := &conn{hub: h, wanted: map[string]struct{}{"a": {}, "b": {}}, dropped: map[string]int{"b": 1}, changed: make(chan struct{}, 1)}
	for name := range c.wanted {
		h.channels[name] = &channel{conn: c, confirmed: true}
		c.unsubscribed(name)
	}
	assert.Equal(t, []string{"a"}, c.ended)
	assert.False(t, h.channels["a"].confirmed)
	assert.True(t, h.channels["b"].confirmed, "that was the reply")
}

func TestReceiveEndsWithTheErrorOfItsHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := memory(t)
		gap, failed := errors.New("gap"), make(chan error, 2)
		s := Receive(context.Background(), client.Subscribe(t.Context(), "a"), func(any) error { return gap }, func(err error) { failed <- err })
		assert.Equal(t, gap, <-failed)
		assert.True(t, s.TakeTraffic())
		assert.False(t, s.TakeTraffic())
		s.Close()
		assert.Empty(t, failed, "once")
	})
}

package idemtest_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/idemtest"
)

// A witness is a testing.TB that keeps what a helper reports instead of failing.
type witness struct {
	testing.TB
	errors []string
	fatal  string
}

func (w *witness) Helper() {}
func (w *witness) Errorf(format string, args ...any) {
	w.errors = append(w.errors, fmt.Sprintf(format, args...))
}

func (w *witness) Fatalf(format string, args ...any) {
	w.fatal = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

// attend runs a helper that may end its goroutine.
func (w *witness) attend(helper func()) {
	var wg sync.WaitGroup
	wg.Go(helper)
	wg.Wait()
}

func TestNewRedis(t *testing.T) {
	works := func(t *testing.T) {
		rdb := idemtest.NewRedis(t)
		require.NoError(t, rdb.Set(t.Context(), "key", "value", time.Hour).Err())
		assert.Equal(t, "value", rdb.Get(t.Context(), "key").Val())
		assert.Empty(t, idemtest.NewRedis(t).Get(t.Context(), "key").Val(), "each is its own")
	}
	t.Run("outside a bubble", works)
	t.Run("in a bubble", func(t *testing.T) { synctest.Test(t, works) })
	t.Run("in another bubble", func(t *testing.T) { synctest.Test(t, works) })
}

func TestNewRedisFollowsTheClockOfTheBubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := idemtest.NewRedis(t)
		require.NoError(t, rdb.Set(t.Context(), "key", "value", 24*time.Hour).Err())
		<-time.After(23 * time.Hour)
		assert.Equal(t, time.Hour, rdb.PTTL(t.Context(), "key").Val())
		<-time.After(time.Hour)
		assert.Zero(t, rdb.Exists(t.Context(), "key").Val())
	})
}

func TestNewRedisCarriesMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := idemtest.NewRedis(t)
		sub := rdb.Subscribe(t.Context(), "channel")
		defer sub.Close()
		_, err := sub.Receive(t.Context())
		require.NoError(t, err)
		require.NoError(t, rdb.Publish(t.Context(), "channel", "hello").Err())
		message, err := sub.ReceiveMessage(t.Context())
		require.NoError(t, err)
		assert.Equal(t, "hello", message.Payload)
	})
}

func TestNewRedisEndsWithTheTest(t *testing.T) {
	var rdb *idemtest.Redis
	t.Run("inner", func(t *testing.T) {
		rdb = idemtest.NewRedis(t)
		require.NoError(t, rdb.Ping(t.Context()).Err())
	})
	assert.Error(t, rdb.Ping(t.Context()).Err())
}

func TestRedisFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := idemtest.NewRedis(t)
		rdb.Fail("ERR no more room")
		assert.EqualError(t, rdb.Ping(t.Context()).Err(), "ERR no more room")
		assert.EqualError(t, rdb.Set(t.Context(), "key", "value", 0).Err(), "ERR no more room")
		rdb.Fail("")
		require.NoError(t, rdb.Ping(t.Context()).Err())
		assert.Zero(t, rdb.Exists(t.Context(), "key").Val())
	})
}

func TestRecorderKeepsEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var events idemtest.Recorder
		e, err := idempotent.New[string](idemtest.NewRedis(t), "ns", idempotent.WithObserver(&events))
		require.NoError(t, err)
		defer e.Close()
		assert.Empty(t, events.Events())
		assert.Zero(t, events.Count())
		for range 2 {
			_, err := e.Run(t.Context(), "key", func(context.Context) (string, error) { return "value", nil })
			require.NoError(t, err)
		}
		var kinds []idempotent.EventKind
		for _, event := range events.Events() {
			kinds = append(kinds, event.Kind)
			assert.Equal(t, "ns", event.Namespace)
			assert.Equal(t, "key", event.Key)
		}
		assert.Equal(t, []idempotent.EventKind{
			idempotent.EventClaimed, idempotent.EventExecuted, idempotent.EventRecorded, idempotent.EventReturned,
			idempotent.EventReplayed, idempotent.EventReturned,
		}, kinds)
		assert.Len(t, events.Events(idempotent.EventExecuted, idempotent.EventReplayed), 2)
		assert.Equal(t, 1, events.Count(idempotent.EventReplayed))
		assert.Zero(t, events.Count(idempotent.EventLeaseLost))
		assert.Empty(t, events.Events(idempotent.EventLeaseLost))

		events.Events()[0].Key = "changed"
		assert.Equal(t, "key", events.Events()[0].Key, "Events returns a copy")
	})
}

func TestRecorderWait(t *testing.T) {
	observe := func(r *idemtest.Recorder, kind idempotent.EventKind, attempt int) {
		r.Observe(context.Background(), idempotent.Event{Kind: kind, Attempt: attempt})
	}
	t.Run("for what was", func(t *testing.T) {
		var r idemtest.Recorder
		observe(&r, idempotent.EventJoined, 1)
		observe(&r, idempotent.EventClaimed, 2)
		observe(&r, idempotent.EventJoined, 3)
		assert.Equal(t, 1, r.Wait(t, idempotent.EventJoined, 1).Attempt)
		assert.Equal(t, 3, r.Wait(t, idempotent.EventJoined, 2).Attempt)
	})
	t.Run("for what comes", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var r idemtest.Recorder
			got := make(chan idempotent.Event, 2)
			for range cap(got) {
				go func() { got <- r.Wait(t, idempotent.EventJoined, 2) }()
			}
			synctest.Wait()
			observe(&r, idempotent.EventJoined, 1)
			observe(&r, idempotent.EventClaimed, 2)
			synctest.Wait()
			require.Empty(t, got, "there was one so far")
			observe(&r, idempotent.EventJoined, 3)
			for range cap(got) {
				assert.Equal(t, 3, (<-got).Attempt)
			}
		})
	})
	t.Run("for what does not come", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var r idemtest.Recorder
			observe(&r, idempotent.EventLeaseLost, 1)
			w := &witness{TB: t}
			began := time.Now()
			w.attend(func() { r.Wait(w, idempotent.EventLeaseLost, 2) })
			assert.Equal(t, time.Minute, time.Since(began))
			assert.Contains(t, w.fatal, "1 of 2")
			assert.Contains(t, w.fatal, "lease lost")
			assert.Empty(t, w.errors)
		})
	})
}

func TestRecorderIsSafeForManyGoroutines(t *testing.T) {
	var r idemtest.Recorder
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				r.Observe(context.Background(), idempotent.Event{Kind: idempotent.EventJoined})
				r.Events()
			}
		})
	}
	r.Wait(t, idempotent.EventJoined, 800)
	wg.Wait()
	assert.Equal(t, 800, r.Count(idempotent.EventJoined))
}

type shipment struct {
	ID     string
	Parts  []string
	weight int
}

type brokenCodec struct {
	encode, decode error
}

func (c brokenCodec) Encode(string) ([]byte, error) { return nil, c.encode }
func (c brokenCodec) Decode([]byte) (string, error) { return "", c.decode }

func TestCodecRoundTrip(t *testing.T) {
	broken := errors.New("codec is broken")
	tests := []struct {
		name  string
		check func(tb testing.TB)
		want  []string // one for each report
	}{
		{"msgpack", func(tb testing.TB) {
			idemtest.CodecRoundTrip(tb, idempotent.Msgpack[shipment](), shipment{}, shipment{ID: "s", Parts: []string{"a"}})
		}, nil},
		{"JSON", func(tb testing.TB) { idemtest.CodecRoundTrip(tb, idempotent.JSON[*shipment](), nil, &shipment{}) }, nil},
		{"raw", func(tb testing.TB) { idemtest.CodecRoundTrip(tb, idempotent.Raw[string](), "", "\xff") }, nil},
		{"no values", func(tb testing.TB) { idemtest.CodecRoundTrip(tb, idempotent.JSON[shipment]()) }, nil},
		{"unexported field is lost", func(tb testing.TB) {
			idemtest.CodecRoundTrip(tb, idempotent.Msgpack[shipment](), shipment{ID: "kept"}, shipment{ID: "s", weight: 7})
		}, []string{"value 1 came back changed"}},
		{"nil becomes empty", func(tb testing.TB) { idemtest.CodecRoundTrip(tb, idempotent.Raw[[]byte](), []byte{}, nil) }, []string{"value 1 came back changed"}},
		{"number becomes another type", func(tb testing.TB) { idemtest.CodecRoundTrip(tb, idempotent.JSON[any](), any(1)) }, []string{"value 0 came back changed"}},
		{"each value that is lost", func(tb testing.TB) {
			idemtest.CodecRoundTrip(tb, idempotent.JSON[shipment](), shipment{weight: 1}, shipment{}, shipment{weight: 2})
		}, []string{"value 0 came back changed", "value 2 came back changed"}},
		{"encode fails", func(tb testing.TB) {
			idemtest.CodecRoundTrip[string](tb, brokenCodec{encode: broken}, "a", "b")
		}, []string{"value 0: Encode: codec is broken", "value 1: Encode: codec is broken"}},
		{"decode fails", func(tb testing.TB) {
			idemtest.CodecRoundTrip[string](tb, brokenCodec{decode: broken}, "")
		}, []string{"value 0: Decode: codec is broken"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w := &witness{TB: t}
			w.attend(func() { test.check(w) })
			assert.Empty(t, w.fatal)
			require.Len(t, w.errors, len(test.want), strings.Join(w.errors, "\n"))
			for i, want := range test.want {
				assert.Contains(t, w.errors[i], want)
			}
		})
	}
}

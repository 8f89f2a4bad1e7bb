package acceptance

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/internal/record"
	"github.com/idempotent-go/idempotent/internal/redistest"
	"github.com/idempotent-go/idempotent/internal/slot"
)

// inspected are the states of a namespace with one key in each, the key being prefix and the state.
var inspected = []idempotent.State{
	idempotent.StateRunning, idempotent.StateAbandoned, idempotent.StateInterrupted, idempotent.StateSucceeded,
	idempotent.StateFailed, idempotent.StateValueNotKept, idempotent.StateUnreadable,
}

// inEveryState stores a key in each state, and returns what ends the one that runs.
func inEveryState(w *world, x *executor, client redis.UniversalClient, prefix string) (end func()) {
	w.Helper()
	p := w.provider()
	key := func(s idempotent.State) string { return prefix + s.String() }
	unknown := returning("", idempotent.OutcomeUnknown(errors.New("broken pipe")))
	x.start(w.Context(), key(idempotent.StateSucceeded), returning(strings.Repeat("long", 1000), nil)).wait(w)
	x.start(w.Context(), key(idempotent.StateFailed), returning("", errors.New("declined"))).wait(w)
	x.start(w.Context(), key(idempotent.StateAbandoned), unknown).wait(w)
	x.start(w.Context(), key(idempotent.StateInterrupted), unknown, idempotent.WithInterrupted(idempotent.Refuse)).wait(w)
	_, err := x.Run(w.Context(), key(idempotent.StateInterrupted), forbidden[string](w))
	require.ErrorIs(w, err, idempotent.ErrInterrupted)
	lost := record.Record{Kind: record.KindDone, Token: record.NewToken(), Attempt: 1, At: time.Now(), Outcome: record.OutcomeValueNotKept}
	require.NoError(w, client.Set(w.Context(), w.name(key(idempotent.StateValueNotKept)), lost.Encode(), time.Hour).Err())
	require.NoError(w, client.RPush(w.Context(), w.name(key(idempotent.StateUnreadable)), "no string").Err())
	c := x.start(w.Context(), key(idempotent.StateRunning), p.charge)
	<-p.started
	return func() {
		p.answer("charged", nil)
		c.wait(w)
	}
}

// list returns the entries that f selects, by key.
func list(w *world, i *idempotent.Inspector, f idempotent.Filter) map[string]idempotent.Entry {
	w.Helper()
	found := make(map[string]idempotent.Entry)
	for e, err := range i.List(w.Context(), f) {
		require.NoError(w, err)
		found[e.Key] = e
	}
	return found
}

// requireEveryState requires that the keys that begin with prefix are listed and shown in their states.
func requireEveryState(w *world, i *idempotent.Inspector, prefix string) {
	w.Helper()
	found := list(w, i, idempotent.Filter{Namespace: w.namespace, KeyPrefix: prefix, Batch: 2, Pause: -1})
	require.Len(w, found, len(inspected))
	for _, state := range inspected {
		e := found[prefix+state.String()]
		assert.Equal(w, state, e.State)
		one, err := i.Inspect(w.Context(), w.namespace, prefix+state.String())
		require.NoError(w, err)
		assert.Equal(w, state, one.State)
		assert.Equal(w, e.Size, one.Size)
	}
}

// settles settles a key of each state, as an operator does.
func settles(w *world, i *idempotent.Inspector, client redis.UniversalClient, prefix string) {
	w.Helper()
	other := w.executorOn(client)
	for _, state := range inspected {
		key := prefix + state.String()
		was, err := i.Resolve(w.Context(), w.namespace, key, []byte("\xa7charged"), "msgpack")
		switch state {
		case idempotent.StateSucceeded, idempotent.StateFailed:
			require.ErrorIs(w, err, idempotent.ErrAlreadyRecorded, "%v", state)
		case idempotent.StateUnreadable:
			require.Error(w, err)
		default:
			require.NoError(w, err, "%v", state)
			assert.Equal(w, state, was.State)
			other.start(w.Context(), key, forbidden[string](w)).returned(w, "charged")
		}
		before, err := i.Inspect(w.Context(), w.namespace, key)
		require.NoError(w, err)
		forgotten, err := i.Forget(w.Context(), w.namespace, key)
		require.NoError(w, err, "%v", state)
		assert.Equal(w, before.State, forgotten.State)
		after, err := i.Inspect(w.Context(), w.namespace, key)
		require.NoError(w, err)
		assert.Equal(w, idempotent.Entry{Namespace: w.namespace, Key: key}, after)
	}
}

func inspector(t testing.TB, client redis.UniversalClient) *idempotent.Inspector {
	t.Helper()
	i, err := idempotent.NewInspector(client)
	require.NoError(t, err)
	return i
}

func TestInspector(t *testing.T) {
	everywhere(t, func(w *world) {
		x := w.executor(idempotent.WithOwner("web-1"))
		i := inspector(w, x.client)
		end := inEveryState(w, x, x.client, "order*")
		requireEveryState(w, i, "order*")

		all := idempotent.Filter{Namespace: w.namespace}
		listed := list(w, i, all)
		require.ErrorIs(w, listed["order*unreadable"].Err, idempotent.ErrCorruptRecord)
		assert.Equal(w, "msgpack", listed["order*succeeded"].Codec)
		assert.Greater(w, listed["order*succeeded"].Size, 4000)
		assert.Empty(w, list(w, i, idempotent.Filter{Namespace: w.namespace, KeyPrefix: "o*r"}), "a prefix is no pattern")
		assert.Empty(w, list(w, i, idempotent.Filter{Namespace: w.namespace, MinAge: time.Hour}))
		assert.Len(w, list(w, i, idempotent.Filter{Namespace: w.namespace, Owner: "web-1"}), 3, "running, abandoned, interrupted")
		for _, state := range inspected {
			all.States = []idempotent.State{state}
			assert.Len(w, list(w, i, all), 1, "%v", state)
		}
		settles(w, i, x.client, "order*")
		end()
	})
}

func TestInspectorFindsWhatIsOlder(t *testing.T) {
	inFakeTime(t, func(w *world) {
		x := w.executor()
		i := inspector(w, x.client)
		x.start(w.Context(), "old", returning("charged", nil)).wait(w)
		time.Sleep(time.Minute)
		x.start(w.Context(), "new", returning("charged", nil)).wait(w)
		found := list(w, i, idempotent.Filter{Namespace: w.namespace, MinAge: time.Minute})
		require.Len(w, found, 1)
		assert.Equal(w, time.Minute, found["old"].Age)
	})
}

func TestInspectorShowsPayloads(t *testing.T) {
	everywhere(t, func(w *world) {
		x := w.executor()
		i := inspector(w, x.client)
		defer inEveryState(w, x, x.client, "")()
		payload, codec, err := i.Payload(w.Context(), w.namespace, "succeeded")
		require.NoError(w, err)
		assert.Equal(w, "\xda\x0f\xa0"+strings.Repeat("long", 1000)+" msgpack", string(payload)+" "+codec)
		payload, codec, err = i.Payload(w.Context(), w.namespace, "failed")
		require.NoError(w, err)
		assert.Equal(w, "declined error", string(payload)+" "+codec)
		for _, key := range []string{"running", "abandoned", "interrupted", "done, value not kept", "absent"} {
			_, _, err = i.Payload(w.Context(), w.namespace, key)
			require.ErrorIs(w, err, idempotent.ErrNotFound, key)
		}
		_, _, err = i.Payload(w.Context(), w.namespace, "unreadable")
		require.ErrorIs(w, err, idempotent.ErrCorruptRecord)
	})
}

func TestInspectorRefuses(t *testing.T) {
	inFakeTime(t, func(w *world) {
		x := w.executor()
		i := inspector(w, x.client)
		invalid := func(err error) {
			w.Helper()
			require.ErrorIs(w, err, idempotent.ErrInvalidOption)
		}
		_, err := idempotent.NewInspector(nil)
		invalid(err)
		_, err = idempotent.NewInspector(hidingRing{newRing(w.T, map[string]string{"one": "127.0.0.1:1"}, staysUp)})
		invalid(err)
		for _, f := range []idempotent.Filter{{Namespace: "a:b"}, {KeyPrefix: "order"}, {Batch: -1}, {Batch: 10_001}} {
			for _, err := range i.List(w.Context(), f) {
				invalid(err)
			}
		}
		for codec, payload := range map[string]string{"msgpack": "\xa7char", "JSON": "{", "gob": ""} {
			_, err = i.Resolve(w.Context(), w.namespace, "order-1", []byte(payload), codec)
			invalid(err)
		}
		_, err = i.Resolve(w.Context(), w.namespace, "order-1", nil, "raw", nil)
		invalid(err)
		_, err = i.Resolve(w.Context(), w.namespace, "order-1", nil, "raw")
		require.ErrorIs(w, err, idempotent.ErrNotFound)
		_, err = i.Inspect(w.Context(), "a:b", "order-1")
		invalid(err)
		_, err = i.Forget(w.Context(), w.namespace, "")
		require.ErrorIs(w, err, idempotent.ErrInvalidKey)
	})
}

// hidingRing is a Ring that does not list its shards.
type hidingRing struct{ *redis.Ring }

func (hidingRing) ForEachShard() {}

// Listing takes steps of a bounded size, reads no payload, and does not keep what it has seen.
func TestInspectorListsMany(t *testing.T) {
	const records, size = 20_000, 10_000
	server := redistest.Start(t)
	client := server.Client(t)
	done := record.Record{Kind: record.KindDone, Token: record.NewToken(), Attempt: 1, At: time.Now(), Outcome: record.OutcomeValue, Codec: record.CodecRaw, Payload: make([]byte, size)}
	raw := done.Encode()
	for from := 0; from < records; from += 1000 {
		pipe := client.Pipeline()
		for n := range 1000 {
			pipe.Set(t.Context(), fmt.Sprintf("idempotent:many:order-%d", from+n), raw, time.Hour)
		}
		_, err := pipe.Exec(t.Context())
		require.NoError(t, err)
	}
	i, listed := inspector(t, client), 0
	var before, now runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	counts := server.Commands(t, func() {
		for e, err := range i.List(t.Context(), idempotent.Filter{Pause: -1}) {
			require.NoError(t, err)
			require.Equal(t, len(raw), e.Size)
			listed++
		}
	})
	runtime.ReadMemStats(&now)
	assert.Equal(t, records, listed)
	assert.Equal(t, records, counts["getrange"])
	assert.GreaterOrEqual(t, counts["scan"], records/1000)
	assert.LessOrEqual(t, counts["scan"], records/100)
	assert.Zero(t, counts["get"])
	assert.Less(t, now.TotalAlloc-before.TotalAlloc, uint64(records*size/2), "bytes for all that was read")
}

// On a Cluster, keys are listed, shown and settled while their slots move.
func inspectedWhileMigrated(w clusterWorld) {
	client := w.client()
	x, i := w.executorOn(client), inspector(w, client)
	end := inEveryState(w.world, x, client, "{order}")
	requireEveryState(w.world, i, "{order}")

	from, to := w.masterOf("{order}")
	m, err := w.BeginMigration(w.Context(), slot.Of(w.name("{order}")), to)
	require.NoError(w, err)
	requireEveryState(w.world, i, "{order}")
	for n, state := range inspected { // half of them is on either master
		if n%2 == 0 {
			require.NoError(w, m.MoveKey(w.Context(), w.name("{order}"+state.String())))
		}
	}
	requireEveryState(w.world, i, "{order}")
	for key, e := range list(w.world, i, idempotent.Filter{Namespace: w.namespace}) {
		assert.Contains(w, []string{from.Addr(), to.Addr()}, e.Server, key)
	}
	settles(w.world, i, client, "{order}")
	end()

	end = inEveryState(w.world, x, client, "{order} again ")
	require.NoError(w, m.MoveKeys(w.Context()))
	require.NoError(w, m.Finish(w.Context()))
	requireEveryState(w.world, i, "{order} again ")
	settles(w.world, i, client, "{order} again ")
	end()
}

func TestInspectorOnRing(t *testing.T) {
	leavesNothing(t)
	addrs := map[string]string{"one": redistest.Start(t).Addr(), "two": redistest.Start(t).Addr()}
	ring := newRing(t, addrs, staysUp)
	w := &world{T: t, real: true, lease: time.Minute, over: make(chan struct{}), namespace: "inspected"}
	x, i := w.executorOn(ring), inspector(t, ring)
	end := inEveryState(w, x, ring, "order ")
	requireEveryState(w, i, "order ")
	for n := range 20 {
		x.start(w.Context(), fmt.Sprint("other ", n), returning("charged", nil)).wait(w)
	}
	servers := make(map[string]bool)
	for _, e := range list(w, i, idempotent.Filter{Namespace: w.namespace}) {
		servers[e.Server] = true
	}
	assert.Len(t, servers, len(addrs))
	settles(w, i, ring, "order ")
	end()
}

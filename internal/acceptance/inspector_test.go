package acceptance

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
)

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

func TestInspectorListsEveryState(t *testing.T) {
	everywhere(t, func(w *world) {
		x := w.executor(idempotent.WithOwner("web-1"))
		i, err := idempotent.NewInspector(x.client)
		require.NoError(w, err)
		p := w.provider()
		x.start(w.Context(), "succeeded*", returning(strings.Repeat("long", 1000), nil)).wait(w)
		x.start(w.Context(), "failed", returning("", errors.New("declined"))).wait(w)
		x.start(w.Context(), "abandoned", returning("", idempotent.OutcomeUnknown(errors.New("broken pipe")))).wait(w)
		x.start(w.Context(), "interrupted", returning("", idempotent.OutcomeUnknown(errors.New("broken pipe"))), idempotent.WithInterrupted(idempotent.Refuse)).wait(w)
		_, err = x.Run(w.Context(), "interrupted", forbidden[string](w))
		require.ErrorIs(w, err, idempotent.ErrInterrupted)
		require.NoError(w, x.client.Set(w.Context(), w.name("corrupt"), "no record", time.Hour).Err())
		require.NoError(w, x.client.RPush(w.Context(), w.name("list"), "no string").Err())
		c := x.start(w.Context(), "running", p.charge)
		<-p.started

		all := idempotent.Filter{Namespace: w.namespace, Batch: 2, Pause: -1}
		states := make(map[string]idempotent.State)
		for key, e := range list(w, i, all) {
			states[key] = e.State
			one, err := i.Inspect(w.Context(), w.namespace, key)
			require.NoError(w, err)
			assert.Equal(w, e.State, one.State)
			assert.Equal(w, e.Size, one.Size)
		}
		assert.Equal(w, map[string]idempotent.State{
			"succeeded*": idempotent.StateSucceeded, "failed": idempotent.StateFailed, "abandoned": idempotent.StateAbandoned,
			"interrupted": idempotent.StateInterrupted, "running": idempotent.StateRunning, "corrupt": idempotent.StateAbsent,
		}, states)
		listed := list(w, i, all)
		require.ErrorIs(w, listed["corrupt"].Err, idempotent.ErrCorruptRecord)
		assert.Equal(w, "msgpack", listed["succeeded*"].Codec)
		assert.Greater(w, listed["succeeded*"].Size, 4000)

		all.Owner = "web-1"
		assert.Len(w, list(w, i, all), 3, "running, abandoned, interrupted")
		all.States = []idempotent.State{idempotent.StateRunning}
		assert.Len(w, list(w, i, all), 1)
		assert.Len(w, list(w, i, idempotent.Filter{Namespace: w.namespace, KeyPrefix: "succeeded*"}), 1)
		assert.Empty(w, list(w, i, idempotent.Filter{Namespace: w.namespace, KeyPrefix: "s*"}), "a prefix is no pattern")
		assert.Empty(w, list(w, i, idempotent.Filter{Namespace: w.namespace, MinAge: time.Hour}))
		p.answer("charged", nil)
		c.returned(w, "charged")
	})
}

func TestInspectorSettles(t *testing.T) {
	everywhere(t, func(w *world) {
		x := w.executor()
		i, err := idempotent.NewInspector(x.client)
		require.NoError(w, err)
		unknown := returning("", idempotent.OutcomeUnknown(errors.New("broken pipe")))
		x.start(w.Context(), "order-1", unknown).wait(w)

		_, err = i.Resolve(w.Context(), w.namespace, "order-1", []byte("\xa7char"), "msgpack")
		require.ErrorIs(w, err, idempotent.ErrInvalidOption, "cut")
		_, err = i.Resolve(w.Context(), w.namespace, "order-1", []byte("{"), "JSON")
		require.ErrorIs(w, err, idempotent.ErrInvalidOption)
		_, err = i.Resolve(w.Context(), w.namespace, "order-1", nil, "gob")
		require.ErrorIs(w, err, idempotent.ErrInvalidOption)
		_, _, err = i.Payload(w.Context(), w.namespace, "order-1")
		require.ErrorIs(w, err, idempotent.ErrNotFound)

		was, err := i.Resolve(w.Context(), w.namespace, "order-1", []byte("\xa7charged"), "msgpack")
		require.NoError(w, err)
		assert.Equal(w, idempotent.StateAbandoned, was.State)
		x.start(w.Context(), "order-1", forbidden[string](w)).returned(w, "charged")
		payload, codec, err := i.Payload(w.Context(), w.namespace, "order-1")
		require.NoError(w, err)
		assert.Equal(w, "\xa7charged msgpack", string(payload)+" "+codec)

		require.NoError(w, i.Forget(w.Context(), w.namespace, "order-1"))
		e, err := i.Inspect(w.Context(), w.namespace, "order-1")
		require.NoError(w, err)
		assert.Equal(w, idempotent.StateAbsent, e.State)
	})
}

package acceptance

import (
	"context"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
)

// The T of a record has changed since: what is left of it comes back, or an error. It is no reason
// to run fn.
func TestShapeOfTHasChanged(t *testing.T) {
	onRealRedis(t, func(w *world) {
		type card struct{ Number string }
		type first struct {
			ID    string
			Cents int64
			Card  card
			Tags  []string
		}
		was := first{ID: "ch_1", Cents: 4242, Card: card{secret}, Tags: []string{"a"}}

		type fieldRemoved struct{ ID string }
		type fieldAdded struct {
			first
			Note string
		}
		type fieldRenamed struct {
			ID    string
			Money int64
		}
		changed(w, was, fieldRemoved{ID: "ch_1"}, nil)
		changed(w, was, fieldAdded{first: was}, nil)
		changed(w, was, &was, nil)
		changed(w, was, map[string]any(nil), func(m map[string]any) { assert.Equal(w, "ch_1", m["ID"]) })

		unreadableAs[fieldRenamed](w, was)
		unreadableAs[struct{ Cents string }](w, was)
		unreadableAs[struct{ ID int64 }](w, was)
		unreadableAs[struct{ ID bool }](w, was)
		unreadableAs[struct{ Card string }](w, was)
		unreadableAs[struct{ Card []string }](w, was)
		unreadableAs[struct{ Tags map[string]string }](w, was)
		unreadableAs[string](w, was)
		unreadableAs[int](w, was)
		unreadableAs[[]first](w, was)

		const cents = 5_000_000_000
		unreadableAs[struct{ Cents int32 }](w, struct{ Cents int64 }{cents})
		unreadableAs[struct{ Cents int8 }](w, struct{ Cents int64 }{cents})
		unreadableAs[struct{ Cents uint64 }](w, struct{ Cents int64 }{-1})
		unreadableAs[struct{ Amount float32 }](w, struct{ Amount float64 }{1.1})
		unreadableAs[[]struct{ Cents *uint16 }](w, []struct{ Cents int }{{1}, {1 << 16}})
		unreadableAs[map[string]int32](w, map[string]int64{"a": 1, "b": cents})
		changed(w, struct{ Cents int64 }{7}, struct{ Cents int32 }{7}, nil)
		changed(w, struct{ Cents int64 }{7}, struct{ Cents uint8 }{7}, nil)
		changed(w, struct{ Cents int64 }{7}, struct{ Cents float32 }{7}, nil)
		changed(w, map[string]int64{"a": 1, "b": 2}, map[string]int32{"a": 1, "b": 2}, nil)
		changed(w, struct {
			A int64
			B string
		}{7, "x"}, struct{ A int32 }{7}, nil)
	})
}

// shapedAs records a value as the T of before, in a namespace of its own.
func shapedAs[T any](w *world, value T) (namespace string) {
	w.Helper()
	namespace = idempotent.HashKey(w.namespace, w.Name(), string(rune(worlds.Add(1))))
	x, err := idempotent.New[T](w.client(nil), namespace)
	require.NoError(w, err)
	defer x.Close()
	_, err = x.Run(w.Context(), "order-1", returning(value, nil))
	require.NoError(w, err)
	return namespace
}

// changed checks what becomes of a record when it is read as another T: want, or what check says.
func changed[From, To any](w *world, was From, want To, check func(To)) {
	w.Helper()
	x, err := idempotent.New[To](w.client(nil), shapedAs(w, was))
	require.NoError(w, err)
	defer x.Close()
	got, err := x.Run(w.Context(), "order-1", forbidden[To](w))
	require.NoError(w, err)
	if check != nil {
		check(got)
		return
	}
	require.Equal(w, want, got)
}

// unreadableAs checks that a record cannot be read as another T, and stays.
func unreadableAs[To, From any](w *world, was From) {
	w.Helper()
	said, logger := lockedLog()
	x, err := idempotent.New[To](w.client(nil), shapedAs(w, was), logger)
	require.NoError(w, err)
	defer x.Close()
	for name, do := range map[string]func(ctx context.Context) error{
		"Run":   func(ctx context.Context) error { _, err := x.Run(ctx, "order-1", forbidden[To](w)); return err },
		"Get":   func(ctx context.Context) error { _, err := x.Get(ctx, "order-1"); return err },
		"again": func(ctx context.Context) error { _, err := x.Run(ctx, "order-1", forbidden[To](w)); return err },
	} {
		err := do(w.Context())
		require.ErrorIs(w, err, idempotent.ErrCorruptRecord, "%s of a %T", name, *new(To))
		keepSecret(w, err, said)
	}
	status, err := x.Peek(w.Context(), "order-1")
	require.NoError(w, err)
	require.Equal(w, idempotent.StateSucceeded, status.State)
}

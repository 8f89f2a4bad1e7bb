package load

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/verify/soak/history"
)

func TestWhatCallsComeTo(t *testing.T) {
	over := context.DeadlineExceeded
	for _, test := range []struct {
		err    error
		over   error
		result history.Result
		of     string
	}{
		{failure(errDeclined, "w-1"), nil, history.GotError, "w-1"},
		{idempotent.OutcomeUnknown(failure(errBroken, "w-1")), nil, history.GotUnknown, "w-1"},
		{&idempotent.PanicError{Value: failure(errDeclined, "w-1")}, nil, history.GotPanic, "w-1"},
		{fmt.Errorf("%w; %w", idempotent.ErrLeaseLost, failure(over, "w-1")), over, history.LeaseLost, "w-1"},
		{fmt.Errorf("%w; %w", idempotent.ErrNotRecorded, failure(errDeclined, "w-1")), nil, history.NotRecorded, "w-1"},
		{fmt.Errorf("%w; %w", idempotent.ErrNotRecorded, &idempotent.PanicError{Value: failure(errDeclined, "w-1")}), nil, history.NotRecorded, "w-1"},
		{&idempotent.InProgressError{}, nil, history.InProgress, ""},
		{over, over, history.ContextOver, ""},
		{fmt.Errorf("%w: %w", idempotent.ErrUnavailable, over), nil, history.Unavailable, ""}, // the client's timeout
		{fmt.Errorf("%w; %w", over, idempotent.ErrUnavailable), over, history.ContextOver, ""},
		{idempotent.ErrCorruptRecord, nil, history.Other, ""},
		{errors.New("something else"), nil, history.Other, ""},
	} {
		e := describe(charge{}, test.err, test.over, idempotent.Executed)
		assert.Equal(t, test.result, e.Result, "%v", test.err)
		assert.Equal(t, test.of, e.Of, "%v", test.err)
	}
}

func TestChangedValuesAreNoticed(t *testing.T) {
	value := newCharge("w-1", 1000)
	assert.True(t, describe(value, nil, nil, idempotent.Replayed).Intact)
	value.Pad[999]++
	assert.False(t, describe(value, nil, nil, idempotent.Replayed).Intact)
	assert.NotEqual(t, "w-1", describe(newCharge("w-2", 10), nil, nil, idempotent.Replayed).Of)
	assert.False(t, describe(charge{}, nil, nil, idempotent.Replayed).Intact)
	// A replayed error that does not say that it is one.
	assert.False(t, describe(charge{}, failure(errDeclined, "w-1"), nil, idempotent.Waited).Intact)
}

// The mode of a key is the same in every worker, and all modes come up.
func TestModesFollowFromTheSeed(t *testing.T) {
	seen := make(map[string]bool)
	for key := range 500 {
		m := modeOf(7, "single", key)
		assert.Same(t, m, modeOf(7, "single", key))
		seen[m.name] = true
	}
	assert.Len(t, seen, len(modes))
}

// What becomes of a key is the same in every worker, everything comes up, and a short TTL is in all calls
// for a key or in none.
func TestTurnsFollowFromTheSeed(t *testing.T) {
	one := &worker{Order: Order{Seed: 7, Topology: "single", Lease: time.Second}}
	other := &worker{Order: Order{Seed: 7, Topology: "single", Lease: time.Second, Proc: "b"}}
	seen := make(map[turn]bool)
	for key := range 500 {
		m := modeOf(7, "single", key)
		turn, age := one.turn(key)
		again, agedAgain := other.turn(key)
		assert.Equal(t, turn, again)
		assert.Equal(t, age, agedAgain)
		seen[turn] = true
		var ask history.Ask
		one.shorten(&ask, m, key)
		assert.Equal(t, turn == brief, ask.TTL+ask.ErrorTTL == briefTTL)
		assert.False(t, turn == brief && m.refuse)
	}
	assert.Len(t, seen, 4)
}

// A worker says of each call of a RunMany which execution was its own.
func TestCallerKnowsItsExecutions(t *testing.T) {
	var many caller
	ctx := within(t.Context(), &many)
	callerIn(ctx).ran.Store(execution{"k1", 1}, "w-1")
	callerIn(ctx).ran.Store(execution{"k2", 1}, "w-2")
	assert.Equal(t, "w-1", many.call(execution{"k1", 1}))
	assert.Equal(t, "w-2", many.call(execution{"k2", 1}))
	assert.Empty(t, many.call(execution{"k1", 2}))
	assert.Equal(t, "w-3", (&caller{id: "w-3"}).call(execution{"k1", 1}))
	assert.Empty(t, callerIn(t.Context()).call(execution{"k1", 1}))
}

package endpoint

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
)

func TestDuplicatesHaveOneEffect(t *testing.T) {
	r := newRig(t, succeeds)
	for range 10 {
		r.deliver("evt")
	}
	for range 10 {
		r.step()
	}
	r.deliver("evt") // long after
	r.step()
	assert.Len(t, r.calls, 1)
	assert.False(t, r.calls[0].Again)
	assert.Equal(t, Backlog{}, r.backlog())
	a := r.ask("evt")
	assert.Equal(t, 11, a.Received.Deliveries)
	assert.Equal(t, "yes", a.Processed.State)
	assert.JSONEq(t, `{"order":"order","cents":7,"credit":"cr_1"}`, string(a.Changed))
	r.requireExpiries()
}

// A dead letter is one for good: duplicates do not wake it, and a replay begins anew.
func TestRetriesEndInADeadLetter(t *testing.T) {
	r := newRig(t, func(ctx context.Context, call int, ta task) (Change, error) {
		if call <= 3 {
			return Change{}, idempotent.Retryable(fmt.Errorf("outage %d", call))
		}
		return succeeds(ctx, call, ta)
	})
	r.deliver("evt")
	r.step()
	a := r.ask("evt")
	assert.Equal(t, "retrying", a.Processed.State)
	assert.Equal(t, "outage 1", a.Processed.Reason)
	assert.NotNil(t, a.Processed.NextTry)
	r.requireExpiries()

	r.deliver("evt") // while it waits
	r.step()
	assert.Len(t, r.calls, 1, "a duplicate does not shorten the pause")
	r.again()
	assert.Equal(t, Backlog{Retrying: 1}, r.backlog(), "it is not due")

	r.makeDue()
	r.step()
	r.makeDue()
	r.step()
	assert.Len(t, r.calls, 3)
	assert.Equal(t, Backlog{Dead: 1}, r.backlog())
	assert.Equal(t, "dead", r.ask("evt").Processed.State)
	letter := r.deadLetters()[0]
	assert.Equal(t, "given up after 3 attempts: outage 3", letter.Reason)
	assert.Equal(t, 3, letter.Attempts)
	assert.False(t, letter.LastFailed.Before(letter.FirstFailed))
	assert.JSONEq(t, event("evt"), string(letter.Body))
	r.requireExpiries()

	r.deliver("evt")
	r.step()
	assert.Len(t, r.calls, 3, "a duplicate does not wake the dead")
	assert.Equal(t, letter, r.deadLetters()[0])

	assert.Equal(t, http.StatusAccepted, r.replay(letter.Key))
	assert.Equal(t, http.StatusNotFound, r.replay(letter.Key), "it is replayed already")
	assert.Equal(t, "queued", r.ask("evt").Processed.State)
	r.step()
	assert.Len(t, r.calls, 4)
	assert.True(t, r.calls[3].Again, "what the earlier executions did is not known for sure")
	assert.Equal(t, r.calls[0].Reference, r.calls[3].Reference)
	assert.Equal(t, "yes", r.ask("evt").Processed.State)
	assert.Equal(t, Backlog{}, r.backlog())
	r.requireExpiries()
}

// A worker that was slow must not bury an event that was replayed in the meantime.
func TestLateVerdictDoesNotBuryAReplay(t *testing.T) {
	r := newRig(t, func(context.Context, int, task) (Change, error) { return Change{}, errors.New("no") })
	r.deliver("evt")
	r.deliver("evt")
	late := r.take()
	ev, err := r.store.load(t.Context(), late.key)
	require.NoError(t, err)
	r.step()
	require.Equal(t, http.StatusAccepted, r.replay(late.key))
	outcome := r.workers.execute(t.Context(), ev)
	require.NoError(t, r.workers.settle(t.Context(), late, ev, outcome))
	assert.Empty(t, r.deadLetters())
	assert.Len(t, r.calls, 1)
}

// XAUTOCLAIM cannot tell a slow worker from a dead one. The executor can.
func TestSlowWorkerIsNotDoubled(t *testing.T) {
	r := newRig(t, nil)
	entered, leave := make(chan struct{}), make(chan struct{})
	r.workers.handle = func(ctx context.Context, ta task) (Change, error) {
		r.calls = append(r.calls, ta)
		close(entered)
		<-leave
		return succeeds(ctx, 0, ta)
	}
	r.deliver("evt")
	e := r.take()
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.workers.work(t.Context(), e)
	}()
	<-entered
	r.again()
	r.step()
	assert.Equal(t, Backlog{Queued: 1}, r.backlog(), "the second worker leaves it where it is")
	assert.Equal(t, "running", r.ask("evt").Processed.State)
	close(leave)
	<-done
	r.again()
	r.step()
	assert.Equal(t, Backlog{}, r.backlog())
	assert.Len(t, r.calls, 1)
}

// The process dies between the end of the handler and the note of it.
func TestCrashBeforeTheNote(t *testing.T) {
	for name, handle := range map[string]func(context.Context, int, task) (Change, error){
		"yes":  succeeds,
		"dead": func(context.Context, int, task) (Change, error) { return Change{}, errors.New("no") },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, handle)
			r.deliver("evt")
			ev, err := r.store.load(t.Context(), r.take().key)
			require.NoError(t, err)
			r.workers.execute(t.Context(), ev)
			assert.Equal(t, Backlog{Queued: 1}, r.backlog())
			assert.Equal(t, name, r.ask("evt").Processed.State, "the executor knows")
			r.again()
			r.step()
			assert.Len(t, r.calls, 1)
			assert.Zero(t, r.backlog().Queued)
			assert.Equal(t, name, r.ask("evt").Processed.State)
		})
	}
}

// After an execution whose effect is not known, the next one is told to ask.
func TestUnclearOutcome(t *testing.T) {
	r := newRig(t, func(ctx context.Context, call int, ta task) (Change, error) {
		if call == 1 {
			return Change{}, &unclearError{errors.New("timeout")}
		}
		return succeeds(ctx, call, ta)
	})
	r.deliver("evt")
	r.step()
	assert.Equal(t, "interrupted", r.ask("evt").Processed.State)
	assert.Equal(t, Backlog{Queued: 1}, r.backlog())
	r.again()
	r.step()
	require.Len(t, r.calls, 2)
	assert.True(t, r.calls[1].Again)
	assert.Equal(t, 2, r.ask("evt").Processed.Attempts)
}

// An event that never comes to an end, because it kills its process or hangs, is given up too.
func TestNeverEndingEventIsGivenUp(t *testing.T) {
	r := newRig(t, func(context.Context, int, task) (Change, error) {
		return Change{}, &unclearError{errors.New("timeout")}
	})
	r.deliver("evt")
	for range r.cfg.Attempts {
		r.step()
		r.again()
	}
	r.step()
	assert.Len(t, r.calls, r.cfg.Attempts)
	require.Len(t, r.deadLetters(), 1)
	assert.Contains(t, r.deadLetters()[0].Reason, "did not end")
	assert.Equal(t, Backlog{Dead: 1}, r.backlog())
}

func TestPanicIsADeadLetter(t *testing.T) {
	r := newRig(t, func(context.Context, int, task) (Change, error) { panic("oh") })
	r.deliver("evt")
	r.step()
	require.Len(t, r.deadLetters(), 1)
	assert.Equal(t, "handler panicked: oh", r.deadLetters()[0].Reason)
}

func TestRecordThatCannotBeReadIsADeadLetter(t *testing.T) {
	r := newRig(t, succeeds)
	r.deliver("evt")
	key := r.ask("evt").Key
	require.NoError(t, r.server.Set("idempotent:"+r.cfg.Namespace+":"+key, "not a record"))
	r.step()
	assert.Empty(t, r.calls)
	require.Len(t, r.deadLetters(), 1)
	assert.Equal(t, "dead", r.ask("evt").Processed.State)
	assert.Equal(t, http.StatusAccepted, r.replay(key))
	r.step()
	require.Len(t, r.calls, 1)
	assert.True(t, r.calls[0].Again)
}

func TestEventThatIsGoneIsDropped(t *testing.T) {
	r := newRig(t, succeeds)
	r.deliver("evt")
	r.server.Del(r.store.event(r.ask("evt").Key))
	r.step()
	assert.Empty(t, r.calls)
	assert.Equal(t, Backlog{}, r.backlog())
}

// Redis may lose the group with the queue; then both are made again.
func TestQueueIsMadeAgain(t *testing.T) {
	r := newRig(t, succeeds)
	r.deliver("a")
	r.step()
	r.server.Del(r.store.queue())
	require.NoError(t, r.store.again(t.Context(), 0))
	r.requireExpiries()
	r.server.Del(r.store.queue())
	r.deliver("b")
	r.step()
	assert.Len(t, r.calls, 2)
}

// Work ends with its context, when what it has begun is done.
func TestWorkEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	r := newRig(t, nil)
	r.workers.handle = func(ctx context.Context, ta task) (Change, error) {
		cancel()
		if ctx.Err() != nil {
			return Change{}, ctx.Err()
		}
		return succeeds(ctx, 0, ta)
	}
	r.deliver("evt")
	r.workers.run(ctx)
	assert.Equal(t, "yes", r.ask("evt").Processed.State)
}

func TestJudge(t *testing.T) {
	boom := errors.New("boom")
	for _, tt := range []struct {
		err  error
		want verdict
	}{
		{nil, finished},
		{boom, dead},
		{idempotent.Retryable(boom), retry},
		{fmt.Errorf("%w: %w", idempotent.ErrReplayed, boom), dead},
		{fmt.Errorf("%w: %w", idempotent.ErrReplayed, context.Canceled), dead},
		{idempotent.ErrCorruptRecord, dead},
		{&idempotent.InProgressError{}, leave},
		{idempotent.ErrUnavailable, leave},
		{idempotent.ErrNotRecorded, leave},
		{fmt.Errorf("%w: %w", idempotent.ErrLeaseLost, idempotent.Retryable(boom)), leave},
		{fmt.Errorf("%w: %w", idempotent.ErrNotRecorded, boom), leave},
		{idempotent.ErrClosed, leave},
		{context.Canceled, leave},
		{context.DeadlineExceeded, leave},
	} {
		assert.Equal(t, tt.want, judge(tt.err), "%v", tt.err)
	}
}

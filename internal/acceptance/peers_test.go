package acceptance

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/internal/redistest"
)

// Faults seen in other libraries that no other test here is about.

// Others poll. A waiter reads once, and then sleeps until it is told.
func TestWaiterDoesNotPoll(t *testing.T) {
	inFakeTime(t, func(w *world) {
		owner, other := w.executor(idempotent.WithLease(time.Hour)), w.executor(idempotent.WithWaitTimeout(time.Hour))
		p := w.provider()
		first := owner.start(w.Context(), "order-1", p.charge)
		<-p.started
		waiting := other.start(w.Context(), "order-1", p.charge)
		other.waits(w)
		reads := len(other.looked)
		time.Sleep(50 * time.Minute)
		assert.Len(w, other.looked, reads)
		p.answer("charged", nil)
		began := time.Now()
		first.returned(w, "charged")
		waiting.returned(w, "charged")
		assert.Zero(w, time.Since(began), "woken at once")
	})
}

// Others look, then lock, and do not look again: now and then, two run.
func TestManyRoundsOfManyCallersRunOnceEach(t *testing.T) {
	onRealRedis(t, func(w *world) {
		executors := []*executor{w.executor(), w.executor(), w.executor()}
		for round := range 200 {
			var runs atomic.Int32
			var callers sync.WaitGroup
			for _, x := range executors {
				for range 4 {
					callers.Go(func() {
						v, err := x.Run(w.Context(), fmt.Sprintf("order-%d", round), func(context.Context) (string, error) {
							runs.Add(1)
							return "charged", nil
						})
						assert.NoError(w, err)
						assert.Equal(w, "charged", v)
					})
				}
			}
			callers.Wait()
			require.EqualValues(w, 1, runs.Load(), "round %d", round)
		}
	})
}

// Others deadlock when everything they wait for is flushed.
func TestFlushWhileManyWait(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	onRealRedisAt(t, server.URL(), func(w *world) {
		owner, other := w.executor(), w.executor()
		p := w.provider()
		const keys = 50
		var calls []*call
		for i := range keys {
			calls = append(calls, owner.start(w.Context(), fmt.Sprintf("order-%d", i), p.chargeOrLeave))
		}
		for range keys {
			<-p.started
		}
		for i := range keys {
			calls = append(calls, other.start(w.Context(), fmt.Sprintf("order-%d", i), p.charge))
		}
		for range keys {
			<-other.looked
		}
		require.NoError(w, owner.client.FlushAll(w.Context()).Err())
		for range keys { // those who waited own it now
			<-p.started
		}
		for _, c := range calls[:keys] {
			require.ErrorIs(w, c.wait(w).err, idempotent.ErrLeaseLost)
		}
		for range keys {
			p.answer("charged", nil)
		}
		for _, c := range calls[keys:] {
			c.returned(w, "charged")
		}
	})
}

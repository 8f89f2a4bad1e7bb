package lease

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"

	"github.com/idempotent-go/idempotent/internal/store"
)

// losses counts how often an owner was told of a loss.
type losses struct{ atomic.Int64 }

func (l *losses) LeaseLost() { l.Add(1) }

// A server answers renewals: each pipeline gets the next answer, in its own time.
type server struct {
	sent    chan time.Time
	answers chan answer
}

type answer struct {
	mine bool
	err  error
}

func (s *server) DialHook(redis.DialHook) redis.DialHook {
	return func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("no network") }
}

func (s *server) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

func (s *server) ProcessPipelineHook(redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(_ context.Context, cmds []redis.Cmder) error {
		s.sent <- time.Now()
		a := <-s.answers
		for _, cmd := range cmds {
			cmd.SetErr(a.err)
			n := int64(0)
			if a.mine {
				n = 1
			}
			cmd.(*redis.Cmd).SetVal(n)
		}
		return a.err
	}
}

const duration = 12 * time.Second // renewed at 4 s, looked at each second

type world struct {
	*Renewer
	*server
	renewed, failed, lost atomic.Int64
	before                time.Duration
	told                  losses
}

func (w *world) LeaseRenewed(_ *Lease, left time.Duration, err error) {
	if w.before = left; err != nil {
		w.failed.Add(1)
	} else {
		w.renewed.Add(1)
	}
}

func (w *world) LeaseLost(*Lease) { w.lost.Add(1) }

func inFakeTime(t *testing.T, test func(t *testing.T, w *world)) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{server: &server{sent: make(chan time.Time, 100), answers: make(chan answer)}}
		client := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1", MaxRetries: -1})
		client.AddHook(w.server)
		w.Renewer = NewRenewer(store.New(client, 0, store.Ack{}), duration,
			w, slog.New(slog.DiscardHandler))
		test(t, w)
		w.Close()
		assert.NoError(t, client.Close())
	})
}

func (w *world) keep() *Lease {
	l := &Lease{Name: "name", Duration: duration, RenewedAt: time.Now()}
	w.Keep(l, &w.told)
	return l
}

// reply answers the renewal in flight.
func (w *world) reply(a answer) {
	w.answers <- a
	synctest.Wait()
}

func (w *world) left(t *testing.T, l *Lease, want time.Duration) {
	t.Helper()
	assert.Equal(t, want, l.Left())
}

// Redis counts from a moment between sending and reply. The lease must end no later than there.
func TestLeaseCountsFromTheSendingOfARenewal(t *testing.T) {
	inFakeTime(t, func(t *testing.T, w *world) {
		l := w.keep()
		<-w.sent
		time.Sleep(3 * time.Second)
		w.reply(answer{mine: true})
		w.left(t, l, duration-3*time.Second)
		assert.EqualValues(t, 1, w.renewed.Load())
		w.Drop(l)
	})
}

// A renewal that hung returns after a later one: the lease must not become shorter.
func TestOlderRenewalDoesNotReplaceANewerOne(t *testing.T) {
	inFakeTime(t, func(t *testing.T, w *world) {
		l := w.keep()
		early := <-w.sent
		late := <-w.sent // since the first one hangs
		assert.Equal(t, 4*time.Second, late.Sub(early))
		w.reply(answer{mine: true})
		w.reply(answer{mine: true})
		w.left(t, l, duration)
		w.Drop(l)
	})
	older := NewRenewer(nil, duration, new(world), nil)
	sent := time.Now()
	l := &Lease{Duration: duration, RenewedAt: sent}
	older.leases[l] = struct{}{}
	older.finish(l, &store.Renewal{Mine: true}, sent.Add(-time.Second))
	assert.Equal(t, sent, l.RenewedAt)
}

// A renewal in flight is not sent again before it has had a whole interval.
func TestRenewalInFlightIsNotRepeated(t *testing.T) {
	inFakeTime(t, func(t *testing.T, w *world) {
		l := w.keep()
		<-w.sent
		time.Sleep(3500 * time.Millisecond) // three ticks
		assert.Empty(t, w.sent)
		w.reply(answer{mine: true})
		w.Drop(l)
	})
}

func TestFailedRenewalIsRepeatedAtTheNextTick(t *testing.T) {
	inFakeTime(t, func(t *testing.T, w *world) {
		l := w.keep()
		first := <-w.sent
		w.reply(answer{err: errors.New("EOF")})
		assert.Equal(t, time.Second, (<-w.sent).Sub(first))
		w.reply(answer{mine: true})
		assert.Zero(t, w.told.Load())
		w.Drop(l)
	})
}

// Without an answer the lease ends at its deadline, which is between two ticks.
func TestLeaseEndsAtItsDeadline(t *testing.T) {
	inFakeTime(t, func(t *testing.T, w *world) {
		l := w.keep()
		w.Renewer.mu.Lock()
		l.RenewedAt = l.RenewedAt.Add(-500 * time.Millisecond)
		w.Renewer.mu.Unlock()
		time.Sleep(11500*time.Millisecond - margin(l.Duration) - time.Millisecond)
		synctest.Wait()
		assert.Zero(t, w.told.Load())
		time.Sleep(time.Millisecond)
		synctest.Wait()
		assert.EqualValues(t, 1, w.told.Load())
		assert.EqualValues(t, 1, w.lost.Load())
		for len(w.sent) > 0 { // those that hang come back when it is over
			<-w.sent
			w.reply(answer{mine: true})
		}
		assert.Zero(t, w.renewed.Load(), "nothing revives it")
		time.Sleep(time.Minute)
		assert.EqualValues(t, 1, w.told.Load(), "told once")
		assert.Empty(t, w.sent, "a lease that is lost is not renewed")
		w.Drop(l)
	})
}

func TestLeaseThatAnotherHasIsLostAtOnce(t *testing.T) {
	inFakeTime(t, func(t *testing.T, w *world) {
		l := w.keep()
		<-w.sent
		w.reply(answer{mine: false})
		assert.EqualValues(t, 1, w.told.Load())
		assert.EqualValues(t, 1, w.lost.Load())
		assert.True(t, w.FnReturned(l))
		w.Drop(l)
	})
}

// While the commit goes on, fn is over: the lease is renewed, and its loss reported to no one.
func TestLeaseIsRenewedDuringTheCommit(t *testing.T) {
	inFakeTime(t, func(t *testing.T, w *world) {
		l := w.keep()
		assert.False(t, w.FnReturned(l))
		<-w.sent
		w.reply(answer{mine: true})
		assert.EqualValues(t, 1, w.renewed.Load())
		<-w.sent
		w.reply(answer{mine: false}) // it met the outcome
		assert.Zero(t, w.told.Load())
		assert.Zero(t, w.lost.Load())
		w.Drop(l)
	})
}

func TestDroppedLeaseIsNotRenewed(t *testing.T) {
	inFakeTime(t, func(t *testing.T, w *world) {
		l := w.keep()
		<-w.sent
		w.Drop(l)
		w.reply(answer{mine: false})
		time.Sleep(time.Minute)
		synctest.Wait()
		assert.Empty(t, w.sent)
		assert.Zero(t, w.told.Load())
		assert.Nil(t, w.timer, "no timer without leases")
	})
}

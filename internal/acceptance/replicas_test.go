package acceptance

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/internal/redistest"
)

// A replicated world has a master, a replica, and a replica of that one for when it is promoted.
type replicated struct {
	*world
	master, replica *redistest.Server
	gate            *gate
	serving         atomic.Pointer[string] // the address that clients dial
}

func onReplicatedRedis(t *testing.T, test func(w *replicated)) {
	t.Helper()
	t.Parallel()
	master := redistest.Start(t, "--repl-diskless-sync-delay", "0")
	onRealRedisAt(t, master.URL(), func(w *world) {
		r := &replicated{world: w, master: master, gate: newGate(t, master.Addr())}
		host, port, err := net.SplitHostPort(r.gate.Addr().String())
		require.NoError(t, err)
		r.replica = redistest.Start(t, "--replicaof", host, port, "--repl-diskless-sync-delay", "0")
		host, port, err = net.SplitHostPort(r.replica.Addr())
		require.NoError(t, err)
		spare := redistest.Start(t, "--replicaof", host, port)
		r.serve(master)
		var d net.Dialer
		w.dial = func(ctx context.Context) (net.Conn, error) { return d.DialContext(ctx, "tcp", *r.serving.Load()) }
		r.synced()
		r.arrived(spare)
		test(r)
	})
}

func (r *replicated) serve(s *redistest.Server) {
	addr := s.Addr()
	r.serving.Store(&addr)
}

// synced returns when the replica has all that the master has.
func (r *replicated) synced() {
	r.Helper()
	c := r.master.Client(r)
	for range 2 { // a replica that has just come answers the second time only when it is ready
		require.NoError(r, c.Set(r.Context(), "synced", "", 0).Err())
		n, err := c.Do(r.Context(), "wait", 1, 20_000).Int()
		require.NoError(r, err)
		require.Equal(r, 1, n)
	}
}

// arrived returns when a replica of the replica has what was written last.
func (r *replicated) arrived(spare *redistest.Server) {
	r.Helper()
	c := spare.Client(r)
	require.Eventually(r, func() bool { // replicas of replicas are not in WAIT
		n, err := c.Exists(r.Context(), "synced").Result()
		return err == nil && n == 1
	}, 20*time.Second, time.Millisecond)
}

// failover kills the master and makes the replica one, with what it has.
func (r *replicated) failover() {
	r.Helper()
	r.master.Kill()
	require.NoError(r, r.replica.Client(r).Do(r.Context(), "replicaof", "no", "one").Err())
	r.serve(r.replica)
}

// A gate is what lies between master and replica. While it is shut, nothing gets through that was
// not through before.
type gate struct {
	net.Listener
	mu   sync.Mutex
	open *sync.Cond
	shut bool
	over bool
}

func newGate(t *testing.T, addr string) *gate {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	g := &gate{Listener: l}
	g.open = sync.NewCond(&g.mu)
	var running sync.WaitGroup
	running.Go(func() {
		for {
			replica, err := l.Accept()
			if err != nil {
				return
			}
			master, err := net.Dial("tcp", addr)
			if err != nil {
				_ = replica.Close()
				continue
			}
			running.Go(func() { g.pass(replica, master) })
			running.Go(func() { g.pass(master, replica) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		g.set(func() { g.over = true })
		running.Wait()
	})
	return g
}

func (g *gate) pass(to, from net.Conn) {
	defer to.Close()
	defer from.Close()
	b := make([]byte, 1<<16)
	for {
		_ = from.SetReadDeadline(time.Now().Add(100 * time.Millisecond)) // to see that the test is over
		n, err := from.Read(b)
		g.mu.Lock()
		for g.shut && !g.over {
			g.open.Wait()
		}
		over := g.over
		g.mu.Unlock()
		if over {
			return
		}
		if _, err := to.Write(b[:n]); err != nil {
			return
		}
		if timeout, ok := err.(net.Error); err != nil && (!ok || !timeout.Timeout()) {
			return
		}
	}
}

func (g *gate) set(change func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	change()
	g.open.Broadcast()
}

func (g *gate) close()  { g.set(func() { g.shut = true }) }
func (g *gate) reopen() { g.set(func() { g.shut = false }) }

var acked = idempotent.WithReplicaAck(1, 400*time.Millisecond)

func TestClaimSurvivesFailover(t *testing.T) {
	onReplicatedRedis(t, func(w *replicated) {
		owner, other := w.executor(acked), w.executor(acked)
		p := w.provider()
		first := owner.start(w.Context(), "order", p.charge)
		<-p.started
		w.gate.close()
		w.failover()
		second := other.start(w.Context(), "order", p.charge)
		other.waits(w.world)
		p.answer("charged", nil)
		first.returned(w, "charged")
		second.returned(w, "charged")
		assert.Equal(t, 1, p.count())
	})
}

// What the option is for: without it, the same failover runs fn twice.
func TestClaimWithoutReplicasIsLost(t *testing.T) {
	onReplicatedRedis(t, func(w *replicated) {
		owner, other := w.executor(), w.executor()
		p := w.provider()
		w.gate.close()
		first := owner.start(w.Context(), "order", p.charge)
		<-p.started
		w.failover()
		second := other.start(w.Context(), "order", p.charge)
		<-p.started
		p.answer("charged", nil)
		p.answer("charged", nil)
		first.wait(w)
		second.returned(w, "charged")
		assert.Equal(t, 2, p.count())
	})
}

func TestCommitSurvivesFailover(t *testing.T) {
	onReplicatedRedis(t, func(w *replicated) {
		owner, other := w.executor(acked), w.executor(acked)
		p := w.provider()
		p.answer("charged", nil)
		owner.start(w.Context(), "order", p.charge).returned(w, "charged")
		w.gate.close()
		w.failover()
		other.start(w.Context(), "order", p.charge).returned(w, "charged")
		assert.Equal(t, 1, p.count())
	})
}

func TestCommitWithoutReplicasIsLost(t *testing.T) {
	onReplicatedRedis(t, func(w *replicated) {
		owner, other := w.executor(), w.executor()
		p := w.provider()
		first := owner.start(w.Context(), "order", p.charge)
		<-p.started
		w.synced()
		w.gate.close()
		p.answer("charged", nil)
		first.returned(w, "charged")
		w.failover()
		p.answer("charged again", nil)
		other.start(w.Context(), "order", p.charge).returned(w, "charged again")
		assert.Equal(t, 2, p.count())
	})
}

// The key is free again, and nothing ran.
func TestTooFewReplicasForClaim(t *testing.T) {
	onReplicatedRedis(t, func(w *replicated) {
		x := w.executor(acked)
		p := w.provider()
		w.gate.close()
		call := x.start(w.Context(), "order", p.charge).wait(w)
		assert.ErrorIs(t, call.err, idempotent.ErrUnavailable)
		assert.ErrorContains(t, call.err, "0 of 1 within 400ms")
		assert.Zero(t, p.count())

		w.gate.reopen()
		w.synced()
		p.answer("charged", nil)
		x.start(w.Context(), "order", p.charge).returned(w, "charged")
		assert.Equal(t, 1, p.last().Attempt)
	})
}

func TestTooFewReplicasForTakeOver(t *testing.T) {
	onReplicatedRedis(t, func(w *replicated) {
		dead, other := w.executor(), w.executor(acked, idempotent.WithWaitTimeout(10*time.Second))
		p := w.provider()
		ctx, cancel := context.WithCancel(w.Context())
		first := dead.start(ctx, "order", p.chargeOrLeave)
		<-p.started
		cancel() // leaves a record whose lease is over
		first.wait(w)
		w.synced()
		w.gate.close()
		second := other.start(w.Context(), "order", p.charge)
		other.waits(w.world)
		<-other.looked
		w.gate.reopen()
		<-p.started
		assert.Greater(t, p.last().Attempt, 1)
		p.answer("charged", nil)
		second.returned(w, "charged")
		assert.Equal(t, 2, p.count())
	})
}

func TestTooFewReplicasForCommit(t *testing.T) {
	t.Run("for a while", func(t *testing.T) {
		onReplicatedRedis(t, func(w *replicated) {
			x := w.executor(acked)
			p := w.provider()
			call := x.start(w.Context(), "order", p.charge)
			<-p.started
			w.gate.close()
			p.answer("charged", nil)
			x.Wait(t, idempotent.EventCommitRetried, 1)
			w.gate.reopen()
			call.returned(w, "charged")
			w.failover()
			x.start(w.Context(), "order", p.charge).returned(w, "charged")
		})
	})
	t.Run("for good", func(t *testing.T) {
		onReplicatedRedis(t, func(w *replicated) {
			x := w.executor(acked)
			p := w.provider()
			call := x.start(w.Context(), "order", p.charge)
			<-p.started
			w.gate.close()
			p.answer("charged", nil)
			call.wait(w)
			assert.Equal(t, "charged", call.value)
			assert.ErrorIs(t, call.err, idempotent.ErrNotRecorded)
			x.start(w.Context(), "order", p.charge).returned(w, "charged") // the master has it
			assert.Equal(t, 1, p.count())
		})
	})
}

// A renewal that the replica lacks does not count: a failover would bring the shorter lease back.
func TestTooFewReplicasForRenewal(t *testing.T) {
	onReplicatedRedis(t, func(w *replicated) {
		x := w.executor(acked)
		p := w.provider()
		call := x.start(w.Context(), "order", p.charge)
		<-p.started
		w.gate.close()
		x.Wait(t, idempotent.EventLeaseLost, 1)
		assert.Zero(t, x.Count(idempotent.EventRenewed))
		w.gate.reopen()
		w.synced()
		p.answer("charged", nil)
		call.returned(w, "charged") // nobody took over
	})
}

func TestTooFewReplicasForResolve(t *testing.T) {
	onReplicatedRedis(t, func(w *replicated) {
		x := w.executor(acked)
		w.gate.close()
		assert.ErrorIs(t, resolve(x, w.Context(), "order", "by hand"), idempotent.ErrNotRecorded)
		p := w.provider()
		x.start(w.Context(), "order", p.charge).returned(w, "by hand")
	})
}

// A command that finds its own work done wrote nothing, and WAIT waits for writes alone.
func TestRepeatedDeliveryWaitsForReplicas(t *testing.T) {
	for name, lost := range map[string]string{"claim": "set", "commit": "charged"} {
		t.Run(name, func(t *testing.T) {
			onReplicatedRedis(t, func(w *replicated) {
				x := w.executor(acked)
				p := w.provider()
				call := x.start(w.Context(), "warm", p.charge)
				p.answer("", nil)
				call.returned(w, "")
				<-p.started
				x.wire.loseReplyTo(lost)
				counts := w.master.Commands(t, func() {
					p.answer("charged", nil)
					x.start(w.Context(), "order", p.charge).returned(w, "charged")
				})
				assert.Equal(t, 1, x.wire.repliesLost())
				assert.Positive(t, counts["pexpire"])
				assert.Equal(t, 1, p.count()-1)
			})
		})
	}
}

func TestReplicaAckCost(t *testing.T) {
	onReplicatedRedis(t, func(w *replicated) {
		x := w.executor(acked)
		p := w.provider()
		p.answer("charged", nil)
		x.start(w.Context(), "warm", p.charge).returned(w, "charged")
		run := func() { x.start(w.Context(), "order", p.charge).returned(w, "charged") }
		first := w.master.Commands(t, func() {
			p.answer("charged", nil)
			run()
		})
		for _, own := range []string{"replconf", "auth"} { // the replica's
			delete(first, own)
		}
		assert.Equal(t, map[string]int{"evalsha": 1, "set": 1, "wait": 2}, sent(first, readCalls, commitCalls, map[string]int{"evalsha": 1}))
		replay := w.master.Commands(t, run)
		assert.Zero(t, replay["wait"])
	})
}

func TestReplicaAckOptions(t *testing.T) {
	t.Parallel()
	w := redistest.Start(t)
	for name, test := range map[string]struct {
		option idempotent.Option
		says   string
	}{
		"no replicas":       {idempotent.WithReplicaAck(0, time.Second), "n is 0; allowed: 1 or more"},
		"no time":           {idempotent.WithReplicaAck(1, 0), "timeout is 0s; allowed: 1ms or more"},
		"longer than lease": {idempotent.WithReplicaAck(1, 4*time.Second), "up to a third of the lease, 3.333"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := idempotent.New[string](w.Client(t), "default", test.option)
			assert.ErrorIs(t, err, idempotent.ErrInvalidOption)
			assert.ErrorContains(t, err, "WithReplicaAck")
			assert.ErrorContains(t, err, test.says)
		})
	}
	for name, client := range map[string]redis.UniversalClient{
		"client":  redis.NewClient(&redis.Options{ReadTimeout: 3 * time.Second}),
		"Cluster": redis.NewClusterClient(&redis.ClusterOptions{ReadTimeout: 3 * time.Second}),
		"Ring":    redis.NewRing(&redis.RingOptions{ReadTimeout: 3 * time.Second}),
	} {
		t.Run(name, func(t *testing.T) {
			defer client.Close()
			_, err := idempotent.New[string](client, "default", idempotent.WithLease(time.Minute), idempotent.WithReplicaAck(1, 3*time.Second))
			assert.ErrorIs(t, err, idempotent.ErrInvalidOption)
			assert.ErrorContains(t, err, "less than the client's ReadTimeout, 3s")
		})
	}
	_, err := idempotent.New[string](nil, "default", idempotent.WithReplicaAck(1, time.Second))
	assert.ErrorContains(t, err, "client is nil")
}

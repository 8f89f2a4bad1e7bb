package acceptance

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/internal/redistest"
	"github.com/idempotent-go/idempotent/internal/slot"
)

// A redirection sends two executors from one master to another, with every command.
type redirection struct {
	clusterWorld
	kind     string // ASK or MOVED
	from, to *redistest.Node
	one, two *executor
	p        *provider
}

// sentByASK redirects by a slot that is on its way, and is left there.
func sentByASK(w clusterWorld) {
	from, to := w.masterOf("{key}")
	m, err := w.BeginMigration(w.Context(), slot.Of(w.name("{key}")), to)
	require.NoError(w, err)
	defer func() {
		require.NoError(w, m.MoveKeys(context.WithoutCancel(w.Context())))
		require.NoError(w, m.Finish(context.WithoutCancel(w.Context())))
	}()
	redirected(w, "ASK", from, to)
}

// sentByMOVED redirects clients that never learn where a slot is.
func sentByMOVED(w clusterWorld) {
	to, from := w.masterOf("{key}")
	w.belief = &belief{slots: []redis.ClusterSlot{{Start: 0, End: slot.Count - 1, Nodes: []redis.ClusterNode{{Addr: from.Addr()}}}}}
	redirected(w, "MOVED", from, to)
}

func redirected(w clusterWorld, kind string, from, to *redistest.Node) {
	w.lease = 2 * time.Second
	old := w.client()
	old.AddHook(refuse{map[string]error{"set": errors.New("ERR syntax error")}}) // Redis 6: it claims by script
	opt := idempotent.WithShouldIgnoreError(idempotent.IsRetryable)
	r := &redirection{
		clusterWorld: w, kind: kind, from: from, to: to, p: w.provider(),
		one: w.executorOn(w.client(), opt), two: w.executorOn(w.client(), opt),
	}
	w.Run("claim, read, renew, commit", r.wholeRun)
	w.Run("release", r.release)
	w.Run("take over", r.takeOver)
	w.Run("forget, resolve, look", r.operate)
	r.one = w.executorOn(old, opt)
	w.Run("claim by script", r.release)
}

// follows checks that a step is sent on, to a server that does not know the script yet.
func (r *redirection) follows(t *testing.T, script bool, step func()) {
	t.Helper()
	require.NoError(t, r.to.Client().ScriptFlush(t.Context()).Err())
	sent, unknown := r.errors(r.from, r.kind), r.errors(r.to, "NOSCRIPT")
	step()
	assert.Greater(t, r.errors(r.from, r.kind), sent, "redirected")
	if script {
		assert.Greater(t, r.errors(r.to, "NOSCRIPT"), unknown, "a script that was not known")
	}
}

func (r *redirection) wholeRun(t *testing.T) {
	var first, second *call
	r.follows(t, false, func() {
		first = r.one.start(t.Context(), "{key} run", r.p.charge)
		<-r.p.started
	})
	r.follows(t, true, func() {
		second = r.two.start(t.Context(), "{key} run", r.p.charge)
		<-r.two.looked
	})
	r.follows(t, true, func() {
		r.one.Wait(t, idempotent.EventRenewed, r.one.Count(idempotent.EventRenewed)+2) // one may be under way
	})
	r.follows(t, true, func() {
		r.p.answer("charged", nil)
		first.returned(t, "charged")
	})
	second.returned(t, "charged")
	r.follows(t, false, func() { r.two.start(t.Context(), "{key} run", r.p.charge).returned(t, "charged") })
	assert.Zero(t, r.one.Count(idempotent.EventLeaseLost))
}

func (r *redirection) release(t *testing.T) {
	r.follows(t, true, func() {
		r.p.answer("", errBusy)
		require.ErrorIs(t, r.one.start(t.Context(), "{key} busy", r.p.charge).wait(t).err, errBusy)
	})
	<-r.p.started
	r.follows(t, true, func() {
		status, err := r.two.Peek(t.Context(), "{key} busy")
		require.NoError(t, err)
		assert.Equal(t, idempotent.StateAbsent, status.State)
	})
}

func (r *redirection) takeOver(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cut := r.one.start(ctx, "{key} cut", r.p.chargeOrLeave)
	<-r.p.started
	r.follows(t, true, func() {
		cancel()
		require.ErrorIs(t, cut.wait(t).err, context.Canceled)
	})
	r.p.answer("charged", nil)
	r.follows(t, true, func() { r.two.start(t.Context(), "{key} cut", r.p.charge).returned(t, "charged") })
	<-r.p.started
	assert.Equal(t, 2, r.p.last().Attempt)
}

func (r *redirection) operate(t *testing.T) {
	r.follows(t, true, func() { require.NoError(t, resolve(r.one, t.Context(), "{key} settled", "by hand")) })
	r.follows(t, true, func() {
		value, err := r.two.Get(t.Context(), "{key} settled")
		require.NoError(t, err)
		assert.Equal(t, "by hand", value)
	})
	r.follows(t, true, func() { require.NoError(t, r.one.Forget(t.Context(), "{key} settled")) })
	status, err := r.two.Peek(t.Context(), "{key} settled")
	require.NoError(t, err)
	assert.Equal(t, idempotent.StateAbsent, status.State)
}

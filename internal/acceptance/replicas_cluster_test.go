package acceptance

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/internal/slot"
)

// acknowledgedWhileMigrated has replicas acknowledge what ASK and MOVED send elsewhere: the write
// and WAIT travel together, so the library follows them itself.
func acknowledgedWhileMigrated(w clusterWorld) {
	w.lease = 2 * time.Second
	from, to := w.masterOf("{key}")
	opts := []idempotent.Option{idempotent.WithReplicaAck(1, 600*time.Millisecond), idempotent.WithShouldIgnoreError(idempotent.IsRetryable)}
	one, two := w.two(opts...)
	r := &redirection{clusterWorld: w, kind: "ASK", from: from, to: to, p: w.provider(), one: one, two: two}
	r.p.answer("charged", nil)
	one.start(w.Context(), "{key} knows where", r.p.charge).returned(w, "charged")
	<-r.p.started

	m, err := w.BeginMigration(w.Context(), slot.Of(w.name("{key}")), to)
	require.NoError(w, err)
	w.Run("ASK: claim, read, renew, commit", r.wholeRun)
	w.Run("ASK: release", r.release)
	w.Run("ASK: take over", r.takeOver)
	require.NoError(w, m.MoveKeys(w.Context()))
	require.NoError(w, m.Finish(w.Context()))

	r.kind = "MOVED"
	w.Run("MOVED: claim", func(t *testing.T) {
		r.follows(t, false, func() {
			r.p.answer("charged", nil)
			one.start(t.Context(), "{key} moved", r.p.charge).returned(t, "charged")
		})
		<-r.p.started
	})
	w.Run("MOVED: commit", func(t *testing.T) {
		call := one.start(t.Context(), "{key} moves", r.p.charge)
		<-r.p.started
		m, err := w.BeginMigration(t.Context(), slot.Of(w.name("{key}")), from)
		require.NoError(t, err)
		require.NoError(t, m.MoveKeys(context.WithoutCancel(t.Context())))
		require.NoError(t, m.Finish(context.WithoutCancel(t.Context())))
		r.p.answer("charged", nil)
		call.returned(t, "charged")
		two.start(t.Context(), "{key} moves", r.p.charge).returned(t, "charged")
	})
	assert.Zero(w, one.Count(idempotent.EventCommitFailed))
}

package lease

import (
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/idempotent-go/idempotent/internal/store"
)

// untold counts how often an owner was told of a loss.
type untold int

func (u *untold) LeaseLost() { *u++ }

// A renewal that meets the outcome is no loss of the lease.
func TestRenewalAfterTheCommitIsNoLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := new(untold)
		r := NewRenewer(nil, time.Minute, func(*Lease) {}, func(*Lease) {}, slog.New(slog.DiscardHandler))
		l := &Lease{Duration: time.Minute, RenewedAt: time.Now()}
		r.Keep(l, p)
		r.FnReturned(l)
		tell := r.finish(l, &store.Renewal{}, time.Now())
		assert.Nil(t, tell)
		assert.Zero(t, *p)
		r.Drop(l)
		r.Close()
	})
}

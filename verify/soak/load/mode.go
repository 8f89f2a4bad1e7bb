package load

import (
	"cmp"
	"math/rand/v2"
	"time"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/verify/soak/history"
)

// A mode is how the calls of a key are made, and what fn comes to. Every worker knows the mode of
// a key from the seed.
type mode struct {
	name   string
	weight int
	refuse bool
	share  bool
	detach bool
	prints bool            // some calls have another fingerprint
	leave  bool            // some callers leave while fn runs
	long   bool            // fn takes longer than the lease
	size   int             // of the value
	odds   int             // of 100 executions, how many come to other
	other  history.Outcome // instead of a value
}

var modes = []mode{
	{name: "small", weight: 4, size: 20},
	{name: "medium", weight: 3, size: 40_000}, // inside the message
	{name: "large", weight: 2, size: 200_000}, // above the message limit
	{name: "error", weight: 2, odds: 100, other: history.Failed},
	{name: "panic", weight: 1, odds: 100, other: history.Panic},
	{name: "ignored", weight: 3, odds: 60, other: history.Ignored, size: 20},
	{name: "shared", weight: 2, odds: 60, other: history.Ignored, share: true, size: 20},
	{name: "unknown", weight: 2, odds: 50, other: history.Unknown, size: 20},
	{name: "refuse", weight: 3, refuse: true, size: 20, odds: 10, other: history.Unknown},
	{name: "refuse ignored", weight: 1, refuse: true, size: 20, odds: 50, other: history.Ignored},
	{name: "fingerprint", weight: 2, prints: true, size: 20},
	{name: "detached", weight: 2, detach: true, leave: true, size: 20},
	{name: "cut", weight: 2, leave: true, size: 20},
	{name: "long", weight: 3, long: true, size: 20},
	{name: "long refuse", weight: 1, long: true, refuse: true, size: 20},
	{name: "long detached", weight: 1, long: true, detach: true, leave: true, size: 20},
}

// modeOf is the mode of a key.
func modeOf(seed uint64, topology string, key int) *mode {
	total := 0
	for i := range modes {
		total += modes[i].weight
	}
	n := randomFor(seed, topology, key).IntN(total)
	for i := range modes {
		if n -= modes[i].weight; n < 0 {
			return &modes[i]
		}
	}
	return &modes[0]
}

// randomFor repeats for the same seed, name and number.
func randomFor(seed uint64, name string, number int) *rand.Rand {
	h := uint64(14695981039346656037) // FNV-1a
	for _, b := range []byte(name) {
		h = (h ^ uint64(b)) * 1099511628211
	}
	return rand.New(rand.NewPCG(seed, h+uint64(number)*0x9e3779b97f4a7c15)) //nolint:gosec // nothing is secret here
}

func upTo(r *rand.Rand, d time.Duration) time.Duration { return time.Duration(r.Int64N(int64(d))) }

// ask chooses how a call is made.
func (m *mode) ask(r *rand.Rand, lease time.Duration) history.Ask {
	a := history.Ask{Wait: 8 * lease, Detached: m.detach, Refuse: m.refuse, Share: m.share}
	switch r.IntN(10) {
	case 0:
		a.NoWait = true
	case 1, 2:
		a.Wait = lease / 3
	case 3:
		a.Deadline = lease/4 + upTo(r, 3*lease)
	}
	if m.leave && r.IntN(2) == 0 {
		a.Deadline = lease/20 + upTo(r, lease)
	}
	if m.prints {
		a.Print = "a"
		if r.IntN(4) == 0 {
			a.Print = "b"
		}
	}
	return a
}

// takes is how long fn takes.
func (m *mode) takes(r *rand.Rand, lease time.Duration) time.Duration {
	switch {
	case m.long:
		return lease + upTo(r, 2*lease)
	case r.IntN(4) == 0:
		return upTo(r, lease)
	}
	return upTo(r, lease/20)
}

// options are those of a call.
func options(a *history.Ask, report *idempotent.Report) []idempotent.RunOption {
	opts := []idempotent.RunOption{idempotent.WithWaitTimeout(a.Wait), idempotent.WithReport(report), idempotent.WithTTL(cmp.Or(a.TTL, time.Hour))}
	if a.ErrorTTL > 0 {
		opts = append(opts, idempotent.WithErrorTTL(a.ErrorTTL))
	}
	if a.NoWait {
		opts = append(opts, idempotent.WithNoWait())
	}
	if a.Detached {
		opts = append(opts, idempotent.WithDetached())
	}
	if a.Refuse {
		opts = append(opts, idempotent.WithInterrupted(idempotent.Refuse))
	}
	if a.Share {
		opts = append(opts, idempotent.WithIgnoredErrors(idempotent.ShareWithWaiters))
	}
	if a.Print != "" {
		opts = append(opts, idempotent.WithFingerprint([]byte(a.Print)))
	}
	return opts
}

package idemtest

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/idempotent-go/idempotent"
)

// A Recorder is an Observer that keeps every event, and that a test can wait on. The zero
// Recorder is ready.
type Recorder struct {
	mu      sync.Mutex
	events  []idempotent.Event
	changed chan struct{} // closed at the next event
}

// Observe implements idempotent.Observer.
func (r *Recorder) Observe(_ context.Context, e idempotent.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
	if r.changed != nil {
		close(r.changed)
		r.changed = nil
	}
}

// Events returns what happened so far, oldest first: all events or, with kinds, those of these
// kinds.
func (r *Recorder) Events(kinds ...idempotent.EventKind) []idempotent.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.matching(kinds)
}

// Count returns how many events of these kinds there were.
func (r *Recorder) Count(kinds ...idempotent.EventKind) int { return len(r.Events(kinds...)) }

// Wait waits until there were n events of a kind, and returns the n-th. It fails the test after
// a minute.
func (r *Recorder) Wait(t testing.TB, kind idempotent.EventKind, n int) idempotent.Event {
	t.Helper()
	deadline := time.NewTimer(time.Minute)
	defer deadline.Stop()
	for {
		found, changed := r.watch(kind)
		if len(found) >= n {
			return found[n-1]
		}
		select {
		case <-changed:
		case <-deadline.C:
			t.Fatalf("idemtest: %d of %d events %q after a minute", len(found), n, kind)
		}
	}
}

func (r *Recorder) watch(kind idempotent.EventKind) ([]idempotent.Event, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.changed == nil {
		r.changed = make(chan struct{})
	}
	return r.matching([]idempotent.EventKind{kind}), r.changed
}

func (r *Recorder) matching(kinds []idempotent.EventKind) []idempotent.Event {
	if len(kinds) == 0 {
		return slices.Clone(r.events)
	}
	var out []idempotent.Event
	for _, e := range r.events {
		if slices.Contains(kinds, e.Kind) {
			out = append(out, e)
		}
	}
	return out
}

package idemotel_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/idemotel"
	"github.com/idempotent-go/idempotent/internal/redistest"
)

// provoked has a way to each error.type of a call. Each gets a namespace of its own.
var provoked = map[string]func(w *world, namespace string){
	"not_recorded": func(w *world, ns string) {
		server := redistest.Start(w.T)
		x := w.executorOn(server.URL(), ns, idempotent.WithTracer(w.telemetry), idempotent.WithCommitWait(10*time.Millisecond), idempotent.WithLease(100*time.Millisecond))
		_, err := x.Run(w.Context(), key("a"), func(ctx context.Context) (string, error) {
			x.Wait(w, idempotent.EventClaimed, 1)
			server.Kill()
			return charged(ctx)
		})
		require.ErrorIs(w, err, idempotent.ErrNotRecorded)
	},
	"lease_lost": func(w *world, ns string) {
		other := w.other(ns)
		_, err := w.executor(ns).Run(w.Context(), key("a"), func(ctx context.Context) (string, error) {
			assert.NoError(w, other.Forget(w.Context(), key("a")))
			_, err := other.Run(w.Context(), key("a"), charged)
			assert.NoError(w, err)
			return charged(ctx)
		})
		require.ErrorIs(w, err, idempotent.ErrLeaseLost)
	},
	"in_progress": func(w *world, ns string) {
		b := newBlockade()
		done := make(chan struct{})
		go func() { defer close(done); _, _ = w.other(ns).Run(w.Context(), key("a"), b.run) }()
		<-b.began
		_, err := w.executor(ns).Run(w.Context(), key("a"), charged, idempotent.WithNoWait())
		require.ErrorIs(w, err, idempotent.ErrInProgress)
		close(b.end)
		within(w.T, done, "the other run")
	},
	"key_reused": func(w *world, ns string) {
		_, err := w.other(ns).Run(w.Context(), key("a"), charged, idempotent.WithFingerprint([]byte(canary+"1")))
		require.NoError(w, err)
		_, err = w.executor(ns).Run(w.Context(), key("a"), charged, idempotent.WithFingerprint([]byte(canary+"2")))
		require.ErrorIs(w, err, idempotent.ErrKeyReused)
	},
	"interrupted": func(w *world, ns string) {
		refuse := idempotent.WithInterrupted(idempotent.Refuse)
		_, err := w.other(ns).Run(w.Context(), key("a"), func(context.Context) (string, error) { return "", idempotent.OutcomeUnknown(errDeclined) }, refuse)
		require.Error(w, err)
		_, err = w.executor(ns).Run(w.Context(), key("a"), charged, refuse)
		require.ErrorIs(w, err, idempotent.ErrInterrupted)
	},
	"unavailable": func(w *world, ns string) {
		_, err := w.executorOn("redis://127.0.0.1:1", ns, idempotent.WithTracer(w.telemetry)).Run(w.Context(), key("a"), charged)
		require.ErrorIs(w, err, idempotent.ErrUnavailable)
	},
	"corrupt_record": func(w *world, ns string) {
		x := w.executor(ns)
		require.NoError(w, x.client.Set(w.Context(), "idempotent:"+ns+":"+key("a"), canary, 0).Err())
		_, err := x.Run(w.Context(), key("a"), charged)
		require.ErrorIs(w, err, idempotent.ErrCorruptRecord)
	},
	"value_not_kept": func(w *world, ns string) {
		_, err := w.other(ns, idempotent.WithCodec[string](brokenCodec{})).Run(w.Context(), key("a"), charged)
		require.ErrorIs(w, err, idempotent.ErrNotRecorded)
		_, err = w.executor(ns, idempotent.WithCodec[string](brokenCodec{})).Run(w.Context(), key("a"), charged)
		require.ErrorIs(w, err, idempotent.ErrValueNotKept)
	},
	"not_found": func(w *world, ns string) {
		_, err := w.executor(ns).Get(w.Context(), key("a"))
		require.ErrorIs(w, err, idempotent.ErrNotFound)
	},
	"closed": func(w *world, ns string) {
		x := w.executor(ns)
		require.NoError(w, x.Close())
		_, err := x.Run(w.Context(), key("a"), charged)
		require.ErrorIs(w, err, idempotent.ErrClosed)
	},
	"invalid_key": func(w *world, ns string) {
		_, err := w.executor(ns).Run(w.Context(), strings.Repeat(canary, 100), charged)
		require.ErrorIs(w, err, idempotent.ErrInvalidKey)
	},
	"invalid_option": func(w *world, ns string) {
		_, err := w.executor(ns).Run(w.Context(), key("a"), charged, idempotent.WithTTL(-1))
		require.ErrorIs(w, err, idempotent.ErrInvalidOption)
	},
	"canceled": func(w *world, ns string) {
		ctx, cancel := context.WithCancel(w.Context())
		cancel()
		_, err := w.executor(ns).Run(ctx, key("a"), charged)
		require.ErrorIs(w, err, context.Canceled)
	},
	"deadline_exceeded": func(w *world, ns string) {
		ctx, cancel := context.WithTimeout(w.Context(), 0)
		defer cancel()
		_, err := w.executor(ns).Run(ctx, key("a"), charged)
		require.ErrorIs(w, err, context.DeadlineExceeded)
	},
	"panic": func(w *world, ns string) {
		assert.PanicsWithValue(w, canary, func() {
			_, _ = w.executor(ns).Run(w.Context(), key("a"), func(context.Context) (string, error) { panic(canary) })
		})
	},
	"fn": func(w *world, ns string) {
		_, err := w.executor(ns).Run(w.Context(), key("a"), fails)
		require.ErrorIs(w, err, errDeclined)
	},
}

type brokenCodec struct{}

func (brokenCodec) Encode(string) ([]byte, error) { return nil, errors.New(canary) }
func (brokenCodec) Decode([]byte) (string, error) { return "", errors.New(canary) }

// exercise adds what ends well, and what operators do, in the namespace "well".
func exercise(w *world) {
	x, other := w.executor("well", idempotent.WithLease(300*time.Millisecond)), w.executor("well", idempotent.WithReplayCache(10))
	b := newBlockade()
	done := make(chan struct{}, 3)
	run := func(x *executor, fn func(context.Context) (string, error)) {
		go func() {
			_, err := x.Run(w.Context(), key("a"), fn)
			assert.NoError(w, err)
			done <- struct{}{}
		}()
	}
	run(x, b.run)
	<-b.began
	run(x, charged)
	run(other, charged)
	x.Wait(w, idempotent.EventJoined, 1)
	other.Wait(w, idempotent.EventWaitStarted, 1)
	x.Wait(w, idempotent.EventRenewed, 1)
	_, during := w.scrape()
	assert.Equal(w, map[string]float64{"": 1}, sum(during, "idempotent_execution_active", "well", ""))
	assert.Equal(w, map[string]float64{"process": 1, "caller": 1}, sum(during, "idempotent_wait_active", "well", "idempotent_wait_for"))
	close(b.end)
	for range 3 {
		select {
		case <-done:
		case <-time.After(time.Minute):
			w.Fatal("a run did not return in a minute")
		}
	}
	_, err := x.Run(w.Context(), key("a"), charged)
	require.NoError(w, err)
	for n := 1; other.Count(idempotent.EventReplayed) < 2 || other.Events(idempotent.EventReplayed)[n-1].Source != idempotent.Cached; n = other.Count(idempotent.EventReplayed) {
		_, err := other.Run(w.Context(), key("a"), charged)
		require.NoError(w, err)
	}
	_, err = x.Resolve(w.Context(), key("a"), canary)
	require.ErrorIs(w, err, idempotent.ErrAlreadyRecorded)
	require.NoError(w, x.Forget(w.Context(), key("a")))
}

func TestEachFailureHasItsErrorType(t *testing.T) {
	w := newWorld(t)
	namespace := func(name string) string { return fmt.Sprintf("%s-%d", name, time.Now().UnixNano()) }
	used := make(map[string]string)
	for name, provoke := range provoked {
		used[name] = namespace(name)
		provoke(w, used[name])
	}
	exercise(w)
	text, samples := w.scrape()

	for _, name := range idemotel.ErrorTypes() {
		if name == "already_recorded" { // not of a call
			assert.Equal(t, 1.0, sum(samples, "idempotent_operator_actions_total", "well", "error_type")[name])
			continue
		}
		require.Contains(t, used, name, "each type is provoked")
		got := sum(samples, "idempotent_runs_total", used[name], "error_type")
		for _, other := range idemotel.ErrorTypes() {
			value, there := got[other]
			assert.True(t, there, "%s: no series of %s", name, other)
			if other == name {
				assert.Equal(t, 1.0, value, "%s", name)
			} else {
				assert.Zero(t, value, "%s counted as %s", name, other)
			}
		}
	}
	assert.Equal(t, 1.0, sum(samples, "idempotent_commit_failures_total", used["lease_lost"], "error_type")["lease_lost"])
	assert.Equal(t, 1.0, sum(samples, "idempotent_commit_failures_total", used["not_recorded"], "error_type")["not_recorded"])
	well := sum(samples, "idempotent_runs_total", "well", "idempotent_source")
	for _, source := range []string{"executed", "joined", "waited", "replayed", "cached"} {
		assert.Positive(t, well[source], source)
	}
	for _, gauge := range []string{"idempotent_execution_active", "idempotent_wait_active"} {
		for _, s := range samples {
			if s.name == gauge {
				assert.Zero(t, s.value, "%s in %v when all calls have returned", gauge, s.labels)
			}
		}
	}
	assert.Contains(t, sum(samples, "idempotent_runs_total", "declared", "error_type"), "unavailable", "before the first run")

	assert.Contains(t, text, `# {span_id="`, "exemplars")
	assert.NotContains(t, text, canary)
	assert.NotContains(t, fmt.Sprintf("%+v", w.exported()), canary)
	for _, s := range samples {
		assert.NotContains(t, s.labels, "idempotent_key")
	}
	namesAreScraped(t, text)
}

// exported is all that the spans hold.
func (w *world) exported() (all []any) {
	for _, s := range w.spans.Ended() {
		all = append(all, s.Name(), s.Attributes(), s.Events(), s.Links(), s.Status())
	}
	return all
}

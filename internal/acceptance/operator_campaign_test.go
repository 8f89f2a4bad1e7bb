package acceptance

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
)

// A span of the campaign's clock, which counts events.
type span struct{ begin, end int }

// A story is what happened to one key.
type story struct {
	mu        sync.Mutex
	clock     int
	runs      []span // begin: Run was called; end: fn began
	forgets   []span
	resolves  []span
	got       []gotten
	resolved  map[string]int // value, and when Resolve returned
	began     chan struct{}
	operators sync.WaitGroup
}

// A gotten is what one Run returned.
type gotten struct {
	span
	value string
	err   error
}

func (s *story) now() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clock++
	return s.clock
}

func (s *story) add(to *[]span, begin int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clock++
	*to = append(*to, span{begin, s.clock})
}

// forgottenWithin reports whether a Forget may have had its effect in a span.
func (s *story) forgottenWithin(from, to int) bool {
	return slices.ContainsFunc(s.forgets, func(f span) bool { return f.begin <= to && f.end >= from })
}

// call runs the key once. fn returns when an operator has acted, or the other callers wait.
func (s *story) call(ctx context.Context, x *executor, key string, release <-chan struct{}) {
	called := s.now()
	value, err := x.Run(ctx, key, func(context.Context) (string, error) {
		s.add(&s.runs, called)
		s.began <- struct{}{}
		<-release
		return "charged", nil
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clock++
	s.got = append(s.got, gotten{span{called, s.clock}, value, err})
}

// operate does a few things to the key while its fn runs.
func (s *story) operate(w *world, i *idempotent.Inspector, key string, random *rand.Rand) {
	for n := range 1 + random.IntN(2) { // two processes: no third runs fn while it runs in both
		<-s.began
		begin := s.now()
		if random.IntN(2) == 0 {
			_, err := i.Forget(w.Context(), w.namespace, key)
			assert.NoError(w, err)
			s.add(&s.forgets, begin)
			continue
		}
		value := fmt.Sprintf("resolved %d", n)
		_, err := i.Resolve(w.Context(), w.namespace, key, []byte(value), "raw")
		if err == nil {
			s.add(&s.resolves, begin)
			s.mu.Lock()
			s.resolved[value] = s.clock
			s.mu.Unlock()
		}
		return // a resolved key runs no more
	}
}

// Operators forget and resolve keys whose fn runs. fn runs again after a Forget, and only then, as its comment says.
func TestOperatorCampaign(t *testing.T) {
	everywhere(t, func(w *world) {
		seed := rand.Uint64()
		w.Logf("seed %d", seed)
		w.lease = time.Minute // no execution loses its lease to the clock
		executors := []*executor{w.executor(idempotent.WithCodec(idempotent.Raw[string]())), w.executor(idempotent.WithCodec(idempotent.Raw[string]()))}
		i := inspector(w, w.client(nil))
		stories := make(map[string]*story)
		again := 0
		for n := range 60 {
			key := fmt.Sprint("order-", n)
			stories[key] = &story{began: make(chan struct{}, 100), resolved: make(map[string]int)}
			campaign(w, executors, i, key, stories[key], rand.New(rand.NewPCG(seed, uint64(n))))
		}
		for key, s := range stories {
			again += len(s.runs) - 1
			s.check(w, key)
		}
		assert.Positive(w, again, "no fn ran again: the campaign shows nothing")
	})
}

func campaign(w *world, executors []*executor, i *idempotent.Inspector, key string, s *story, random *rand.Rand) {
	w.Helper()
	release := make(chan struct{})
	var callers sync.WaitGroup
	for n := range 6 {
		callers.Go(func() { s.call(w.Context(), executors[n%2], key, release) })
	}
	s.operators.Go(func() { s.operate(w, i, key, random) })
	s.operators.Wait()
	close(release)
	callers.Wait()
	for _, x := range executors { // all is over: what is stored now is what every caller gets
		s.call(w.Context(), x, key, release)
	}
}

func (s *story) check(t testing.TB, key string) {
	t.Helper()
	slices.SortFunc(s.runs, func(x, y span) int { return x.end - y.end })
	for n, run := range s.runs {
		if n > 0 {
			require.True(t, s.forgottenWithin(s.runs[n-1].begin, run.end), "%s ran again without a Forget: %+v", key, s)
		}
		for _, resolve := range s.resolves {
			require.True(t, run.begin < resolve.end || s.forgottenWithin(resolve.begin, run.end), "%s ran after it was resolved: %+v", key, s)
		}
	}
	for _, got := range s.got {
		if got.err != nil {
			require.ErrorIs(t, got.err, idempotent.ErrLeaseLost, key)
			continue
		}
		for value, at := range s.resolved {
			if got.begin > at && !s.forgottenWithin(at, got.end) {
				require.Equal(t, value, got.value, "%s: %+v", key, s)
			}
		}
	}
}

package acceptance

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/internal/record"
)

// spans is a Tracer that numbers its spans, and an Observer that notes in which span each event was.
type spans struct {
	unsampled bool

	mu     sync.Mutex
	last   byte
	names  map[byte]string // "run" or "execution" and its parent
	ended  map[byte]idempotent.Event
	events map[idempotent.EventKind][]byte // the spans
}

type spanKey struct{}

func newSpans() *spans {
	return &spans{names: make(map[byte]string), ended: make(map[byte]idempotent.Event), events: make(map[idempotent.EventKind][]byte)}
}

func spanIn(ctx context.Context) byte {
	n, _ := ctx.Value(spanKey{}).(byte)
	return n
}

func (s *spans) start(ctx context.Context, name string) context.Context {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last++
	s.names[s.last] = fmt.Sprintf("%s in %d", name, spanIn(ctx))
	return context.WithValue(ctx, spanKey{}, s.last)
}

func (s *spans) end(ctx context.Context, e idempotent.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, twice := s.ended[spanIn(ctx)]; twice {
		panic("a span ended twice")
	}
	s.ended[spanIn(ctx)] = e
}

func (s *spans) StartRun(ctx context.Context, run idempotent.RunInfo) context.Context {
	return s.start(ctx, "run "+run.Key)
}

func (s *spans) StartExecution(ctx context.Context, run idempotent.RunInfo) context.Context {
	return s.start(ctx, fmt.Sprintf("execution %d of %s", run.Attempt, run.Key))
}
func (s *spans) EndRun(ctx context.Context, e idempotent.Event)       { s.end(ctx, e) }
func (s *spans) EndExecution(ctx context.Context, e idempotent.Event) { s.end(ctx, e) }

func (s *spans) Origin(ctx context.Context) (o idempotent.Origin) {
	if !s.unsampled {
		o.TraceID[0], o.SpanID[7], o.Flags = 7, spanIn(ctx), 1
	}
	return o
}

func (s *spans) Observe(ctx context.Context, e idempotent.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events[e.Kind] = append(s.events[e.Kind], spanIn(ctx))
}

func originOf(span byte) idempotent.Origin {
	return idempotent.Origin{TraceID: [16]byte{7}, SpanID: [8]byte{7: span}, Flags: 1}
}

func TestTracerMakesSpansOfRunsAndExecutions(t *testing.T) {
	everywhere(t, func(w *world) {
		s := newSpans()
		x := w.executor(idempotent.WithTracer(s))
		var inFn byte
		_, err := x.Run(w.Context(), "order-1", func(ctx context.Context) (string, error) {
			inFn = spanIn(ctx)
			return "charged", nil
		})
		require.NoError(w, err)
		require.Equal(w, "charged", x.RunMany(w.Context(), []idempotent.BatchCall[string]{{Key: "order-1", Fn: forbidden[string](w)}})[0].Value)
		_, err = x.Get(w.Context(), "order-1")
		require.NoError(w, err)

		assert.Equal(w, byte(2), inFn)
		assert.Equal(w, map[byte]string{1: "run order-1 in 0", 2: "execution 1 of order-1 in 1", 3: "run order-1 in 0", 4: "run order-1 in 0"}, s.names)
		assert.Equal(w, idempotent.EventExecuted, s.ended[2].Kind)
		for span, source := range map[byte]idempotent.Source{1: idempotent.Executed, 3: idempotent.Replayed, 4: idempotent.Replayed} {
			assert.Equal(w, idempotent.EventReturned, s.ended[span].Kind)
			assert.Equal(w, source, s.ended[span].Source)
			assert.Equal(w, w.namespace, s.ended[span].Namespace)
		}
		assert.Equal(w, []byte{1, 3, 4}, s.events[idempotent.EventReturned], "a tracer that observes gets the events")
		for _, e := range x.Events(idempotent.EventReplayed) {
			assert.Equal(w, originOf(1), e.Origin, "the replay names the call that ran fn")
			assert.Equal(w, idempotent.Replayed, e.Source)
			assert.Equal(w, idempotent.DefaultTTL, e.TTL)
		}
	})
}

func TestOriginIsInRecordsOfSampledRunsOnly(t *testing.T) {
	everywhere(t, func(w *world) {
		sizes := make(map[bool]int)
		for _, sampled := range []bool{true, false} {
			s := newSpans()
			s.unsampled = !sampled
			x := w.executor(idempotent.WithTracer(s))
			p := w.provider()
			key := fmt.Sprintf("order-%t", sampled)
			c := x.start(w.Context(), key, p.charge)
			<-p.started
			running, err := x.Peek(w.Context(), key)
			require.NoError(w, err)
			p.answer("charged", nil)
			c.returned(w, "charged")
			done, err := x.Peek(w.Context(), key)
			require.NoError(w, err)
			for _, status := range []idempotent.Status{running, done} {
				assert.Equal(w, sampled, status.Origin == originOf(1), "%v: %v", status.State, status.Origin)
				assert.Equal(w, !sampled, status.Origin == idempotent.Origin{}, "%v: %v", status.State, status.Origin)
			}
			sizes[sampled] = done.Size
		}
		assert.Equal(w, 27, sizes[true]-sizes[false])
	})
}

func TestWaiterAndSuccessorNameTheOwnersCall(t *testing.T) {
	everywhere(t, func(w *world) {
		owner, waiter := w.executor(idempotent.WithTracer(newSpans()), idempotent.WithOwner("host-a:1")), w.executor()
		p := w.provider()
		first := owner.start(w.Context(), "order-1", p.charge)
		<-p.started
		second := waiter.start(w.Context(), "order-1", forbidden[string](w))
		waits := waiter.Wait(w, idempotent.EventWaitStarted, 1)
		assert.Equal(w, originOf(1), waits.Origin)
		assert.Equal(w, "host-a:1", waits.Owner)
		assert.Equal(w, 1, waits.Attempt)
		p.answer("charged", nil)
		first.returned(w, "charged")
		second.returned(w, "charged")

		dead := &record.Record{
			Kind: record.KindRunning, Token: record.NewToken(), Attempt: 1, At: time.Now(), Lease: w.lease, Retention: time.Hour,
			Extensions: record.Extensions(nil).With(record.FieldOwner, []byte("host-b:2")).WithOrigin([16]byte{7}, [8]byte{7: 9}, 1),
		}
		require.NoError(w, owner.client.Set(w.Context(), w.name("order-2"), dead.Encode(), time.Hour).Err())
		p.answer("charged", nil)
		owner.start(w.Context(), "order-2", p.charge).returned(w, "charged")
		found := owner.Wait(w, idempotent.EventInterrupted, 1)
		assert.Equal(w, originOf(9), found.Origin)
		assert.Equal(w, "host-b:2", found.Owner)
		status, err := owner.Peek(w.Context(), "order-2")
		require.NoError(w, err)
		assert.NotEqual(w, originOf(9), status.Origin, "the record has the origin of the call that recorded it")
		assert.NotZero(w, status.Origin)
	})
}

// A brokenTracer misbehaves in one of its methods.
type brokenTracer struct {
	in string
	do func()
}

func (b brokenTracer) call(name string) {
	if b.in == name {
		b.do()
	}
}

func (b brokenTracer) StartRun(ctx context.Context, _ idempotent.RunInfo) context.Context {
	b.call("StartRun")
	return nil //nolint:staticcheck // a tracer that does not follow its contract
}

func (b brokenTracer) StartExecution(ctx context.Context, _ idempotent.RunInfo) context.Context {
	b.call("StartExecution")
	return nil //nolint:staticcheck // a tracer that does not follow its contract
}
func (b brokenTracer) EndRun(context.Context, idempotent.Event)       { b.call("EndRun") }
func (b brokenTracer) EndExecution(context.Context, idempotent.Event) { b.call("EndExecution") }
func (b brokenTracer) Origin(context.Context) idempotent.Origin {
	b.call("Origin")
	return idempotent.Origin{}
}

func TestTracerThatMisbehavesHarmsNoRun(t *testing.T) {
	for _, in := range []string{"StartRun", "StartExecution", "EndExecution", "EndRun", "Origin"} {
		t.Run(in+" panics", func(t *testing.T) {
			everywhere(t, func(w *world) {
				x := w.executor(idempotent.WithTracer(brokenTracer{in, func() { panic("tracer") }}))
				p := w.provider()
				p.answer("charged", nil)
				x.start(w.Context(), "order-1", p.charge).returned(w, "charged")
				x.start(w.Context(), "order-1", p.charge).returned(w, "charged")
				assert.Equal(w, 1, p.count())
			})
		})
		t.Run(in+" ends the goroutine", func(t *testing.T) {
			everywhere(t, func(w *world) {
				x, other := w.executor(idempotent.WithTracer(brokenTracer{in, runtime.Goexit})), w.executor()
				p := w.provider()
				p.answer("charged", nil)
				<-x.start(w.Context(), "order-1", p.charge).done
				p.answer("charged", nil)
				other.start(w.Context(), "order-1", p.charge).returned(w, "charged")
				assert.Equal(w, 1, p.count(), "the key is free if fn did not begin, and recorded otherwise")
				assert.Equal(w, 1, p.last().Attempt)
			})
		})
	}
}

func TestTracerMustNotBeNil(t *testing.T) {
	var none *spans
	for _, tracer := range []idempotent.Tracer{nil, none} {
		_, err := idempotent.New[string](redisNowhere(t), "test", idempotent.WithTracer(tracer))
		require.ErrorIs(t, err, idempotent.ErrInvalidOption)
		assert.ErrorContains(t, err, "WithTracer: tracer is nil; allowed: a Tracer")
	}
	_, err := idempotent.New[string](redisNowhere(t), "test", idempotent.WithTracer(newSpans()), idempotent.WithTracer(newSpans()))
	assert.ErrorContains(t, err, "WithTracer is given twice")
}

func TestPanicOfFnEndsBothSpans(t *testing.T) {
	everywhere(t, func(w *world) {
		s := newSpans()
		x := w.executor(idempotent.WithTracer(s))
		assert.PanicsWithValue(w, "declined", func() {
			_, _ = x.Run(w.Context(), "order-1", func(context.Context) (string, error) { panic("declined") })
		})
		x.start(w.Context(), "order-2", func(context.Context) (string, error) { runtime.Goexit(); return "", nil }).wait(w)
		for span := range byte(2) {
			panicked, ok := errors.AsType[*idempotent.PanicError](s.ended[span+1].Err)
			require.True(w, ok, "%v", s.ended[span+1].Err)
			assert.Equal(w, "declined", panicked.Value)
		}
		require.Len(w, s.ended, 4)
		for _, span := range []byte{3, 4} {
			assert.Error(w, s.ended[span].Err, "of a goroutine that ended")
		}
	})
}

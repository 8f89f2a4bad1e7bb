package idemhttp_test

import (
	"context"
	"net/http"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/idemhttp"
	"github.com/idempotent-go/idempotent/idemtest"
)

type spanKey struct{}

// spans is a Tracer that notes what it is told.
type spans struct {
	mu   sync.Mutex
	told []string
}

func (s *spans) note(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.told = append(s.told, text)
}

func (s *spans) StartRun(ctx context.Context, _ idempotent.RunInfo) context.Context {
	s.note("start run")
	return ctx
}

func (s *spans) StartExecution(ctx context.Context, _ idempotent.RunInfo) context.Context {
	s.note("start execution")
	return context.WithValue(ctx, spanKey{}, "execution")
}
func (s *spans) EndRun(_ context.Context, e idempotent.Event) {
	s.note("end run: " + e.Source.String())
}
func (s *spans) EndExecution(context.Context, idempotent.Event)  { s.note("end execution") }
func (s *spans) Origin(context.Context) (none idempotent.Origin) { return none }

func TestTracerIsToldOfRequests(t *testing.T) {
	tracer := &spans{}
	inHandler := make(chan any, 1)
	w := serve(t, func(rw http.ResponseWriter, r *http.Request) {
		inHandler <- r.Context().Value(spanKey{})
		created(rw, r)
	}, idemhttp.WithTracer(tracer))
	for range 2 {
		require.Equal(t, http.StatusCreated, w.send(request{key: "order-1"}).StatusCode)
	}
	assert.Equal(t, "execution", <-inHandler, "the handler's context is that of its span")
	require.NoError(t, w.mw.Close())
	assert.Equal(t, []string{
		"start run", "start execution", "end execution", "end run: executed", "start run", "end run: replayed",
	}, tracer.told, "and nothing of the check of options")
	assert.Equal(t, 2, w.events.Count(idempotent.EventReturned))
}

func TestTracerMustNotBeNil(t *testing.T) {
	_, err := idemhttp.New(idemtest.NewRedis(t), "http", callers, idemhttp.WithTracer(nil))
	require.ErrorIs(t, err, idempotent.ErrInvalidOption)
	assert.ErrorContains(t, err, "WithTracer: tracer is nil")
}

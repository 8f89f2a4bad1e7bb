package idemotel_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/idemotel"
	"github.com/idempotent-go/idempotent/internal/redistest"
)

const workerEnv = "IDEMOTEL_TEST_WORKER"

// An order is what a worker process is told by its environment.
type order struct {
	Redis, Namespace, Key string
	Blocks                bool // fn does not return
}

// A line is what a worker writes: a span that has ended, or what it does.
type line struct {
	Doing                     string
	Span, Trace, ID, ParentID string
	Links                     []linked
	Err                       string
}

type linked struct{ As, Trace, Span string }

// workerMain is a service that serves one request: a span of its own, exported at once, and a Run.
func workerMain() {
	var o order
	check(json.Unmarshal([]byte(os.Getenv(workerEnv)), &o))
	write := json.NewEncoder(os.Stdout)
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(exporter{write}))
	telemetry, err := idemotel.New(idemotel.WithTracerProvider(provider))
	check(err)
	options, err := redis.ParseURL(o.Redis)
	check(err)
	tell := idempotent.ObserverFunc(func(_ context.Context, e idempotent.Event) { _ = write.Encode(line{Doing: e.Kind.String()}) })
	x, err := idempotent.New[string](redis.NewClient(options), o.Namespace,
		idempotent.WithTracer(telemetry), idempotent.WithLease(time.Second), idempotent.WithObserver(tell))
	check(err)
	ctx, request := provider.Tracer("service").Start(context.Background(), "POST /payments")
	request.End() // the proxy's span, say: what a killed process exports itself is lost
	value, err := x.Run(ctx, o.Key, func(ctx context.Context) (string, error) {
		if o.Blocks {
			_ = write.Encode(line{Doing: "running"})
			<-ctx.Done()
		}
		return "charged", nil
	})
	_ = write.Encode(line{Doing: "returned " + value, Err: fmt.Sprint(err)})
	check(provider.Shutdown(context.Background()))
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

// exporter writes spans as lines.
type exporter struct{ to *json.Encoder }

func (e exporter) ExportSpans(_ context.Context, spans []sdktrace.ReadOnlySpan) error {
	for _, s := range spans {
		l := line{Span: s.Name(), Trace: s.SpanContext().TraceID().String(), ID: s.SpanContext().SpanID().String(), ParentID: s.Parent().SpanID().String()}
		for _, to := range s.Links() {
			l.Links = append(l.Links, linked{to.Attributes[0].Value.AsString(), to.SpanContext.TraceID().String(), to.SpanContext.SpanID().String()})
		}
		if err := e.to.Encode(l); err != nil {
			return err
		}
	}
	return nil
}

func (exporter) Shutdown(context.Context) error { return nil }

// A worker is a process that serves one request.
type worker struct {
	*testing.T
	cmd   *exec.Cmd
	lines *bufio.Scanner
	spans []line // so far
}

func startWorker(t *testing.T, o order) *worker {
	t.Helper()
	env, err := json.Marshal(o)
	require.NoError(t, err)
	self, err := os.Executable()
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	cmd := exec.CommandContext(ctx, self)
	cmd.Env = append(os.Environ(), workerEnv+"="+string(env))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { cancel(); _, _ = io.Copy(io.Discard, out); _ = cmd.Wait() })
	return &worker{T: t, cmd: cmd, lines: bufio.NewScanner(out)}
}

// until reads what the worker writes until it does what begins so.
func (w *worker) until(doing string) line {
	w.Helper()
	for w.lines.Scan() {
		var l line
		require.NoError(w, json.Unmarshal(w.lines.Bytes(), &l), w.lines.Text())
		if l.Span != "" {
			w.spans = append(w.spans, l)
		} else if strings.HasPrefix(l.Doing, doing) {
			return l
		}
	}
	w.Fatalf("the worker ended without %q", doing)
	return line{}
}

// rest reads to the end.
func (w *worker) rest() {
	w.Helper()
	for w.lines.Scan() {
		var l line
		require.NoError(w, json.Unmarshal(w.lines.Bytes(), &l), w.lines.Text())
		if l.Span != "" {
			w.spans = append(w.spans, l)
		}
	}
}

func (w *worker) span(name string) line {
	w.Helper()
	for _, s := range w.spans {
		if s.Span == name {
			return s
		}
	}
	w.Fatalf("no span %s in %v", name, w.spans)
	return line{}
}

func TestLinksLeadFromProcessToProcess(t *testing.T) {
	o := order{Redis: redistest.URL(t), Namespace: fmt.Sprintf("links-%d", time.Now().UnixNano()), Key: "order-1"}
	blocking := o
	blocking.Blocks = true
	killed := startWorker(t, blocking)
	killed.until("running")
	successor := startWorker(t, o)
	successor.until(idempotent.EventWaitStarted.String())
	require.NoError(t, killed.cmd.Process.Kill())
	assert.Equal(t, "returned charged", successor.until("returned ").Doing)
	replaying := startWorker(t, o)
	assert.Equal(t, "returned charged", replaying.until("returned ").Doing)
	for _, w := range []*worker{killed, successor, replaying} {
		w.rest()
	}

	exported := make(map[string]string) // names of spans, by trace
	for i, w := range []*worker{killed, successor, replaying} {
		exported[w.span("POST /payments").Trace] = []string{"killed", "successor", "replaying"}[i]
	}
	require.Len(t, exported, 3)
	leads := func(w *worker) map[string]string {
		to := make(map[string]string)
		for _, l := range w.span("idempotent.run").Links {
			to[l.As] = exported[l.Trace]
		}
		return to
	}
	assert.Equal(t, map[string]string{"owner": "killed", "interrupted": "killed"}, leads(successor))
	assert.Equal(t, map[string]string{"outcome": "successor"}, leads(replaying))
	assert.Equal(t, successor.span("idempotent.run").ID, replaying.span("idempotent.run").Links[0].Span)

	request, run, execution := successor.span("POST /payments"), successor.span("idempotent.run"), successor.span("idempotent.execute")
	assert.Equal(t, request.ID, run.ParentID)
	assert.Equal(t, run.ID, execution.ParentID)
	assert.Len(t, killed.spans, 1, "what the killed process did not export is known by the trace in its record")
}

func TestWaiterLinksToTheOwnerThatSucceeds(t *testing.T) {
	w := newWorld(t)
	namespace := fmt.Sprintf("waits-%d", time.Now().UnixNano())
	owner, waiter := w.executor(namespace), w.executor(namespace)
	b := newBlockade()
	done := make(chan struct{})
	go func() { defer close(done); _, _ = owner.Run(w.Context(), key("a"), b.run) }()
	<-b.began
	waited := make(chan struct{})
	go func() { defer close(waited); _, _ = waiter.Run(w.Context(), key("a"), charged) }()
	waiter.Wait(w, idempotent.EventWaitStarted, 1)
	close(b.end)
	within(t, done, "the owner")
	within(t, waited, "the waiter")
	runs := make(map[string]sdktrace.ReadOnlySpan)
	for _, s := range w.spans.Ended() {
		for _, a := range s.Attributes() {
			if a.Key == "idempotent.source" {
				runs[a.Value.AsString()] = s
			}
		}
	}
	require.Len(t, runs, 2)
	as := make(map[string]string)
	for _, l := range runs["waited"].Links() {
		as[l.Attributes[0].Value.AsString()] = l.SpanContext.SpanID().String()
	}
	id := runs["executed"].SpanContext().SpanID().String()
	assert.Equal(t, map[string]string{"owner": id, "outcome": id}, as)
}

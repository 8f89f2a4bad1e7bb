package idemotel_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	promexporter "go.opentelemetry.io/otel/exporters/prometheus"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/idemotel"
	"github.com/idempotent-go/idempotent/idemtest"
	"github.com/idempotent-go/idempotent/internal/redistest"
)

// quiet drops what go-redis logs: dials that fail are part of the tests.
type quiet struct{}

func (quiet) Printf(context.Context, string, ...any) {}

func TestMain(m *testing.M) {
	redis.SetLogger(quiet{})
	if os.Getenv(workerEnv) != "" {
		workerMain()
		return
	}
	code := m.Run()
	redistest.Cleanup()
	os.Exit(code)
}

// A world is a process with an SDK: it exports spans and answers scrapes.
type world struct {
	*testing.T
	redis     string
	spans     *tracetest.SpanRecorder
	registry  *prometheus.Registry
	telemetry *idemotel.Telemetry
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{T: t, redis: redistest.URL(t), spans: tracetest.NewSpanRecorder(), registry: prometheus.NewRegistry()}
	exporter, err := promexporter.New(promexporter.WithRegisterer(w.registry))
	require.NoError(t, err)
	w.telemetry, err = idemotel.New(
		idemotel.WithMeterProvider(sdkmetric.NewMeterProvider(sdkmetric.WithReader(exporter))),
		idemotel.WithTracerProvider(sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(w.spans))),
		idemotel.WithNamespaces("declared"),
	)
	require.NoError(t, err)
	return w
}

type executor struct {
	*idempotent.Executor[string]
	*idemtest.Recorder
	client *redis.Client
}

func (w *world) client(url string) *redis.Client {
	w.Helper()
	options, err := redis.ParseURL(url)
	require.NoError(w, err)
	options.MaxRetries, options.DialerRetries = -1, 1
	client := redis.NewClient(options)
	w.Cleanup(func() { _ = client.Close() })
	return client
}

// executor makes one that the world observes.
func (w *world) executor(namespace string, opts ...idempotent.Option) *executor {
	w.Helper()
	return w.executorOn(w.redis, namespace, append(opts, idempotent.WithTracer(w.telemetry))...)
}

// other makes one that nothing observes: it prepares what the first one meets.
func (w *world) other(namespace string, opts ...idempotent.Option) *executor {
	w.Helper()
	return w.executorOn(w.redis, namespace, opts...)
}

func (w *world) executorOn(url, namespace string, opts ...idempotent.Option) *executor {
	w.Helper()
	x := &executor{client: w.client(url), Recorder: &idemtest.Recorder{}}
	var err error
	x.Executor, err = idempotent.New[string](x.client, namespace, append(opts, idempotent.WithObserver(x.Recorder))...)
	require.NoError(w, err)
	w.Cleanup(func() { _ = x.Close() })
	return x
}

// A sample is one line of a scrape.
type sample struct {
	name   string
	labels map[string]string
	value  float64
}

var (
	sampleLine = regexp.MustCompile(`^([a-z_]+)\{(.*?)\} (\S+)( # .*)?$`)
	label      = regexp.MustCompile(`(\w+)="([^"]*)"`)
)

// scrape asks for the metrics as Prometheus does.
func (w *world) scrape() (text string, samples []sample) {
	w.Helper()
	server := httptest.NewServer(promhttp.HandlerFor(w.registry, promhttp.HandlerOpts{EnableOpenMetrics: true}))
	defer server.Close()
	request, err := http.NewRequestWithContext(w.Context(), http.MethodGet, server.URL, nil)
	require.NoError(w, err)
	request.Header.Set("Accept", "application/openmetrics-text; version=1.0.0")
	response, err := http.DefaultClient.Do(request)
	require.NoError(w, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	require.NoError(w, err)
	for line := range strings.Lines(string(body)) {
		m := sampleLine.FindStringSubmatch(strings.TrimSpace(line))
		if m == nil {
			continue
		}
		s := sample{name: m[1], labels: make(map[string]string)}
		for _, l := range label.FindAllStringSubmatch(m[2], -1) {
			s.labels[l[1]] = l[2]
		}
		s.value, err = strconv.ParseFloat(m[3], 64)
		require.NoError(w, err)
		samples = append(samples, s)
	}
	return string(body), samples
}

// sum adds the samples of a metric in a namespace, by one label.
func sum(samples []sample, name, namespace, by string) map[string]float64 {
	sums := make(map[string]float64)
	for _, s := range samples {
		if s.name == name && s.labels["idempotent_namespace"] == namespace {
			sums[s.labels[by]] += s.value
		}
	}
	return sums
}

// canary is in each key, value, fingerprint and error text, and must be in nothing that is exported.
const canary = "canary-4111"

var errDeclined = errors.New(canary + " declined")

func key(name string) string { return canary + "-" + name }

func charged(context.Context) (string, error) { return canary + " charged", nil }

func fails(context.Context) (string, error) { return "", errDeclined }

// A blockade is a fn that waits until it is told to return.
type blockade struct{ began, end chan struct{} }

func newBlockade() *blockade { return &blockade{make(chan struct{}), make(chan struct{})} }

func (b *blockade) run(context.Context) (string, error) {
	close(b.began)
	<-b.end
	return charged(context.Background())
}

func within(t *testing.T, done <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatalf("%s: not within a minute", what)
	}
}

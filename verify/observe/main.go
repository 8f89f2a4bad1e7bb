// Command observe draws the dashboard of idemotel without a Grafana: it runs a service with traffic, slow work and an
// outage of Redis, has a Prometheus scrape it, asks that the queries of the dashboard's panels, and draws the answers.
//
//	go run . -out ../../docs/img/dashboard.svg
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	promexporter "go.opentelemetry.io/otel/exporters/prometheus"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"

	"github.com/idempotent-go/idempotent/idemotel"
)

func main() {
	log.SetFlags(0)
	out := flag.String("out", "dashboard.svg", "file to write")
	panels := flag.String("dashboard", "../../idemotel/grafana/dashboard.json", "dashboard to draw")
	flag.Parse()
	if err := run(context.Background(), *panels, *out); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, panels, out string) error {
	registry := prometheus.NewRegistry()
	exporter, err := promexporter.New(promexporter.WithRegisterer(registry))
	if err != nil {
		return err
	}
	telemetry, err := idemotel.New(
		idemotel.WithMeterProvider(sdkmetric.NewMeterProvider(sdkmetric.WithReader(exporter))), idemotel.WithNamespaces(namespace))
	if err != nil {
		return err
	}
	metrics, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: promhttp.HandlerFor(registry, promhttp.HandlerOpts{EnableOpenMetrics: true}), ReadHeaderTimeout: time.Second}
	go func() { _ = server.Serve(metrics) }()
	defer server.Close()
	address, stop, err := startPrometheus(ctx, metrics.Addr().String())
	if err != nil {
		return err
	}
	defer stop()

	began := time.Now()
	if err := serve(ctx, telemetry); err != nil {
		return err
	}
	return drawPanels(ctx, address, panels, out, began, time.Now())
}

const config = `
global: {scrape_interval: 1s}
scrape_configs:
  - job_name: service
    static_configs: [{targets: [%q]}]
`

// startPrometheus starts a server that scrapes target each second, and returns its address.
func startPrometheus(ctx context.Context, target string) (address string, stop func(), err error) {
	dir, err := os.MkdirTemp("", "observe")
	if err != nil {
		return "", nil, err
	}
	file := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(file, fmt.Appendf(nil, config, target), 0o600); err != nil {
		return "", nil, err
	}
	free, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	address = free.Addr().String()
	_ = free.Close()
	cmd := exec.CommandContext(ctx, "prometheus", "--config.file="+file, "--storage.tsdb.path="+dir, "--web.listen-address="+address, "--log.level=error")
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return "", nil, fmt.Errorf("%w (scripts/ensure-promtool installs it)", err)
	}
	return address, func() { _ = cmd.Process.Kill(); _ = cmd.Wait(); _ = os.RemoveAll(dir) }, nil
}

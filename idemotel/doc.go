// Package idemotel gives executors OpenTelemetry metrics and spans.
//
//	telemetry, err := idemotel.New()
//	...
//	payments, err := idempotent.New[Charge](rdb, "payments", idempotent.WithTracer(telemetry))
//	guard, err := idemhttp.New(rdb, "api", scope, idemhttp.WithTracer(telemetry))
//
// It uses the API of OpenTelemetry and no SDK: without one, it does nothing. docs/observability.md has each metric,
// span and log line, a dashboard, and rules that alert. No key, value or error text is exported.
package idemotel

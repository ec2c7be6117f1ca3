// Package tracing makes spans of what Umbra does and sends them to an OpenTelemetry collector. It says where an operation is in the
// traces (operation.go), and sets up the export: OTLP over gRPC, configured by the standard OTEL_* variables.
//
// Work never waits for a collector. Spans that have ended are queued up to a bound and sent by one goroutine; what the queue has no
// room for is dropped and counted.
package tracing

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/umbra-dr/umbra/pkg/telemetry"
)

// closeTimeout bounds how long the end of a process waits for spans to be sent.
const closeTimeout = 3 * time.Second

const scope = "github.com/umbra-dr/umbra"

// The attributes of spans.
const (
	KeyPair      = attribute.Key("umbra.pair")
	KeyEpoch     = attribute.Key("umbra.epoch")
	KeyOperation = attribute.Key("umbra.operation")
	KeyKind      = attribute.Key("umbra.kind")
	KeyOutcome   = attribute.Key("umbra.outcome")
	KeyMessage   = attribute.Key("umbra.message")
	KeyPoint     = attribute.Key("umbra.recovery_point")
	KeyHost      = attribute.Key("umbra.host")
	KeyRequestID = attribute.Key("umbra.request_id")
)

// About is what every span about a pair says. operation may be empty.
func About(pair string, epoch uint64, operation string) trace.SpanStartEventOption {
	about := []attribute.KeyValue{KeyPair.String(pair), KeyEpoch.Int64(int64(epoch))} //nolint:gosec // an epoch is a small number
	if operation != "" {
		about = append(about, KeyOperation.String(operation))
	}
	return trace.WithAttributes(about...)
}

// Off makes no spans.
func Off() trace.Tracer { return noop.NewTracerProvider().Tracer(scope) }

// End ends a span, as failed if there is an error.
func End(span trace.Span, err error) {
	if err != nil {
		span.SetStatus(codes.Error, err.Error())
	}
	span.End()
}

// Traces is where a process's spans go. It is safe for concurrent use.
type Traces struct {
	provider trace.TracerProvider
	shutdown func(context.Context) error
	spans    *prometheus.CounterVec
	log      *slog.Logger
}

// Start begins to export the spans of the service, unless it is not on. Nobody has to listen: it dials when there is something to
// send, again and again. Errors are of the configuration.
func Start(ctx context.Context, on bool, service string, log *slog.Logger, about ...attribute.KeyValue) (*Traces, error) {
	t := &Traces{provider: noop.NewTracerProvider(), shutdown: func(context.Context) error { return nil }, spans: newSpans(), log: log}
	if !on {
		return t, nil
	}
	for _, name := range []string{"OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"} {
		if asked := os.Getenv(name); asked != "" && asked != "grpc" {
			return nil, fmt.Errorf("exporting traces: %s is %q, and only grpc is spoken", name, asked)
		}
	}
	about = append(about, attribute.String("service.name", service), attribute.String("service.version", telemetry.ReadBuild().Version))
	// What the environment says of the service comes last, and so wins.
	from, err := resource.New(ctx, resource.WithHost(), resource.WithAttributes(about...), resource.WithTelemetrySDK(), resource.WithFromEnv())
	if err != nil && !errors.Is(err, resource.ErrPartialResource) {
		return nil, fmt.Errorf("exporting traces: describing the process: %w", err)
	}
	exporter, err := otlptracegrpc.New(ctx)
	if err != nil {
		return nil, fmt.Errorf("exporting traces: %w", err)
	}
	queue := newQueue(exporter, t.spans, log)
	provider := sdktrace.NewTracerProvider(sdktrace.WithResource(from), sdktrace.WithIDGenerator(generator{}), sdktrace.WithSpanProcessor(queue))
	t.provider, t.shutdown = provider, provider.Shutdown
	return t, nil
}

// Provider is for instrumentation that others wrote.
func (t *Traces) Provider() trace.TracerProvider { return t.provider }

// Tracer begins spans.
func (t *Traces) Tracer() trace.Tracer { return t.provider.Tracer(scope) }

// Close sends what is queued, for as long as closeTimeout, and ends the export.
func (t *Traces) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	if err := t.shutdown(ctx); err != nil {
		t.log.Warn("the last spans were not sent", "error", err)
	}
}

// Describe and Collect make Traces a prometheus.Collector.
func (t *Traces) Describe(descs chan<- *prometheus.Desc) { t.spans.Describe(descs) }

// Collect reads memory only.
func (t *Traces) Collect(metrics chan<- prometheus.Metric) { t.spans.Collect(metrics) }

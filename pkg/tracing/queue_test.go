package tracing

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/umbra-dr/umbra/pkg/telemetry"
)

// collector is an exporter whose other end is as a test wants it.
type collector struct {
	asked  chan int      // how many spans each export has
	answer chan error    // what comes of it; it waits for that
	closed chan struct{} // the export ends
}

func (c *collector) ExportSpans(_ context.Context, spans []sdktrace.ReadOnlySpan) error {
	c.asked <- len(spans)
	return <-c.answer
}

func (c *collector) Shutdown(context.Context) error {
	close(c.closed)
	return nil
}

func TestACollectorThatHangsHoldsUpNothingAndWhatIsLostIsCounted(t *testing.T) {
	t.Setenv("OTEL_BSP_MAX_QUEUE_SIZE", "4")
	t.Setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "1")
	var said strings.Builder
	hangs := &collector{make(chan int, 8), make(chan error, 8), make(chan struct{})}
	spans := newSpans()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(newQueue(hangs, spans, telemetry.LogFlags{Format: "text"}.New(&said))))
	tracer := provider.Tracer(scope)
	one := func() {
		_, span := tracer.Start(context.Background(), "work")
		span.End()
	}
	one()
	<-hangs.asked // and hangs
	for range 10 {
		one() // returns, or this test does not end
	}
	if lost := testutil.ToFloat64(spans.WithLabelValues(outcomeDropped)); lost != 7 { // room for 4: one on its way, three queued
		t.Errorf("%v are counted as dropped", lost)
	}
	for _, err := range []error{errors.New("gone"), errors.New("gone"), nil, nil} {
		hangs.answer <- err
	}
	if err := provider.ForceFlush(t.Context()); err != nil {
		t.Error(err)
	}
	hangs.answer <- nil
	one() // there is room again
	if err := provider.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	<-hangs.closed
	failed, exported := testutil.ToFloat64(spans.WithLabelValues(outcomeFailed)), testutil.ToFloat64(spans.WithLabelValues(outcomeExported))
	if failed != 2 || exported != 3 {
		t.Errorf("%v are counted as failed, %v as exported", failed, exported)
	}
	if strings.Count(said.String(), "cannot be exported") != 1 || strings.Count(said.String(), "exported again") != 1 {
		t.Errorf("logged is\n%s", said.String())
	}
}

func TestNobodyHasToListen(t *testing.T) {
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
	t.Setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
	traces, err := Start(t.Context(), true, "test", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for range 10 {
		_, span := traces.Tracer().Start(t.Context(), "work")
		span.End()
	}
	traces.Close()
	if lost := testutil.ToFloat64(traces.spans.WithLabelValues(outcomeFailed)); lost != 10 {
		t.Errorf("%v are counted as failed", lost)
	}
}

func TestTracesAreOffUnlessAskedFor(t *testing.T) {
	traces, err := Start(t.Context(), false, "test", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer traces.Close()
	if _, span := traces.Tracer().Start(t.Context(), "work"); span.IsRecording() {
		t.Error("a span is recorded")
	}
	t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
	if _, err := Start(t.Context(), true, "test", slog.New(slog.DiscardHandler)); err == nil {
		t.Error("a protocol that is not spoken is not refused")
	}
}

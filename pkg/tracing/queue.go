package tracing

import (
	"context"
	"log/slog"
	"os"
	"strconv"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// What becomes of a span that has ended.
const (
	outcomeExported = "exported"
	outcomeFailed   = "failed"  // the collector did not take it
	outcomeDropped  = "dropped" // there was no room in the queue
)

func newSpans() *prometheus.CounterVec {
	spans := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "umbra_trace_spans_total", Help: "Spans that ended while traces are exported: exported, failed (not taken by the collector), or dropped (no room in the queue).",
	}, []string{"outcome"})
	for _, outcome := range []string{outcomeExported, outcomeFailed, outcomeDropped} {
		spans.WithLabelValues(outcome)
	}
	return spans
}

// queue hands ended spans to the SDK's batches as long as fewer than max are queued or being sent, so that those never drop one
// uncounted. It never blocks.
type queue struct {
	sdktrace.SpanProcessor // the batches
	max                    int64
	held                   *atomic.Int64
	spans                  *prometheus.CounterVec
}

func newQueue(exporter sdktrace.SpanExporter, spans *prometheus.CounterVec, log *slog.Logger) *queue {
	size := queueMax()
	held := &atomic.Int64{}
	counted := &counted{SpanExporter: exporter, held: held, spans: spans, log: log}
	return &queue{
		SpanProcessor: sdktrace.NewBatchSpanProcessor(counted, sdktrace.WithMaxQueueSize(size)), max: int64(size), held: held, spans: spans,
	}
}

// queueMax is the bound that the standard variable sets, or the SDK's default.
func queueMax() int {
	if asked, err := strconv.Atoi(os.Getenv("OTEL_BSP_MAX_QUEUE_SIZE")); err == nil && asked > 0 {
		return asked
	}
	return sdktrace.DefaultMaxQueueSize
}

func (q *queue) OnEnd(span sdktrace.ReadOnlySpan) {
	if !span.SpanContext().IsSampled() {
		return
	}
	if q.held.Add(1) > q.max {
		q.held.Add(-1)
		q.spans.WithLabelValues(outcomeDropped).Inc()
		return
	}
	q.SpanProcessor.OnEnd(span)
}

// counted is an exporter that counts. It keeps its errors to itself: they are of no use to whoever ended a span, so it logs when
// the export stops working and when it works again. The SDK calls it from one goroutine at a time.
type counted struct {
	sdktrace.SpanExporter
	held    *atomic.Int64
	spans   *prometheus.CounterVec
	log     *slog.Logger
	failing bool
}

func (c *counted) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	err := c.SpanExporter.ExportSpans(ctx, spans)
	c.held.Add(-int64(len(spans)))
	outcome := outcomeExported
	if err != nil {
		outcome = outcomeFailed
	}
	c.spans.WithLabelValues(outcome).Add(float64(len(spans)))
	switch {
	case err != nil && !c.failing:
		c.log.Warn("traces cannot be exported; their spans are lost until the collector is back", "error", err)
	case err == nil && c.failing:
		c.log.Info("traces are exported again")
	}
	c.failing = err != nil
	return nil
}

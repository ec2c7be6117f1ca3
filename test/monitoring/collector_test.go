package monitoring_test

import (
	"context"
	"encoding/hex"
	"net"
	"sync"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	traces "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
)

// received is a span that a collector has got, and which service it is from.
type received struct {
	*traces.Span
	service string
}

func (r received) attribute(key string) string {
	for _, attribute := range r.GetAttributes() {
		if attribute.GetKey() == key {
			if text := attribute.GetValue().GetStringValue(); text != "" {
				return text
			}
			return string(rune('0' + attribute.GetValue().GetIntValue()))
		}
	}
	return ""
}

// spanCollector takes spans in by OTLP. The same span may come twice.
type spanCollector struct {
	collector.UnimplementedTraceServiceServer
	mu    sync.Mutex
	spans map[string]received // by id
}

// startCollector has whatever exports traces from now on export them to it.
func startCollector(t *testing.T) *spanCollector {
	t.Helper()
	c := &spanCollector{spans: map[string]received{}}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	server := grpc.NewServer()
	collector.RegisterTraceServiceServer(server, c)
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(listener) })
	t.Cleanup(func() {
		server.Stop()
		serving.Wait()
	})
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"+listener.Addr().String())
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
	return c
}

func (c *spanCollector) Export(_ context.Context, request *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, of := range request.GetResourceSpans() {
		service := ""
		for _, attribute := range of.GetResource().GetAttributes() {
			if attribute.GetKey() == "service.name" {
				service = attribute.GetValue().GetStringValue()
			}
		}
		for _, scope := range of.GetScopeSpans() {
			for _, span := range scope.GetSpans() {
				c.spans[hex.EncodeToString(span.GetSpanId())] = received{span, service}
			}
		}
	}
	return &collector.ExportTraceServiceResponse{}, nil
}

// of are the spans of a trace.
func (c *spanCollector) of(trace string) []received {
	c.mu.Lock()
	defer c.mu.Unlock()
	var in []received
	for _, span := range c.spans {
		if hex.EncodeToString(span.GetTraceId()) == trace {
			in = append(in, span)
		}
	}
	return in
}

// forget is for what comes once more.
func (c *spanCollector) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.spans)
}

package telemetry

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"
)

// heard is a log from which a test learns the address that was taken for 127.0.0.1:0.
type heard struct {
	slog.Handler
	address chan string
}

func (h *heard) Enabled(context.Context, slog.Level) bool { return true }

func (h *heard) Handle(_ context.Context, record slog.Record) error {
	record.Attrs(func(attr slog.Attr) bool {
		h.address <- attr.Value.String()
		return false
	})
	return nil
}

func TestMetricsAreServedUntilTheEndAndNothingElseIs(t *testing.T) {
	log := &heard{slog.DiscardHandler, make(chan string, 1)}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	registry := NewRegistry("test")
	registry.MustRegister(CertificateExpiry(func() time.Time { return time.Unix(1000, 0) }), Truth("umbra_truth", "Holds.", func() bool { return true }))
	go func() { ended <- ServeMetrics(ctx, "127.0.0.1:0", registry, slog.New(log)) }()
	address := <-log.address
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	get := func(path string) (int, string) {
		answer, err := client.Get("http://" + address + path)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = answer.Body.Close() }()
		body, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Fatal(err)
		}
		return answer.StatusCode, string(body)
	}
	code, body := get("/metrics")
	for _, line := range []string{`umbra_build_info{component="test"`, "umbra_certificate_expiry_timestamp_seconds 1000\n", "umbra_truth 1\n", "go_goroutines ", "process_"} {
		if code != http.StatusOK || !strings.Contains(body, line) {
			t.Errorf("code %d, and without %q:\n%s", code, line, body)
		}
	}
	if code, _ := get("/debug/pprof/"); code != http.StatusNotFound {
		t.Errorf("another path is answered with %d", code)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if err := ServeMetrics(ctx, "", registry, slog.New(log)); err != nil {
		t.Errorf("no address: %v", err)
	}
}

package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

const (
	// scrapesMax is how many scrapes are answered at once; each holds its answer in memory.
	scrapesMax = 2
	// readTimeout bounds the reading of a request, writeTimeout that and its answer.
	readTimeout  = 5 * time.Second
	writeTimeout = time.Minute
	// headerBytesMax bounds what a request may say.
	headerBytesMax = 16 << 10
)

// ServingMetrics is logged with the address, which the system may have chosen.
const ServingMetrics = "serving metrics"

// NewRegistry is a registry that has the figures of the process, of Go's runtime, and of the build of that component.
func NewRegistry(component string) *prometheus.Registry {
	registry := prometheus.NewRegistry()
	build := ReadBuild()
	registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "umbra_build_info", Help: "What this process was built from. Always 1.",
			ConstLabels: prometheus.Labels{"component": component, "version": build.Version, "revision": build.Revision, "goversion": build.Go},
		}, func() float64 { return 1 }),
	)
	return registry
}

// CertificateExpiry is the figure of when the certificate ends that the process shows. It is asked at each scrape.
func CertificateExpiry(notAfter func() time.Time) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "umbra_certificate_expiry_timestamp_seconds", Help: "When the certificate ends that this process shows, as Unix time.",
	}, func() float64 { return float64(notAfter().Unix()) })
}

// Truth is a figure that is 1 while something holds, and 0 otherwise.
func Truth(name, help string, holds func() bool) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return Number(holds()) })
}

// Number is 1 for true and 0 for false.
func Number(holds bool) float64 {
	if holds {
		return 1
	}
	return 0
}

// ServeMetrics answers GET /metrics at the address, in plain HTTP and to whoever asks, until the context ends. An empty
// address serves nothing, and returns at once.
func ServeMetrics(ctx context.Context, address string, gatherer prometheus.Gatherer, log *slog.Logger) error {
	if address == "" {
		return nil
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("listening for scrapes of metrics: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(gatherer, promhttp.HandlerOpts{
		MaxRequestsInFlight: scrapesMax, EnableOpenMetrics: true, ErrorLog: scrapeErrors{log},
	}))
	server := &http.Server{
		Handler: mux, ReadTimeout: readTimeout, WriteTimeout: writeTimeout, MaxHeaderBytes: headerBytesMax,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)
		_ = server.Close() // nobody waits for the answers that it cuts
	})
	log.Info(ServingMetrics, "address", listener.Addr().String())
	err = server.Serve(listener)
	if !stop() {
		<-ended
	}
	if err != nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving metrics at %s: %w", address, err)
	}
	return nil
}

// scrapeErrors logs what goes wrong with a scrape.
type scrapeErrors struct{ log *slog.Logger }

func (s scrapeErrors) Println(about ...any) {
	s.log.Warn("a scrape of metrics failed", "error", fmt.Sprint(about...))
}

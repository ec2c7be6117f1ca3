package replicate

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Bounds of the histogram in seconds: an increment takes less than a second, a copy of a large server hours.
var cycleBuckets = []float64{0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 3600, 6 * 3600, 24 * 3600}

// The kinds of cycles, and how one ends.
const (
	kindIncrement = "increment" // reads what has changed
	kindCopy      = "copy"      // reads whole disks
	outcomeDone   = "done"
	outcomeFailed = "failed"
	outcomeCut    = "cut" // something else was assigned, or hostd ends
)

// figures are what a host's cycles did. Series of a pair last as long as it has a main role here.
type figures struct {
	read, sent *prometheus.CounterVec
	last       *prometheus.GaugeVec
	cycles     *prometheus.HistogramVec
}

func newFigures() *figures {
	f := &figures{
		read: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "umbra_replication_read_bytes_total", Help: "Bytes read from the main server's disks for replication.",
		}, []string{"pair"}),
		sent: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "umbra_replication_sent_bytes_total", Help: "Bytes of disk data sent to the shadow host. Zeros, holes, and what the shadow has are not sent.",
		}, []string{"pair"}),
		last: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "umbra_replication_last_cycle_duration_seconds", Help: "How long the pair's last cycle took, from its beginning to the confirmed recovery point.",
		}, []string{"pair"}),
		cycles: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "umbra_replication_cycle_duration_seconds", Help: "How long cycles of all pairs took, by kind and outcome.", Buckets: cycleBuckets,
		}, []string{"kind", "outcome"}),
	}
	for _, kind := range []string{kindIncrement, kindCopy} {
		for _, outcome := range []string{outcomeDone, outcomeFailed, outcomeCut} {
			f.cycles.WithLabelValues(kind, outcome)
		}
	}
	return f
}

func (f *figures) collectors() []prometheus.Collector {
	return []prometheus.Collector{f.read, f.sent, f.last, f.cycles}
}

// Describe and Collect make a Replicator a prometheus.Collector.
func (r *Replicator) Describe(descs chan<- *prometheus.Desc) {
	for _, c := range r.shared.figures.collectors() {
		c.Describe(descs)
	}
}

// Collect reads memory only.
func (r *Replicator) Collect(metrics chan<- prometheus.Metric) {
	for _, c := range r.shared.figures.collectors() {
		c.Collect(metrics)
	}
}

// forget removes a pair's series.
func (f *figures) forget(pair string) {
	f.read.DeleteLabelValues(pair)
	f.sent.DeleteLabelValues(pair)
	f.last.DeleteLabelValues(pair)
}

// traffic is what one pair's cycles moved. Safe for concurrent use.
type traffic struct{ read, sent prometheus.Counter }

func (f *figures) of(pair string) traffic {
	return traffic{f.read.WithLabelValues(pair), f.sent.WithLabelValues(pair)}
}

// cycled notes a cycle that has ended.
func (f *figures) cycled(ctx context.Context, pair, kind string, took time.Duration, err error) {
	outcome := outcomeDone
	switch {
	case ctx.Err() != nil:
		outcome = outcomeCut
	case err != nil:
		outcome = outcomeFailed
	default:
		f.last.WithLabelValues(pair).Set(took.Seconds())
	}
	f.cycles.WithLabelValues(kind, outcome).Observe(took.Seconds())
}

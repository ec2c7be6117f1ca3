package replica

import "github.com/prometheus/client_golang/prometheus"

func describe(name, help string) *prometheus.Desc {
	return prometheus.NewDesc("umbra_store_"+name, help, []string{"pair"}, nil)
}

var (
	storeWritten = describe("written_bytes_total", "Bytes of disk data written to the pair's recovery-point store since hostd started.")
	storePoints  = describe("recovery_points", "Complete recovery points in the pair's store.")
	storeDamaged = describe("damaged_recovery_points", "Those of them that are known to be damaged.")
	storeUsed    = describe("used_bytes", "Bytes that the pair's store takes on the file system.")
	storeStream  = describe("receiving", "1 while the main host has a replication stream open.")
)

// Describe and Collect make a Replica a prometheus.Collector. A pair's series last as long as its store.
func (r *Replica) Describe(descs chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{storeWritten, storePoints, storeDamaged, storeUsed, storeStream} {
		descs <- desc
	}
}

// Collect reads memory only.
func (r *Replica) Collect(metrics chan<- prometheus.Metric) {
	for _, p := range r.all() {
		p.mu.Lock()
		status := p.status
		p.mu.Unlock()
		show := func(desc *prometheus.Desc, kind prometheus.ValueType, value float64) {
			metrics <- prometheus.MustNewConstMetric(desc, kind, value, p.name)
		}
		receiving := 0.0
		if status.Receiving {
			receiving = 1
		}
		show(storeWritten, prometheus.CounterValue, float64(p.written.Load()))
		show(storePoints, prometheus.GaugeValue, float64(status.Count))
		show(storeDamaged, prometheus.GaugeValue, float64(status.Damaged))
		show(storeUsed, prometheus.GaugeValue, float64(status.StoreBytes))
		show(storeStream, prometheus.GaugeValue, receiving)
	}
}

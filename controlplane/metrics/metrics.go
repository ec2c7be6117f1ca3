// Package metrics shows the pairs and the hosts to Prometheus, as the API shows them to people. A scrape reads what is in
// memory: it asks neither etcd nor a host. There is a fixed number of series for each pair and for each host; when a pair
// is gone, so are its series.
//
// A pair's state and its failure are labels of one series that is always 1, and not one series for each that there could
// be: with a hundred thousand pairs that would be a million series of which most are 0.
package metrics

import (
	"iter"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/umbra-dr/umbra/controlplane/api"
	"github.com/umbra-dr/umbra/controlplane/drpair"
	"github.com/umbra-dr/umbra/controlplane/observed"
	"github.com/umbra-dr/umbra/controlplane/store"
	"github.com/umbra-dr/umbra/pkg/clock"
	"github.com/umbra-dr/umbra/pkg/telemetry"
)

// Pairs are the records in memory. *store.Cache is one.
type Pairs interface {
	After(id string) iter.Seq[store.Entry]
}

// Collector is a prometheus.Collector. It is safe for concurrent use.
type Collector struct {
	pairs Pairs
	hosts api.Observed
	clock clock.Clock
}

// New makes a collector, to be registered once.
func New(pairs Pairs, hosts api.Observed, clk clock.Clock) *Collector {
	return &Collector{pairs, hosts, clk}
}

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("umbra_"+name, help, labels, nil)
}

// What is known of each pair.
var (
	pairInfo      = describe("pair_info", "A DR pair and its servers. Always 1.", "pair", "main_host", "shadow_host", "server")
	pairState     = describe("pair_state", "The state that the pair is in. Always 1.", "pair", "state")
	pairFailure   = describe("pair_failure", "Why the pair is in an error state or paused. Always 1, and there only while it is so.", "pair", "reason", "side")
	pairCondition = describe("pair_condition", "1 while the condition of the pair holds, 0 while it does not or nobody can tell.", "pair", "condition")
	pairInterval  = describe("pair_interval_seconds", "Time from one recovery point to the next that the pair's policy asks for.", "pair")
	pairRPO       = describe("pair_rpo_seconds", "Age of the newest recovery point: what a failover now would lose. There while the pair replicates.", "pair")
	pairNewest    = describe("pair_newest_recovery_point_timestamp_seconds", "The moment that the newest recovery point holds, as Unix time.", "pair")
	pairPoints    = describe("pair_recovery_points", "Complete recovery points of the pair.", "pair")
	pairStore     = describe("pair_store_bytes", "Bytes that the pair's recovery points take on the shadow host.", "pair")
	pairStoreMax  = describe("pair_store_limit_bytes", "Most bytes that the pair's recovery points may take. There only if the policy has a limit.", "pair")
	pairSync      = describe("pair_sync_remaining_bytes", "Bytes that the running cycle, initial sync or resync has still to look at.", "pair")
)

// What is known of each host.
var (
	hostConnected = describe("host_connected", "1 while the host has a session with a control plane.", "host")
	hostReport    = describe("host_report_timestamp_seconds", "When the host last reported, as Unix time.", "host")
	hostStore     = describe("host_store_size_bytes", "Size of the file system that holds the host's recovery points.", "host")
	hostStoreFree = describe("host_store_free_bytes", "Space that is free there.", "host")
)

// Describe is for prometheus.Registry.
func (c *Collector) Describe(descs chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{
		pairInfo, pairState, pairFailure, pairCondition, pairInterval, pairRPO, pairNewest, pairPoints, pairStore, pairStoreMax, pairSync,
		hostConnected, hostReport, hostStore, hostStoreFree,
	} {
		descs <- desc
	}
}

// Collect is for prometheus.Registry.
func (c *Collector) Collect(metrics chan<- prometheus.Metric) {
	now := c.clock.Now()
	for entry := range c.pairs.After("") {
		collectPair(metrics, entry.Record.Pair, api.FactsOf(entry.Record.Pair, c.hosts, now))
	}
	for _, host := range c.hosts.List() {
		collectHost(metrics, host)
	}
}

func collectPair(metrics chan<- prometheus.Metric, p drpair.Pair, facts api.Facts) {
	show := func(desc *prometheus.Desc, value float64, more ...string) {
		metrics <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, append([]string{p.ID}, more...)...)
	}
	show(pairInfo, 1, p.Main.Host, p.Shadow.Host, p.Main.Server)
	show(pairState, 1, string(p.State))
	if p.Failure != nil {
		show(pairFailure, 1, string(p.Failure.Reason), string(p.Failure.Side))
	}
	show(pairCondition, telemetry.Number(facts.Ready), "ReadyForFailover")
	show(pairCondition, telemetry.Number(facts.Protected), "Protected")
	show(pairCondition, telemetry.Number(facts.Fenced), "Fenced")
	show(pairInterval, p.Policy.Interval.Seconds())
	if p.Policy.StoreBytesMax > 0 {
		show(pairStoreMax, float64(p.Policy.StoreBytesMax))
	}
	if facts.Shadow != nil {
		show(pairPoints, float64(facts.Shadow.GetRecoveryPointCount()))
		show(pairStore, float64(facts.Shadow.GetStoreBytes()))
	}
	if !facts.Newest.IsZero() {
		show(pairNewest, seconds(facts.Newest))
		if facts.Replicating {
			show(pairRPO, facts.RPO.Seconds())
		}
	}
	if facts.Replicating {
		progress := facts.Main.GetProgress()
		show(pairSync, float64(max(0, progress.GetTotalBytes()-progress.GetDoneBytes())))
	}
}

func collectHost(metrics chan<- prometheus.Metric, host observed.Host) {
	show := func(desc *prometheus.Desc, value float64) {
		metrics <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, host.ID)
	}
	show(hostConnected, telemetry.Number(host.Connected))
	show(hostReport, seconds(host.ReportTime))
	if capacity := host.Inventory.GetCapacity(); capacity.GetStoreBytes() > 0 {
		show(hostStore, float64(capacity.GetStoreBytes()))
		show(hostStoreFree, float64(capacity.GetStoreFreeBytes()))
	}
}

func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1e3 }

package main

import (
	"fmt"
	"strings"
	"time"

	grpcprometheus "github.com/grpc-ecosystem/go-grpc-middleware/providers/prometheus"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/umbra-dr/umbra/controlplane/metrics"
	"github.com/umbra-dr/umbra/controlplane/observed"
	"github.com/umbra-dr/umbra/controlplane/reconcile"
	"github.com/umbra-dr/umbra/controlplane/registry"
	"github.com/umbra-dr/umbra/controlplane/store"
	"github.com/umbra-dr/umbra/pkg/clock"
	"github.com/umbra-dr/umbra/pkg/identity"
	"github.com/umbra-dr/umbra/pkg/telemetry"
	"github.com/umbra-dr/umbra/pkg/tracing"
)

// measured are the parts that have figures.
type measured struct {
	pairs   *store.Cache
	hosts   *observed.Hosts
	engine  *reconcile.Engine
	present *registry.Registry
	own     *identity.Source
	traces  *tracing.Traces
}

// figures are what Prometheus gets to see, and the count of calls, which servers have to be given.
func figures(f flags, of measured) (prometheus.Gatherer, *grpcprometheus.ServerMetrics) {
	own := telemetry.NewRegistry("controlplane")
	calls := grpcprometheus.NewServerMetrics()
	own.MustRegister(
		metrics.New(of.pairs, of.hosts, clock.System), of.engine.Durations(), of.traces, calls,
		telemetry.Truth("umbra_etcd_lease_held", "1 while this control plane holds its lease at etcd. Without it, it serves nobody.",
			func() bool { return of.present.Alive().Err() == nil }),
		telemetry.CertificateExpiry(func() time.Time { return of.own.Current().NotAfter() }),
	)
	if len(f.EtcdEndpoint) > 0 {
		return own, calls
	}
	return prometheus.Gatherers{own, prometheus.GathererFunc(embeddedEtcd)}, calls
}

// embeddedEtcd is what the etcd in this process tells of itself. It tells the default registry, which has other figures
// that are in ours already.
func embeddedEtcd() ([]*dto.MetricFamily, error) {
	all, err := prometheus.DefaultGatherer.Gather()
	if err != nil {
		return nil, fmt.Errorf("gathering the figures of the embedded etcd: %w", err)
	}
	var etcd []*dto.MetricFamily
	for _, family := range all {
		if strings.HasPrefix(family.GetName(), "etcd_") {
			etcd = append(etcd, family)
		}
	}
	return etcd, nil
}

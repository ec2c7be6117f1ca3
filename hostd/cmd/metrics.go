package main

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/umbra-dr/umbra/hostd/session"
	"github.com/umbra-dr/umbra/pkg/identity"
	"github.com/umbra-dr/umbra/pkg/telemetry"
	"github.com/umbra-dr/umbra/pkg/tracing"
)

// figures are what Prometheus gets to see.
func figures(p *parts, talk *session.Session, own *identity.Source, traces *tracing.Traces) prometheus.Gatherer {
	registry := telemetry.NewRegistry("hostd")
	registry.MustRegister(
		p.main.Replicator, p.replica, traces,
		telemetry.Truth("umbra_session_connected", "1 while this host has a session with a control plane.", talk.Connected),
		telemetry.CertificateExpiry(func() time.Time { return own.Current().NotAfter() }),
	)
	return registry
}

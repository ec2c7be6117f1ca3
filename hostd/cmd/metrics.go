package main

import (
	"time"

	grpcprometheus "github.com/grpc-ecosystem/go-grpc-middleware/providers/prometheus"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"github.com/umbra-dr/umbra/hostd/session"
	"github.com/umbra-dr/umbra/pkg/identity"
	"github.com/umbra-dr/umbra/pkg/telemetry"
	"github.com/umbra-dr/umbra/pkg/tracing"
)

// calls counts what this host asks of control planes and of other hosts, and what it is asked, by method and code.
type calls struct {
	asked  *grpcprometheus.ClientMetrics
	served *grpcprometheus.ServerMetrics
}

func newCalls() calls {
	return calls{grpcprometheus.NewClientMetrics(), grpcprometheus.NewServerMetrics()}
}

func (c calls) dial() []grpc.DialOption {
	return []grpc.DialOption{grpc.WithChainUnaryInterceptor(c.asked.UnaryClientInterceptor()), grpc.WithChainStreamInterceptor(c.asked.StreamClientInterceptor())}
}

func (c calls) serve() []grpc.ServerOption {
	return []grpc.ServerOption{grpc.ChainUnaryInterceptor(c.served.UnaryServerInterceptor()), grpc.ChainStreamInterceptor(c.served.StreamServerInterceptor())}
}

// figures are what Prometheus gets to see.
func figures(p *parts, talk *session.Session, own *identity.Source, traces *tracing.Traces) prometheus.Gatherer {
	registry := telemetry.NewRegistry("hostd")
	registry.MustRegister(
		p.main.Replicator, p.replica, traces, p.calls.asked, p.calls.served,
		telemetry.Truth("umbra_session_connected", "1 while this host has a session with a control plane.", talk.Connected),
		telemetry.CertificateExpiry(func() time.Time { return own.Current().NotAfter() }),
	)
	return registry
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	grpcprometheus "github.com/grpc-ecosystem/go-grpc-middleware/providers/prometheus"
	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/otel/propagation"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthgrpc "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/stats"

	"github.com/umbra-dr/umbra/controlplane/access"
	"github.com/umbra-dr/umbra/controlplane/api"
	"github.com/umbra-dr/umbra/controlplane/peer"
	"github.com/umbra-dr/umbra/controlplane/registry"
	"github.com/umbra-dr/umbra/controlplane/session"
	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/pkg/identity"
	"github.com/umbra-dr/umbra/pkg/tracing"
)

// stopGrace is how long calls may go on when the process is asked to end. Watches and sessions never end by themselves.
const stopGrace = time.Second

// servingHosts is logged with the address, which the system may have chosen.
const servingHosts = "serving hosts and clients"

// connectionAge is how long a client's connection gets new calls. A new one is a new handshake, in which a certificate that
// has ended is noticed. Streams that have begun go on.
const connectionAge = time.Hour

// served is what is served.
type served struct {
	guard    *access.Guard
	own      *identity.Source
	deps     api.Deps
	sessions *session.Server
	peers    *peer.Server
	present  *registry.Registry
	calls    *grpcprometheus.ServerMetrics
	traces   *tracing.Traces
}

// interceptors are what every call passes: it is traced if it is to change something, it is counted, and who calls is known before it
// is asked whether this control plane is alive.
func (s served) interceptors() []grpc.ServerOption {
	counted := []grpc.ServerOption{
		grpc.StatsHandler(otelgrpc.NewServerHandler(otelgrpc.WithTracerProvider(s.traces.Provider()), otelgrpc.WithPropagators(propagation.TraceContext{}),
			otelgrpc.WithFilter(func(call *stats.RPCTagInfo) bool { return access.RuleOf(call.FullMethodName).Changes }))),
		grpc.ChainUnaryInterceptor(s.calls.UnaryServerInterceptor()), grpc.ChainStreamInterceptor(s.calls.StreamServerInterceptor()),
	}
	return slices.Concat(counted, s.guard.Options(), s.present.WhileAlive(), api.Interceptors(s.deps))
}

// listen serves on the addresses that the flags name until the context ends.
func listen(ctx context.Context, f flags, what served) error {
	deps := what.deps
	group, ctx := errgroup.WithContext(ctx)
	if f.UnixSocket != "" {
		listener, err := listenUnix(f.UnixSocket)
		if err != nil {
			return err
		}
		server := grpc.NewServer(append(what.interceptors(), grpc.Creds(identity.LocalServer()))...)
		offer(server, deps)
		what.calls.InitializeMetrics(server)
		group.Go(func() error { return serve(ctx, server, listener) })
		deps.Log.Info("serving the API", "socket", f.UnixSocket)
	}
	if f.Listen != "" {
		listener, err := net.Listen("tcp", f.Listen)
		if err != nil {
			return fmt.Errorf("listening: %w", err)
		}
		options := []grpc.ServerOption{
			grpc.Creds(what.own.OpenServer()),
			grpc.KeepaliveParams(keepalive.ServerParameters{Time: 10 * time.Second, Timeout: 5 * time.Second, MaxConnectionAge: connectionAge}),
			grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
		}
		server := grpc.NewServer(append(what.interceptors(), options...)...)
		offer(server, deps)
		umbrav1.RegisterHostSessionServiceServer(server, what.sessions)
		umbrav1.RegisterPeerServiceServer(server, what.peers)
		what.calls.InitializeMetrics(server)
		group.Go(func() error { return serve(ctx, server, listener) })
		deps.Log.Info(servingHosts, "address", listener.Addr().String())
	}
	return group.Wait()
}

// offer registers the API, health and reflection.
func offer(server *grpc.Server, deps api.Deps) {
	api.Register(server, deps)
	healthgrpc.RegisterHealthServer(server, health.NewServer())
	reflection.Register(server)
}

// listenUnix makes the socket, in place of one that an earlier life has left.
func listenUnix(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // the socket itself is its owner's alone
		return nil, fmt.Errorf("making the socket's folder: %w", err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("removing an old socket: %w", err)
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("listening: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("protecting the socket: %w", err), listener.Close())
	}
	return listener, nil
}

// serve serves until the context ends. Then calls have a moment to end, streams are cut.
func serve(ctx context.Context, server *grpc.Server, listener net.Listener) error {
	stopped := context.AfterFunc(ctx, func() {
		force := time.AfterFunc(stopGrace, server.Stop) //nolint:forbidigo // the process is ending; nothing is decided by this time
		defer force.Stop()
		server.GracefulStop()
	})
	defer stopped()
	if err := server.Serve(listener); err != nil && ctx.Err() == nil {
		return fmt.Errorf("serving on %s: %w", listener.Addr(), err)
	}
	return nil
}

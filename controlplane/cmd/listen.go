package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthgrpc "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"

	"github.com/umbra-dr/umbra/controlplane/api"
	"github.com/umbra-dr/umbra/controlplane/peer"
	"github.com/umbra-dr/umbra/controlplane/session"
	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/pkg/identity"
)

// stopGrace is how long calls may go on when the process is asked to end. Watches and sessions never end by themselves.
const stopGrace = time.Second

// served is what is served.
type served struct {
	deps     api.Deps
	sessions *session.Server
	peers    *peer.Server
	alive    func() context.Context // see alive.go
}

// listen serves on the addresses that the flags name until the context ends.
func listen(ctx context.Context, f flags, what served) error {
	deps, alive := what.deps, whileAlive(what.alive)
	group, ctx := errgroup.WithContext(ctx)
	if f.UnixSocket != "" {
		listener, err := listenUnix(f.UnixSocket)
		if err != nil {
			return err
		}
		server := grpc.NewServer(append(alive, api.Interceptors(deps)...)...)
		offer(server, deps)
		group.Go(func() error { return serve(ctx, server, listener) })
		deps.Log.Info("serving the API", "socket", f.UnixSocket)
	}
	if f.Listen != "" {
		credentials, err := identity.Load(f.TLS)
		if err != nil {
			return err
		}
		listener, err := net.Listen("tcp", f.Listen)
		if err != nil {
			return fmt.Errorf("listening: %w", err)
		}
		options := []grpc.ServerOption{
			grpc.Creds(credentials.Server()),
			grpc.ChainUnaryInterceptor(guardUnary), grpc.ChainStreamInterceptor(guardStream),
			grpc.KeepaliveParams(keepalive.ServerParameters{Time: 10 * time.Second, Timeout: 5 * time.Second}),
			grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
		}
		server := grpc.NewServer(append(append(options, alive...), api.Interceptors(deps)...)...)
		offer(server, deps)
		umbrav1.RegisterHostSessionServiceServer(server, what.sessions)
		umbrav1.RegisterPeerServiceServer(server, what.peers)
		group.Go(func() error { return serve(ctx, server, listener) })
		deps.Log.Info("serving hosts and clients", "address", listener.Addr().String())
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

// caller names who calls, for request ids: those of two callers do not meet. All who may open the socket are one.
func caller(ctx context.Context) string {
	id, err := identity.Peer(ctx)
	if err != nil {
		return "socket"
	}
	return id.String()
}

// guard keeps hosts to what hosts speak, control planes to what they speak with one another, and everybody else from both.
func guard(ctx context.Context, method string) error {
	id, err := identity.Peer(ctx)
	if err != nil {
		return refused(codes.Unauthenticated, err.Error())
	}
	_, isHost := id.HostID()
	forHosts := strings.HasPrefix(method, "/"+umbrav1.HostSessionService_ServiceDesc.ServiceName+"/")
	forPeers := strings.HasPrefix(method, "/"+umbrav1.PeerService_ServiceDesc.ServiceName+"/")
	if isHost != forHosts || forPeers && id != identity.ControlPlane() {
		return refused(codes.PermissionDenied, fmt.Sprintf("%s may not call %s", id, method))
	}
	return nil
}

func refused(code codes.Code, message string) error {
	reason := strings.TrimPrefix(umbrav1.ErrorReason_ERROR_REASON_PERMISSION_DENIED.String(), "ERROR_REASON_")
	made, err := status.New(code, message).WithDetails(&errdetails.ErrorInfo{Domain: "umbra", Reason: reason})
	if err != nil {
		return status.Error(code, message)
	}
	return made.Err()
}

func guardUnary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if err := guard(ctx, info.FullMethod); err != nil {
		return nil, err
	}
	return handler(ctx, req)
}

func guardStream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	if err := guard(stream.Context(), info.FullMethod); err != nil {
		return err
	}
	return handler(srv, stream)
}

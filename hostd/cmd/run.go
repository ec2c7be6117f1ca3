package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/hostd/diagnostics"
	"github.com/umbra-dr/umbra/hostd/hypervisor"
	"github.com/umbra-dr/umbra/hostd/inventory"
	"github.com/umbra-dr/umbra/hostd/journal"
	"github.com/umbra-dr/umbra/hostd/replica"
	"github.com/umbra-dr/umbra/hostd/replicate"
	"github.com/umbra-dr/umbra/hostd/session"
	"github.com/umbra-dr/umbra/hostd/shadowserver"
	"github.com/umbra-dr/umbra/pkg/clock"
	"github.com/umbra-dr/umbra/pkg/identity"
	"github.com/umbra-dr/umbra/pkg/recoverystore"
	"github.com/umbra-dr/umbra/pkg/telemetry"
	"github.com/umbra-dr/umbra/pkg/tracing"
	"github.com/umbra-dr/umbra/pkg/transport"
)

const (
	inventoryEvery = 10 * time.Second
	ownerTimeout   = 10 * time.Second
	reloadEvery    = time.Minute
)

// machine is this host's hypervisor, for all roles.
type machine interface {
	hypervisor.Source
	hypervisor.Target
}

// run wires the parts and works on that machine until the context ends.
func run(ctx context.Context, f flags, on machine, log *slog.Logger) (err error) {
	for _, dir := range []string{f.StateDir, f.StoreDir, f.ServersDir, f.RunDir} {
		if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // servers run as a user of their own and pass through
			return fmt.Errorf("making a folder: %w", err)
		}
	}
	traces, err := tracing.Start(ctx, f.Traces, "umbra-hostd", log, tracing.KeyHost.String(string(f.HostID)))
	if err != nil {
		return err
	}
	defer traces.Close()
	kept, err := journal.Open(f.StateDir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, kept.Close()) }()
	me, err := enrol(ctx, f, kept, log)
	if err != nil {
		return err
	}
	parts, err := assemble(f, log, me, kept, on, serverOwner(ctx, on, log), traces.Tracer())
	if err != nil {
		return err
	}
	controlPlane, err := dialControlPlanes(me.source, f.controlPlanes(), parts.calls.dial()...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, controlPlane.Close()) }()
	talk := session.New(session.Config{
		Host: string(f.HostID), Conn: controlPlane, Journal: kept, Clock: clock.System, Log: log,
		Main: parts.main, Shadow: parts.shadow, Answerer: parts.answers,
		Inventory:      func(ctx context.Context) (*umbrav1.Host, error) { return inventory.Take(ctx, parts.inventory) },
		InventoryEvery: inventoryEvery,
	}, parts.outbox)
	gatherer := figures(parts, talk, me.source, traces)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return parts.replica.Run(ctx) })
	group.Go(func() error { return parts.shadow.Run(ctx) })
	group.Go(func() error { return parts.main.Run(ctx) })
	group.Go(func() error { return serve(ctx, f, me.source, parts, log) })
	group.Go(func() error { return talk.Run(ctx) })
	group.Go(func() error { return telemetry.ServeMetrics(ctx, f.Metrics, gatherer, log) })
	group.Go(func() error { me.keep(ctx, controlPlane); return nil })
	if err := group.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// parts are what the daemon consists of.
type parts struct {
	replica   *replica.Replica
	shadow    shadowRole
	main      *mainRole
	outbox    *session.Outbox
	calls     calls
	answers   *diagnostics.Answers
	inventory inventory.Config
}

func assemble(f flags, log *slog.Logger, me *me, kept *journal.Journal, on machine, owner *recoverystore.Owner, tracer trace.Tracer) (*parts, error) {
	p := &parts{outbox: session.NewOutbox(), calls: newCalls(), main: &mainRole{peers: me.peers}}
	var shadow *shadowserver.Role
	received, err := replica.New(replica.Config{
		StoreDir: f.StoreDir, Journal: kept, Clock: clock.System, Log: log, Tracer: tracer,
		Store:   recoverystore.Options{Owner: owner},
		Changed: func(pair string) { shadow.Changed(pair) },
	})
	if err != nil {
		return nil, err
	}
	p.replica = received
	shadow, err = shadowserver.New(shadowserver.Config{
		StoreDir: f.StoreDir, ServersDir: f.ServersDir, Replica: received, Target: on, Journal: kept,
		Clock: clock.System, Log: log, Tracer: tracer, Report: p.outbox.Report, CopyCostMax: float64(f.CopyCostMax),
	})
	if err != nil {
		return nil, err
	}
	p.shadow = shadowRole{shadow, me.peers}
	p.main.Replicator, err = replicate.New(replicate.Config{
		RunDir: f.RunDir, Source: on, Journal: kept, Clock: clock.System, Log: log, Tracer: tracer, Report: p.outbox.Report,
		Dial: func(address, host string) (*transport.Conn, error) {
			return dialHost(me.source, host, address, p.calls.dial()...)
		},
		Confirmed: p.main.confirmed.Load, CyclesMax: f.CyclesMax, CopyCostMax: float64(f.CopyCostMax), ScratchBytesMax: f.ScratchBytesMax, ScratchFreeBytesMin: f.ScratchFreeMin,
	})
	if err != nil {
		return nil, err
	}
	p.answers = &diagnostics.Answers{StateDir: f.StateDir, Hypervisor: on, Store: received.Store, Server: serverOf(kept)}
	address := f.DataAddress
	if address == "" {
		address = f.DataListen
	}
	p.inventory = inventory.Config{Host: string(f.HostID), DataAddress: address, StoreDir: f.StoreDir, Hypervisor: on}
	return p, nil
}

// serverOwner is the user that servers run as and who must be able to read stores; nil when libvirt does not tell. Then it
// is left to libvirt to give its servers what they open, as it does by default.
func serverOwner(ctx context.Context, on machine, log *slog.Logger) *recoverystore.Owner {
	ctx, cancel := context.WithTimeout(ctx, ownerTimeout)
	defer cancel()
	host, err := on.Host(ctx)
	if err != nil {
		log.Warn("it is not known which user servers run as", "error", err)
		return nil
	}
	if host.ServerUID < 0 || host.ServerGID < 0 {
		return nil
	}
	return &recoverystore.Owner{UID: host.ServerUID, GID: host.ServerGID}
}

// mainRole also knows whether the control plane has confirmed the assignments in this life, and sees to it that hosts whose
// certificates are revoked are cut off.
type mainRole struct {
	*replicate.Replicator
	peers     *identity.Peers
	confirmed atomic.Bool
}

func (m *mainRole) Assign(set []*umbrav1.Assignment, live bool) {
	if live {
		m.confirmed.Store(true)
	}
	cutRevoked(m.peers, set)
	m.Replicator.Assign(set)
}

// shadowRole also sees to it that revoked hosts are cut off, as mainRole does.
type shadowRole struct {
	*shadowserver.Role
	peers *identity.Peers
}

func (s shadowRole) Assign(set []*umbrav1.Assignment, _ bool) {
	cutRevoked(s.peers, set)
	s.Role.Assign(set)
}

// cutRevoked makes revoked certificates of the hosts that the assignments name count no more, at once.
func cutRevoked(peers *identity.Peers, set []*umbrav1.Assignment) {
	for _, assignment := range set {
		if main := assignment.GetMain(); main != nil {
			peers.Require(identity.HostSubject(main.GetShadowHost()), main.GetShadowGenerationMin())
		}
		if shadow := assignment.GetShadow(); shadow != nil {
			peers.Require(identity.HostSubject(shadow.GetMainHost()), shadow.GetMainGenerationMin())
		}
	}
}

// serverOf tells the name of a pair's server at this host from the kept assignment.
func serverOf(kept *journal.Journal) func(pair string) string {
	return func(pair string) string {
		assignment, err := session.Kept(kept, pair)
		if err != nil {
			return ""
		}
		if main := assignment.GetMain(); main != nil {
			return main.GetServer()
		}
		return assignment.GetShadow().GetServer()
	}
}

// dialHost is the way as this host to another one's replica.
func dialHost(source *identity.Source, host, address string, more ...grpc.DialOption) (*transport.Conn, error) {
	secure, err := source.Dial(identity.Host(host))
	if err != nil {
		return nil, err
	}
	conn, err := transport.Dialer{Credentials: secure, Options: append(more, keptAlive())}.Dial(address)
	if err != nil {
		return nil, fmt.Errorf("host %s: %w", host, err)
	}
	return conn, nil
}

// dialControlPlanes is a connection as this host to all control planes.
func dialControlPlanes(source *identity.Source, addresses []string, more ...grpc.DialOption) (*grpc.ClientConn, error) {
	secure, err := source.Dial(identity.ControlPlane())
	if err != nil {
		return nil, err
	}
	return session.Dial(addresses, append(dialOptions(secure), more...)...)
}

func dialOptions(secure credentials.TransportCredentials) []grpc.DialOption {
	return []grpc.DialOption{grpc.WithTransportCredentials(secure), keptAlive()}
}

func keptAlive() grpc.DialOption {
	return grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second, PermitWithoutStream: true})
}

// peerHost is the host that the caller's certificate names, or "" for a caller that is none.
func peerHost(ctx context.Context) string {
	host, err := identity.PeerHost(ctx)
	if err != nil {
		return ""
	}
	return host
}

func isHost(id identity.ID) bool {
	_, ok := id.HostID()
	return ok
}

// serve takes in other hosts' replication streams until the context ends.
func serve(ctx context.Context, f flags, source *identity.Source, p *parts, log *slog.Logger) error {
	listener, err := net.Listen("tcp", f.DataListen)
	if err != nil {
		return fmt.Errorf("listening for replication: %w", err)
	}
	options := append(p.calls.serve(),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 10 * time.Second, Timeout: 5 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}))
	server := transport.NewServer(source.Server(isHost), p.replica.Handle(peerHost), options...)
	p.calls.served.InitializeMetrics(server)
	log.Info("taking in replication", "address", listener.Addr().String())
	stop := context.AfterFunc(ctx, server.Stop)
	defer stop()
	if err := server.Serve(listener); err != nil && ctx.Err() == nil {
		return fmt.Errorf("serving replication: %w", err)
	}
	return nil
}

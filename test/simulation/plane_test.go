package simulation_test

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	"github.com/umbra-dr/umbra/controlplane/api"
	"github.com/umbra-dr/umbra/controlplane/observed"
	"github.com/umbra-dr/umbra/controlplane/peer"
	"github.com/umbra-dr/umbra/controlplane/reconcile"
	"github.com/umbra-dr/umbra/controlplane/registry"
	cpsession "github.com/umbra-dr/umbra/controlplane/session"
	"github.com/umbra-dr/umbra/controlplane/store"
	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/hostd/session"
)

// lease is how long a session may be silent, of the world's time.
const lease = time.Minute

// presenceTTL is how long a control plane keeps its sessions when it is not heard of, by etcd's clock, which is ours.
const presenceTTL = 30 * time.Second

// plane is a machine on which one control plane after the other lives.
type plane struct {
	machine string
	etcd    *clientv3.Client
	network *network
	clock   fastClock
	log     *slog.Logger

	mu   sync.Mutex
	stop func() // nil while none lives
}

// start begins a life. One that is alive is no error.
func (p *plane) start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stop != nil {
		return nil
	}
	var err error
	p.stop, err = startPlane(p.machine, p.etcd, p.network, p.clock, p.log)
	return err
}

func (p *plane) kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stop != nil {
		p.stop()
		p.stop = nil
	}
}

// startPlane begins a life of a control plane, wired as its command does it. It returns what ends that life.
func startPlane(machine string, etcd *clientv3.Client, network *network, clock fastClock, log *slog.Logger) (stop func(), err error) {
	ctx, cancel := context.WithCancel(context.Background())
	records, hosts := store.New(etcd, log), observed.New()
	cache := store.NewCache(records, clock, log)
	kept, err := records.Hosts(ctx)
	if err != nil {
		cancel()
		return nil, err
	}
	for _, record := range kept {
		inventory := &umbrav1.Host{}
		if err := proto.Unmarshal(record.LastInventory, inventory); err != nil {
			cancel()
			return nil, err
		}
		hosts.Know(record.ID, inventory, record.Time, clock.Now())
	}
	present := registry.New(registry.Config{
		Store: records, Observed: hosts, Clock: clock, Log: log, Address: machine, TTL: presenceTTL,
	})
	peers := peer.New(peer.Config{
		ControlPlanes: present, Observed: hosts, Clock: clock, Log: log,
		Dial: func(address string) (*grpc.ClientConn, error) { return dialTo(network, machine, address) },
	})
	sessions := cpsession.New(cpsession.Config{
		Records: cache, Observed: hosts, Registry: present, Elsewhere: peers.Ask, Clock: clock, Log: log, Lease: lease,
		KeepHost: func(ctx context.Context, id string, inventory *umbrav1.Host) error {
			data, err := proto.Marshal(inventory)
			if err != nil {
				return err
			}
			return records.PutHost(ctx, store.HostRecord{ID: id, LastInventory: data, Time: clock.Now()})
		},
	})
	engine := reconcile.New(reconcile.Config{
		Store: records, Records: cache, Observed: hosts, Self: present.Self(), Clock: clock, Log: log, UnreachableAfter: lease,
	})
	deps := api.Deps{Store: records, Cache: cache, Engine: engine, Observed: hosts, Hosts: sessions, Clock: clock, Log: log}
	server := grpc.NewServer(slices.Concat(present.WhileAlive(), api.Interceptors(deps), network.speech.ofServer())...)
	api.Register(server, deps)
	umbrav1.RegisterHostSessionServiceServer(server, sessions)
	umbrav1.RegisterPeerServiceServer(server, peers.Server(sessions.AskHere))
	var work sync.WaitGroup
	work.Go(func() { _ = cache.Run(ctx) })
	work.Go(func() { _ = present.Run(ctx) })
	<-cache.Ready()
	<-present.Ready()
	work.Go(func() { _ = engine.Run(ctx) })
	work.Go(func() { _ = sessions.Run(ctx) })
	work.Go(func() { _ = peers.Run(ctx) })
	listener := network.listen(machine)
	work.Go(func() { _ = server.Serve(listener) })
	return func() {
		network.leave(machine)
		cancel()
		server.Stop()
		work.Wait()
	}, nil
}

// dialTo makes a client of a machine in the network.
func dialTo(network *network, from, to string, options ...grpc.DialOption) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:"+to, slices.Concat(options, over(network, from))...)
}

// dialPlanes makes a client of whichever control planes there are. Calls take turns between them.
func dialPlanes(network *network, from string) (*grpc.ClientConn, error) {
	return session.Dial(planeMachines, over(network, from)...)
}

func over(network *network, from string) []grpc.DialOption {
	return append(network.speech.ofClient(),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(quickReconnects),
		grpc.WithContextDialer(func(ctx context.Context, to string) (net.Conn, error) { return network.dial(ctx, from, to) }),
	)
}

// loseLease ends the lease of one control plane, as a stall would.
func (w *world) loseLease(ctx context.Context, r *rand.Rand) error {
	held, err := w.etcd.Get(ctx, "/umbra/presence/control-planes/", clientv3.WithPrefix())
	if err != nil || len(held.Kvs) == 0 {
		return err
	}
	_, err = w.etcd.Revoke(ctx, clientv3.LeaseID(held.Kvs[r.IntN(len(held.Kvs))].Lease))
	return err
}

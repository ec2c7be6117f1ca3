package simulation_test

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/namespace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	"github.com/umbra-dr/umbra/controlplane/api"
	"github.com/umbra-dr/umbra/controlplane/observed"
	"github.com/umbra-dr/umbra/controlplane/reconcile"
	"github.com/umbra-dr/umbra/controlplane/registry"
	cpsession "github.com/umbra-dr/umbra/controlplane/session"
	"github.com/umbra-dr/umbra/controlplane/store"
	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

// lease is how long a session may be silent, of the world's time.
const lease = time.Minute

// presenceTTL is how long a control plane keeps its sessions when it is not heard of, by etcd's clock, which is ours.
const presenceTTL = 30 * time.Second

// within is a client that sees only keys of its own, so that many worlds share one etcd.
func within(ctx context.Context, etcd *clientv3.Client, prefix string) *clientv3.Client {
	client := clientv3.NewCtxClient(ctx)
	client.KV = namespace.NewKV(etcd.KV, prefix)
	client.Watcher = namespace.NewWatcher(etcd.Watcher, prefix)
	client.Lease = namespace.NewLease(etcd.Lease, prefix)
	return client
}

// startPlane begins a life of the control plane, wired as its command does it. It returns what ends that life.
func startPlane(etcd *clientv3.Client, network *network, clock fastClock, log *slog.Logger) (stop func(), err error) {
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
	present := registry.New(registry.Config{Store: records, Observed: hosts, Clock: clock, Log: log, TTL: presenceTTL})
	sessions := cpsession.New(cpsession.Config{
		Records: cache, Observed: hosts, Registry: present, Clock: clock, Log: log, Lease: lease,
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
	server := grpc.NewServer(api.Interceptors(deps)...)
	api.Register(server, deps)
	umbrav1.RegisterHostSessionServiceServer(server, sessions)
	var work sync.WaitGroup
	work.Go(func() { _ = cache.Run(ctx) })
	work.Go(func() { _ = present.Run(ctx) })
	<-cache.Ready()
	<-present.Ready()
	work.Go(func() { _ = engine.Run(ctx) })
	work.Go(func() { _ = sessions.Run(ctx) })
	listener := network.listen(planePlace)
	work.Go(func() { _ = server.Serve(listener) })
	return func() {
		network.leave(planePlace)
		cancel()
		server.Stop()
		work.Wait()
	}, nil
}

// dialTo makes a client of a place in the network.
func dialTo(network *network, from, to string, options ...grpc.DialOption) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:"+to, append(options,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(quickReconnects),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return network.dial(ctx, from, to) }))...)
}

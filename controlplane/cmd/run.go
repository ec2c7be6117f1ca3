package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"github.com/umbra-dr/umbra/controlplane/api"
	"github.com/umbra-dr/umbra/controlplane/backup"
	"github.com/umbra-dr/umbra/controlplane/embedded"
	"github.com/umbra-dr/umbra/controlplane/observed"
	"github.com/umbra-dr/umbra/controlplane/peer"
	"github.com/umbra-dr/umbra/controlplane/reconcile"
	"github.com/umbra-dr/umbra/controlplane/registry"
	"github.com/umbra-dr/umbra/controlplane/session"
	"github.com/umbra-dr/umbra/controlplane/store"
	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/pkg/clock"
	"github.com/umbra-dr/umbra/pkg/identity"
	"github.com/umbra-dr/umbra/pkg/settings"
	"github.com/umbra-dr/umbra/pkg/telemetry"
	"github.com/umbra-dr/umbra/pkg/tracing"
)

const (
	startTimeout           = time.Minute
	presenceTTLAlone       = 30 * time.Second
	presenceTTLAmongOthers = 10 * time.Second
)

// run wires the parts and works until the context ends.
func run(ctx context.Context, f flags, log *slog.Logger) (err error) {
	if f.Listen == "" && f.UnixSocket == "" {
		return settings.Invalid(errors.New("nobody could reach this control plane: give --listen, --unix-socket, or both"))
	}
	traces, err := tracing.Start(ctx, f.Traces, "umbra-controlplane", log)
	if err != nil {
		return err
	}
	defer traces.Close()
	if err := backup.CheckDir(f.StateDir); err != nil {
		return err
	}
	client, stop, err := openEtcd(ctx, f.recordsFlags, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	records := store.New(client, log)
	gate, err := openGate(ctx, f, records, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, gate.close()) }()
	cache := store.NewCache(records, clock.System, log)
	hosts := observed.New()
	if err := recallHosts(ctx, records, hosts); err != nil {
		return err
	}
	present := registry.New(registry.Config{
		Store: records, Observed: hosts, Clock: clock.System, Log: log, Address: peerAddress(f), TTL: presenceTTL(f),
	})
	peers := peer.New(peer.Config{ControlPlanes: present, Observed: hosts, Dial: dialPeer(gate.own), Clock: clock.System, Log: log})
	sessions := session.New(session.Config{
		Records: cache, Observed: hosts, Registry: present, Elsewhere: peers.Ask, Clock: clock.System, Log: log,
		PeerHost: identity.PeerHost, Least: gate.revocations.Least, KeepHost: keepHost(records), Lease: f.Lease,
	})
	gate.revocations.OnChange(sessions.PeerChanged)
	engine := reconcile.New(reconcile.Config{
		Store: records, Records: cache, Observed: hosts, Self: present.Self(), Clock: clock.System, Log: log,
		Tracer: traces.Tracer(), UnreachableAfter: f.Lease,
	})
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return cache.Run(ctx) })
	group.Go(func() error { return gate.revocations.Run(ctx) })
	group.Go(func() error { return present.Run(ctx) })
	for _, ready := range []<-chan struct{}{cache.Ready(), gate.revocations.Ready(), present.Ready()} {
		select {
		case <-ready:
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), group.Wait())
		}
	}
	gatherer, calls := figures(f, measured{cache, hosts, engine, present, gate.own, traces})
	deps := api.Deps{
		Store: records, Cache: cache, Engine: engine, Observed: hosts, Hosts: sessions, Clock: clock.System, Log: log,
		Office: gate.office, Backup: saver(records, f.StateDir),
	}
	group.Go(func() error { return engine.Run(ctx) })
	group.Go(func() error { return sessions.Run(ctx) })
	group.Go(func() error { return peers.Run(ctx) })
	group.Go(func() error { return telemetry.ServeMetrics(ctx, f.Metrics, gatherer, log) })
	group.Go(func() error { gate.office.KeepOwn(ctx, gate.own, serverNames(f)); return nil })
	group.Go(func() error {
		return listen(ctx, f, served{
			guard: gate.guard, own: gate.own, deps: deps, sessions: sessions, peers: peers.Server(sessions.AskHere), present: present,
			calls: calls, traces: traces,
		})
	})
	return group.Wait()
}

// presenceTTL is how long this control plane keeps its sessions when it is not heard of. Alone on its own etcd there is
// nobody to take them over.
func presenceTTL(f flags) time.Duration {
	if len(f.EtcdEndpoint) == 0 {
		return presenceTTLAlone
	}
	return presenceTTLAmongOthers
}

// openEtcd connects to the external cluster if one is named, and otherwise starts etcd inside this process.
func openEtcd(ctx context.Context, f recordsFlags, log *slog.Logger) (*clientv3.Client, func() error, error) {
	if len(f.EtcdEndpoint) == 0 {
		for setting, given := range map[string]string{"etcd-ca": f.EtcdCA, "etcd-cert": f.EtcdCert, "etcd-key": f.EtcdKey} {
			if given != "" {
				return nil, nil, settings.InvalidAt(setting, errors.New("it is for an external etcd cluster, and no --etcd-endpoint is given"))
			}
		}
		ctx, cancel := context.WithTimeout(ctx, startTimeout)
		defer cancel()
		return embedded.Start(ctx, f.StateDir, log)
	}
	if err := refusePlainEtcd(f.EtcdEndpoint); err != nil {
		return nil, nil, settings.InvalidAt("etcd-endpoint", err)
	}
	var config *tls.Config
	if f.EtcdCA != "" || f.EtcdCert != "" {
		var err error
		info := transport.TLSInfo{CertFile: f.EtcdCert, KeyFile: f.EtcdKey, TrustedCAFile: f.EtcdCA}
		if config, err = info.ClientConfig(); err != nil {
			return nil, nil, settings.InvalidAt("etcd-ca", fmt.Errorf("loading the certificates for etcd (--etcd-ca, --etcd-cert, --etcd-key): %w", err))
		}
	}
	client, err := clientv3.New(clientv3.Config{
		Context: ctx, Endpoints: f.EtcdEndpoint, TLS: config, DialTimeout: startTimeout,
		DialKeepAliveTime: 10 * time.Second, DialKeepAliveTimeout: 5 * time.Second,
	})
	if err != nil {
		return nil, nil, fmt.Errorf("connecting to etcd at %v: %w", f.EtcdEndpoint, err)
	}
	return client, client.Close, nil
}

// refusePlainEtcd refuses endpoints on the network without TLS: the authority's key would travel there for all to read.
func refusePlainEtcd(endpoints []string) error {
	for _, endpoint := range endpoints {
		at, err := url.Parse(endpoint)
		if err != nil {
			return fmt.Errorf("reading the etcd endpoint %q: %w", endpoint, err)
		}
		ip := net.ParseIP(at.Hostname())
		local := at.Scheme == "unix" || at.Scheme == "http" && ip != nil && ip.IsLoopback()
		if at.Scheme != "https" && at.Scheme != "unixs" && !local {
			return fmt.Errorf("the etcd endpoint %q is neither https nor http on a loopback address", endpoint)
		}
	}
	return nil
}

// recallHosts makes hosts known that were connected in an earlier life, as not connected since now.
func recallHosts(ctx context.Context, records *store.Store, hosts *observed.Hosts) error {
	kept, err := records.Hosts(ctx)
	if err != nil {
		return err
	}
	for _, record := range kept {
		inventory := &umbrav1.Host{}
		if err := proto.Unmarshal(record.LastInventory, inventory); err != nil {
			return fmt.Errorf("reading the inventory of host %s: %w", record.ID, err)
		}
		hosts.Know(record.ID, inventory, record.Time, clock.System.Now())
	}
	return nil
}

func keepHost(records *store.Store) func(context.Context, string, *umbrav1.Host) error {
	return func(ctx context.Context, id string, inventory *umbrav1.Host) error {
		data, err := proto.Marshal(inventory)
		if err != nil {
			return fmt.Errorf("encoding the inventory of host %s: %w", id, err)
		}
		return records.PutHost(ctx, store.HostRecord{ID: id, LastInventory: data, Time: clock.System.Now()})
	}
}

package monitoring_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/grpc"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/hostd/diagnostics"
	"github.com/umbra-dr/umbra/hostd/hypervisor"
	"github.com/umbra-dr/umbra/hostd/hypervisor/simulated"
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

// host is hostd on a simulated hypervisor, wired and measured as its command does it.
type host struct {
	hypervisor *simulated.Hypervisor
	metrics    string
	log        lines
	stop       func()
}

type mainRole struct{ *replicate.Replicator }

func (m mainRole) Assign(set []*umbrav1.Assignment, _ bool) { m.Replicator.Assign(set) }

type shadowRole struct{ *shadowserver.Role }

func (s shadowRole) Assign(set []*umbrav1.Assignment, _ bool) { s.Role.Assign(set) }

func (p *plane) startHost(t *testing.T, id string) *host {
	t.Helper()
	h := newHost()
	h.run(t, p, id, h.hypervisor, false)
	return h
}

// newHost is a host without the daemon.
func newHost() *host {
	return &host{hypervisor: simulated.New(hypervisor.Host{
		LibvirtVersion: "0.0.0", CPUs: 8, MemoryBytes: 64 << 30, MemoryFreeBytes: 60 << 30, Networks: []string{"lan"}, KVM: true,
		ServerUID: -1, ServerGID: -1,
	})}
}

// run is the daemon at work, with that target for shadow servers.
func (h *host) run(t *testing.T, p *plane, id string, target hypervisor.Target, traced bool) {
	t.Helper()
	log := telemetry.LogFlags{}.New(&h.log).With(telemetry.KeyHost, id)
	made, err := p.authority.Issue(identity.Grant{ID: identity.Host(id), Generation: 1, Life: time.Hour}, time.Now())
	must(t, err)
	source := identity.NewSource(made, identity.NewPeers())
	dir := t.TempDir()
	store, servers, runs := filepath.Join(dir, "store"), filepath.Join(dir, "servers"), filepath.Join(dir, "run")
	for _, folder := range []string{store, servers, runs} {
		must(t, os.MkdirAll(folder, 0o755))
	}
	kept, err := journal.Open(filepath.Join(dir, "state"))
	must(t, err)
	traces, err := tracing.Start(t.Context(), traced, "umbra-hostd", log, tracing.KeyHost.String(id))
	must(t, err)
	outbox := session.NewOutbox()
	var shadow *shadowserver.Role
	received, err := replica.New(replica.Config{
		StoreDir: store, Journal: kept, Clock: clock.System, Log: log, Store: recoverystore.Options{ReserveBytes: -1},
		Changed: func(pair string) { shadow.Changed(pair) }, Tracer: traces.Tracer(),
	})
	must(t, err)
	shadow, err = shadowserver.New(shadowserver.Config{
		StoreDir: store, ServersDir: servers, Replica: received, Target: target, Journal: kept, Clock: clock.System, Log: log,
		Tracer: traces.Tracer(), Report: outbox.Report, FreeBytesMin: 1, LinkExists: func(string) bool { return true },
	})
	must(t, err)
	main, err := replicate.New(replicate.Config{
		RunDir: runs, Source: h.hypervisor, Journal: kept, Clock: clock.System, Log: log, Tracer: traces.Tracer(), Report: outbox.Report, BootID: "boot",
		Dial: func(address, other string) (*transport.Conn, error) {
			secure, err := source.Dial(identity.Host(other))
			if err != nil {
				return nil, err
			}
			return transport.Dialer{Credentials: secure}.Dial(address)
		},
	})
	must(t, err)
	controlPlane, err := dial(source, identity.ControlPlane(), p.address)
	must(t, err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	has := inventory.Config{Host: id, DataAddress: listener.Addr().String(), StoreDir: store, Hypervisor: h.hypervisor}
	talk := session.New(session.Config{
		Host: id, Conn: controlPlane, Journal: kept, Clock: clock.System, Log: log, Main: mainRole{main}, Shadow: shadowRole{shadow},
		Answerer: &diagnostics.Answers{StateDir: dir, Hypervisor: h.hypervisor, Store: received.Store, Server: func(string) string { return "" }}, Inventory: func(ctx context.Context) (*umbrav1.Host, error) { return inventory.Take(ctx, has) },
		InventoryEvery: time.Second,
	}, outbox)
	server := transport.NewServer(source.Server(func(identity.ID) bool { return true }), received.Handle(nil))
	registry := telemetry.NewRegistry("hostd")
	registry.MustRegister(main, received, traces,
		telemetry.Truth("umbra_session_connected", "1 while this host has a session with a control plane.", talk.Connected),
		telemetry.CertificateExpiry(func() time.Time { return source.Current().NotAfter() }))
	// Prometheus sees the host's figures as long as the test goes on.
	measured := httptest.NewServer(promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	h.metrics = measured.Listener.Addr().String()
	life, die := context.WithCancel(context.Background())
	var work sync.WaitGroup
	for _, part := range []func(context.Context) error{received.Run, shadow.Run, main.Run, talk.Run} {
		work.Go(func() { _ = part(life) })
	}
	work.Go(func() { _ = server.Serve(listener) })
	h.stop = sync.OnceFunc(func() {
		die()
		server.Stop()
		work.Wait()
		traces.Close()
		if err := errors.Join(controlPlane.Close(), kept.Close()); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		h.stop()
		measured.Close()
		h.hypervisor.Close()
	})
}

func dial(source *identity.Source, id identity.ID, address string, options ...grpc.DialOption) (*grpc.ClientConn, error) {
	secure, err := source.Dial(id)
	if err != nil {
		return nil, err
	}
	return grpc.NewClient(address, append(options, grpc.WithTransportCredentials(secure))...)
}

// addServer defines a running server with one disk that holds something.
func (h *host) addServer(t *testing.T, name string) {
	t.Helper()
	h.hypervisor.AddImage("/images/"+name, 4<<20)
	xml := fmt.Sprintf(`<domain type='qemu'><name>%s</name><uuid>6a1f0fb8-38c9-4d0c-9f0b-0f2ff3a70001</uuid><memory unit='MiB'>64</memory><vcpu>1</vcpu>`+
		`<os><type arch='x86_64' machine='pc'>hvm</type></os><devices>`+
		`<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='/images/%s'/><target dev='vda' bus='virtio'/></disk>`+
		`</devices></domain>`, name, name)
	must(t, h.hypervisor.Define(t.Context(), xml))
	must(t, h.hypervisor.Start(t.Context(), name))
	must(t, h.hypervisor.GuestWrites(t.Context(), name, "vda", []byte("what the guest has written"), 1<<20))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

package replica_test

import (
	"bytes"
	"context"
	"log/slog"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/hostd/journal"
	"github.com/umbra-dr/umbra/hostd/replica"
	"github.com/umbra-dr/umbra/pkg/clock"
	"github.com/umbra-dr/umbra/pkg/identity"
	"github.com/umbra-dr/umbra/pkg/recoverystore"
	"github.com/umbra-dr/umbra/pkg/transport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	pairID   = "pair-1"
	mainHost = "main-host"
	cluster  = transport.ClusterBytes
)

// rig is a shadow host: a replica behind a real server on loopback. It can be restarted on the same folders.
type rig struct {
	t       *testing.T
	dir     string
	cfg     replica.Config
	replica *replica.Replica
	conn    *transport.Conn
	changed chan struct{}
	peer    string
	stop    func()

	// With an authority hosts are known by their certificates, and not by peer.
	authority *identity.Authority
	address   string
}

func newRig(t *testing.T, change ...func(*replica.Config)) *rig {
	t.Helper()
	g := &rig{t: t, dir: t.TempDir(), peer: mainHost, changed: make(chan struct{}, 1)}
	g.cfg = replica.Config{
		StoreDir: g.dir + "/stores", Clock: clock.System, Log: slog.New(slog.DiscardHandler),
		PruneEvery: time.Hour, ScrubEvery: time.Hour,
		Changed: func(string) {
			select {
			case g.changed <- struct{}{}:
			default:
			}
		},
	}
	for _, c := range change {
		c(&g.cfg)
	}
	g.begin()
	return g
}

// newSecureRig is a rig that hosts reach with certificates, as in production. Its own connection is the main host's.
func newSecureRig(t *testing.T) *rig {
	t.Helper()
	g := &rig{t: t, dir: t.TempDir(), changed: make(chan struct{}, 1)}
	g.cfg = replica.Config{
		StoreDir: g.dir + "/stores", Clock: clock.System, Log: slog.New(slog.DiscardHandler), PruneEvery: time.Hour, ScrubEvery: time.Hour,
	}
	var err error
	if g.authority, err = identity.NewAuthority(time.Now()); err != nil {
		t.Fatal(err)
	}
	g.begin()
	return g
}

func (g *rig) begin() {
	g.t.Helper()
	g.start()
	g.t.Cleanup(func() { g.stop() })
}

// source is a host's identity.
func (g *rig) source(host string) *identity.Source {
	g.t.Helper()
	made, err := g.authority.Issue(identity.Grant{ID: identity.Host(host), Generation: 1, Life: time.Hour}, time.Now())
	if err != nil {
		g.t.Fatal(err)
	}
	return identity.NewSource(made, nil)
}

// as is a connection of that host.
func (g *rig) as(host string) *transport.Conn {
	g.t.Helper()
	secure := insecure.NewCredentials()
	if g.authority != nil {
		var err error
		if secure, err = g.source(host).Dial(identity.Host("shadow-host")); err != nil {
			g.t.Fatal(err)
		}
	}
	conn, err := transport.Dialer{Credentials: secure}.Dial(g.address)
	if err != nil {
		g.t.Fatal(err)
	}
	return conn
}

func (g *rig) start() {
	g.t.Helper()
	j, err := journal.Open(g.dir)
	if err != nil {
		g.t.Fatal(err)
	}
	g.cfg.Journal = j
	r, err := replica.New(g.cfg)
	if err != nil {
		g.t.Fatal(err)
	}
	secure := insecure.NewCredentials()
	peer := func(context.Context) string { return g.peer }
	if g.authority != nil {
		secure = g.source("shadow-host").Server(func(identity.ID) bool { return true })
		peer = func(ctx context.Context) string {
			host, _ := identity.PeerHost(ctx) // who is none has no name
			return host
		}
	}
	srv := transport.NewServer(secure, r.Handle(peer), grpc.WaitForHandlers(true))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		g.t.Fatal(err)
	}
	g.address = listener.Addr().String()
	conn := g.as(mainHost)
	ctx, cancel := context.WithCancel(context.Background())
	served, ran := make(chan error, 1), make(chan error, 1)
	go func() { served <- srv.Serve(listener) }()
	go func() { ran <- r.Run(ctx) }()
	g.replica, g.conn = r, conn
	g.stop = func() {
		cancel()
		if err := <-ran; err != nil {
			g.t.Errorf("Run: %v", err)
		}
		_ = conn.Close()
		srv.Stop()
		if err := <-served; err != nil {
			g.t.Error(err)
		}
		if err := j.Close(); err != nil {
			g.t.Error(err)
		}
	}
}

func (g *rig) restart() {
	g.t.Helper()
	g.stop()
	g.start()
}

// await waits until the pair's status satisfies the test, at each change of it.
func (g *rig) await(what string, ok func(replica.Status) bool) {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(g.t.Context(), 20*time.Second)
	defer cancel()
	for !ok(g.replica.Status(pairID)) {
		select {
		case <-g.changed:
		case <-ctx.Done():
			g.t.Fatalf("%s did not happen; status %+v", what, g.replica.Status(pairID))
		}
	}
}

// accepting is a spec for streams of the epoch.
func accepting(epoch uint64) replica.Spec {
	return replica.Spec{Pair: pairID, Generation: epoch, Epoch: epoch, Accept: true, MainHost: mainHost, ResyncGeneration: 1}
}

func stopping(epoch uint64) replica.Spec {
	s := accepting(epoch)
	s.Accept = false
	return s
}

func (g *rig) apply(s replica.Spec) {
	g.t.Helper()
	if err := g.replica.Apply(g.t.Context(), s); err != nil {
		g.t.Fatal(err)
	}
}

func (g *rig) store() *recoverystore.Store {
	g.t.Helper()
	s, err := g.replica.Store(pairID)
	if err != nil {
		g.t.Fatal(err)
	}
	return s
}

// check compares the store's latest state with an image, by reading its data.
func (g *rig) check(disk string, image []byte) {
	g.t.Helper()
	sums := make([]recoverystore.Checksum, (len(image)+cluster-1)/cluster)
	if err := g.store().Checksums(g.t.Context(), disk, 0, sums, recoverystore.FromData); err != nil {
		g.t.Fatal(err)
	}
	for i, got := range sums {
		part := image[i*cluster : min(len(image), (i+1)*cluster)]
		zero := len(bytes.TrimLeft(part, "\x00")) == 0
		if zero && got.State == recoverystore.ChecksumZero {
			continue
		}
		if got.State != recoverystore.ChecksumData || got.Sum != transport.SumOf(part) {
			g.t.Errorf("disk %s, cluster %d is not what was sent: state %d", disk, i, got.State)
		}
	}
}

func random(seed byte, n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

func hello(epoch uint64, disks ...*umbrav1.ReplicatedDisk) *umbrav1.ReplicationHello {
	return &umbrav1.ReplicationHello{DrPair: pairID, Epoch: epoch, ResyncGeneration: 1, Disks: disks}
}

func vda(clusters int) *umbrav1.ReplicatedDisk {
	return &umbrav1.ReplicatedDisk{Target: "vda", SizeBytes: int64(clusters) * cluster}
}

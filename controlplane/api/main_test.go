package api_test

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/umbra-dr/umbra/controlplane/api"
	"github.com/umbra-dr/umbra/controlplane/embedded"
	"github.com/umbra-dr/umbra/controlplane/observed"
	"github.com/umbra-dr/umbra/controlplane/reconcile"
	"github.com/umbra-dr/umbra/controlplane/registry"
	"github.com/umbra-dr/umbra/controlplane/session"
	"github.com/umbra-dr/umbra/controlplane/store"
	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/pkg/clock"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what must come.
const patience = 20 * time.Second

// plane is a control plane with everything real but the hosts.
type plane struct {
	t          *testing.T
	failover   umbrav1.FailoverServiceClient
	protection umbrav1.ProtectionServiceClient
	hosts      umbrav1.HostServiceClient
	etcd       *clientv3.Client
	cache      *store.Cache
	observed   *observed.Hosts
	registry   *registry.Registry
	sessions   map[string]uint64 // of hosts
	answers    *fakeHosts
	log        *lockedBuffer
}

func startPlane(t *testing.T) *plane { return startPlaneWith(t, func(*api.Deps) {}) }

// startPlaneAt starts a plane whose API goes by that clock.
func startPlaneAt(t *testing.T, clk clock.Clock) *plane {
	return startPlaneWith(t, func(deps *api.Deps) { deps.Clock = clk })
}

// startPlaneWith starts a plane whose API has other parts.
func startPlaneWith(t *testing.T, change func(*api.Deps)) *plane {
	t.Helper()
	p := &plane{t: t, observed: observed.New(), sessions: map[string]uint64{}, answers: &fakeHosts{points: map[string][]*umbrav1.RecoveryPoint{}}, log: &lockedBuffer{}}
	log := slog.New(slog.NewTextHandler(p.log, nil))
	ctx, cancel := context.WithCancel(t.Context())
	client, stop, err := embedded.Start(ctx, t.TempDir(), log)
	if err != nil {
		t.Fatal(err)
	}
	p.etcd = client
	records := store.New(client, log)
	p.cache = store.NewCache(records, clock.System, log)
	p.registry = registry.New(registry.Config{Store: records, Observed: p.observed, Clock: clock.System, Log: log, TTL: time.Minute})
	engine := reconcile.New(reconcile.Config{
		Store: records, Records: p.cache, Observed: p.observed, Self: p.registry.Self(), Clock: clock.System, Log: log, UnreachableAfter: time.Hour,
	})
	deps := api.Deps{
		Store: records, Cache: p.cache, Engine: engine, Observed: p.observed, Hosts: p.answers, Clock: clock.System, Log: log,
	}
	change(&deps)
	server := grpc.NewServer(api.Interceptors(deps)...)
	api.Register(server, deps)
	listener := bufconn.Listen(1 << 20)
	var parts sync.WaitGroup
	parts.Go(func() { _ = p.cache.Run(ctx) })
	parts.Go(func() { _ = p.registry.Run(ctx) })
	<-p.cache.Ready()
	<-p.registry.Ready()
	parts.Go(func() { _ = engine.Run(ctx) })
	parts.Go(func() { _ = server.Serve(listener) })
	connection, err := grpc.NewClient("passthrough:plane", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = connection.Close()
		server.Stop()
		cancel()
		parts.Wait()
		if err := stop(); err != nil {
			t.Errorf("stop etcd: %v", err)
		}
		if t.Failed() {
			t.Log(p.log.String())
		}
	})
	p.failover = umbrav1.NewFailoverServiceClient(connection)
	p.protection = umbrav1.NewProtectionServiceClient(connection)
	p.hosts = umbrav1.NewHostServiceClient(connection)
	return p
}

// fakeHosts answers questions to hosts.
type fakeHosts struct {
	mu     sync.Mutex
	points map[string][]*umbrav1.RecoveryPoint
	away   bool
	panics bool
}

func (f *fakeHosts) RecoveryPoints(_ context.Context, _, pair string) ([]*umbrav1.RecoveryPoint, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.panics {
		panic("a defect")
	}
	if f.away {
		return nil, session.ErrNotConnected
	}
	points, ok := f.points[pair]
	if !ok {
		return nil, status.Error(codes.NotFound, "no such pair here")
	}
	return points, nil
}

// Refresh has nothing newer to tell than what the test has put into observed.
func (f *fakeHosts) Holdings(context.Context, string) ([]*umbrav1.Held, error) {
	return nil, session.ErrNotConnected
}

func (f *fakeHosts) Refresh(context.Context, string) error { return session.ErrNotConnected }

func (f *fakeHosts) Diagnostics(_ context.Context, host, _ string) ([]*umbrav1.DiagnosticsFile, error) {
	if host == "main-host" {
		return nil, session.ErrNotConnected
	}
	return []*umbrav1.DiagnosticsFile{
		{Name: "hostd.log", Content: bytes.Repeat([]byte("a line of a log\n"), 100_000)},
		{Name: "../../etc/passwd", Content: []byte("x")},
	}, nil
}

func (f *fakeHosts) set(change func(f *fakeHosts)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f)
}

type lockedBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}

// connectHosts makes two hosts known, with a server "vm" on the main host.
func (p *plane) connectHosts() {
	disk := &umbrav1.Disk{Target: "vda", SizeBytes: 1 << 30, Format: "qcow2", TracksChanges: true}
	server := func(name string, disks ...*umbrav1.Disk) *umbrav1.Server {
		return &umbrav1.Server{
			Name: name, Uuid: "uuid-" + name, PowerState: umbrav1.PowerState_POWER_STATE_RUNNING, MemoryBytes: 1 << 30,
			Networks: []string{"front"}, Disks: disks,
		}
	}
	raw := &umbrav1.Disk{Target: "vdb", SizeBytes: 1 << 30, Format: "raw"}
	for id, servers := range map[string][]*umbrav1.Server{
		"main-host": {server("vm", disk), server("vm2", disk), server("raw", disk, raw), server("diskless")}, "shadow-host": nil,
	} {
		number, err := p.registry.Enter(p.t.Context(), id, func(error) {})
		if err != nil {
			p.t.Fatal(err)
		}
		p.sessions[id] = number
		p.observed.SetInventory(id, number, &umbrav1.Host{
			Servers: servers, DataAddress: "192.0.2.1:7444", LibvirtVersion: "9.0.0", Networks: []string{"front"},
			Capacity: &umbrav1.HostCapacity{MemoryFreeBytes: 8 << 30, StoreBytes: 100 << 30, StoreFreeBytes: 50 << 30},
		}, time.Now())
	}
}

func createRequest(id, server string) *umbrav1.CreateDRPairRequest {
	return &umbrav1.CreateDRPairRequest{DrPairId: id, DrPair: &umbrav1.DRPair{
		Main:   &umbrav1.MainServer{Host: "hosts/main-host", Server: server},
		Shadow: &umbrav1.ShadowServer{Host: "hosts/shadow-host"},
	}}
}

func (p *plane) create(id, server string) *umbrav1.DRPair {
	p.t.Helper()
	response, err := p.protection.CreateDRPair(p.t.Context(), createRequest(id, server))
	if err != nil {
		p.t.Fatal(err)
	}
	// A host hears of a pair, and reports on it, only once it is in the cache.
	p.until(id, func(*umbrav1.DRPair) bool { return true })
	return response.GetDrPair()
}

// protect makes a pair "a" that replicates and has three points, the newest of them damaged.
func (p *plane) protect() *umbrav1.DRPair {
	p.t.Helper()
	p.connectHosts()
	p.create("a", "vm")
	p.answers.set(func(f *fakeHosts) { f.points["a"] = testPoints(3) })
	p.reportMain("a", &umbrav1.MainReport{Phase: umbrav1.MainPhase_MAIN_PHASE_REPLICATING, ResyncGeneration: 1})
	p.reportShadow("a", &umbrav1.ShadowReport{
		Phase: umbrav1.ShadowPhase_SHADOW_PHASE_RECEIVING, RecoveryPointCount: 3, NewestRecoveryPoint: "rp-3", NewestRecoveryPointTime: timestamppb.Now(),
	})
	return p.waitFor("a", umbrav1.DRPairState_DR_PAIR_STATE_REPLICATING)
}

// testPoints are n points, oldest first as no host sends them, of which the newest is damaged.
func testPoints(n int) []*umbrav1.RecoveryPoint {
	var points []*umbrav1.RecoveryPoint
	for i := 1; i <= n; i++ {
		points = append(points, &umbrav1.RecoveryPoint{
			Name: point(i), PointTime: timestamppb.New(time.Unix(int64(1000+i), 0)), Damaged: i == n, Newest: i == n,
		})
	}
	return points
}

func point(i int) string { return "drPairs/a/recoveryPoints/rp-" + string(rune('0'+i)) }

func (p *plane) epoch(pair string) uint64 {
	entry, _ := p.cache.Get(pair)
	return entry.Record.Pair.Epoch
}

func (p *plane) reportMain(pair string, report *umbrav1.MainReport) {
	p.observed.SetReport("main-host", p.sessions["main-host"], &umbrav1.AssignmentReport{
		DrPair: pair, Epoch: max(1, p.epoch(pair)), Role: &umbrav1.AssignmentReport_Main{Main: report},
	}, time.Now())
}

func (p *plane) reportShadow(pair string, report *umbrav1.ShadowReport) {
	p.observed.SetReport("shadow-host", p.sessions["shadow-host"], &umbrav1.AssignmentReport{
		DrPair: pair, Epoch: max(1, p.epoch(pair)), Role: &umbrav1.AssignmentReport_Shadow{Shadow: report},
	}, time.Now())
}

// waitFor returns the pair when it has the state.
func (p *plane) waitFor(pair string, state umbrav1.DRPairState) *umbrav1.DRPair {
	p.t.Helper()
	return p.until(pair, func(shown *umbrav1.DRPair) bool { return shown.GetState() == state })
}

func (p *plane) until(pair string, holds func(*umbrav1.DRPair) bool) *umbrav1.DRPair {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	stream, err := p.failover.WatchDRPairs(ctx, &umbrav1.WatchDRPairsRequest{Names: []string{"drPairs/" + pair}})
	if err != nil {
		p.t.Fatal(err)
	}
	var last *umbrav1.DRPair
	for {
		message, err := stream.Recv()
		if err != nil {
			p.t.Fatalf("%v; the pair is %v", err, last)
		}
		if message.GetDrPair() == nil {
			continue
		}
		if last = message.GetDrPair(); holds(last) {
			return last
		}
	}
}

// detail is the status's detail of that type, or its zero value.
func detail[D any](err error) (found D) {
	for _, detail := range status.Convert(err).Details() {
		if d, ok := detail.(D); ok {
			return d
		}
	}
	return found
}

// wantError fails the test unless the error is a status of that code and reason.
func wantError(t *testing.T, err error, code codes.Code, reason string) *errdetails.ErrorInfo {
	t.Helper()
	info := detail[*errdetails.ErrorInfo](err)
	if status.Code(err) != code || info.GetReason() != reason || info.GetDomain() != "umbra" {
		t.Errorf("got %v, reason %q in domain %q; want %v %s", err, info.GetReason(), info.GetDomain(), code, reason)
	}
	return info
}

// wantField fails the test unless the error is INVALID_ARGUMENT and names the field.
func wantField(t *testing.T, err error, field string) {
	t.Helper()
	wantError(t, err, codes.InvalidArgument, "INVALID_FIELD")
	violations := detail[*errdetails.BadRequest](err).GetFieldViolations()
	if !slices.ContainsFunc(violations, func(v *errdetails.BadRequest_FieldViolation) bool { return v.GetField() == field }) {
		t.Errorf("the error names %v, not %s", violations, field)
	}
}

// wantMissing fails the test unless the error is NOT_FOUND and names the resource.
func wantMissing(t *testing.T, err error, name string) {
	t.Helper()
	wantError(t, err, codes.NotFound, "NOT_FOUND")
	if got := detail[*errdetails.ResourceInfo](err).GetResourceName(); got != name {
		t.Errorf("the error names resource %q, not %q", got, name)
	}
}

// Package session_test joins both ends of the host sessions, with the control plane's store, engine and session server
// on one side and hostd's session on the other. Only the roles are played: they do at once what they are assigned.
package session_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/umbra-dr/umbra/controlplane/drpair"
	"github.com/umbra-dr/umbra/controlplane/embedded"
	"github.com/umbra-dr/umbra/controlplane/observed"
	"github.com/umbra-dr/umbra/controlplane/peer"
	"github.com/umbra-dr/umbra/controlplane/reconcile"
	"github.com/umbra-dr/umbra/controlplane/registry"
	cpsession "github.com/umbra-dr/umbra/controlplane/session"
	"github.com/umbra-dr/umbra/controlplane/store"
	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/hostd/journal"
	"github.com/umbra-dr/umbra/hostd/session"
	"github.com/umbra-dr/umbra/pkg/clock"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	patience = 20 * time.Second
	grace    = 2 * time.Second
)

func logTo(t *testing.T, name string) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), nil)).With("part", name)
}

// site is an etcd, the way to the control planes that work on it now, and nothing else.
type site struct {
	client *clientv3.Client
	plane  *plane // the first

	mu     sync.Mutex
	planes map[string]*plane // those that can be reached, by name
}

// newSite has one control plane, of the name "one".
func newSite(t *testing.T) *site {
	t.Helper()
	client, stop, err := embedded.Start(t.Context(), t.TempDir(), logTo(t, "etcd"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	s := &site{client: client, planes: map[string]*plane{}}
	s.plane = s.startPlane(t, "one", time.Minute)
	return s
}

// dial connects to the control plane of that name.
func (s *site) dial(ctx context.Context, name string) (net.Conn, error) {
	s.mu.Lock()
	p := s.planes[name]
	s.mu.Unlock()
	if p == nil {
		return nil, fmt.Errorf("there is no control plane %s", name)
	}
	return p.listener.DialContext(ctx)
}

// plane is one life of a control plane.
type plane struct {
	store    *store.Store
	cache    *store.Cache
	observed *observed.Hosts
	registry *registry.Registry
	sessions *cpsession.Server
	engine   *reconcile.Engine
	listener *bufconn.Listener
	stop     func()
}

// startPlane starts a control plane whose sessions outlive it by ttl.
func (s *site) startPlane(t *testing.T, name string, ttl time.Duration) *plane {
	t.Helper()
	log := logTo(t, "control plane "+name)
	p := &plane{store: store.New(s.client, log), observed: observed.New(), listener: bufconn.Listen(1 << 16)}
	p.cache = store.NewCache(p.store, clock.System, log)
	p.registry = registry.New(registry.Config{
		Store: p.store, Observed: p.observed, Clock: clock.System, Log: log, Address: name, TTL: ttl,
	})
	peers := peer.New(peer.Config{
		ControlPlanes: p.registry, Observed: p.observed, Clock: clock.System, Log: log, Beat: 10 * time.Millisecond,
		Dial: func(address string) (*grpc.ClientConn, error) {
			return grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithContextDialer(s.dial))
		},
	})
	p.sessions = cpsession.New(cpsession.Config{
		Records: p.cache, Observed: p.observed, Registry: p.registry, Elsewhere: peers.Ask, Clock: clock.System, Log: log, Lease: patience,
		KeepHost: func(context.Context, string, *umbrav1.Host) error { return nil },
	})
	p.engine = reconcile.New(reconcile.Config{
		Store: p.store, Records: p.cache, Observed: p.observed, Self: p.registry.Self(), Clock: clock.System, Log: log, UnreachableAfter: grace,
	})
	server := grpc.NewServer()
	umbrav1.RegisterHostSessionServiceServer(server, p.sessions)
	umbrav1.RegisterPeerServiceServer(server, peers.Server(p.sessions.AskHere))
	ctx, cancel := context.WithCancel(context.Background())
	s.reachable(name, p) // before it makes itself known
	var work sync.WaitGroup
	work.Go(func() { _ = p.cache.Run(ctx) })
	work.Go(func() { _ = p.registry.Run(ctx) })
	<-p.cache.Ready()
	<-p.registry.Ready()
	work.Go(func() { _ = p.engine.Run(ctx) })
	work.Go(func() { _ = p.sessions.Run(ctx) })
	work.Go(func() { _ = peers.Run(ctx) })
	work.Go(func() { _ = server.Serve(p.listener) })
	p.stop = sync.OnceFunc(func() {
		s.reachable(name, nil)
		cancel()
		server.Stop()
		work.Wait()
	})
	t.Cleanup(p.stop)
	return p
}

func (s *site) reachable(name string, p *plane) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.planes[name] = p
}

// host is a hostd whose roles are played. Its journal outlives it.
type host struct {
	id     string
	dir    string
	outbox *session.Outbox
	sets   chan []*umbrav1.Assignment // what is assigned to both roles, each time
	lives  chan bool
	stop   func()

	mu       sync.Mutex
	conns    []net.Conn
	attempts map[uint64]bool // that it was told to run
	holds    bool            // it runs nothing for now
	held     []*umbrav1.Assignment
}

// startHost starts a host that knows the control planes of those names; without any, "one" and "two".
func (s *site) startHost(t *testing.T, id, dir string, planes ...string) *host {
	t.Helper()
	h := &host{
		id: id, dir: dir, outbox: session.NewOutbox(), sets: make(chan []*umbrav1.Assignment, 1000), lives: make(chan bool, 1000),
		attempts: map[uint64]bool{},
	}
	j, err := journal.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	switch len(planes) {
	case 0:
		planes = []string{"one", "two"}
	case 1:
		planes = []string{"passthrough:///" + planes[0]} // a single one may be any target
	}
	conn, err := session.Dial(planes, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{BaseDelay: 10 * time.Millisecond, Multiplier: 1, MaxDelay: 50 * time.Millisecond}, MinConnectTimeout: patience,
		}),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			conn, err := s.dial(ctx, address)
			if err == nil {
				h.mu.Lock()
				h.conns = append(h.conns, conn)
				h.mu.Unlock()
			}
			return conn, err
		}))
	if err != nil {
		t.Fatal(err)
	}
	talk := session.New(session.Config{
		Host: id, Conn: conn, Journal: j, Clock: clock.System, Log: logTo(t, id), Main: player{h, playMain}, Shadow: player{h, playShadow},
		Inventory: func(context.Context) (*umbrav1.Host, error) { return &umbrav1.Host{DataAddress: id + ":1"}, nil },
		Answerer:  answerer{},
	}, h.outbox)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- talk.Run(ctx) }()
	h.stop = sync.OnceFunc(func() {
		cancel()
		if err := errors.Join(<-ended, conn.Close(), j.Close()); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(h.stop)
	return h
}

// cut breaks every connection of the host.
func (h *host) cut() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, conn := range h.conns {
		_ = conn.Close() // some are closed already
	}
	h.conns = nil
}

// player does at once what is assigned, and reports that.
type player struct {
	host *host
	play func(*umbrav1.Assignment) *umbrav1.AssignmentReport
}

func (p player) Assign(set []*umbrav1.Assignment, live bool) {
	for _, assignment := range set {
		if p.host.does(assignment) {
			p.host.outbox.Report(p.play(assignment))
		}
	}
	p.host.sets <- slices.Clone(set)
	p.host.lives <- live
}

// does takes note of an assignment, and tells whether it is carried out now.
func (h *host) does(assignment *umbrav1.Assignment) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if assignment.GetShadow().GetMode() != umbrav1.ShadowMode_SHADOW_MODE_RUN {
		return true
	}
	h.attempts[assignment.GetShadow().GetAttempt().GetNumber()] = true
	if h.holds {
		h.held = append(h.held, assignment)
	}
	return !h.holds
}

// hold makes the host run nothing until it is released.
func (h *host) hold() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.holds = true
}

func (h *host) release() {
	h.mu.Lock()
	held := h.held
	h.holds, h.held = false, nil
	h.mu.Unlock()
	for _, assignment := range held {
		h.outbox.Report(playShadow(assignment))
	}
}

// tried are the attempts that it was told to run, in order.
func (h *host) tried() []uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Sorted(maps.Keys(h.attempts))
}

func playMain(a *umbrav1.Assignment) *umbrav1.AssignmentReport {
	phases := map[umbrav1.MainMode]umbrav1.MainPhase{
		umbrav1.MainMode_MAIN_MODE_REPLICATE: umbrav1.MainPhase_MAIN_PHASE_REPLICATING,
		umbrav1.MainMode_MAIN_MODE_PAUSE:     umbrav1.MainPhase_MAIN_PHASE_PAUSED,
		umbrav1.MainMode_MAIN_MODE_FENCE:     umbrav1.MainPhase_MAIN_PHASE_FENCED,
		umbrav1.MainMode_MAIN_MODE_RELEASE:   umbrav1.MainPhase_MAIN_PHASE_RELEASED,
	}
	return &umbrav1.AssignmentReport{
		DrPair: a.GetDrPair(), DrPairUid: a.GetDrPairUid(), Generation: a.GetGeneration(), Epoch: a.GetEpoch(),
		Role: &umbrav1.AssignmentReport_Main{Main: &umbrav1.MainReport{
			Phase: phases[a.GetMain().GetMode()], ResyncGeneration: a.GetMain().GetResyncGeneration(),
		}},
	}
}

func playShadow(a *umbrav1.Assignment) *umbrav1.AssignmentReport {
	phases := map[umbrav1.ShadowMode]umbrav1.ShadowPhase{
		umbrav1.ShadowMode_SHADOW_MODE_RECEIVE: umbrav1.ShadowPhase_SHADOW_PHASE_RECEIVING,
		umbrav1.ShadowMode_SHADOW_MODE_STOP:    umbrav1.ShadowPhase_SHADOW_PHASE_STOPPED,
		umbrav1.ShadowMode_SHADOW_MODE_RUN:     umbrav1.ShadowPhase_SHADOW_PHASE_RUNNING,
		umbrav1.ShadowMode_SHADOW_MODE_COMMIT:  umbrav1.ShadowPhase_SHADOW_PHASE_COMMITTED,
		umbrav1.ShadowMode_SHADOW_MODE_DELETE:  umbrav1.ShadowPhase_SHADOW_PHASE_DELETED,
	}
	report := &umbrav1.ShadowReport{
		Phase: phases[a.GetShadow().GetMode()], Attempt: a.GetShadow().GetAttempt().GetNumber(), RecoveryPointCount: 3,
	}
	if report.GetPhase() != umbrav1.ShadowPhase_SHADOW_PHASE_RECEIVING {
		report.StoppedEpoch = a.GetEpoch()
	}
	return &umbrav1.AssignmentReport{
		DrPair: a.GetDrPair(), DrPairUid: a.GetDrPairUid(), Generation: a.GetGeneration(), Epoch: a.GetEpoch(), Role: &umbrav1.AssignmentReport_Shadow{Shadow: report},
	}
}

type answerer struct{}

func (answerer) RecoveryPoints(_ context.Context, pair string) ([]*umbrav1.RecoveryPoint, error) {
	return []*umbrav1.RecoveryPoint{{Name: "drPairs/" + pair + "/recoveryPoints/rp-1"}}, nil
}

func (answerer) Held(context.Context, *umbrav1.Held) {}

func (answerer) Diagnostics(context.Context, string) ([]*umbrav1.DiagnosticsFile, error) {
	return nil, nil
}

func (p *plane) protect(t *testing.T, id string) {
	t.Helper()
	rec := drpair.New(id, "uid-"+id, drpair.Main{Host: "a", Server: id, UUID: "u-" + id}, drpair.Shadow{Host: "b"}, drpair.DefaultPolicy(), time.Now())
	if _, err := p.engine.Create(t.Context(), rec, store.RequestKey{}); err != nil {
		t.Fatal(err)
	}
}

func (p *plane) request(t *testing.T, pair string, event func(drpair.Request) drpair.Event) drpair.Record {
	t.Helper()
	rec, err := p.engine.Request(t.Context(), reconcile.Request{Pair: pair, Event: func(id string) drpair.Event {
		return event(drpair.Request{OperationID: id})
	}})
	if err != nil {
		t.Fatal(err)
	}
	return rec
}

// until waits for the pair to be as is asked; ok is false when it is gone.
func (p *plane) until(t *testing.T, pair string, is func(entry store.Entry, ok bool) bool) store.Entry {
	t.Helper()
	changes := p.cache.Feed().Subscribe()
	defer changes.Close()
	for {
		entry, ok := p.cache.Get(pair)
		if is(entry, ok) {
			return entry
		}
		select {
		case <-changes.C():
		case <-time.After(patience):
			t.Fatalf("pair %s stays at %+v (there: %v)", pair, entry.Record.Pair, ok)
		}
	}
}

func (p *plane) untilState(t *testing.T, pair string, state drpair.State) store.Entry {
	t.Helper()
	return p.until(t, pair, func(entry store.Entry, ok bool) bool { return ok && entry.Record.Pair.State == state })
}

// reported waits until both hosts have reported on the pair in a session of this control plane.
func (p *plane) reported(t *testing.T, pair string) {
	t.Helper()
	reports := p.observed.Pairs().Subscribe()
	defer reports.Close()
	for {
		main, one := p.observed.Main(pair)
		shadow, two := p.observed.Shadow(pair)
		a, _ := p.observed.Host("a")
		b, _ := p.observed.Host("b")
		if one && two && main.Session == a.Session && shadow.Session == b.Session {
			return
		}
		select {
		case <-reports.C():
		case <-time.After(patience):
			t.Fatalf("no report on pair %s", pair)
		}
	}
}

// Package session_test joins both ends of the host sessions, with the control plane's store, engine and session server
// on one side and hostd's session on the other. Only the roles are played: they do at once what they are assigned.
package session_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
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
	"github.com/umbra-dr/umbra/controlplane/reconcile"
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

// site is an etcd, the way to the control plane that works on it now, and nothing else.
type site struct {
	client   *clientv3.Client
	listener atomic.Pointer[bufconn.Listener]
	plane    *plane
}

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
	s := &site{client: client}
	s.startPlane(t)
	return s
}

// plane is one life of a control plane.
type plane struct {
	store    *store.Store
	cache    *store.Cache
	observed *observed.Hosts
	sessions *cpsession.Server
	engine   *reconcile.Engine
	stop     func()
}

func (s *site) startPlane(t *testing.T) {
	t.Helper()
	log := logTo(t, "control plane")
	p := &plane{store: store.New(s.client, log), observed: observed.New()}
	p.cache = store.NewCache(p.store, clock.System, log)
	p.sessions = cpsession.New(cpsession.Config{
		Records: p.cache, Observed: p.observed, Clock: clock.System, Log: log, Lease: patience,
		KeepHost: func(context.Context, string, *umbrav1.Host) error { return nil },
	})
	p.engine = reconcile.New(reconcile.Config{
		Store: p.store, Records: p.cache, Observed: p.observed, Clock: clock.System, Log: log, UnreachableAfter: grace,
	})
	listener := bufconn.Listen(1 << 16)
	server := grpc.NewServer()
	umbrav1.RegisterHostSessionServiceServer(server, p.sessions)
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	work.Go(func() { _ = p.cache.Run(ctx) })
	<-p.cache.Ready()
	work.Go(func() { _ = p.engine.Run(ctx) })
	work.Go(func() { _ = p.sessions.Run(ctx) })
	work.Go(func() { _ = server.Serve(listener) })
	p.stop = sync.OnceFunc(func() {
		cancel()
		server.Stop()
		work.Wait()
	})
	t.Cleanup(p.stop)
	s.plane = p
	s.listener.Store(listener)
}

// host is a hostd whose roles are played. Its journal outlives it.
type host struct {
	id     string
	dir    string
	outbox *session.Outbox
	sets   chan []*umbrav1.Assignment // what is assigned to both roles, each time
	lives  chan bool
	stop   func()
}

func (s *site) startHost(t *testing.T, id, dir string) *host {
	t.Helper()
	h := &host{id: id, dir: dir, outbox: session.NewOutbox(), sets: make(chan []*umbrav1.Assignment, 1000), lives: make(chan bool, 1000)}
	j, err := journal.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient("passthrough:///plane", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: 10 * time.Millisecond, Multiplier: 1, MaxDelay: 50 * time.Millisecond}}),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return s.listener.Load().DialContext(ctx) }))
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

// player does at once what is assigned, and reports that.
type player struct {
	host *host
	play func(*umbrav1.Assignment) *umbrav1.AssignmentReport
}

func (p player) Assign(set []*umbrav1.Assignment, live bool) {
	for _, assignment := range set {
		p.host.outbox.Report(p.play(assignment))
	}
	p.host.sets <- slices.Clone(set)
	p.host.lives <- live
}

func playMain(a *umbrav1.Assignment) *umbrav1.AssignmentReport {
	phases := map[umbrav1.MainMode]umbrav1.MainPhase{
		umbrav1.MainMode_MAIN_MODE_REPLICATE: umbrav1.MainPhase_MAIN_PHASE_REPLICATING,
		umbrav1.MainMode_MAIN_MODE_PAUSE:     umbrav1.MainPhase_MAIN_PHASE_PAUSED,
		umbrav1.MainMode_MAIN_MODE_FENCE:     umbrav1.MainPhase_MAIN_PHASE_FENCED,
		umbrav1.MainMode_MAIN_MODE_RELEASE:   umbrav1.MainPhase_MAIN_PHASE_RELEASED,
	}
	return &umbrav1.AssignmentReport{
		DrPair: a.GetDrPair(), Generation: a.GetGeneration(), Epoch: a.GetEpoch(),
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
		DrPair: a.GetDrPair(), Generation: a.GetGeneration(), Epoch: a.GetEpoch(), Role: &umbrav1.AssignmentReport_Shadow{Shadow: report},
	}
}

type answerer struct{}

func (answerer) RecoveryPoints(_ context.Context, pair string) ([]*umbrav1.RecoveryPoint, error) {
	return []*umbrav1.RecoveryPoint{{Name: "drPairs/" + pair + "/recoveryPoints/rp-1"}}, nil
}

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

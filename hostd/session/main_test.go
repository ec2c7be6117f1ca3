package session_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/durationpb"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/hostd/journal"
	"github.com/umbra-dr/umbra/hostd/session"
	"github.com/umbra-dr/umbra/pkg/clock"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 10 * time.Second

// peer is a control plane that does what the test says: each session that is dialled comes out of sessions.
type peer struct {
	umbrav1.UnimplementedHostSessionServiceServer
	sessions chan *peerSession
}

type peerSession struct {
	stream umbrav1.HostSessionService_SessionServer
	hello  *umbrav1.SessionHello
	end    chan error
}

func (p *peer) Session(stream umbrav1.HostSessionService_SessionServer) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	s := &peerSession{stream: stream, hello: first.GetHello(), end: make(chan error, 1)}
	select {
	case p.sessions <- s:
	case <-stream.Context().Done():
		return stream.Context().Err()
	}
	select {
	case err := <-s.end:
		return err
	case <-stream.Context().Done():
		return stream.Context().Err()
	}
}

func (s *peerSession) send(t *testing.T, response *umbrav1.SessionResponse) {
	t.Helper()
	if err := s.stream.Send(response); err != nil {
		t.Fatal(err)
	}
}

func (s *peerSession) welcome(t *testing.T) {
	t.Helper()
	s.send(t, &umbrav1.SessionResponse{Message: &umbrav1.SessionResponse_Welcome{Welcome: &umbrav1.SessionWelcome{
		HeartbeatInterval: durationpb.New(time.Minute), Lease: durationpb.New(3 * time.Minute),
	}}})
}

func (s *peerSession) assign(t *testing.T, set *umbrav1.AssignmentSet) {
	t.Helper()
	s.send(t, &umbrav1.SessionResponse{Message: &umbrav1.SessionResponse_Assignments{Assignments: set}})
}

// until receives until pick takes a message.
func (s *peerSession) until(t *testing.T, pick func(*umbrav1.SessionRequest) bool) {
	t.Helper()
	for {
		request, err := s.stream.Recv()
		if err != nil {
			t.Fatalf("waiting for a message of the host: %v", err)
		}
		if pick(request) {
			return
		}
	}
}

// role notes what it is assigned.
type role struct{ sets chan assignment }

type assignment struct {
	set  []*umbrav1.Assignment
	live bool
}

func newRole() *role { return &role{sets: make(chan assignment, 1000)} }

func (r *role) Assign(set []*umbrav1.Assignment, live bool) { r.sets <- assignment{set, live} }

func (r *role) next(t *testing.T) assignment {
	t.Helper()
	select {
	case set := <-r.sets:
		return set
	case <-time.After(patience):
		t.Fatal("the role was assigned nothing")
		return assignment{}
	}
}

type answerer struct {
	points func(ctx context.Context, pair string) ([]*umbrav1.RecoveryPoint, error)
}

func (a answerer) RecoveryPoints(ctx context.Context, pair string) ([]*umbrav1.RecoveryPoint, error) {
	return a.points(ctx, pair)
}

func (a answerer) Held(_ context.Context, held *umbrav1.Held) { held.RecoveryPointCount = 3 }

func (a answerer) Diagnostics(context.Context, string) ([]*umbrav1.DiagnosticsFile, error) {
	return []*umbrav1.DiagnosticsFile{{Name: "log", Content: []byte("x")}}, nil
}

// host is one hostd's session with a scripted peer.
type host struct {
	peer         *peer
	main, shadow *role
	outbox       *session.Outbox
	stop         func()
}

type options struct {
	inventory func(context.Context) (*umbrav1.Host, error)
	answerer  session.Answerer
	clock     clock.Clock
}

func start(t *testing.T, dir string, opt options) *host {
	t.Helper()
	h := &host{peer: &peer{sessions: make(chan *peerSession)}, main: newRole(), shadow: newRole(), outbox: session.NewOutbox()}
	listener := bufconn.Listen(1 << 16)
	server := grpc.NewServer()
	umbrav1.RegisterHostSessionServiceServer(server, h.peer)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(listener)
	}()
	conn, err := grpc.NewClient("passthrough:///peer", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	j, err := journal.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	cfg := session.Config{
		Host: "a", Conn: conn, Journal: j, Clock: clock.System, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Main: h.main, Shadow: h.shadow, Answerer: opt.answerer, Inventory: opt.inventory, InventoryEvery: time.Hour,
	}
	if cfg.Inventory == nil {
		cfg.Inventory = func(context.Context) (*umbrav1.Host, error) { return &umbrav1.Host{Name: "hosts/a"}, nil }
	}
	if opt.clock != nil {
		cfg.Clock = opt.clock
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- session.New(cfg, h.outbox).Run(ctx) }()
	stopped := false
	h.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
		err := errors.Join(conn.Close(), j.Close())
		server.Stop()
		<-served
		if err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(h.stop)
	return h
}

// dialled is the next session that the host opens.
func (h *host) dialled(t *testing.T) *peerSession {
	t.Helper()
	select {
	case s := <-h.peer.sessions:
		return s
	case <-time.After(patience):
		t.Fatal("the host has not dialled")
		return nil
	}
}

func mainOf(pair string, generation uint64) *umbrav1.Assignment {
	return &umbrav1.Assignment{DrPair: pair, Generation: generation, Epoch: 1, Role: &umbrav1.Assignment_Main{
		Main: &umbrav1.MainAssignment{Mode: umbrav1.MainMode_MAIN_MODE_REPLICATE, Server: pair},
	}}
}

func shadowOf(pair string, generation uint64) *umbrav1.Assignment {
	return &umbrav1.Assignment{DrPair: pair, Generation: generation, Epoch: 1, Role: &umbrav1.Assignment_Shadow{
		Shadow: &umbrav1.ShadowAssignment{Mode: umbrav1.ShadowMode_SHADOW_MODE_RECEIVE},
	}}
}

func reportOf(pair string, generation uint64, main bool) *umbrav1.AssignmentReport {
	report := &umbrav1.AssignmentReport{DrPair: pair, Generation: generation, Role: &umbrav1.AssignmentReport_Shadow{Shadow: &umbrav1.ShadowReport{}}}
	if main {
		report.Role = &umbrav1.AssignmentReport_Main{Main: &umbrav1.MainReport{}}
	}
	return report
}

func names(set []*umbrav1.Assignment) []string {
	names := make([]string, len(set))
	for i, assignment := range set {
		names[i] = assignment.GetDrPair()
	}
	return names
}

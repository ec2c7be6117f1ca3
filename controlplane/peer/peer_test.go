package peer_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"

	"github.com/umbra-dr/umbra/controlplane/observed"
	"github.com/umbra-dr/umbra/controlplane/peer"
	"github.com/umbra-dr/umbra/controlplane/session"
	"github.com/umbra-dr/umbra/controlplane/store"
	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/pkg/clock"
	"github.com/umbra-dr/umbra/pkg/feed"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 20 * time.Second

var epoch = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

// known is what a control plane knows of the others.
type known struct {
	changes feed.Feed[string]
	mu      sync.Mutex
	self    string
	others  []store.ControlPlane
}

func (k *known) Changes() *feed.Feed[string] { return &k.changes }

func (k *known) Self() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.self
}

func (k *known) Others() []store.ControlPlane {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.others
}

func (k *known) set(others ...store.ControlPlane) {
	k.mu.Lock()
	k.others = others
	k.mu.Unlock()
	k.changes.Publish("")
}

// plane is one of two control planes: "there", which has hosts, or "here", which is told of them.
type plane struct {
	*peer.Peers
	known *known
	hosts *observed.Hosts
}

func newPlane(t *testing.T, self string, dial func(string) (*grpc.ClientConn, error)) *plane {
	p := &plane{known: &known{self: self}, hosts: observed.New()}
	p.Peers = peer.New(peer.Config{
		ControlPlanes: p.known, Observed: p.hosts, Dial: dial, Clock: clock.System, Beat: time.Millisecond,
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	return p
}

type asker func(ctx context.Context, host string, query *umbrav1.HostQuery) (*umbrav1.QueryAnswer, error)

// start returns both, and what stops "there".
func start(t *testing.T, ask asker) (there, here *plane, stop func()) {
	t.Helper()
	there = newPlane(t, "there", nil)
	listener := bufconn.Listen(1 << 16)
	server := grpc.NewServer()
	umbrav1.RegisterPeerServiceServer(server, there.Server(ask))
	here = newPlane(t, "here", func(address string) (*grpc.ClientConn, error) {
		return grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	})
	here.known.set(store.ControlPlane{ID: "there", Address: "there"})
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	work.Go(func() { _ = server.Serve(listener) })
	work.Go(func() {
		if err := here.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		cancel()
		server.Stop()
		work.Wait()
	})
	return there, here, server.Stop
}

func until(t *testing.T, what string, changes *feed.Feed[string], is func() bool) {
	t.Helper()
	news := changes.Subscribe()
	defer news.Close()
	for !is() {
		select {
		case <-news.C():
		case <-time.After(patience):
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func mainReport(pair string, bytes int64) *umbrav1.AssignmentReport {
	return &umbrav1.AssignmentReport{
		DrPair: pair, DrPairUid: "uid-" + pair, Generation: 3, Epoch: 2,
		Role: &umbrav1.AssignmentReport_Main{Main: &umbrav1.MainReport{Progress: &umbrav1.Progress{DoneBytes: bytes}}},
	}
}

func shadowReport(pair string, points int64) *umbrav1.AssignmentReport {
	return &umbrav1.AssignmentReport{
		DrPair: pair, DrPairUid: "uid-" + pair, Generation: 4, Epoch: 2,
		Role: &umbrav1.AssignmentReport_Shadow{Shadow: &umbrav1.ShadowReport{RecoveryPointCount: points}},
	}
}

func TestWhatHostsTellOneControlPlaneIsKnownAtTheOther(t *testing.T) {
	there, here, _ := start(t, nil)
	there.hosts.Connect("a", 5, "there", epoch)
	there.hosts.SetInventory("a", 5, &umbrav1.Host{DataAddress: "a:1"}, epoch)
	there.hosts.SetReport("a", 5, mainReport("p", 1), epoch.Add(time.Second))
	until(t, "the main host's report", here.hosts.Pairs(), func() bool { _, ok := here.hosts.Main("p"); return ok })
	main, _ := here.hosts.Main("p")
	at, _ := there.hosts.Main("p")
	if !proto.Equal(main.Report, at.Report) || main.UID != "uid-p" || main.Generation != 3 || main.Epoch != 2 || main.Host != "a" ||
		main.Session != 5 || !main.Time.Equal(epoch.Add(time.Second)) {
		t.Errorf("here it is %+v", main)
	}
	until(t, "the inventory", here.hosts.Inventories(), func() bool {
		a, _ := here.hosts.Host("a")
		return a.Inventory.GetDataAddress() == "a:1"
	})
	if here.hosts.Connected("a") {
		t.Error("who has which session is not for this to tell")
	}
	there.hosts.SetReport("a", 5, shadowReport("q", 7), epoch)
	there.hosts.SetReport("a", 5, mainReport("p", 2), epoch)
	there.hosts.SetInventory("a", 5, &umbrav1.Host{DataAddress: "a:2"}, epoch)
	until(t, "the newer inventory", here.hosts.Inventories(), func() bool {
		a, _ := here.hosts.Host("a")
		return a.Inventory.GetDataAddress() == "a:2"
	})
	until(t, "the newer reports", here.hosts.Pairs(), func() bool {
		p, _ := here.hosts.Main("p")
		q, _ := here.hosts.Shadow("q")
		return p.Report.GetProgress().GetDoneBytes() == 2 && q.Report.GetRecoveryPointCount() == 7
	})
}

// What the other knows of hosts that are not its own, or were, is not passed round.
func TestNothingIsToldOfHostsThatHaveTheirSessionElsewhere(t *testing.T) {
	there, here, _ := start(t, nil)
	there.hosts.Connect("elsewhere", 5, "third", epoch)
	there.hosts.SetInventory("elsewhere", 5, &umbrav1.Host{DataAddress: "e:1"}, epoch)
	there.hosts.SetReport("elsewhere", 5, mainReport("p", 1), epoch)
	there.hosts.Connect("moved", 6, "there", epoch)
	there.hosts.SetReport("moved", 6, mainReport("q", 1), epoch)
	there.hosts.Connect("moved", 7, "third", epoch)
	// The other one has heard of this session late; what it tells is older than what is known here.
	here.hosts.Connect("late", 9, "third", epoch)
	here.hosts.SetReport("late", 9, mainReport("r", 9), epoch)
	there.hosts.Connect("late", 8, "there", epoch)
	there.hosts.SetReport("late", 8, mainReport("r", 8), epoch)
	there.hosts.SetInventory("late", 8, &umbrav1.Host{DataAddress: "l:8"}, epoch)
	there.hosts.Connect("own", 10, "there", epoch)
	there.hosts.SetReport("own", 10, mainReport("last", 1), epoch)
	for range 2 { // the second is told after all that was there with the first
		there.hosts.SetReport("own", 10, mainReport("last", 2), epoch)
		until(t, "the last", here.hosts.Pairs(), func() bool {
			main, _ := here.hosts.Main("last")
			return main.Report.GetProgress().GetDoneBytes() == 2
		})
		there.hosts.SetReport("own", 10, mainReport("last", 1), epoch)
		until(t, "the last", here.hosts.Pairs(), func() bool {
			main, _ := here.hosts.Main("last")
			return main.Report.GetProgress().GetDoneBytes() == 1
		})
	}
	for _, pair := range []string{"p", "q"} {
		if main, ok := here.hosts.Main(pair); ok {
			t.Errorf("pair %s is known as %+v", pair, main)
		}
	}
	late, _ := here.hosts.Host("late")
	if main, _ := here.hosts.Main("r"); main.Session != 9 || late.Inventory != nil {
		t.Errorf("what is known of the late host is %+v, %v", main, late.Inventory)
	}
}

// More than fits in one message, told at once.
func TestManyLargeInventoriesAreTold(t *testing.T) {
	const hosts, bytes = 12, 1 << 20
	there, here, _ := start(t, nil)
	for i := range hosts {
		id := fmt.Sprint("host-", i)
		there.hosts.Connect(id, 5, "there", epoch)
		there.hosts.SetInventory(id, 5, &umbrav1.Host{DataAddress: id, HostdVersion: strings.Repeat("x", bytes)}, epoch)
	}
	until(t, "all inventories", here.hosts.Inventories(), func() bool {
		for _, host := range there.hosts.List() {
			if told, _ := here.hosts.Host(host.ID); len(told.Inventory.GetHostdVersion()) != bytes {
				return false
			}
		}
		return true
	})
}

func TestAQuestionIsPutToAHostWhereItHasItsSession(t *testing.T) {
	ask := func(_ context.Context, host string, query *umbrav1.HostQuery) (*umbrav1.QueryAnswer, error) {
		switch host {
		case "a":
			return &umbrav1.QueryAnswer{Code: int32(codes.NotFound), ErrorMessage: "no pair " + query.GetDrPair()}, nil
		case "stuck":
			return nil, fmt.Errorf("asking: %w", context.DeadlineExceeded)
		default:
			return nil, fmt.Errorf("asking: %w", session.ErrNotConnected)
		}
	}
	there, here, stop := start(t, ask)
	there.hosts.Connect("a", 5, "there", epoch)
	there.hosts.SetReport("a", 5, mainReport("p", 1), epoch)
	until(t, "a connection", here.hosts.Pairs(), func() bool { _, ok := here.hosts.Main("p"); return ok })
	query := &umbrav1.HostQuery{DrPair: "p"}
	answer, err := here.Ask(t.Context(), "there", "a", query)
	if err != nil || answer.GetCode() != int32(codes.NotFound) || answer.GetErrorMessage() != "no pair p" {
		t.Errorf("the answer is %v, %v", answer, err)
	}
	if _, err := here.Ask(t.Context(), "there", "gone", query); !errors.Is(err, session.ErrNotConnected) {
		t.Errorf("a host that has left: %v", err)
	}
	if _, err := here.Ask(t.Context(), "there", "stuck", query); !errors.Is(err, session.ErrElsewhere) {
		t.Errorf("a host that does not answer the other: %v", err)
	}
	if _, err := here.Ask(t.Context(), "unknown", "a", query); !errors.Is(err, session.ErrElsewhere) {
		t.Errorf("a control plane that is not known: %v", err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := here.Ask(gone, "there", "a", query); !errors.Is(err, context.Canceled) {
		t.Errorf("a caller that has gone: %v", err)
	}
	stop()
	if _, err := here.Ask(t.Context(), "there", "a", query); !errors.Is(err, session.ErrElsewhere) {
		t.Errorf("a control plane that is gone: %v", err)
	}
}

// Another control plane answers at the address: the one that was meant is gone.
func TestAnotherControlPlaneAtTheAddressIsNotTakenForTheOneThatIsMeant(t *testing.T) {
	there, here, _ := start(t, func(context.Context, string, *umbrav1.HostQuery) (*umbrav1.QueryAnswer, error) {
		t.Error("it has asked the host")
		return nil, nil
	})
	there.hosts.Connect("a", 5, "there", epoch)
	there.hosts.SetReport("a", 5, mainReport("p", 1), epoch)
	until(t, "a connection", here.hosts.Pairs(), func() bool { _, ok := here.hosts.Main("p"); return ok })
	there.known.mu.Lock()
	there.known.self = "its successor"
	there.known.mu.Unlock()
	if _, err := here.Ask(t.Context(), "there", "a", &umbrav1.HostQuery{}); !errors.Is(err, session.ErrElsewhere) {
		t.Errorf("asked: %v", err)
	}
}

func TestAControlPlaneThatIsGoneIsNotFollowedAndOneThatComesIs(t *testing.T) {
	there, here, _ := start(t, func(context.Context, string, *umbrav1.HostQuery) (*umbrav1.QueryAnswer, error) {
		return nil, session.ErrNotConnected
	})
	there.hosts.Connect("a", 5, "there", epoch)
	there.hosts.SetReport("a", 5, mainReport("p", 1), epoch)
	until(t, "a report", here.hosts.Pairs(), func() bool { _, ok := here.hosts.Main("p"); return ok })
	here.known.set()
	for {
		_, err := here.Ask(t.Context(), "there", "a", &umbrav1.HostQuery{})
		if errors.Is(err, session.ErrElsewhere) {
			break
		}
	}
	there.hosts.SetReport("a", 5, mainReport("q", 1), epoch)
	here.known.set(store.ControlPlane{ID: "mute"}, store.ControlPlane{ID: "there", Address: "there"})
	until(t, "a later report", here.hosts.Pairs(), func() bool { _, ok := here.hosts.Main("q"); return ok })
}

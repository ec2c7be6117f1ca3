package session_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/test/bufconn"

	"github.com/umbra-dr/umbra/controlplane/drpair"
	"github.com/umbra-dr/umbra/controlplane/observed"
	"github.com/umbra-dr/umbra/controlplane/session"
	"github.com/umbra-dr/umbra/controlplane/store"
	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/pkg/clock"
	"github.com/umbra-dr/umbra/pkg/feed"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const lease = 30 * time.Second

var epoch = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

// records is a picture of the store that the test paints.
type records struct {
	ready    chan struct{}
	reach    func(ctx context.Context, revision int64) error // nil: it has
	feed     feed.Feed[string]
	mu       sync.Mutex
	revision int64
	entries  map[string]store.Entry
}

func newRecords() *records {
	r := &records{ready: make(chan struct{}), entries: map[string]store.Entry{}}
	close(r.ready)
	return r
}

func (r *records) Ready() <-chan struct{} { return r.ready }
func (r *records) Reach(ctx context.Context, revision int64) error {
	if r.reach == nil {
		return nil
	}
	return r.reach(ctx, revision)
}

func (r *records) Feed() *feed.Feed[string] { return &r.feed }

func (r *records) Get(id string) (store.Entry, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	entry, ok := r.entries[id]
	return entry, ok
}

func (r *records) List() []store.Entry { return r.where(func(drpair.Pair) bool { return true }) }

func (r *records) ByHost(host string) []store.Entry {
	return r.where(func(p drpair.Pair) bool { return p.Main.Host == host || p.Shadow.Host == host })
}

func (r *records) where(is func(drpair.Pair) bool) []store.Entry {
	r.mu.Lock()
	defer r.mu.Unlock()
	var found []store.Entry
	for _, entry := range r.entries {
		if is(entry.Record.Pair) {
			found = append(found, entry)
		}
	}
	slices.SortFunc(found, func(x, y store.Entry) int {
		if x.Record.Pair.ID < y.Record.Pair.ID {
			return -1
		}
		return 1
	})
	return found
}

func (r *records) put(rec drpair.Record) {
	r.mu.Lock()
	r.revision++
	r.entries[rec.Pair.ID] = store.Entry{Record: rec, Revision: r.revision}
	r.mu.Unlock()
	r.feed.Publish(rec.Pair.ID)
}

// change makes the next generation of a pair.
func (r *records) change(id string, change func(*drpair.Pair)) {
	entry, _ := r.Get(id)
	entry.Record.Pair.Generation++
	change(&entry.Record.Pair)
	r.put(entry.Record)
}

func (r *records) remove(id string) {
	r.mu.Lock()
	delete(r.entries, id)
	r.mu.Unlock()
	r.feed.Publish(id)
}

func pairOf(id, main, shadow string) drpair.Record {
	return drpair.New(id, "uid-"+id, drpair.Main{Host: main, Server: id, UUID: "u-" + id}, drpair.Shadow{Host: shadow}, drpair.DefaultPolicy(), epoch)
}

// plane is a control plane with its hosts at the other end of a pipe.
type plane struct {
	records  *records
	observed *observed.Hosts
	registry *alone
	server   *session.Server
	conn     *grpc.ClientConn
	stop     func()
}

func start(t *testing.T, change ...func(*session.Config)) *plane {
	t.Helper()
	p := &plane{records: newRecords(), observed: observed.New()}
	p.registry = newAlone(p.observed)
	cfg := session.Config{
		Records: p.records, Observed: p.observed, Registry: p.registry, Clock: clock.System, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		KeepHost: func(context.Context, string, *umbrav1.Host) error { return nil }, Lease: lease,
		PeerHost: func(ctx context.Context) (string, error) {
			names := metadata.ValueFromIncomingContext(ctx, "test-certificate")
			if len(names) == 0 {
				return "", errors.New("no certificate")
			}
			return names[0], nil
		},
	}
	for _, change := range change {
		change(&cfg)
	}
	p.server = session.New(cfg)
	listener := bufconn.Listen(1 << 16)
	server := grpc.NewServer()
	umbrav1.RegisterHostSessionServiceServer(server, p.server)
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	work.Go(func() { _ = server.Serve(listener) })
	work.Go(func() { _ = p.server.Run(ctx) })
	conn, err := grpc.NewClient("passthrough:///plane", grpc.WithTransportCredentials(insecure.NewCredentials()),
		// What a host does not read must not go far: the pipe and a window of this size.
		grpc.WithStaticStreamWindowSize(1<<16), grpc.WithStaticConnWindowSize(1<<16),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	p.conn = conn
	p.stop = sync.OnceFunc(func() {
		cancel()
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
		server.Stop()
		work.Wait()
	})
	t.Cleanup(p.stop)
	return p
}

// host is a scripted host's end of a session.
type host struct {
	stream umbrav1.HostSessionService_SessionClient
	end    func()
}

// dial opens a session with a certificate of that name, retrying while the server is not open yet.
func (p *plane) dial(t *testing.T, certificate string, hello *umbrav1.SessionHello) *host {
	t.Helper()
	ctx, cancel := context.WithCancel(metadata.AppendToOutgoingContext(context.Background(), "test-certificate", certificate))
	stream, err := umbrav1.NewHostSessionServiceClient(p.conn).Session(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cancel)
	if hello != nil {
		if err := stream.Send(&umbrav1.SessionRequest{Message: &umbrav1.SessionRequest_Hello{Hello: hello}}); err != nil && !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
	}
	return &host{stream: stream, end: cancel}
}

// connect opens a session of the host and takes its welcome.
func (p *plane) connect(t *testing.T, id string) *host {
	t.Helper()
	for {
		h := p.dial(t, id, &umbrav1.SessionHello{Host: id, ProtocolVersion: 1})
		response, err := h.stream.Recv()
		if err != nil && err.Error() == "rpc error: code = Unavailable desc = the control plane is starting or stopping" {
			continue // Run has not begun yet
		}
		if err != nil {
			t.Fatal(err)
		}
		if response.GetWelcome().GetLease().AsDuration() == 0 {
			t.Fatalf("the first message is %v", response)
		}
		return h
	}
}

func (h *host) set(t *testing.T) *umbrav1.AssignmentSet {
	t.Helper()
	response, err := h.stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	set := response.GetAssignments()
	if set == nil {
		t.Fatalf("got %v in place of assignments", response)
	}
	return set
}

func (h *host) say(t *testing.T, request *umbrav1.SessionRequest) {
	t.Helper()
	if err := h.stream.Send(request); err != nil {
		t.Fatal(err)
	}
}

func (h *host) report(t *testing.T, reports ...*umbrav1.AssignmentReport) {
	t.Helper()
	h.say(t, &umbrav1.SessionRequest{Message: &umbrav1.SessionRequest_Reports{Reports: &umbrav1.AssignmentReports{Reports: reports}}})
}

func (h *host) inventory(t *testing.T, inventory *umbrav1.Host) {
	t.Helper()
	h.say(t, &umbrav1.SessionRequest{Message: &umbrav1.SessionRequest_Inventory{Inventory: inventory}})
}

// ended is why the session has ended.
func (h *host) ended(t *testing.T) error {
	t.Helper()
	for {
		if _, err := h.stream.Recv(); err != nil {
			return err
		}
	}
}

func reportOf(pair string, main bool) *umbrav1.AssignmentReport {
	report := &umbrav1.AssignmentReport{DrPair: pair, Role: &umbrav1.AssignmentReport_Shadow{Shadow: &umbrav1.ShadowReport{}}}
	if main {
		report.Role = &umbrav1.AssignmentReport_Main{Main: &umbrav1.MainReport{}}
	}
	return report
}

// Package enrolment_test joins both ends of enrolment over TLS: the control plane's office, guard and API on a store of its
// own, and hostd's side with a journal.
package enrolment_test

import (
	"context"
	"crypto/ecdsa"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthgrpc "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/umbra-dr/umbra/controlplane/access"
	"github.com/umbra-dr/umbra/controlplane/api"
	"github.com/umbra-dr/umbra/controlplane/audit"
	"github.com/umbra-dr/umbra/controlplane/embedded"
	cpenrolment "github.com/umbra-dr/umbra/controlplane/enrolment"
	"github.com/umbra-dr/umbra/controlplane/store"
	"github.com/umbra-dr/umbra/hostd/enrolment"
	"github.com/umbra-dr/umbra/hostd/journal"
	"github.com/umbra-dr/umbra/pkg/clock"
	"github.com/umbra-dr/umbra/pkg/identity"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	patience = time.Minute
	day      = 24 * time.Hour
)

// handClock shows a time that the test moves. Whoever waits tells the test until when.
type handClock struct {
	clock.Clock
	mu    sync.Mutex
	at    time.Time
	moved chan struct{}
	waits chan time.Duration
}

func newHandClock() *handClock {
	return &handClock{Clock: clock.System, at: clock.System.Now(), moved: make(chan struct{}), waits: make(chan time.Duration, 100)}
}

func (h *handClock) Now() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.at
}

func (h *handClock) move(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.at = h.at.Add(d)
	close(h.moved)
	h.moved = make(chan struct{})
}

func (h *handClock) Wait(ctx context.Context, d time.Duration) error {
	h.mu.Lock()
	end := h.at.Add(d)
	h.mu.Unlock()
	h.waits <- d
	for {
		h.mu.Lock()
		over, moved := !h.at.Before(end), h.moved
		h.mu.Unlock()
		if over {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// site is a control plane as far as it lets hosts in.
type site struct {
	authority *identity.Authority
	records   *store.Store
	office    *cpenrolment.Office
	clock     *handClock
	address   string
}

func newSite(t *testing.T) *site { return newSiteAt(t, 0) }

// newSiteAt is a control plane whose clock is ahead of the hosts' by that much: what it makes is dated by it.
func newSiteAt(t *testing.T, ahead time.Duration) *site {
	t.Helper()
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	ctx, cancel := context.WithCancel(t.Context())
	client, stop, err := embedded.Start(ctx, t.TempDir(), log)
	if err != nil {
		t.Fatal(err)
	}
	s := &site{records: store.New(client, log), clock: newHandClock()}
	s.clock.move(ahead)
	if s.authority, err = identity.NewAuthority(s.clock.Now()); err != nil {
		t.Fatal(err)
	}
	peers := identity.NewPeers()
	s.office = &cpenrolment.Office{Authority: s.authority, Store: s.records, Peers: peers, Clock: s.clock, Log: log}
	own, err := s.office.Own(nil)
	if err != nil {
		t.Fatal(err)
	}
	guard := &access.Guard{Joins: s.office, Audit: audit.New(s.records, s.clock, log, nil), Clock: clock.System}
	deps := api.Deps{Office: s.office, Store: s.records, Clock: clock.System, Log: log}
	options := append(guard.Options(), api.Interceptors(deps)...)
	server := grpc.NewServer(append(options, grpc.Creds(identity.NewSource(own, peers).OpenServer()))...)
	api.Register(server, deps)
	healthgrpc.RegisterHealthServer(server, health.NewServer())
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.address = listener.Addr().String()
	var parts sync.WaitGroup
	parts.Go(func() { _ = server.Serve(listener) })
	t.Cleanup(func() {
		server.Stop()
		cancel()
		parts.Wait()
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func (s *site) token(t *testing.T, host string) string {
	t.Helper()
	token, _, err := s.office.JoinToken(t.Context(), host, 0)
	if err != nil {
		t.Fatal(err)
	}
	return token.String()
}

func (s *site) connect(secure credentials.TransportCredentials) (*grpc.ClientConn, error) {
	return grpc.NewClient(s.address, grpc.WithTransportCredentials(secure))
}

// host is one life of a hostd as far as its identity goes.
type host struct {
	cfg enrolment.Config
}

func (s *site) host(t *testing.T, id, dir, token string) *host {
	t.Helper()
	kept, err := journal.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = kept.Close() })
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	return &host{enrolment.Config{Host: id, Token: token, Dial: s.connect, Journal: kept, Clock: newHandClock(), Log: log}}
}

func (h *host) open(t *testing.T) (*identity.Credentials, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	return enrolment.Open(ctx, h.cfg)
}

// end closes the journal, as the end of the process does.
func (h *host) end(t *testing.T) {
	t.Helper()
	if err := h.cfg.Journal.Close(); err != nil {
		t.Fatal(err)
	}
}

// dial is a connection to the control plane as that source.
func (s *site) dial(t *testing.T, source *identity.Source) *grpc.ClientConn {
	t.Helper()
	secure, err := source.Dial(identity.ControlPlane())
	if err != nil {
		t.Fatal(err)
	}
	conn, err := s.connect(secure)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// watch opens a stream that has been answered once.
func watch(t *testing.T, conn *grpc.ClientConn) grpc.ServerStreamingClient[healthgrpc.HealthCheckResponse] {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	stream, err := healthgrpc.NewHealthClient(conn).Watch(ctx, &healthgrpc.HealthCheckRequest{})
	if err == nil {
		_, err = stream.Recv()
	}
	if err != nil {
		t.Fatal(err)
	}
	return stream
}

func check(t *testing.T, conn *grpc.ClientConn) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err := healthgrpc.NewHealthClient(conn).Check(ctx, &healthgrpc.HealthCheckRequest{})
	return err
}

// first is a connection of who has nothing but a token.
func (s *site) first(t *testing.T, token identity.Token) *grpc.ClientConn {
	t.Helper()
	conn, err := s.connect(identity.FirstDial(token))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func sameKey(t *testing.T, one, other *identity.Credentials) bool {
	t.Helper()
	var keys []*ecdsa.PublicKey
	for _, made := range []*identity.Credentials{one, other} {
		svid, err := identity.NewSource(made, nil).GetX509SVID()
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, svid.PrivateKey.Public().(*ecdsa.PublicKey))
	}
	return keys[0].Equal(keys[1])
}

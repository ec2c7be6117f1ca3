package identity_test

import (
	"context"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthgrpc "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/umbra-dr/umbra/pkg/identity"
)

func TestACallerIsKnownByItsCertificateAndAServerOfAnotherNameIsRefused(t *testing.T) {
	dir := t.TempDir()
	authority := newAuthority(t, dir)
	seen := make(chan identity.ID, 1)
	address := serve(t, issue(t, authority, dir, identity.Host("shadow")), seen)

	main := issue(t, authority, dir, identity.Host("main"))
	if err := call(t, main, identity.Host("shadow"), address); err != nil {
		t.Fatal(err)
	}
	if id := <-seen; id != identity.Host("main") {
		t.Errorf("the server saw %s", id)
	}
	if err := call(t, main, identity.Host("other"), address); err == nil {
		t.Error("a server of another name was accepted")
	}
}

func TestACertificateOfAnotherAuthorityIsRefused(t *testing.T) {
	dir, elsewhere := t.TempDir(), t.TempDir()
	address := serve(t, issue(t, newAuthority(t, dir), dir, identity.ControlPlane()), make(chan identity.ID, 1))
	stranger := issue(t, newAuthority(t, elsewhere), elsewhere, identity.Host("main"))
	if err := call(t, stranger, identity.ControlPlane(), address); err == nil {
		t.Error("a certificate of another authority was accepted")
	}
}

func newAuthority(t *testing.T, dir string) *identity.Authority {
	t.Helper()
	authority, err := identity.NewAuthority(dir, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return authority
}

func issue(t *testing.T, authority *identity.Authority, dir string, id identity.ID) *identity.Credentials {
	t.Helper()
	files, err := authority.Issue(dir, "part", id, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	credentials, err := identity.Load(files)
	if err != nil {
		t.Fatal(err)
	}
	return credentials
}

func serve(t *testing.T, credentials *identity.Credentials, seen chan<- identity.ID) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.Creds(credentials.Server()), grpc.UnaryInterceptor(
		func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
			id, err := identity.Peer(ctx)
			if err != nil {
				return nil, err
			}
			seen <- id
			return handler(ctx, req)
		}))
	healthgrpc.RegisterHealthServer(server, health.NewServer())
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	return listener.Addr().String()
}

func call(t *testing.T, credentials *identity.Credentials, server identity.ID, address string) error {
	t.Helper()
	dial, err := credentials.Dial(server)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(dial))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	_, err = healthgrpc.NewHealthClient(conn).Check(ctx, &healthgrpc.HealthCheckRequest{})
	return err
}

package main

import (
	"context"
	"log/slog"
	"net"
	"net/url"
	"path/filepath"
	"testing"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthgrpc "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/pkg/identity"
)

const patience = 30 * time.Second

func TestItServesOnAnExternalEtcdAsOnItsOwn(t *testing.T) {
	for name, endpoints := range map[string][]string{"embedded": nil, "external": {externalEtcd(t)}} {
		t.Run(name, func(t *testing.T) {
			socket := filepath.Join(t.TempDir(), "api.sock")
			start(t, flags{StateDir: t.TempDir(), UnixSocket: socket, EtcdEndpoint: endpoints, Lease: time.Second})
			conn := dial(t, "unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			if _, err := umbrav1.NewFailoverServiceClient(conn).ListDRPairs(ctx, &umbrav1.ListDRPairsRequest{}, grpc.WaitForReady(true)); err != nil {
				t.Fatal(err)
			}
			answer, err := healthgrpc.NewHealthClient(conn).Check(ctx, &healthgrpc.HealthCheckRequest{})
			if err != nil || answer.GetStatus() != healthgrpc.HealthCheckResponse_SERVING {
				t.Errorf("health is %v, error %v", answer.GetStatus(), err)
			}
		})
	}
}

func TestHostsAndClientsAreKeptToTheirOwnMethods(t *testing.T) {
	dir := t.TempDir()
	authority, err := identity.NewAuthority(dir, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	issue := func(name string, id identity.ID) identity.Files {
		files, err := authority.Issue(dir, name, id, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return files
	}
	address := freeAddress(t)
	start(t, flags{StateDir: t.TempDir(), Listen: address, TLS: issue("cp", identity.ControlPlane()), Lease: time.Second})
	host := dialAs(t, issue("host", identity.Host("a")), address)
	client := dialAs(t, issue("client", identity.Client("engineer")), address)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	list := func(conn *grpc.ClientConn) error {
		_, err := umbrav1.NewFailoverServiceClient(conn).ListDRPairs(ctx, &umbrav1.ListDRPairsRequest{}, grpc.WaitForReady(true))
		return err
	}
	session := func(conn *grpc.ClientConn) error {
		stream, err := umbrav1.NewHostSessionServiceClient(conn).Session(ctx, grpc.WaitForReady(true))
		if err != nil {
			return err
		}
		hello := &umbrav1.SessionHello{Host: "a", ProtocolVersion: 1}
		if err := stream.Send(&umbrav1.SessionRequest{Message: &umbrav1.SessionRequest_Hello{Hello: hello}}); err != nil {
			t.Log(err) // Recv tells why
		}
		_, err = stream.Recv()
		return err
	}
	if err := list(client); err != nil {
		t.Errorf("a client may not list: %v", err)
	}
	if err := session(host); err != nil {
		t.Errorf("a host gets no session: %v", err)
	}
	if err := list(host); status.Code(err) != codes.PermissionDenied {
		t.Errorf("a host that lists gets %v", err)
	}
	if err := session(client); status.Code(err) != codes.PermissionDenied {
		t.Errorf("a client that opens a session gets %v", err)
	}
}

// start runs a control plane until the test ends.
func start(t *testing.T, f flags) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, f, slog.New(slog.DiscardHandler)) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func dial(t *testing.T, target string, options ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(target, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func dialAs(t *testing.T, files identity.Files, address string) *grpc.ClientConn {
	t.Helper()
	credentials, err := identity.Load(files)
	if err != nil {
		t.Fatal(err)
	}
	secure, err := credentials.Dial(identity.ControlPlane())
	if err != nil {
		t.Fatal(err)
	}
	return dial(t, address, grpc.WithTransportCredentials(secure))
}

func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	return listener.Addr().String()
}

// externalEtcd is an etcd that is reached over the network, as a cluster is.
func externalEtcd(t *testing.T) string {
	t.Helper()
	config := embed.NewConfig()
	config.Dir, config.LogLevel = t.TempDir(), "error"
	client, peer := url.URL{Scheme: "http", Host: freeAddress(t)}, url.URL{Scheme: "http", Host: freeAddress(t)}
	config.ListenClientUrls, config.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	config.ListenPeerUrls, config.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	config.InitialCluster = config.InitialClusterFromName(config.Name)
	server, err := embed.StartEtcd(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	select {
	case <-server.Server.ReadyNotify():
	case <-time.After(patience):
		t.Fatal("etcd does not start")
	}
	return client.String()
}

package main

import (
	"context"
	"log/slog"
	"net"
	"net/url"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthgrpc "google.golang.org/grpc/health/grpc_health_v1"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

const patience = time.Minute

func TestItServesOnAnExternalEtcdAsOnItsOwn(t *testing.T) {
	for name, endpoints := range map[string][]string{"embedded": nil, "external": {externalEtcd(t)}} {
		t.Run(name, func(t *testing.T) {
			socket := filepath.Join(t.TempDir(), "api.sock")
			start(t, flags{recordsFlags: recordsFlags{StateDir: t.TempDir(), EtcdEndpoint: endpoints}, UnixSocket: socket, Lease: time.Second})
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

// start runs a control plane until the test ends, or until stop is called, whichever is first.
func start(t *testing.T, f flags) (log *heard, stop func()) {
	t.Helper()
	log = &heard{Handler: slog.DiscardHandler, address: make(chan string, 1)}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, f, slog.New(log)) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return log, stop
}

// heard is a log from which a test learns the address that was taken for 127.0.0.1:0.
type heard struct {
	slog.Handler
	address chan string
}

func (h *heard) Enabled(context.Context, slog.Level) bool { return true }

func (h *heard) Handle(_ context.Context, record slog.Record) error {
	if record.Message == servingHosts {
		record.Attrs(func(attr slog.Attr) bool {
			h.address <- attr.Value.String()
			return false
		})
	}
	return nil
}

// WithAttrs and WithGroup keep nothing: what is listened for has neither.
func (h *heard) WithAttrs([]slog.Attr) slog.Handler { return h }

func (h *heard) WithGroup(string) slog.Handler { return h }

func dial(t *testing.T, target string, options ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(target, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
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
func externalEtcd(t *testing.T, change ...func(*embed.Config)) string {
	t.Helper()
	config := embed.NewConfig()
	config.Dir, config.LogLevel = t.TempDir(), "error"
	client, peer := url.URL{Scheme: "http", Host: freeAddress(t)}, url.URL{Scheme: "http", Host: freeAddress(t)}
	config.ListenClientUrls, config.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	config.ListenPeerUrls, config.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	config.InitialCluster = config.InitialClusterFromName(config.Name)
	for _, change := range change {
		change(config)
	}
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

package transport_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/umbra-dr/umbra/pkg/transport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// way is how frames go from host to host.
type way struct{ tls, oneConnection bool }

// ways are all of them, by name.
var ways = map[string]way{
	"plain": {}, "tls13": {tls: true}, "plain by gRPC": {oneConnection: true}, "tls13 by gRPC": {tls: true, oneConnection: true},
}

// overEachWay runs a test for every way there is.
func overEachWay(t *testing.T, test func(*testing.T, way)) {
	for name, w := range ways {
		t.Run(name, func(t *testing.T) { test(t, w) })
	}
}

// serve runs a server with the handler and, beside it, an ordinary protobuf service, and returns the way to it.
func serve(t testing.TB, w way, h transport.Handler) *transport.Conn {
	t.Helper()
	address, dialer := listen(t, w, h)
	conn, err := dialer.Dial(address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// listen runs the server and says how it is reached.
func listen(t testing.TB, w way, h transport.Handler, options ...grpc.ServerOption) (address string, dialer transport.Dialer) {
	t.Helper()
	serverCreds, clientCreds := insecure.NewCredentials(), insecure.NewCredentials()
	if w.tls {
		serverCreds, clientCreds = selfMade(t)
	}
	srv := transport.NewServer(serverCreds, h, append(options, grpc.WaitForHandlers(true))...)
	healthv1.RegisterHealthServer(srv, health.NewServer())
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(listener) }()
	t.Cleanup(func() {
		srv.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return listener.Addr().String(), transport.Dialer{Credentials: clientCreds, OneConnection: w.oneConnection}
}

func selfMade(t testing.TB) (server, client credentials.TransportCredentials) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	identity := []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}
	server = credentials.NewTLS(&tls.Config{Certificates: identity, MinVersion: tls.VersionTLS13})
	client = credentials.NewTLS(&tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13})
	return server, client
}

// openStream opens a stream that the end of the test cancels and drains.
func openStream(t testing.TB, conn *transport.Conn) *transport.MainStream {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	s, err := transport.Open(ctx, conn)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

package identity_test

import (
	"crypto/tls"
	"testing"

	"google.golang.org/grpc/credentials"

	"github.com/umbra-dr/umbra/pkg/identity"
)

// tlsOf shows a certificate, and does not look at the server's: for callers that a server must judge by itself.
func tlsOf(t *testing.T, shown *identity.Credentials) credentials.TransportCredentials {
	t.Helper()
	svid, err := identity.NewSource(shown, nil).GetX509SVID()
	if err != nil {
		t.Fatal(err)
	}
	cert := tls.Certificate{PrivateKey: svid.PrivateKey}
	for _, c := range svid.Certificates {
		cert.Certificate = append(cert.Certificate, c.Raw)
	}
	return credentials.NewTLS(&tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12})
}

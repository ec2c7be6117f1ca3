package main

import (
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/pkg/identity"
)

// authority makes identities, and the files that the client is given of them.
type authority struct {
	*identity.Authority
	dir string
}

func newAuthority(t *testing.T) authority {
	t.Helper()
	made, err := identity.NewAuthority(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	a := authority{made, t.TempDir()}
	a.write(t, "ca.pem", made.Bundle())
	return a
}

func (a authority) write(t *testing.T, name string, content []byte) {
	t.Helper()
	if err := os.WriteFile(a.file(name), content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func (a authority) file(name string) string { return filepath.Join(a.dir, name) }

// client writes cert.pem and key.pem of a client whose certificate is good for an hour from then on.
func (a authority) client(t *testing.T, from time.Time) {
	t.Helper()
	key, err := identity.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	request, err := key.Request()
	if err != nil {
		t.Fatal(err)
	}
	chain, _, err := a.Certify(request, identity.Grant{ID: identity.Client("viewer", "vic"), Generation: 1, Life: time.Hour}, from)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := key.PEM()
	if err != nil {
		t.Fatal(err)
	}
	a.write(t, "cert.pem", chain)
	a.write(t, "key.pem", secret)
}

// serve is a control plane of this authority that answers nothing, by mutual TLS.
func (a authority) serve(t *testing.T) (address string) {
	t.Helper()
	shown, err := a.Issue(identity.Grant{ID: identity.ControlPlane(), Generation: 1, Life: time.Hour}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.Creds(identity.NewSource(shown, nil).Server(func(identity.ID) bool { return true })))
	umbrav1.RegisterFailoverServiceServer(server, umbrav1.UnimplementedFailoverServiceServer{})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return listener.Addr().String()
}

func TestWhoIsNotTrustedIsToldWhichSideDoesNotTrustTheOther(t *testing.T) {
	ours, theirs := newAuthority(t), newAuthority(t)
	list := func(ca string) result {
		return typed(t.Context(), "", []string{
			"--server", ours.serve(t), "--timeout", "1s", "--ca", ca, "--cert", ours.file("cert.pem"), "--key", ours.file("key.pem"), "pairs", "list",
		})
	}
	ours.client(t, time.Now())
	list(ours.file("ca.pem")).want(t, exitFailed, "not implemented") // so it was heard
	list(theirs.file("ca.pem")).want(t, exitUnavailable, "does not prove to be a control plane of the authority in "+theirs.file("ca.pem"))
	ours.client(t, time.Now().Add(-2*time.Hour))
	list(ours.file("ca.pem")).want(t, exitUnavailable, "your certificate may have ended, or been revoked", "-enddate -in "+ours.file("cert.pem"))
}

func TestAnAddressNeedsItsPort(t *testing.T) {
	typed(t.Context(), "", []string{"--server", "cp.example.net", "--ca", "ca.pem", "pairs", "list"}).
		want(t, exitUsage, "--server cp.example.net: the port is missing, as in cp.example.net:7443")
}

package main

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/umbra-dr/umbra/controlplane/access"
	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/pkg/identity"
)

// site is a control plane with an authority of the test's.
type site struct {
	authority *identity.Authority
	address   string
	socket    string
	stateDir  string
	stop      func()
}

func newSite(t *testing.T, change ...func(*flags)) *site {
	t.Helper()
	s := &site{stateDir: t.TempDir()}
	s.socket = filepath.Join(s.stateDir, "api.sock")
	var err error
	if s.authority, err = identity.NewAuthority(time.Now()); err != nil {
		t.Fatal(err)
	}
	f := flags{recordsFlags: recordsFlags{StateDir: s.stateDir}, Listen: "127.0.0.1:0", UnixSocket: s.socket, Lease: time.Second}
	f.AuthorityCert, f.AuthorityKey = authorityFiles(t, s.authority)
	for _, change := range change {
		change(&f)
	}
	s.start(t, f)
	return s
}

// start returns when the control plane serves.
func (s *site) start(t *testing.T, f flags) {
	t.Helper()
	log, stop := start(t, f)
	s.stop = stop
	select {
	case s.address = <-log.address:
	case <-time.After(patience):
		t.Fatal("the control plane does not serve")
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := umbrav1.NewFailoverServiceClient(s.local(t)).ListDRPairs(ctx, &umbrav1.ListDRPairsRequest{}, grpc.WaitForReady(true)); err != nil {
		t.Fatal(err)
	}
}

func authorityFiles(t *testing.T, authority *identity.Authority) (cert, key string) {
	t.Helper()
	certs, secret, err := authority.PEM()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "ca.pem"), filepath.Join(dir, "ca-key.pem")
	for name, content := range map[string][]byte{cert: certs, key: secret} {
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

func (s *site) local(t *testing.T) *grpc.ClientConn {
	t.Helper()
	return dial(t, "unix:"+s.socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
}

// as is a connection with a certificate that is made now.
func (s *site) as(t *testing.T, id identity.ID) *grpc.ClientConn {
	t.Helper()
	made, err := s.authority.Issue(identity.Grant{ID: id, Generation: 1, Life: time.Hour}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return s.with(t, made)
}

func (s *site) with(t *testing.T, made *identity.Credentials) *grpc.ClientConn {
	t.Helper()
	secure, err := identity.NewSource(made, nil).Dial(identity.ControlPlane())
	if err != nil {
		t.Fatal(err)
	}
	return dial(t, s.address, grpc.WithTransportCredentials(secure))
}

func (s *site) asNobody(t *testing.T, options ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	first := identity.FirstDial(identity.NewToken(s.authority.Fingerprint()))
	return dial(t, s.address, append(options, grpc.WithTransportCredentials(first))...)
}

func (s *site) asRole(t *testing.T, role access.Role) *grpc.ClientConn {
	t.Helper()
	return s.as(t, identity.Client(string(role), "the-"+string(role)))
}

// soon bounds a call.
func soon(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

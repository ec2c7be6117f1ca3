package identity_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"github.com/umbra-dr/umbra/pkg/identity"
)

func TestWhoHasATokenShowsItToTheControlPlaneAndToNobodyElse(t *testing.T) {
	authority, file := newAuthority(t), filepath.Join(t.TempDir(), "token")
	write := func(token string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("first\n")
	secure, err := identity.OpenDial(authority.Bundle())
	if err != nil {
		t.Fatal(err)
	}
	shown := make(chan []string, 1)
	dial := func(server *identity.Source, with credentials.TransportCredentials) (*grpc.ClientConn, error) {
		address := serve(t, "tcp", server.OpenServer(), func(ctx context.Context) { shown <- metadata.ValueFromIncomingContext(ctx, "authorization") })
		return grpc.NewClient(address, grpc.WithTransportCredentials(with), grpc.WithPerRPCCredentials(identity.TokenFile(file)))
	}
	named := identity.Grant{ID: identity.ControlPlane(), Names: []string{"127.0.0.1"}}
	conn, err := dial(source(t, authority, named), secure)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	for _, token := range []string{"first", "second"} { // renewed while the connection is open
		write(token + "\n")
		if err := check(t, conn); err != nil {
			t.Fatal(err)
		}
		if got := <-shown; !slices.Equal(got, []string{"Bearer " + token}) {
			t.Errorf("shown is %q, not %s", got, token)
		}
	}
	for name, server := range map[string]*identity.Source{
		"another authority's control plane":  source(t, newAuthority(t), named),
		"a host":                             source(t, authority, identity.Grant{ID: identity.Host("evil"), Names: named.Names}),
		"a client":                           source(t, authority, identity.Grant{ID: identity.Client("administrator", "evil"), Names: named.Names}),
		"the control plane of another place": source(t, authority, identity.Grant{ID: identity.ControlPlane(), Names: []string{"192.0.2.1"}}),
		"a control plane whose time is over": ended(t, authority, named),
	} {
		conn, err := dial(server, secure)
		if err != nil {
			t.Fatal(err)
		}
		if err := check(t, conn); err == nil {
			t.Errorf("%s was shown the token", name)
		}
		_ = conn.Close()
	}
	if conn, err := dial(source(t, authority, named), insecure.NewCredentials()); err == nil {
		t.Error("a token can be shown without TLS")
		_ = conn.Close()
	}
	if len(shown) != 0 {
		t.Errorf("shown is %q", <-shown)
	}
}

func TestWithoutAnAuthorityThereIsNoConnection(t *testing.T) {
	for _, bundle := range []string{"", "junk", "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"} {
		if _, err := identity.OpenDial([]byte(bundle)); err == nil {
			t.Errorf("%q was taken for an authority", bundle)
		}
	}
}

func ended(t *testing.T, authority *identity.Authority, grant identity.Grant) *identity.Source {
	t.Helper()
	grant.Life = day
	made, err := authority.Issue(grant, time.Now().Add(-2*day))
	if err != nil {
		t.Fatal(err)
	}
	return identity.NewSource(made, nil)
}

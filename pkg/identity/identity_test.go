package identity_test

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthgrpc "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/umbra-dr/umbra/pkg/identity"
)

const (
	patience = time.Minute
	day      = 24 * time.Hour
)

func anyone(identity.ID) bool { return true }

func TestACallerIsKnownByItsCertificateAndAServerOfAnotherNameIsRefused(t *testing.T) {
	authority := newAuthority(t)
	peers := make(chan identity.Peer, 1)
	address := serve(t, "tcp", source(t, authority, identity.Grant{ID: identity.Host("shadow")}).Server(anyone), seen(peers))
	main := source(t, authority, identity.Grant{ID: identity.Host("main"), Generation: 3})
	if err := call(t, address, dialling(t, main, identity.Host("shadow"))); err != nil {
		t.Fatal(err)
	}
	if peer := <-peers; peer.ID != identity.Host("main") || peer.Generation != 3 {
		t.Errorf("the server saw %v", peer)
	}
	if err := call(t, address, dialling(t, main, identity.Host("other"))); err == nil {
		t.Error("a server of another name was accepted")
	}
}

func TestOnlyWhoIsWelcomeGetsThrough(t *testing.T) {
	authority := newAuthority(t)
	hosts := func(id identity.ID) bool { _, ok := id.HostID(); return ok }
	address := serve(t, "tcp", source(t, authority, identity.Grant{ID: identity.Host("shadow")}).Server(hosts), nil)
	for name, c := range map[string]struct {
		authority *identity.Authority
		id        identity.ID
		at        time.Time
		ok        bool
	}{
		"a host":                           {authority, identity.Host("main"), time.Now(), true},
		"a host, certified 9 min from now": {authority, identity.Host("main"), time.Now().Add(9 * time.Minute), true},
		"a host, certified 1 h from now":   {authority, identity.Host("main"), time.Now().Add(time.Hour), false},
		"a host whose certificate ended":   {authority, identity.Host("main"), time.Now().Add(-2 * day), false},
		"a host of another authority":      {newAuthority(t), identity.Host("main"), time.Now(), false},
		"a client":                         {authority, identity.Client("operator", "ann"), time.Now(), false},
	} {
		made, err := c.authority.Issue(identity.Grant{ID: c.id, Life: day}, c.at)
		if err != nil {
			t.Fatal(err)
		}
		// What the caller thinks of the server is not the question here.
		conn := tlsOf(t, made)
		if err := call(t, address, conn); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What is certified in an hour is what a part whose clock is an hour behind sees.
func TestARefusalForTheTimeNamesTheClocksAndTheTimes(t *testing.T) {
	authority := newAuthority(t)
	dialler := source(t, authority, identity.Grant{ID: identity.Host("main")})
	for name, c := range map[string]struct {
		behind time.Duration
		ok     bool
	}{
		"9 min behind":                   {9 * time.Minute, true},
		"11 min behind":                  {11 * time.Minute, false},
		"ahead, before the end":          {-23 * time.Hour, true},
		"ahead, after the end":           {-25 * time.Hour, false},
		"ahead by less than the renewal": {-11 * time.Hour, true},
	} {
		certified := time.Now().Add(c.behind)
		made, err := authority.Issue(identity.Grant{ID: identity.ControlPlane(), Life: day}, certified)
		if err != nil {
			t.Fatal(err)
		}
		address := serve(t, "tcp", identity.NewSource(made, nil).OpenServer(), nil)
		for contact, dial := range map[string]credentials.TransportCredentials{
			"the first contact": identity.FirstDial(identity.NewToken(authority.Fingerprint())),
			"a connection":      dialling(t, dialler, identity.ControlPlane()),
		} {
			err := call(t, address, dial)
			switch {
			case c.ok && err != nil:
				t.Errorf("%s, %s: %v", name, contact, err)
			case !c.ok && err == nil:
				t.Errorf("%s, %s: it was accepted", name, contact)
			case !c.ok:
				for _, says := range []string{"clock", made.NotAfter().UTC().Format(time.RFC3339), "current time "} {
					if !strings.Contains(err.Error(), says) {
						t.Errorf("%s, %s: the error does not say %q: %v", name, contact, says, err)
					}
				}
			}
		}
	}
}

func TestAnOpenServerTakesWhoShowsNothingAndNotWhoShowsSomethingBad(t *testing.T) {
	authority := newAuthority(t)
	address := serve(t, "tcp", source(t, authority, identity.Grant{ID: identity.ControlPlane()}).OpenServer(), nil)
	token := identity.NewToken(authority.Fingerprint())
	if err := call(t, address, identity.FirstDial(token)); err != nil {
		t.Error(err)
	}
	stranger, err := newAuthority(t).Issue(identity.Grant{ID: identity.Host("main"), Life: day}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := call(t, address, tlsOf(t, stranger)); err == nil {
		t.Error("a certificate of another authority was accepted")
	}
}

func TestNothingOlderThanTLS13IsSpoken(t *testing.T) {
	authority := newAuthority(t)
	address := serve(t, "tcp", source(t, authority, identity.Grant{ID: identity.ControlPlane()}).OpenServer(), nil)
	old := credentials.NewTLS(&tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12})
	if err := call(t, address, old); err == nil {
		t.Error("TLS 1.2 was spoken")
	}
}

func TestTheFirstContactIsOnlyMadeWithTheControlPlaneOfTheToken(t *testing.T) {
	authority := newAuthority(t)
	token := identity.NewToken(authority.Fingerprint())
	for name, server := range map[string]*identity.Source{
		"another authority": source(t, newAuthority(t), identity.Grant{ID: identity.ControlPlane()}),
		"a host":            source(t, authority, identity.Grant{ID: identity.Host("evil")}),
	} {
		if err := call(t, serve(t, "tcp", server.OpenServer(), nil), identity.FirstDial(token)); err == nil {
			t.Errorf("%s was taken for the control plane", name)
		}
	}
}

func TestTokensAreReadAsTheyWereWrittenAndNothingElseIs(t *testing.T) {
	token := identity.NewToken(newAuthority(t).Fingerprint())
	if read, err := identity.ParseToken(token.String() + "\n"); err != nil || read != token {
		t.Errorf("read %v, %v", read, err)
	}
	for _, text := range []string{"", "umbra-join-1", token.String()[1:], token.String() + "A", token.String() + ".x", "umbra-join-1.zz.AA.AA"} {
		if _, err := identity.ParseToken(text); err == nil {
			t.Errorf("%q was read as a token", text)
		}
	}
}

func TestAnAuthorityIsReadAsItWasWrittenAndACertificateOfItsOwnIsNone(t *testing.T) {
	authority := newAuthority(t)
	certs, key, err := authority.PEM()
	if err != nil {
		t.Fatal(err)
	}
	again, err := identity.ParseAuthority(certs, key)
	if err != nil || again.Fingerprint() != authority.Fingerprint() {
		t.Errorf("read with error %v", err)
	}
	other, otherKey, err := newAuthority(t).PEM()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := identity.ParseAuthority(certs, otherKey); err == nil {
		t.Error("another authority's key was accepted")
	}
	both, err := identity.ParseAuthority(append(other, certs...), otherKey)
	if err != nil {
		t.Fatal(err)
	}
	// While authorities change, certificates of the one before count.
	old := source(t, authority, identity.Grant{ID: identity.Host("main")})
	made, err := both.Issue(identity.Grant{ID: identity.Host("shadow"), Life: day}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	address := serve(t, "tcp", identity.NewSource(made, nil).Server(anyone), nil)
	current := old.Current()
	if err := call(t, address, tlsOf(t, current)); err != nil {
		t.Errorf("the earlier authority's certificate: %v", err)
	}
	leaf, leafKey := leafPEM(t, authority)
	if _, err := identity.ParseAuthority(leaf, leafKey); err == nil {
		t.Error("a certificate that is no authority's was accepted as one")
	}
}

func TestAReplacedCertificateIsUsedByNewConnectionsWhileOldOnesGoOn(t *testing.T) {
	authority := newAuthority(t)
	peers := make(chan identity.Peer, 10)
	address := serve(t, "tcp", source(t, authority, identity.Grant{ID: identity.Host("shadow")}).Server(anyone), seen(peers))
	main := source(t, authority, identity.Grant{ID: identity.Host("main"), Generation: 1})
	dial := dialling(t, main, identity.Host("shadow"))
	conn := connect(t, address, dial)
	watch := openWatch(t, conn)
	<-peers
	renewed, err := authority.Issue(identity.Grant{ID: identity.Host("main"), Generation: 2, Life: day}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	main.Set(renewed)
	if err := check(t, conn); err != nil {
		t.Fatal(err)
	}
	if peer := <-peers; peer.Generation != 1 {
		t.Errorf("the open connection is of generation %d", peer.Generation)
	}
	if err := call(t, address, dial); err != nil {
		t.Fatal(err)
	}
	if peer := <-peers; peer.Generation != 2 {
		t.Errorf("the new connection is of generation %d", peer.Generation)
	}
	if err := watch.Context().Err(); err != nil {
		t.Errorf("the stream has ended: %v", err)
	}
}

func TestARevokedPeerIsCutOffAtOnceInBothDirections(t *testing.T) {
	authority := newAuthority(t)
	for _, revokes := range []string{"server", "client"} {
		server, client := identity.NewPeers(), identity.NewPeers()
		shadow := sourceOf(t, authority, identity.Grant{ID: identity.Host("shadow"), Generation: 4}, server)
		main := sourceOf(t, authority, identity.Grant{ID: identity.Host("main"), Generation: 4}, client)
		address := serve(t, "tcp", shadow.Server(anyone), nil)
		dial := dialling(t, main, identity.Host("shadow"))
		watch := openWatch(t, connect(t, address, dial))
		by, of := server, identity.HostSubject("main")
		if revokes == "client" {
			by, of = client, identity.HostSubject("shadow")
		}
		by.Require(of, 4)
		by.Require(identity.HostSubject("another"), 100)
		if err := call(t, address, dial); err != nil {
			t.Fatalf("%s: generation 4 is required, and was refused: %v", revokes, err)
		}
		by.Require(of, 5)
		if _, err := watch.Recv(); status.Code(err) != codes.Unavailable {
			t.Errorf("%s: the stream of a revoked peer ended with %v", revokes, err)
		}
		if err := call(t, address, dial); err == nil {
			t.Errorf("%s: a revoked peer was accepted", revokes)
		}
		by.Require(of, 1)
		if err := call(t, address, dial); err == nil {
			t.Errorf("%s: a revocation was taken back", revokes)
		}
	}
}

func TestTheKernelSaysWhoCallsByTheSocket(t *testing.T) {
	users := make(chan bool, 1)
	path := filepath.Join(t.TempDir(), "s")
	address := serve(t, "unix", identity.LocalServer(), func(ctx context.Context) {
		_, ok := identity.LocalUser(ctx)
		if _, err := identity.PeerOf(ctx); !errors.Is(err, identity.ErrNoPeer) {
			t.Errorf("a certificate was found: %v", err)
		}
		users <- ok
	}, path)
	if err := call(t, "unix:"+address, insecure.NewCredentials()); err != nil || !<-users {
		t.Errorf("the caller is not known, error %v", err)
	}
}

func newAuthority(t *testing.T) *identity.Authority {
	t.Helper()
	authority, err := identity.NewAuthority(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return authority
}

func source(t *testing.T, authority *identity.Authority, grant identity.Grant) *identity.Source {
	t.Helper()
	return sourceOf(t, authority, grant, nil)
}

func sourceOf(t *testing.T, authority *identity.Authority, grant identity.Grant, peers *identity.Peers) *identity.Source {
	t.Helper()
	grant.Life = day
	made, err := authority.Issue(grant, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return identity.NewSource(made, peers)
}

func leafPEM(t *testing.T, authority *identity.Authority) (chain, key []byte) {
	t.Helper()
	made, err := identity.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	request, err := made.Request()
	if err != nil {
		t.Fatal(err)
	}
	chain, _, err = authority.Certify(request, identity.Grant{ID: identity.Host("a"), Life: day}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if key, err = made.PEM(); err != nil {
		t.Fatal(err)
	}
	return chain, key
}

func dialling(t *testing.T, s *identity.Source, id identity.ID) credentials.TransportCredentials {
	t.Helper()
	dial, err := s.Dial(id)
	if err != nil {
		t.Fatal(err)
	}
	return dial
}

func serve(t *testing.T, network string, creds credentials.TransportCredentials, saw func(context.Context), at ...string) string {
	t.Helper()
	listener, err := net.Listen(network, append(at, "127.0.0.1:0")[0])
	if err != nil {
		t.Fatal(err)
	}
	see := func(ctx context.Context) {
		if saw != nil {
			saw(ctx)
		}
	}
	server := grpc.NewServer(grpc.Creds(creds), grpc.UnaryInterceptor(
		func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
			see(ctx)
			return handler(ctx, req)
		}), grpc.StreamInterceptor(
		func(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
			see(stream.Context())
			return handler(srv, stream)
		}))
	healthgrpc.RegisterHealthServer(server, health.NewServer())
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	return listener.Addr().String()
}

func seen(peers chan<- identity.Peer) func(context.Context) {
	return func(ctx context.Context) {
		peer, _ := identity.PeerOf(ctx)
		peers <- peer
	}
}

func connect(t *testing.T, address string, dial credentials.TransportCredentials) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(dial))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func check(t *testing.T, conn *grpc.ClientConn) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err := healthgrpc.NewHealthClient(conn).Check(ctx, &healthgrpc.HealthCheckRequest{})
	return err
}

func call(t *testing.T, address string, dial credentials.TransportCredentials) error {
	t.Helper()
	return check(t, connect(t, address, dial))
}

// openWatch opens a stream that has been answered once.
func openWatch(t *testing.T, conn *grpc.ClientConn) grpc.ServerStreamingClient[healthgrpc.HealthCheckResponse] {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	watch, err := healthgrpc.NewHealthClient(conn).Watch(ctx, &healthgrpc.HealthCheckRequest{})
	if err == nil {
		_, err = watch.Recv()
	}
	if err != nil {
		t.Fatal(err)
	}
	return watch
}

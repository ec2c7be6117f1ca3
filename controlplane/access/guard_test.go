package access

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/pkg/clock"
	"github.com/umbra-dr/umbra/pkg/identity"
)

var now = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

// stopped is a clock that shows a time.
type stopped struct {
	clock.Clock
	at time.Time
}

func (s *stopped) Now() time.Time { return s.at }

// fakes are what a guard works with: an audit log that notes what it is told, tokens and join tokens that are what they say.
type fakes struct {
	full  bool
	notes []string
}

func (f *fakes) Begin(_ context.Context, caller Caller, method string, _ any) (func(any, error), error) {
	if f.full {
		return nil, errors.New("the disk is full")
	}
	f.notes = append(f.notes, "begin "+caller.Name)
	return func(_ any, err error) { f.notes = append(f.notes, "end "+status.Code(err).String()) }, nil
}

func (f *fakes) Refused(_ context.Context, caller Caller, _ string, _ any, err error) {
	f.notes = append(f.notes, "refused "+caller.Name+" "+status.Code(err).String())
}

func (f *fakes) Verify(_ context.Context, token string) (Caller, error) {
	if token == "bad" {
		return Caller{Kind: Person, Name: "mallory", Roles: []Role{Administrator}}, errors.New("it is not valid")
	}
	return Caller{Kind: Person, Name: "oidc:ann", Roles: []Role{Role(token)}}, nil
}

func (f *fakes) Judge(_ context.Context, token string, _ []byte) (string, bool, error) {
	if token == "down" {
		return "", false, errors.New("etcd is away")
	}
	return "a", token == "good", nil
}

func newGuard() (*Guard, *fakes) {
	f := &fakes{}
	return &Guard{Tokens: f, Joins: f, Audit: f, Clock: &stopped{at: now}}, f
}

// call is a unary call. It returns whom the handler saw.
func call(ctx context.Context, g *Guard, method string, request any) (Caller, error) {
	var seen Caller
	_, err := g.unary(ctx, request, &grpc.UnaryServerInfo{FullMethod: method}, func(ctx context.Context, _ any) (any, error) {
		seen = From(ctx)
		return nil, nil
	})
	return seen, err
}

func withToken(t *testing.T, header string) context.Context {
	return metadata.NewIncomingContext(t.Context(), metadata.Pairs("authorization", header))
}

// withCertificate is the context of a call by who has that certificate, as the handshake leaves it.
func withCertificate(t *testing.T, id identity.ID, life time.Duration) context.Context {
	t.Helper()
	authority, err := identity.NewAuthority(now)
	if err != nil {
		t.Fatal(err)
	}
	made, err := authority.Issue(identity.Grant{ID: id, Generation: 7, Life: life}, now)
	if err != nil {
		t.Fatal(err)
	}
	svid, err := identity.NewSource(made, nil).GetX509SVID()
	if err != nil {
		t.Fatal(err)
	}
	state := tls.ConnectionState{PeerCertificates: []*x509.Certificate{svid.Certificates[0]}}
	return peer.NewContext(t.Context(), &peer.Peer{AuthInfo: credentials.TLSInfo{State: state}})
}

func TestCallersAreKnownByWhatTheyShow(t *testing.T) {
	const list = umbrav1.FailoverService_ListDRPairs_FullMethodName
	for name, c := range map[string]struct {
		ctx  context.Context
		want string
		code codes.Code
	}{
		"nothing":                   {t.Context(), "", codes.Unauthenticated},
		"a token":                   {withToken(t, "Bearer viewer"), "oidc:ann", codes.OK},
		"a token, other case":       {withToken(t, "bearer viewer"), "oidc:ann", codes.OK},
		"a token without a role":    {withToken(t, "Bearer nothing"), "", codes.PermissionDenied},
		"a bad token":               {withToken(t, "Bearer bad"), "", codes.Unauthenticated},
		"another scheme":            {withToken(t, "Basic viewer"), "", codes.Unauthenticated},
		"a client":                  {withCertificate(t, identity.Client("viewer", "ben"), time.Hour), "client/ben", codes.OK},
		"a client whose cert ended": {withCertificate(t, identity.Client("viewer", "ben"), -time.Second), "", codes.Unauthenticated},
		"a client of no role":       {withCertificate(t, identity.Client("king", "ben"), time.Hour), "", codes.Unauthenticated},
		"a client of no name":       {withCertificate(t, identity.Client("viewer", "ben/ann"), time.Hour), "", codes.Unauthenticated},
		"a control plane":           {withCertificate(t, identity.ControlPlane(), time.Hour), "", codes.PermissionDenied},
		"a host":                    {withCertificate(t, identity.Host("a"), time.Hour), "", codes.PermissionDenied},
	} {
		g, _ := newGuard()
		if seen, err := call(c.ctx, g, list, nil); status.Code(err) != c.code || seen.Name != c.want {
			t.Errorf("%s: seen as %q, error %v", name, seen.Name, err)
		}
	}
	g, _ := newGuard()
	seen, err := call(withCertificate(t, identity.Host("a"), time.Hour), g, umbrav1.IdentityService_RenewCertificate_FullMethodName, nil)
	if err != nil || seen.HostID != "a" || seen.Generation != 7 {
		t.Errorf("a host is seen as %+v, error %v", seen, err)
	}
	g.Tokens = nil
	if _, err := call(withToken(t, "Bearer viewer"), g, list, nil); status.Code(err) != codes.Unauthenticated {
		t.Errorf("a token at a control plane without an issuer: %v", err)
	}
}

func TestEveryCallThatChangesSomethingIsInTheAuditLog(t *testing.T) {
	commit := &umbrav1.CommitFailoverRequest{Name: "drPairs/p", DeleteRecoveryPoints: true}
	enroll := func(token string) *umbrav1.EnrollRequest { return &umbrav1.EnrollRequest{Token: token} }
	for name, c := range map[string]struct {
		ctx     context.Context
		method  string
		request any
		notes   []string
	}{
		"done":              {withToken(t, "Bearer administrator"), umbrav1.FailoverService_CommitFailover_FullMethodName, commit, []string{"begin oidc:ann", "end OK"}},
		"not permitted":     {withToken(t, "Bearer operator"), umbrav1.FailoverService_CommitFailover_FullMethodName, commit, []string{"refused oidc:ann PermissionDenied"}},
		"not known":         {t.Context(), umbrav1.FailoverService_CommitFailover_FullMethodName, commit, []string{"refused nobody Unauthenticated"}},
		"a bad token":       {withToken(t, "Bearer bad"), umbrav1.FailoverService_CommitFailover_FullMethodName, commit, []string{"refused nobody Unauthenticated"}},
		"a join token":      {t.Context(), umbrav1.IdentityService_Enroll_FullMethodName, enroll("good"), []string{"begin joining:a", "end OK"}},
		"a bad join token":  {t.Context(), umbrav1.IdentityService_Enroll_FullMethodName, enroll("bad"), []string{"refused nobody PermissionDenied"}},
		"an unjudged token": {t.Context(), umbrav1.IdentityService_Enroll_FullMethodName, enroll("down"), []string{"refused nobody Unavailable"}},
		"only read":         {withToken(t, "Bearer viewer"), umbrav1.FailoverService_ListDRPairs_FullMethodName, nil, nil},
		"not to be read":    {t.Context(), umbrav1.FailoverService_ListDRPairs_FullMethodName, nil, nil},
	} {
		g, f := newGuard()
		if _, _ = call(c.ctx, g, c.method, c.request); !slices.Equal(f.notes, c.notes) {
			t.Errorf("%s: the log has %q", name, f.notes)
		}
	}
}

func TestNothingIsChangedThatTheAuditLogCannotTake(t *testing.T) {
	g, f := newGuard()
	f.full = true
	request := &umbrav1.CommitFailoverRequest{Name: "drPairs/p"}
	seen, err := call(withToken(t, "Bearer administrator"), g, umbrav1.FailoverService_CommitFailover_FullMethodName, request)
	if status.Code(err) != codes.Unavailable || seen.Name != "" {
		t.Errorf("the handler saw %q, error %v", seen.Name, err)
	}
}

// silentStream is a stream of which only the context is used.
type silentStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s silentStream) Context() context.Context { return s.ctx }

func TestStreamsAreGuardedAsCallsAre(t *testing.T) {
	for name, c := range map[string]struct {
		ctx    context.Context
		method string
		code   codes.Code
	}{
		"a viewer watches":            {withToken(t, "Bearer viewer"), umbrav1.FailoverService_WatchDRPairs_FullMethodName, codes.OK},
		"nobody watches":              {t.Context(), umbrav1.FailoverService_WatchDRPairs_FullMethodName, codes.Unauthenticated},
		"a viewer opens a session":    {withToken(t, "Bearer viewer"), umbrav1.HostSessionService_Session_FullMethodName, codes.PermissionDenied},
		"an administrator, elsewhere": {withToken(t, "Bearer administrator"), "/umbra.v1.NewService/New", codes.PermissionDenied},
		"a stream that changes":       {withToken(t, "Bearer administrator"), umbrav1.FailoverService_Failover_FullMethodName, codes.PermissionDenied},
	} {
		g, _ := newGuard()
		ran := false
		err := g.stream(nil, silentStream{ctx: c.ctx}, &grpc.StreamServerInfo{FullMethod: c.method}, func(_ any, stream grpc.ServerStream) error {
			ran = From(stream.Context()).Name == "oidc:ann"
			return nil
		})
		if status.Code(err) != c.code || ran != (c.code == codes.OK) {
			t.Errorf("%s: %v; the handler ran: %v", name, err, ran)
		}
	}
}

package access

import (
	"context"
	"errors"
	"fmt"
	"strings"

	middleware "github.com/grpc-ecosystem/go-grpc-middleware/v2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"github.com/umbra-dr/umbra/controlplane/refusal"
	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/pkg/clock"
	"github.com/umbra-dr/umbra/pkg/identity"
)

// Tokens judges bearer tokens.
type Tokens interface {
	// Verify tells whose token it is. An error is told to the caller.
	Verify(ctx context.Context, token string) (Caller, error)
}

// Joins judges join tokens.
type Joins interface {
	// Judge tells whether a host may enrol with the token and a key of that certificate signing request, and which. An
	// error says that it cannot be told now.
	Judge(ctx context.Context, token string, signingRequest []byte) (host string, valid bool, err error)
}

// Audit is the log of calls that change something.
type Audit interface {
	// Begin notes a call before it acts. Without an error end is to be called with the outcome.
	Begin(ctx context.Context, caller Caller, method string, request any) (end func(response any, err error), err error)
	// Refused notes a call that was refused.
	Refused(ctx context.Context, caller Caller, method string, request any, err error)
}

// Guard is what every call passes. Tokens may be nil: then nobody is known by a token.
type Guard struct {
	Tokens Tokens
	Joins  Joins
	Audit  Audit
	Clock  clock.Clock
}

// Options are the options of a server that the guard stands before. They come before those of other interceptors.
func (g *Guard) Options() []grpc.ServerOption {
	return []grpc.ServerOption{grpc.ChainUnaryInterceptor(g.unary), grpc.ChainStreamInterceptor(g.stream)}
}

func (g *Guard) unary(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	rule := RuleOf(info.FullMethod)
	caller, err := g.authenticate(ctx)
	if err == nil && rule.Needs == Joining {
		caller, err = g.joining(ctx, request)
	}
	if err == nil {
		err = authorize(caller, info.FullMethod, rule.Needs, alsoNeeds(request))
	}
	ctx = With(ctx, caller)
	switch {
	case err != nil && rule.Changes:
		g.Audit.Refused(ctx, caller, info.FullMethod, request, err)
		return nil, err
	case err != nil:
		return nil, err
	case !rule.Changes:
		return handler(ctx, request)
	}
	end, err := g.Audit.Begin(ctx, caller, info.FullMethod, request)
	if full := refusal.StoreFull(err); full != nil {
		return nil, full
	}
	if err != nil {
		return nil, refusal.New(codes.Unavailable, umbrav1.ErrorReason_ERROR_REASON_INTERNAL, nil,
			"nothing is changed that the audit log cannot take: "+err.Error())
	}
	response, err := handler(ctx, request)
	end(response, err)
	return response, err
}

// stream refuses streams that would change something: their requests come too late to be in the log. There are none.
func (g *Guard) stream(server any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	rule := RuleOf(info.FullMethod)
	caller, err := g.authenticate(stream.Context())
	if rule.Changes {
		rule.Needs = Nothing
	}
	if err == nil {
		err = authorize(caller, info.FullMethod, rule.Needs)
	}
	if err != nil {
		return err
	}
	known := middleware.WrapServerStream(stream)
	known.WrappedContext = With(stream.Context(), caller)
	return handler(server, known)
}

// authenticate finds out who calls: by the socket, then by the certificate, then by the token. Whoever shows none of them
// is nobody; whoever shows something that is not valid is refused, also where nobody may call.
func (g *Guard) authenticate(ctx context.Context) (Caller, error) {
	if uid, ok := identity.LocalUser(ctx); ok {
		return Caller{Kind: Person, Name: fmt.Sprintf("local:%d", uid), Roles: []Role{Administrator}, Local: true}, nil
	}
	shown, err := identity.PeerOf(ctx)
	caller := nobody
	switch token, given := bearer(ctx); {
	case err == nil:
		caller, err = certified(shown, g.Clock.Now())
	case !errors.Is(err, identity.ErrNoPeer):
	case !given:
		return nobody, nil
	case g.Tokens == nil:
		err = errors.New("this control plane takes no tokens: it has no OIDC issuer")
	default:
		caller, err = g.Tokens.Verify(ctx, token)
	}
	if err != nil {
		return nobody, refusal.New(codes.Unauthenticated, umbrav1.ErrorReason_ERROR_REASON_UNAUTHENTICATED, nil, err.Error())
	}
	return caller, nil
}

// joining is the host that the join token in a request is for. It is judged here, so that strangers cannot fill the audit
// log with calls that have begun; the handler judges again when it uses the token up.
func (g *Guard) joining(ctx context.Context, request any) (Caller, error) {
	asked, ok := request.(*umbrav1.EnrollRequest)
	if !ok {
		return nobody, BadJoinToken()
	}
	host, valid, err := g.Joins.Judge(ctx, asked.GetToken(), asked.GetCertificateSigningRequest())
	switch {
	case err != nil:
		return nobody, refusal.New(codes.Unavailable, umbrav1.ErrorReason_ERROR_REASON_INTERNAL, nil, "join tokens cannot be judged now: "+err.Error())
	case !valid:
		return nobody, BadJoinToken()
	default:
		return Caller{Kind: Joiner, Name: "joining:" + host}, nil
	}
}

// BadJoinToken is the error for who shows a join token that is not valid. It does not say why: who has none need not
// know whether it exists.
func BadJoinToken() error {
	return refusal.New(codes.PermissionDenied, umbrav1.ErrorReason_ERROR_REASON_JOIN_TOKEN_INVALID, nil,
		"the join token is not valid: it is unknown, has ended, or has been used. An administrator can make a new one")
}

func bearer(ctx context.Context) (token string, given bool) {
	for _, value := range metadata.ValueFromIncomingContext(ctx, "authorization") {
		if scheme, token, ok := strings.Cut(value, " "); ok && strings.EqualFold(scheme, "bearer") {
			return strings.TrimSpace(token), true
		}
	}
	return "", false
}

func authorize(caller Caller, method string, needs ...Permission) error {
	for _, need := range needs {
		switch {
		case caller.may(need):
		case caller.Kind == Nobody:
			return refusal.New(codes.Unauthenticated, umbrav1.ErrorReason_ERROR_REASON_UNAUTHENTICATED, nil,
				method+" needs a client certificate or a bearer token")
		case need == DeletePoints:
			return refusal.New(codes.PermissionDenied, umbrav1.ErrorReason_ERROR_REASON_PERMISSION_DENIED, nil,
				caller.Name+" may not delete recovery points")
		default:
			return refusal.New(codes.PermissionDenied, umbrav1.ErrorReason_ERROR_REASON_PERMISSION_DENIED, nil,
				caller.Name+" may not call "+method+need.whoHas())
		}
	}
	return nil
}

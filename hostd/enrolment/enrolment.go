// Package enrolment gets this host its certificate and keeps it from ending. The key is made here and stays here: with
// the certificate it is in the journal. A host enrols once, with a join token; from then on it renews its certificate,
// with a new key each time, when half of its life is over.
package enrolment

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/cenkalti/backoff/v5"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/hostd/journal"
	"github.com/umbra-dr/umbra/pkg/clock"
	"github.com/umbra-dr/umbra/pkg/identity"
	"github.com/umbra-dr/umbra/pkg/settings"
)

const (
	callTimeout = 20 * time.Second
	retryFirst  = time.Second
	retryMax    = time.Minute
	// renewPauseMin is the least time between two renewals, whatever the certificates say.
	renewPauseMin = time.Minute
)

// Config is what enrolment works with.
type Config struct {
	// Host is this host's id.
	Host string
	// Token is the join token; empty when the host is to have enrolled before.
	Token string
	// Dial makes a connection to the control plane for the first contact.
	Dial    func(credentials.TransportCredentials) (*grpc.ClientConn, error)
	Journal *journal.Journal
	Clock   clock.Clock
	Log     *slog.Logger
}

// kept is this host's identity in the journal, or one that is being asked for, which has no chain yet.
type kept struct {
	// TokenID is the join token that it began with. Another token means: enrol again.
	TokenID                 string
	Key, Chain, Authorities []byte
}

// The names in the journal. What is asked for stands beside what counts, so that a token that is refused costs nothing.
const (
	keptKey    = "host"
	joiningKey = "joining"
)

// Open returns this host's credentials: the ones it has, or new ones for a token that it has not used yet. It waits for a
// control plane that cannot be reached until the context ends, and fails when the token is refused. What only a person can mend is a
// *settings.InvalidError: no token, one that is none or is refused, an identity that is another host's.
func Open(ctx context.Context, cfg Config) (*identity.Credentials, error) {
	have, found, err := journal.Load[kept](cfg.Journal, journal.Identity, keptKey)
	if err != nil {
		return nil, err
	}
	if cfg.Token == "" {
		if !found {
			return nil, settings.Invalid(errors.New("this host has not enrolled yet: give --join-token, which an administrator makes with " +
				"`umbra hosts join-token`, or the --tls-... files"))
		}
		return have.credentials(cfg.Host)
	}
	token, err := identity.ParseToken(cfg.Token)
	if err != nil {
		return nil, settings.InvalidAt("join-token", err)
	}
	if found && have.TokenID == token.ID {
		return have.credentials(cfg.Host)
	}
	joining, found, err := journal.Load[kept](cfg.Journal, journal.Identity, joiningKey)
	if err != nil {
		return nil, err
	}
	if !found || joining.TokenID != token.ID {
		// The key is kept before the token is used up for it: a host that ends in between asks again with the same.
		if joining, err = newKept(token.ID); err != nil {
			return nil, err
		}
		if err := journal.Save(cfg.Journal, journal.Identity, joiningKey, joining); err != nil {
			return nil, err
		}
	}
	return joining.enrol(ctx, cfg, token)
}

func newKept(tokenID string) (kept, error) {
	key, err := identity.NewKey()
	if err != nil {
		return kept{}, err
	}
	secret, err := key.PEM()
	return kept{TokenID: tokenID, Key: secret}, err
}

func (k kept) credentials(host string) (*identity.Credentials, error) {
	made, err := identity.ParseCredentials(k.Chain, k.Key, k.Authorities)
	if err != nil {
		return nil, err
	}
	if made.ID() != identity.Host(host) {
		return nil, settings.InvalidAt("host-id", fmt.Errorf("this host enrolled as %s, not as host %q", made.ID(), host))
	}
	return made, nil
}

// enrol shows the token until there is an answer.
func (k kept) enrol(ctx context.Context, cfg Config, token identity.Token) (made *identity.Credentials, err error) {
	conn, err := cfg.Dial(identity.FirstDial(token))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	key, err := identity.ParseKey(k.Key)
	if err != nil {
		return nil, err
	}
	request, err := key.Request()
	if err != nil {
		return nil, err
	}
	wait := newBackoff()
	for {
		answer, err := enrolOnce(ctx, conn, token, request)
		if err == nil {
			k.Chain, k.Authorities = answer.GetCertificate().GetChain(), answer.GetCertificate().GetAuthorities()
			made, err := k.credentials(cfg.Host)
			if err != nil {
				return nil, err
			}
			cfg.Log.Info("enrolled", "until", made.NotAfter())
			return made, journal.Save(cfg.Journal, journal.Identity, keptKey, k)
		}
		switch status.Code(err) {
		case codes.PermissionDenied, codes.InvalidArgument, codes.Unauthenticated:
			return nil, settings.InvalidAt("join-token", fmt.Errorf("enrolling with it: %w", err))
		}
		delay := wait.NextBackOff()
		cfg.Log.Warn("not enrolled yet, trying again", "error", err, "in", delay)
		if err := cfg.Clock.Wait(ctx, delay); err != nil {
			return nil, err
		}
	}
}

func enrolOnce(ctx context.Context, conn grpc.ClientConnInterface, token identity.Token, request []byte) (*umbrav1.EnrollResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return umbrav1.NewIdentityServiceClient(conn).Enroll(ctx, &umbrav1.EnrollRequest{
		Token: token.String(), CertificateSigningRequest: request,
	})
}

func newBackoff() *backoff.ExponentialBackOff {
	wait := backoff.NewExponentialBackOff()
	wait.InitialInterval, wait.MaxInterval = retryFirst, retryMax
	return wait
}

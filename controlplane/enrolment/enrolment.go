// Package enrolment makes certificates: for the control plane itself, for hosts that show a join token or renew, and for
// people and services. Which of them count is kept in the store; Revocations tells the process's
// connections.
package enrolment

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/umbra-dr/umbra/controlplane/store"
	"github.com/umbra-dr/umbra/pkg/clock"
	"github.com/umbra-dr/umbra/pkg/identity"
)

const (
	// HostLifeDefault is how long a host's certificate is good. Half of it is how long the control plane may be away
	// before hosts are strangers to one another; a host that must go is revoked, not waited for.
	HostLifeDefault = 14 * 24 * time.Hour
	// ownLife is how long the control plane's own certificate is good. It needs nobody to renew it.
	ownLife           = 24 * time.Hour
	clientLifeDefault = 30 * 24 * time.Hour
	tokenLifeDefault  = time.Hour
)

// Store keeps tokens and identities. *store.Store is one.
type Store interface {
	PutJoinToken(ctx context.Context, token store.JoinToken, now time.Time) error
	JudgeJoinToken(ctx context.Context, shown store.JoinToken, subject func(host string) string, now time.Time) (store.JoinToken, error)
	Enroll(ctx context.Context, shown store.JoinToken, subject func(host string) string, now time.Time) (store.JoinToken, error)
	Revoke(ctx context.Context, subject string, now time.Time) (store.Identity, error)
	Admit(ctx context.Context, subject string) (store.Identity, error)
}

// Office makes certificates. It is safe for concurrent use.
type Office struct {
	Authority *identity.Authority
	Store     Store
	Peers     *identity.Peers
	Clock     clock.Clock
	Log       *slog.Logger
	// HostLife is how long a host's certificate is good. 0 is HostLifeDefault.
	HostLife time.Duration
}

// Certificate is what a holder of a key gets, PEM.
type Certificate struct {
	Chain, Authorities []byte
	NotAfter           time.Time
}

// JoinToken makes a token for a host. A ttl of 0 is the default.
func (o *Office) JoinToken(ctx context.Context, host string, ttl time.Duration) (identity.Token, time.Time, error) {
	if ttl <= 0 {
		ttl = tokenLifeDefault
	}
	now := o.Clock.Now()
	token := identity.NewToken(o.Authority.Fingerprint())
	end := now.Add(ttl)
	err := o.Store.PutJoinToken(ctx, store.JoinToken{ID: token.ID, SecretHash: token.SecretHash(), Host: host, ExpireTime: end}, now)
	return token, end, err
}

// BadRequestError means that the certificate signing request is not one, or is of a key that is not certified.
type BadRequestError struct{ Err error }

func (e *BadRequestError) Error() string { return e.Err.Error() }

// Unwrap is the cause.
func (e *BadRequestError) Unwrap() error { return e.Err }

// Judge tells whether a host may enrol with the token and a key of that request, and which. An error says that it cannot be
// told now.
func (o *Office) Judge(ctx context.Context, text string, request []byte) (host string, valid bool, err error) {
	token, err := identity.ParseToken(text)
	if err == nil {
		shown := store.JoinToken{ID: token.ID, SecretHash: token.SecretHash()}
		// A request that is none has no key: an unused token is valid all the same, and Enroll says what is wrong.
		shown.KeyHash, _ = identity.RequestHash(request)
		var known store.JoinToken
		if known, err = o.Store.JudgeJoinToken(ctx, shown, identity.HostSubject, o.Clock.Now()); err == nil {
			return known.Host, true, nil
		}
		if !errors.Is(err, store.ErrBadJoinToken) {
			return "", false, err
		}
	}
	o.Log.Warn("a host may not enrol", "error", err)
	return "", false, nil
}

// Enroll gives a host that shows a token its first certificate. Errors: *BadRequestError, store.ErrBadJoinToken.
func (o *Office) Enroll(ctx context.Context, text string, request []byte) (host string, made Certificate, err error) {
	hash, err := identity.RequestHash(request)
	if err != nil {
		return "", Certificate{}, &BadRequestError{err}
	}
	token, err := identity.ParseToken(text)
	if err != nil {
		return "", Certificate{}, fmt.Errorf("%w: %w", store.ErrBadJoinToken, err)
	}
	shown := store.JoinToken{ID: token.ID, SecretHash: token.SecretHash(), KeyHash: hash}
	enrolled, err := o.Store.Enroll(ctx, shown, identity.HostSubject, o.Clock.Now())
	if err != nil {
		return "", Certificate{}, err
	}
	// Here at once, at the other control planes when they hear of it: whoever has the name's earlier certificate is cut.
	o.Peers.Require(identity.HostSubject(enrolled.Host), enrolled.Generation)
	o.Log.Info("host enrolled", "host", enrolled.Host, "generation", enrolled.Generation)
	made, err = o.certify(request, identity.Grant{ID: identity.Host(enrolled.Host), Generation: enrolled.Generation, Life: cmp.Or(o.HostLife, HostLifeDefault)})
	return enrolled.Host, made, err
}

// Renew gives a host a certificate of the generation that it has.
func (o *Office) Renew(host string, generation uint64, request []byte) (Certificate, error) {
	made, err := o.certify(request, identity.Grant{ID: identity.Host(host), Generation: generation, Life: cmp.Or(o.HostLife, HostLifeDefault)})
	if err == nil {
		o.Log.Info("host's certificate renewed", "host", host, "generation", generation)
	}
	return made, err
}

// Client gives a client a certificate in a role. A ttl of 0 is the default.
func (o *Office) Client(ctx context.Context, role, name string, request []byte, ttl time.Duration) (Certificate, error) {
	if ttl <= 0 {
		ttl = clientLifeDefault
	}
	if _, err := identity.RequestHash(request); err != nil {
		return Certificate{}, &BadRequestError{err}
	}
	admitted, err := o.Store.Admit(ctx, identity.ClientSubject(name))
	if err != nil {
		return Certificate{}, err
	}
	return o.certify(request, identity.Grant{ID: identity.Client(role, name), Generation: admitted.Generation, Life: ttl})
}

// Revoke makes the subject's certificates count no more. Here that is so when it returns, at the other control planes
// when they hear of it from the store.
func (o *Office) Revoke(ctx context.Context, subject string) error {
	revoked, err := o.Store.Revoke(ctx, subject, o.Clock.Now())
	if err != nil {
		return err
	}
	o.Peers.Require(subject, revoked.Least)
	o.Log.Info("certificates revoked", "subject", subject, "generation", revoked.Generation)
	return nil
}

// Certify gives a certificate to a client whose generation is known to count.
func (o *Office) Certify(request []byte, client identity.ID, generation uint64) (Certificate, error) {
	return o.certify(request, identity.Grant{ID: client, Generation: generation, Life: clientLifeDefault})
}

func (o *Office) certify(request []byte, grant identity.Grant) (Certificate, error) {
	chain, end, err := o.Authority.Certify(request, grant, o.Clock.Now())
	if err != nil {
		return Certificate{}, &BadRequestError{err}
	}
	return Certificate{Chain: chain, Authorities: o.Authority.Bundle(), NotAfter: end}, nil
}

package enrolment

import (
	"context"
	"log/slog"

	"google.golang.org/grpc"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/hostd/journal"
	"github.com/umbra-dr/umbra/pkg/identity"
)

// Keep renews the source's credentials, which Open has returned, before they end, until the context ends. conn is to the
// control plane, with these credentials. Streams go on meanwhile: the source hands the new ones to new connections.
func Keep(ctx context.Context, cfg Config, source *identity.Source, conn grpc.ClientConnInterface) {
	wait := newBackoff()
	for {
		current := source.Current()
		if cfg.Clock.Wait(ctx, max(renewPauseMin, current.RenewTime().Sub(cfg.Clock.Now()))) != nil {
			return
		}
		for {
			renewed, err := renew(ctx, cfg, conn)
			if err == nil {
				source.Set(renewed)
				wait.Reset()
				cfg.Log.Info("certificate renewed", "until", renewed.NotAfter())
				break
			}
			if ctx.Err() != nil {
				return
			}
			level := slog.LevelWarn
			if left := current.NotAfter().Sub(cfg.Clock.Now()); left < current.NotAfter().Sub(current.RenewTime())/4 {
				level = slog.LevelError // soon this host is a stranger to all others
			}
			cfg.Log.Log(ctx, level, "certificate not renewed, trying again", "ends", current.NotAfter(), "error", err)
			if cfg.Clock.Wait(ctx, wait.NextBackOff()) != nil {
				return
			}
		}
	}
}

// renew gets a certificate for a new key, and returns when that is durable.
func renew(ctx context.Context, cfg Config, conn grpc.ClientConnInterface) (*identity.Credentials, error) {
	have, _, err := journal.Load[kept](cfg.Journal, journal.Identity, keptKey)
	if err != nil {
		return nil, err
	}
	next, err := newKept(have.TokenID)
	if err != nil {
		return nil, err
	}
	key, err := identity.ParseKey(next.Key)
	if err != nil {
		return nil, err
	}
	request, err := key.Request()
	if err != nil {
		return nil, err
	}
	bounded, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	answer, err := umbrav1.NewIdentityServiceClient(conn).RenewCertificate(bounded, &umbrav1.RenewCertificateRequest{
		CertificateSigningRequest: request,
	})
	if err != nil {
		return nil, err
	}
	next.Chain, next.Authorities = answer.GetCertificate().GetChain(), answer.GetCertificate().GetAuthorities()
	renewed, err := next.credentials(cfg.Host)
	if err != nil {
		return nil, err
	}
	return renewed, journal.Save(cfg.Journal, journal.Identity, keptKey, next)
}

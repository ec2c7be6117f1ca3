package main

import (
	"context"
	"fmt"
	"log/slog"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/umbra-dr/umbra/hostd/enrolment"
	"github.com/umbra-dr/umbra/hostd/journal"
	"github.com/umbra-dr/umbra/hostd/session"
	"github.com/umbra-dr/umbra/pkg/clock"
	"github.com/umbra-dr/umbra/pkg/identity"
	"github.com/umbra-dr/umbra/pkg/settings"
)

// me is who this host is, and which others it knows.
type me struct {
	source *identity.Source
	peers  *identity.Peers
	keep   func(ctx context.Context, controlPlane grpc.ClientConnInterface) // until the context ends
}

// enrol finds out who this host is: by files that somebody has made, or by enrolling, now or in an earlier life.
func enrol(ctx context.Context, f flags, kept *journal.Journal, log *slog.Logger) (*me, error) {
	peers := identity.NewPeers()
	if f.TLS.Cert != "" {
		made, err := identity.Load(f.TLS)
		if err != nil {
			return nil, settings.InvalidAt("tls-cert", fmt.Errorf("--tls-cert, --tls-key and --tls-ca: %w", err))
		}
		source := identity.NewSource(made, peers)
		return &me{source, peers, func(ctx context.Context, _ grpc.ClientConnInterface) { reload(ctx, f.TLS, source, log) }}, nil
	}
	cfg := enrolment.Config{
		Host: string(f.HostID), Token: f.JoinToken, Journal: kept, Clock: clock.System, Log: log,
		Dial: func(secure credentials.TransportCredentials) (*grpc.ClientConn, error) {
			return session.Dial(f.controlPlanes(), dialOptions(secure)...)
		},
	}
	made, err := enrolment.Open(ctx, cfg)
	if err != nil {
		return nil, err
	}
	source := identity.NewSource(made, peers)
	return &me{source, peers, func(ctx context.Context, controlPlane grpc.ClientConnInterface) {
		enrolment.Keep(ctx, cfg, source, controlPlane)
	}}, nil
}

// reload looks at the files at a beat, so that whoever replaces them need not restart anything.
func reload(ctx context.Context, files identity.Files, source *identity.Source, log *slog.Logger) {
	beat := clock.System.NewTicker(reloadEvery)
	defer beat.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-beat.C:
		}
		made, err := identity.Load(files)
		if err != nil {
			log.Warn("the certificate's files cannot be read, what they held goes on to count", "error", err)
			continue
		}
		source.Set(made)
	}
}

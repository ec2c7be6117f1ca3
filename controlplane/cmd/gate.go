package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/umbra-dr/umbra/controlplane/access"
	"github.com/umbra-dr/umbra/controlplane/audit"
	"github.com/umbra-dr/umbra/controlplane/enrolment"
	"github.com/umbra-dr/umbra/controlplane/store"
	"github.com/umbra-dr/umbra/pkg/clock"
	"github.com/umbra-dr/umbra/pkg/identity"
	"github.com/umbra-dr/umbra/pkg/settings"
)

// gate is everything that decides who comes in.
type gate struct {
	office      *enrolment.Office
	own         *identity.Source
	revocations *enrolment.Revocations
	guard       *access.Guard
	tokens      *access.OIDC // nil without an issuer
	auditFile   *os.File
}

func openGate(ctx context.Context, f flags, records *store.Store, log *slog.Logger) (*gate, error) {
	authority, err := openAuthority(ctx, f, records, log)
	if err != nil {
		return nil, err
	}
	peers := identity.NewPeers()
	office := &enrolment.Office{
		Authority: authority, Store: records, Peers: peers, Clock: clock.System, Log: log, HostLife: f.HostCertificateLife,
	}
	own, err := office.Own(serverNames(f))
	if err != nil {
		return nil, err
	}
	if err := welcomeAdministrator(ctx, f, office, records, log); err != nil {
		return nil, err
	}
	g := &gate{
		office: office, own: identity.NewSource(own, peers),
		revocations: enrolment.NewRevocations(records, peers, clock.System, log),
	}
	if f.OIDC.Issuer == "" && f.OIDC.Audience != "" {
		return nil, settings.InvalidAt("oidc-audience", errors.New("no token would count, since no --oidc-issuer is given"))
	}
	if g.tokens, err = access.NewOIDC(f.OIDC, clock.System); err != nil {
		return nil, settings.InvalidAt("oidc-issuer", err) // the issuer need not be there
	}
	if g.auditFile, err = openAuditFile(f); err != nil {
		return nil, err
	}
	g.guard = &access.Guard{Clock: clock.System, Joins: office, Audit: audit.New(records, clock.System, log, g.auditFile)}
	if g.tokens != nil {
		g.guard.Tokens = g.tokens
	}
	return g, nil
}

func (g *gate) close() error {
	if g.tokens != nil {
		g.tokens.Close()
	}
	if err := g.auditFile.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("closing the audit file: %w", err)
	}
	return nil
}

// openAuditFile opens the file so that every write is an appended one.
func openAuditFile(f flags) (*os.File, error) {
	name := f.AuditFile
	if name == "" {
		name = filepath.Join(f.StateDir, "audit.jsonl")
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return nil, fmt.Errorf("making the audit file's folder: %w", err)
	}
	file, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the audit file: %w", err)
	}
	return file, nil
}

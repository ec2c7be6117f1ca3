package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"

	"github.com/umbra-dr/umbra/controlplane/access"
	"github.com/umbra-dr/umbra/controlplane/enrolment"
	"github.com/umbra-dr/umbra/controlplane/store"
	"github.com/umbra-dr/umbra/pkg/clock"
	"github.com/umbra-dr/umbra/pkg/identity"
	"github.com/umbra-dr/umbra/pkg/settings"
)

// firstAdministrator is the client whose credentials are made at the first start.
const firstAdministrator = "first-administrator"

// openAuthority is the operator's authority if flags name one, and otherwise the one that is kept in etcd, which the first
// control plane that starts makes.
func openAuthority(ctx context.Context, f flags, records *store.Store, log *slog.Logger) (*identity.Authority, error) {
	if f.AuthorityCert != "" {
		authority, err := loadAuthority(f.AuthorityCert, f.AuthorityKey)
		return authority, settings.InvalidAt("authority-cert", err)
	}
	kept, err := records.Authority(ctx, func() (store.AuthorityRecord, error) {
		made, err := identity.NewAuthority(clock.System.Now())
		if err != nil {
			return store.AuthorityRecord{}, err
		}
		log.Info("an authority is made")
		certs, key, err := made.PEM()
		return store.AuthorityRecord{Certs: certs, Key: key}, err
	})
	if err != nil {
		return nil, err
	}
	return identity.ParseAuthority(kept.Certs, kept.Key)
}

func loadAuthority(certFile, keyFile string) (*identity.Authority, error) {
	certs, err := os.ReadFile(certFile)
	if err != nil {
		return nil, fmt.Errorf("reading the authority's certificate: %w", err)
	}
	key, err := os.ReadFile(keyFile)
	if err != nil {
		return nil, fmt.Errorf("reading the authority's key: %w", err)
	}
	return identity.ParseAuthority(certs, key)
}

// welcomeAdministrator makes credentials for a first administrator, in the state folder, unless that was done before. A
// process that ends in between does it again: the store learns of them when they are written.
func welcomeAdministrator(ctx context.Context, f flags, office *enrolment.Office, records *store.Store, log *slog.Logger) error {
	if _, err := records.Identity(ctx, identity.ClientSubject(firstAdministrator)); !errors.Is(err, store.ErrNotFound) {
		return err
	}
	key, err := identity.NewKey()
	if err != nil {
		return err
	}
	request, err := key.Request()
	if err != nil {
		return err
	}
	made, err := office.Certify(request, identity.Client(string(access.Administrator), firstAdministrator), 1)
	if err != nil {
		return err
	}
	dir := filepath.Join(f.StateDir, "administrator")
	if err := writeCredentials(dir, key, made.Chain, made.Authorities); err != nil {
		return err
	}
	log.Info("credentials of a first administrator are made", "folder", dir, "end", made.NotAfter)
	_, err = records.Admit(ctx, identity.ClientSubject(firstAdministrator))
	return err
}

// writeCredentials writes cert.pem, key.pem and ca.pem, the key for its owner alone.
func writeCredentials(dir string, key *identity.Key, chain, authorities []byte) error {
	secret, err := key.PEM()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("making a folder for credentials: %w", err)
	}
	keyFile := filepath.Join(dir, "key.pem")
	if err := os.Remove(keyFile); err != nil && !errors.Is(err, fs.ErrNotExist) { // one that others may read would stay so
		return fmt.Errorf("replacing a key: %w", err)
	}
	for name, content := range map[string][]byte{keyFile: secret, filepath.Join(dir, "cert.pem"): chain, filepath.Join(dir, "ca.pem"): authorities} {
		if err := os.WriteFile(name, content, 0o600); err != nil {
			return fmt.Errorf("writing credentials: %w", err)
		}
	}
	return nil
}

// serverNames are the host names and addresses that clients may reach this control plane by.
func serverNames(f flags) []string {
	names := append([]string{"localhost", "127.0.0.1", "::1"}, f.ServerName...)
	if host, _, err := net.SplitHostPort(f.Listen); err == nil && host != "" {
		names = append(names, host)
	}
	if host, err := os.Hostname(); err == nil {
		names = append(names, host)
	}
	return names
}

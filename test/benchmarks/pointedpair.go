package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/pkg/lab"
	"github.com/umbra-dr/umbra/pkg/recoverystore"
)

const (
	pointedServer = "pointed"
	pointedBytes  = 64 * mib
	pointedCount  = 1_000
	newestPoint   = "newest"
	oldestPoint   = "oldest"
)

// pointedPair is a pair with a row of 1,000 points, whose main host is dead, and flat copies of the row's ends. The first point
// comes from the server itself. The others are made in its store with the store's own code, as replication makes them, except that
// nobody waits for a second between two: each stores 1 MiB anew in 16 places of what the guest needs to boot.
type pointedPair struct {
	*site
	points []string // names, newest first
}

// preparePoints makes the pair.
func (s *site) preparePoints(ctx context.Context) (*pointedPair, error) {
	p := &pointedPair{site: s}
	spec := lab.GuestSpec{Name: pointedServer, DiskBytes: []int64{pointedBytes}, RecordsPerSecond: -1}
	if err := s.Main.DefineGuest(ctx, spec); err != nil {
		return nil, err
	}
	definition, err := s.Main.Virsh(ctx, "dumpxml", "--inactive", pointedServer)
	if err != nil {
		return nil, err
	}
	if _, err := s.Main.StartGuest(ctx, pointedServer, bootMax); err != nil {
		return nil, err
	}
	if err := s.waitListed(ctx, pointedServer); err != nil {
		return nil, err
	}
	if err := s.protect(ctx, pointedServer, idleInterval); err != nil {
		return nil, err
	}
	if err := s.waitPoints(ctx, pointedServer, 1); err != nil {
		return nil, err
	}
	if err := s.Main.Kill(ctx); err != nil {
		return nil, err
	}
	if err := s.Shadow.Hostd.Stop(ctx); err != nil {
		return nil, err
	}
	if err := p.fillStore(ctx); err != nil {
		return nil, fmt.Errorf("make 1,000 points: %w", err)
	}
	for _, end := range []string{newestPoint, oldestPoint} {
		if err := p.define(ctx, strings.ReplaceAll(definition, pointedServer, flatServer(end))); err != nil {
			return nil, err
		}
	}
	if err := s.ControlPlane.Stop(ctx); err != nil {
		return nil, err
	}
	for from, to := range p.kept() {
		if _, err := command(ctx, "cp", "-a", from, to); err != nil {
			return nil, err
		}
	}
	return p, nil
}

func flatServer(end string) string { return "flat-" + end }

// single is what two definitions must not share.
var single = regexp.MustCompile(`<uuid>.*</uuid>|<mac address=.*/>`)

func (p *pointedPair) define(ctx context.Context, definition string) error {
	file := filepath.Join(p.Shadow.Dir, "flat.xml")
	if err := os.WriteFile(file, single.ReplaceAll([]byte(definition), nil), 0o600); err != nil {
		return err
	}
	_, err := p.Shadow.Virsh(ctx, "define", file)
	return err
}

func (p *pointedPair) storeDir() string {
	return filepath.Join(p.Shadow.Dir, "umbra", "store", pointedServer)
}

// kept says where what a failover changes is kept meanwhile.
func (p *pointedPair) kept() map[string]string {
	return map[string]string{
		filepath.Join(p.Control.Dir, "state"):         p.bench.path("work", "kept-control"),
		filepath.Join(p.Shadow.Dir, "umbra", "state"): p.bench.path("work", "kept-shadow"),
	}
}

// reset brings the pair back to where no failover was asked for: the control plane and the shadow host's journal as they were, no
// shadow server, and no view in the store.
func (p *pointedPair) reset(ctx context.Context) error {
	if err := errors.Join(p.Shadow.Hostd.Stop(ctx), p.ControlPlane.Stop(ctx)); err != nil {
		return err
	}
	if err := p.removeServer(ctx); err != nil {
		return err
	}
	for from, to := range p.kept() {
		if err := os.RemoveAll(from); err != nil {
			return err
		}
		if _, err := command(ctx, "cp", "-a", to, from); err != nil {
			return err
		}
	}
	if err := errors.Join(p.ControlPlane.Start(ctx), p.Shadow.Hostd.Start(ctx)); err != nil {
		return err
	}
	_, err := p.WaitPair(ctx, pointedServer, func(pair *umbrav1.DRPair) bool {
		return pair.GetReplication().GetRecoveryPointCount() == pointedCount && pair.GetState() == umbrav1.DRPairState_DR_PAIR_STATE_REPLICATION_ERROR &&
			slices.Contains(pair.GetAllowedActions(), umbrav1.DRPairAction_DR_PAIR_ACTION_FAILOVER)
	})
	return err
}

// removeServer removes the shadow server and what it stands on. hostd must not run.
func (p *pointedPair) removeServer(ctx context.Context) error {
	defined, err := p.Shadow.Virsh(ctx, "list", "--all", "--name")
	if err != nil {
		return err
	}
	if slices.Contains(strings.Fields(defined), pointedServer) {
		if _, err := p.Shadow.Virsh(ctx, "destroy", pointedServer); err != nil {
			return err
		}
		if _, err := p.Shadow.Virsh(ctx, "undefine", pointedServer); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(filepath.Join(p.Shadow.Dir, "umbra", "servers")); err != nil {
		return err
	}
	store, err := recoverystore.Open(ctx, p.storeDir(), recoverystore.Options{})
	if err != nil {
		return err
	}
	var failed []error
	for _, view := range store.Views() {
		failed = append(failed, store.CloseView(ctx, view.PointID))
	}
	return errors.Join(append(failed, store.Close())...)
}

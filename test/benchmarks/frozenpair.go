package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/pkg/recoverystore"
)

// frozenPair is a pair whose main host is dead, kept as it was before anybody asked for a failover, so that it can be failed over
// again and again.
type frozenPair struct {
	*site
	server string // and the pair's id
	points int64
}

// freeze protects a server that runs, makes one point of it, kills the main host, lets work at the store and keeps all that.
func (s *site) freeze(ctx context.Context, server string, work func(f *frozenPair, store *recoverystore.Store) error) (*frozenPair, error) {
	f := &frozenPair{site: s, server: server}
	if err := s.protect(ctx, server, idleInterval); err != nil {
		return nil, err
	}
	if err := s.waitPoints(ctx, server, 1); err != nil {
		return nil, err
	}
	if err := errors.Join(s.Main.Kill(ctx), s.Shadow.Hostd.Stop(ctx), s.ControlPlane.Stop(ctx)); err != nil {
		return nil, err
	}
	err := f.atStore(ctx, func(store *recoverystore.Store) error {
		err := work(f, store)
		f.points = int64(len(store.Points()))
		return err
	})
	if err != nil {
		return nil, err
	}
	for from, to := range f.kept() {
		if _, err := command(ctx, "cp", "-a", from, to); err != nil {
			return nil, err
		}
	}
	return f, nil
}

// atStore opens the pair's store for work. hostd must not run.
func (f *frozenPair) atStore(ctx context.Context, work func(*recoverystore.Store) error) error {
	store, err := recoverystore.Open(ctx, filepath.Join(f.Shadow.Dir, "umbra", "store", f.server), recoverystore.Options{})
	if err != nil {
		return err
	}
	return errors.Join(work(store), store.Close())
}

// kept says where what a failover changes is kept meanwhile.
func (f *frozenPair) kept() map[string]string {
	return map[string]string{
		filepath.Join(f.Control.Dir, "state"):         f.bench.path("work", "kept-control"),
		filepath.Join(f.Shadow.Dir, "umbra", "state"): f.bench.path("work", "kept-shadow"),
	}
}

// reset brings the pair back to where no failover was asked for: the control plane and the shadow host's journal as they were, no
// shadow server, and no view in the store.
func (f *frozenPair) reset(ctx context.Context) error {
	if err := f.stop(ctx); err != nil {
		return err
	}
	for from, to := range f.kept() {
		if err := os.RemoveAll(from); err != nil {
			return err
		}
		if _, err := command(ctx, "cp", "-a", to, from); err != nil {
			return err
		}
	}
	if err := errors.Join(f.ControlPlane.Start(ctx), f.Shadow.Hostd.Start(ctx)); err != nil {
		return err
	}
	_, err := f.WaitPair(ctx, f.server, func(pair *umbrav1.DRPair) bool {
		return pair.GetReplication().GetRecoveryPointCount() == f.points && pair.GetState() == umbrav1.DRPairState_DR_PAIR_STATE_REPLICATION_ERROR &&
			slices.Contains(pair.GetAllowedActions(), umbrav1.DRPairAction_DR_PAIR_ACTION_FAILOVER)
	})
	return err
}

// stop stops the daemons and removes the shadow server with what it stands on.
func (f *frozenPair) stop(ctx context.Context) error {
	if err := errors.Join(f.Shadow.Hostd.Stop(ctx), f.ControlPlane.Stop(ctx)); err != nil {
		return err
	}
	defined, err := f.Shadow.Virsh(ctx, "list", "--all", "--name")
	if err != nil {
		return err
	}
	if slices.Contains(strings.Fields(defined), f.server) {
		if _, err := f.Shadow.Virsh(ctx, "destroy", f.server); err != nil {
			return err
		}
		if _, err := f.Shadow.Virsh(ctx, "undefine", f.server); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(filepath.Join(f.Shadow.Dir, "umbra", "servers")); err != nil {
		return err
	}
	return f.atStore(ctx, func(store *recoverystore.Store) error {
		var failed []error
		for _, view := range store.Views() {
			failed = append(failed, store.CloseView(ctx, view.PointID))
		}
		return errors.Join(failed...)
	})
}

// askFailover asks for a failover to a point, "" for the newest.
func (f *frozenPair) askFailover(ctx context.Context, point string) (*umbrav1.Operation, error) {
	answer, err := f.Failover.Failover(ctx, &umbrav1.FailoverRequest{Name: pairName(f.server), RecoveryPoint: point})
	return answer.GetOperation(), err
}

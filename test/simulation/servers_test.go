package simulation_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"libvirt.org/go/libvirtxml"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/hostd/hypervisor"
	"github.com/umbra-dr/umbra/hostd/journal"
)

// servers: promise 2, of what runs; and promise 1, of what was booted.
func (w *world) servers(ctx context.Context, pair *umbrav1.DRPair) error {
	main, err := w.main.machine.Server(ctx, w.subject.server)
	if err != nil {
		return err
	}
	shadow, shadowErr := w.shadow.machine.Server(ctx, "shadow-"+w.subject.server)
	switch pair.GetState() {
	case umbrav1.DRPairState_DR_PAIR_STATE_FAILED_OVER, umbrav1.DRPairState_DR_PAIR_STATE_COMMITTED:
		if shadowErr != nil || shadow.Power != hypervisor.PowerRunning {
			return fmt.Errorf("promise 4: the pair is %s and its shadow server is %v, %w", pair.GetState(), shadow.Power, shadowErr)
		}
		if err := w.booted(ctx, pair); err != nil {
			return err
		}
	default:
		if shadowErr == nil {
			return fmt.Errorf("promise 6: the pair is %s, and a shadow server is there, %v", pair.GetState(), shadow.Power)
		}
	}
	if len(pair.GetAllowedActions()) > 0 && !slices.Contains([]umbrav1.DRPairState{
		umbrav1.DRPairState_DR_PAIR_STATE_FAILED_OVER, umbrav1.DRPairState_DR_PAIR_STATE_COMMITTED, umbrav1.DRPairState_DR_PAIR_STATE_FAILOVER_ERROR,
	}, pair.GetState()) {
		return nil
	}
	if w.subject.onReturn == umbrav1.OnMainReturn_ON_MAIN_RETURN_LEAVE_RUNNING {
		return nil
	}
	if main.Power == hypervisor.PowerRunning && w.connected(ctx, w.main, w.subject.server) {
		return fmt.Errorf("promise 2: the main server runs with its network in %s, epoch %d", pair.GetState(), pair.GetEpoch())
	}
	return nil
}

func (w *world) connected(ctx context.Context, h *host, server string) bool {
	xml, err := h.machine.ServerXML(ctx, server)
	var domain libvirtxml.Domain
	if err != nil || domain.Unmarshal(xml) != nil {
		return true
	}
	return slices.ContainsFunc(domain.Devices.Interfaces, func(i libvirtxml.DomainInterface) bool { return i.Link == nil || i.Link.State != "down" })
}

// booted: the shadow server's disks stand on the active point's bytes, until a commit has pulled them.
func (w *world) booted(ctx context.Context, pair *umbrav1.DRPair) error {
	xml, err := w.shadow.machine.ServerXML(ctx, "shadow-"+w.subject.server)
	if err != nil {
		return err
	}
	var domain libvirtxml.Domain
	if err := domain.Unmarshal(xml); err != nil {
		return err
	}
	if pair.GetState() == umbrav1.DRPairState_DR_PAIR_STATE_COMMITTED {
		for _, disk := range domain.Devices.Disks {
			if disk.BackingStore != nil && disk.BackingStore.Format != nil {
				return fmt.Errorf("promise 4: disk %s of a committed server has a backing file", disk.Target.Dev)
			}
		}
		lacking, err := w.shadow.machine.NotAlone(ctx, "shadow-"+w.subject.server)
		if err == nil && len(lacking) > 0 {
			err = fmt.Errorf("promise 1: disks %v of a committed server lack what the recovery point held", lacking)
		}
		return err
	}
	points, err := w.points(ctx)
	if err != nil {
		return err
	}
	active := slices.IndexFunc(points, func(p *umbrav1.RecoveryPoint) bool { return p.GetName() == pair.GetActiveRecoveryPoint() })
	if active < 0 {
		return fmt.Errorf("promise 4: the active point %s is not listed", pair.GetActiveRecoveryPoint())
	}
	for _, disk := range domain.Devices.Disks {
		if disk.BackingStore == nil || disk.BackingStore.Source == nil {
			return fmt.Errorf("disk %s of the shadow server has no backing file", disk.Target.Dev)
		}
		source := disk.BackingStore.Source
		slice := source.Slices.Slices[0]
		if err := w.compare(points[active].GetCheckpoint(), disk.Target.Dev, source.File.File, int64(slice.Offset), int64(slice.Size)); err != nil {
			return fmt.Errorf("promise 1: the booted server: %w", err)
		}
	}
	return nil
}

// leaks: promise 6, of a pair that is there.
func (w *world) leaks(ctx context.Context, pair *umbrav1.DRPair) error {
	s := w.subject
	names, err := w.main.machine.CheckpointNames(ctx, s.server)
	if err != nil {
		return err
	}
	ours := slices.DeleteFunc(names, func(name string) bool { return !strings.HasPrefix(name, "umbra-") })
	main, err := w.main.machine.Server(ctx, s.server)
	if err != nil {
		return err
	}
	replicates := pair.GetState() == umbrav1.DRPairState_DR_PAIR_STATE_REPLICATING
	if replicates && main.Power == hypervisor.PowerRunning && len(ours) > 2 {
		return fmt.Errorf("promise 6: %d checkpoints on the main server: %v", len(ours), ours)
	}
	if !replicates {
		if left, _ := os.ReadDir(s.pairDir(w.main.run())); len(left) > 0 {
			return fmt.Errorf("promise 6: a backup job remains in %s: %v", pair.GetState(), left)
		}
	}
	attempts, _ := os.ReadDir(s.pairDir(w.shadow.servers()))
	switch pair.GetState() {
	case umbrav1.DRPairState_DR_PAIR_STATE_FAILED_OVER, umbrav1.DRPairState_DR_PAIR_STATE_FAILOVER_ERROR:
	case umbrav1.DRPairState_DR_PAIR_STATE_COMMITTED:
		if len(attempts) != 1 {
			return fmt.Errorf("promise 6: a committed server has %d folders of disks", len(attempts))
		}
	default:
		if len(attempts) > 0 {
			return fmt.Errorf("promise 6: disks of shadow servers remain in %s: %v", pair.GetState(), attempts)
		}
	}
	return nil
}

// gone: promise 6, of a pair that was deleted.
func (w *world) gone(ctx context.Context, p plan, answers [][]answer) error {
	asked := false
	for i, q := range p.requests {
		asked = asked || q.action == actDelete && slices.ContainsFunc(answers[i], func(a answer) bool { return a.refusal == nil })
	}
	if !asked {
		return errors.New("promise 3: the pair is gone, and nobody asked for that")
	}
	count(&w.counts.states, "gone")
	s := w.subject
	err := w.eventually(ctx, func() error {
		for _, h := range []*host{w.main, w.shadow} {
			for _, kind := range []journal.Kind{journal.Assignments, journal.Replicate, journal.Replica, journal.ShadowServer} {
				_, found, err := journal.Load[json.RawMessage](h.alive().journal, kind, s.id)
				if err != nil || found {
					return fmt.Errorf("promise 6: host %s still has a record %s of a deleted pair, %w", h.id, kind, err)
				}
			}
			for _, folder := range []string{h.store(), h.run()} {
				if _, err := os.Stat(s.pairDir(folder)); err == nil {
					return fmt.Errorf("promise 6: %s is left of a deleted pair", filepath.Join(folder, s.id))
				}
			}
		}
		main, err := w.main.machine.Server(ctx, s.server)
		if err != nil {
			return err
		}
		names, err := w.main.machine.CheckpointNames(ctx, s.server)
		if err != nil {
			return err
		}
		if main.Power == hypervisor.PowerRunning && slices.ContainsFunc(names, func(name string) bool { return strings.HasPrefix(name, "umbra-") }) {
			return fmt.Errorf("promise 6: checkpoints are left of a deleted pair: %v", names)
		}
		shadow, err := w.shadow.machine.Server(ctx, "shadow-"+s.server)
		if s.committed != (err == nil) {
			return fmt.Errorf("promise 6: the deleted pair was committed: %v; its shadow server: %v, %w", s.committed, shadow.Power, err)
		}
		if !s.committed && !main.Autostart {
			return errors.New("promise 6: the server of a deleted pair has lost its autostart")
		}
		return nil
	})
	if err != nil {
		return err
	}
	w.subject = nil
	return errors.Join(w.main.machine.Destroy(ctx, s.server), w.main.machine.Undefine(ctx, s.server),
		w.shadow.machine.Destroy(ctx, "shadow-"+s.server), w.shadow.machine.Undefine(ctx, "shadow-"+s.server))
}

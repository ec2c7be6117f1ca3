package simulation_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"libvirt.org/go/libvirtxml"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/hostd/hypervisor"
	"github.com/umbra-dr/umbra/hostd/journal"
	"github.com/umbra-dr/umbra/pkg/qcow2"
	"github.com/umbra-dr/umbra/pkg/recoverystore"
)

// table is what each state allows, by hand, from the documentation.
var table = map[umbrav1.DRPairState][]umbrav1.DRPairAction{
	umbrav1.DRPairState_DR_PAIR_STATE_REPLICATING:        {actFailover, actRestart, actPause, actUpdate, actDelete},
	umbrav1.DRPairState_DR_PAIR_STATE_REPLICATION_PAUSED: {actFailover, actRestart, actResume, actUpdate, actDelete},
	umbrav1.DRPairState_DR_PAIR_STATE_FAILOVER_ERROR:     {actFailover, actRestart, actUpdate, actDelete},
	umbrav1.DRPairState_DR_PAIR_STATE_FAILED_OVER:        {actChange, actCommit, actUpdate},
	umbrav1.DRPairState_DR_PAIR_STATE_COMMITTED:          {actDelete},
}

// judge waits for rest and checks every promise.
func (w *world) judge(ctx context.Context, before *umbrav1.DRPair, p plan, answers [][]answer) error {
	s := w.subject
	if err := w.onceEach(p, answers); err != nil {
		return err
	}
	pair, err := w.settle(ctx, s.history.version())
	if err != nil {
		return err
	}
	if pair == nil {
		return w.gone(ctx, p, answers)
	}
	state := pair.GetState()
	count(&w.counts.states, strings.TrimPrefix(state.String(), "DR_PAIR_STATE_"))
	points, err := w.points(ctx)
	if err != nil {
		return err
	}
	s.committed = state == umbrav1.DRPairState_DR_PAIR_STATE_COMMITTED
	return errors.Join(
		w.eventually(ctx, func() error { return w.allows(ctx, state) }),
		w.operationsMatch(ctx),
		w.newest(p, answers, points),
		w.frozen(pair, points),
		w.comparePoints(ctx, pair, points),
		w.eventually(ctx, func() error { return w.servers(ctx, pair) }),
		w.eventually(ctx, func() error { return w.leaks(ctx, pair) }),
	)
}

// allows: promise 4. Whether there is a point is told by the shadow host, and that may take a moment.
func (w *world) allows(ctx context.Context, state umbrav1.DRPairState) error {
	pair, err := w.pair(ctx, 0)
	if err != nil || pair == nil {
		return err
	}
	points, err := w.points(ctx)
	if err != nil {
		return err
	}
	want := slices.DeleteFunc(slices.Clone(table[state]), func(a umbrav1.DRPairAction) bool { return a == actFailover && len(points) == 0 })
	if got := slices.Sorted(slices.Values(pair.GetAllowedActions())); pair.GetState() != state || !slices.Equal(got, slices.Sorted(slices.Values(want))) {
		return fmt.Errorf("promise 4: %s allows %v, the table says that %s allows %v", pair.GetState(), got, state, want)
	}
	return nil
}

// eventually waits for what follows from a state by itself.
func (w *world) eventually(ctx context.Context, check func() error) error {
	var last error
	for {
		err := check()
		if err == nil {
			return nil
		}
		if ctx.Err() == nil {
			last = err
		}
		if rest(ctx) != nil {
			return last
		}
	}
}

// onceEach: promise 3, as far as the answers tell it.
func (w *world) onceEach(p plan, answers [][]answer) error {
	for i, q := range p.requests {
		for _, a := range answers[i] {
			name := strings.TrimPrefix(q.action.String(), "DR_PAIR_ACTION_")
			if a.refusal != nil {
				count(&w.counts.requests, name+" refused")
				continue
			}
			count(&w.counts.requests, name)
			if q.action == actPause || q.action == actResume {
				continue
			}
			if first, known := w.subject.requests[q.id]; known && first != a.operation {
				return fmt.Errorf("promise 3: request %s made %s and %s", q.id, first, a.operation)
			}
			w.subject.requests[q.id] = a.operation
		}
	}
	return nil
}

// operationsMatch: promise 3, by what is listed: each acknowledged request has its operation, once, and nothing else was done.
func (w *world) operationsMatch(ctx context.Context) error {
	got, err := w.failover.ListOperations(ctx, &umbrav1.ListOperationsRequest{DrPair: "drPairs/" + w.subject.id, PageSize: 1000})
	if err != nil {
		return fmt.Errorf("listing operations: %w", err)
	}
	listed := map[string]string{}
	for i, op := range got.GetOperations() {
		if twin, twice := listed[op.GetRequestId()]; twice {
			return fmt.Errorf("promise 3: request %s made %s and %s", op.GetRequestId(), twin, op.GetName())
		}
		listed[op.GetRequestId()] = op.GetName()
		if w.subject.requests[op.GetRequestId()] != op.GetName() {
			return fmt.Errorf("promise 3: %s exists, and nobody was told of it", op.GetName())
		}
		if i > 0 && op.GetState() == umbrav1.OperationState_OPERATION_STATE_RUNNING {
			return fmt.Errorf("promise 4: %s runs, and is not the newest", op.GetName())
		}
	}
	if len(listed) != len(w.subject.requests) {
		return fmt.Errorf("promise 3: %d requests were acknowledged, %d operations are listed", len(w.subject.requests), len(listed))
	}
	return nil
}

// newest: promise 5.
func (w *world) newest(p plan, answers [][]answer, points []*umbrav1.RecoveryPoint) error {
	s := w.subject
	for i, q := range p.requests {
		if (q.action == actRestart || q.action == actCommit) && q.points && slices.ContainsFunc(answers[i], func(a answer) bool { return a.refusal == nil }) {
			s.floor = 0 // their deletion was asked for
		}
	}
	if len(points) == 0 {
		if s.floor > 0 {
			return fmt.Errorf("promise 5: all points are gone, one of version %d was there", s.floor)
		}
		return nil
	}
	at, known := s.history.moment(points[0].GetCheckpoint())
	if !known {
		return fmt.Errorf("promise 1: point %s is of checkpoint %s, which no job ever made", points[0].GetName(), points[0].GetCheckpoint())
	}
	if at < s.floor {
		return fmt.Errorf("promise 5: the newest point holds version %d, one of version %d was there", at, s.floor)
	}
	s.floor = at
	return nil
}

// frozen: promise 2, at the store: in an epoch that does not replicate no point is made, and none is of that epoch.
func (w *world) frozen(pair *umbrav1.DRPair, points []*umbrav1.RecoveryPoint) error {
	switch pair.GetState() {
	case umbrav1.DRPairState_DR_PAIR_STATE_FAILED_OVER, umbrav1.DRPairState_DR_PAIR_STATE_COMMITTED, umbrav1.DRPairState_DR_PAIR_STATE_FAILOVER_ERROR:
	default:
		return nil
	}
	var names []string
	for _, point := range points {
		names = append(names, point.GetName())
		if point.GetEpoch() >= pair.GetEpoch() {
			return fmt.Errorf("promise 2: point %s is of epoch %d, and in epoch %d nothing is replicated", point.GetName(), point.GetEpoch(), pair.GetEpoch())
		}
	}
	before, seen := w.subject.frozen[pair.GetEpoch()]
	for _, name := range names {
		if seen && !slices.Contains(before, name) {
			return fmt.Errorf("promise 2: point %s was made after the failover", name)
		}
	}
	w.subject.frozen[pair.GetEpoch()] = names
	return nil
}

// comparePoints: promise 1. Points are read as QEMU reads them, through their views; each at least once, and some again.
func (w *world) comparePoints(ctx context.Context, pair *umbrav1.DRPair, points []*umbrav1.RecoveryPoint) error {
	d := w.shadow.alive()
	store, err := d.replica.Store(w.subject.id)
	if err != nil {
		return fmt.Errorf("the pair's store: %w", err)
	}
	again := 2
	for _, point := range points {
		if point.GetInUse() {
			continue // compared as the shadow server's disks
		}
		if w.subject.verified[point.GetName()] {
			if again--; again < 0 {
				continue
			}
		}
		id := recoverystore.PointID(baseName(point.GetName()))
		view, err := store.OpenView(ctx, id, recoverystore.ViewOptions{})
		if errors.Is(err, recoverystore.ErrNoPoint) {
			continue // retention has let go of it meanwhile
		}
		if err != nil {
			return fmt.Errorf("promise 1: point %s of %s does not open: %w", point.GetName(), pair.GetName(), err)
		}
		for _, disk := range view.Disks {
			err = errors.Join(err, w.compare(point.GetCheckpoint(), disk.Name, disk.Path, disk.OffsetBytes, disk.SizeBytes))
		}
		if err := errors.Join(err, store.CloseView(ctx, id)); err != nil {
			return fmt.Errorf("promise 1: point %s: %w", point.GetName(), err)
		}
		w.subject.verified[point.GetName()] = true
		w.counts.points++
	}
	return nil
}

// compare holds a view of a disk against what the disk held at the checkpoint's moment.
func (w *world) compare(checkpoint, disk, path string, offset, size int64) error {
	version, known := w.subject.history.moment(checkpoint)
	if !known {
		return fmt.Errorf("no job ever made checkpoint %s", checkpoint)
	}
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	image, err := qcow2.NewReader(io.NewSectionReader(file, offset, size))
	if err != nil {
		return err
	}
	want := w.subject.history.content(disk, version)
	if image.Size() != int64(len(want)) {
		return fmt.Errorf("disk %s has %d bytes, want %d", disk, image.Size(), len(want))
	}
	got := make([]byte, len(want))
	if _, err := image.ReadAt(got, 0); err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		at := 0
		for i := range want {
			if got[i] != want[i] {
				at = i
				break
			}
		}
		return fmt.Errorf("disk %s differs from version %d at byte %d (cluster %d)", disk, version, at, at/cluster)
	}
	return nil
}

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
		return nil
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

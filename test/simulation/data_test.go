package simulation_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/pkg/qcow2"
	"github.com/umbra-dr/umbra/pkg/recoverystore"
)

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

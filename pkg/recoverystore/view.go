package recoverystore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/bbolt"

	"github.com/umbra-dr/umbra/pkg/qcow2"
)

// View is a point opened for QEMU.
type View struct {
	PointID PointID
	Disks   []ViewDisk
}

// ViewDisk tells where QEMU finds one disk of a view: a qcow2 image in a slice of a file.
type ViewDisk struct {
	Name             string
	Path             string // the data file; absolute when the store was opened by an absolute path
	OffsetBytes      int64  // where the slice begins
	SizeBytes        int64  // length of the slice
	VirtualSizeBytes int64  // the disk's size
}

// QEMUImage returns the image name that QEMU's tools take, in json form. Give no format with it.
func (d ViewDisk) QEMUImage() string {
	type file struct {
		Driver   string `json:"driver"`
		Filename string `json:"filename"`
	}
	type slice struct {
		Driver string `json:"driver"`
		Offset int64  `json:"offset"`
		Size   int64  `json:"size"`
		File   file   `json:"file"`
	}
	type image struct {
		Driver string `json:"driver"`
		File   slice  `json:"file"`
	}
	b, err := json.Marshal(image{"qcow2", slice{"raw", d.OffsetBytes, d.SizeBytes, file{"file", d.Path}}})
	if err != nil {
		return "" // strings and numbers always encode
	}
	return "json:" + string(b)
}

// ViewOptions change what OpenView accepts.
type ViewOptions struct {
	// AllowDamaged opens the point even if clusters are known to be damaged: they read as what is
	// stored, lost ones as zero, and those of a corrupt index record as an older version or zero.
	AllowDamaged bool
}

// viewRecord is a view in the index, under its point's seq.
type viewRecord struct {
	Slot  int        `json:"slot"`
	Disks []viewDisk `json:"disks"`

	unreadable bool // nothing is known but the point
}

type viewDisk struct {
	ID        uint32 `json:"id"`
	SizeBytes int64  `json:"size_bytes"` // of the slice
}

// viewClusters is the room that a view of a disk of this size takes in its slot.
func viewClusters(sizeBytes int64) uint64 {
	plan, err := qcow2.Plan(uint64(sizeBytes))
	if err != nil {
		return locMax
	}
	return plan.Size / ClusterSize
}

// OpenView makes the point readable by QEMU, and keeps it from being deleted until CloseView, also
// over restarts. Opening a view again returns the same view, its tables checked against the point. Errors: ErrNoPoint, ErrNoViewSlot,
// ErrDamaged (in a *PointError, unless o.AllowDamaged), ErrCorruptIndex.
func (s *Store) OpenView(ctx context.Context, id PointID, o ViewOptions) (View, error) {
	if err := s.enter(); err != nil {
		return View{}, err
	}
	defer s.leave()
	s.viewMu.Lock()
	defer s.viewMu.Unlock()
	point, unpin, err := s.pin(id)
	if err != nil {
		return View{}, err
	}
	defer unpin()
	s.mu.Lock()
	rec, open := s.views[point.Seq]
	damaged := s.damage.points[point.Seq]
	slot, free := s.freeSlot()
	idle := s.handle == nil
	s.mu.Unlock()
	switch {
	case point.unreadable:
		return View{}, point.damaged()
	case rec.unreadable:
		return View{}, &PointError{ID: id, Reason: fmt.Errorf("%w: the record of its view is unreadable, close the view", ErrDamaged)}
	case open:
		if err := s.restoreTables(ctx, point, rec); err != nil {
			return View{}, s.viewError(id, err)
		}
		return s.viewOf(point, rec), nil
	case damaged && !o.AllowDamaged:
		return View{}, &PointError{ID: id, Reason: ErrDamaged}
	case !free:
		return View{}, &PointError{ID: id, Reason: ErrNoViewSlot}
	}
	rec = viewRecord{Slot: slot}
	for _, pd := range point.Disks {
		if idle {
			// Nobody's data hangs on an earlier failure; the tables are written afresh.
			s.disk(pd.ID).forgetSyncError()
		}
		size, err := s.writeView(ctx, pd, point.Seq, slot, o)
		if err != nil {
			s.clearSlot(s.disksOf(point), slot)
			return View{}, s.viewError(id, err)
		}
		rec.Disks = append(rec.Disks, viewDisk{pd.ID, size})
	}
	if err := s.fault(FailViewWritten); err != nil {
		return View{}, err
	}
	if err := s.recordView(point, rec); err != nil {
		return View{}, err
	}
	return s.viewOf(point, rec), nil
}

func (s *Store) viewError(id PointID, err error) error {
	if errors.Is(err, ErrDamaged) {
		return &PointError{ID: id, Reason: err}
	}
	return fmt.Errorf("open view of recovery point %s: %w", id, err)
}

func (s *Store) recordView(point *pointRecord, rec viewRecord) error {
	s.commitMu.Lock()
	defer s.commitMu.Unlock()
	err := s.update(func(tx *bbolt.Tx) error {
		return putRecord(tx.Bucket(bucketViews), uintValue(point.Seq), rec)
	})
	if err != nil {
		if s.Stopped() == nil { // else the view may be recorded
			s.clearSlot(s.disksOf(point), rec.Slot)
		}
		return fmt.Errorf("record view of recovery point %s: %w", pointID(point.Seq), err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.views[point.Seq] = rec
	return nil
}

// CloseView ends a view; QEMU must no longer use it. No view is no error.
func (s *Store) CloseView(ctx context.Context, id PointID) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	if err := ctx.Err(); err != nil {
		return err
	}
	s.viewMu.Lock()
	defer s.viewMu.Unlock()
	s.mu.Lock()
	point, err := s.livePoint(id)
	if err != nil {
		s.mu.Unlock()
		return nil
	}
	rec, open := s.views[point.Seq]
	s.mu.Unlock()
	if !open {
		return nil
	}
	if err := s.forgetView(point); err != nil {
		return err
	}
	if err := s.fault(FailViewUnrecorded); err != nil {
		return err
	}
	if rec.unreadable {
		s.forgetDoubt(point.Seq)
		return nil
	}
	s.clearSlot(s.disksOf(point), rec.Slot)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.views, point.Seq)
	return nil
}

func (s *Store) forgetView(point *pointRecord) error {
	s.commitMu.Lock()
	defer s.commitMu.Unlock()
	err := s.update(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketViews).Delete(uintValue(point.Seq))
	})
	if err != nil {
		return fmt.Errorf("forget view of recovery point %s: %w", pointID(point.Seq), err)
	}
	return nil
}

// Views returns the open views whose records are readable, oldest point first.
func (s *Store) Views() []View {
	s.mu.Lock()
	points := slices.Clone(s.points)
	s.mu.Unlock()
	var out []View
	for _, p := range points {
		s.mu.Lock()
		rec, open := s.views[p.Seq]
		s.mu.Unlock()
		if open && !rec.unreadable {
			out = append(out, s.viewOf(p, rec))
		}
	}
	return out
}

func (s *Store) viewOf(p *pointRecord, rec viewRecord) View {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := View{PointID: pointID(p.Seq)}
	for i, vd := range rec.Disks {
		d := s.disks[vd.ID]
		v.Disks = append(v.Disks, ViewDisk{
			Name: d.Name, Path: d.path,
			OffsetBytes: d.slotOffset(rec.Slot), SizeBytes: vd.SizeBytes, VirtualSizeBytes: p.Disks[i].SizeBytes,
		})
	}
	return v
}

func (r diskRecord) slotOffset(slot int) int64 {
	return int64(slot) * int64(r.SlotClusters) * ClusterSize
}

// freeSlot and slotTaken need mu, or a store that nobody uses yet.
func (s *Store) freeSlot() (int, bool) {
	for slot := range viewSlots {
		if !s.slotTaken(slot) {
			return slot, true
		}
	}
	return 0, false
}

func (s *Store) slotTaken(slot int) bool {
	for _, r := range s.views {
		if r.Slot == slot && !r.unreadable {
			return true
		}
	}
	return slices.Contains(s.doubtful, slot)
}

func (s *Store) disksOf(point *pointRecord) []*disk {
	out := make([]*disk, 0, len(point.Disks))
	for _, pd := range point.Disks {
		out = append(out, s.disk(pd.ID))
	}
	return out
}

// clearSlot gives back the blocks of a view's tables. What it cannot punch, the next Open does.
func (s *Store) clearSlot(disks []*disk, slot int) {
	for _, d := range disks {
		if err := d.punch([]extent{{uint64(slot) * d.SlotClusters, d.SlotClusters}}); err != nil {
			s.log.Warn("tables of a view could not be punched", "disk", d.Name, "error", err)
		}
	}
}

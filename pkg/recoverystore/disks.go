package recoverystore

import (
	"context"
	"fmt"
	"slices"

	"go.etcd.io/bbolt"
)

// DiskSpec is a disk that the next points shall have.
type DiskSpec struct {
	Name      string
	SizeBytes int64
}

// Disks returns the disks of the next points, in the order given to EnsureDisks last.
func (s *Store) Disks() []DiskSpec {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]DiskSpec, 0, len(s.active))
	for _, d := range s.active {
		out = append(out, DiskSpec{d.Name, d.SizeBytes})
	}
	return out
}

// EnsureDisks sets the disks of the next points. New disks start all zero with no coverage; a disk
// that is no longer named stays in the older points and loses its coverage; a disk may grow, to the
// limit of its view slots, if its old size is a whole number of clusters (its coverage then ends at
// the old size). Any other change of size is a *DiskSizeError. A change is refused with ErrDraftOpen
// while a Draft is open.
func (s *Store) EnsureDisks(ctx context.Context, specs []DiskSpec) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if changed, err := s.disksDiffer(specs); !changed {
		return err
	}
	// Sizes are read all over: nothing else may run while they change.
	s.ops.Lock()
	defer s.ops.Unlock()
	if changed, err := s.disksDiffer(specs); !changed {
		return err
	}
	recs, order, err := s.planDisks(specs)
	if err != nil {
		return err
	}
	if err := s.openNewDisks(recs); err != nil {
		return err
	}
	draft, tails := s.draftWithout(specs)
	err = s.update(func(tx *bbolt.Tx) error {
		for id, tail := range tails {
			if err := putTail(tx, id, tail); err != nil {
				return err
			}
		}
		if err := putRecord(tx.Bucket(bucketDraft), keyDraft, draft); err != nil {
			return err
		}
		return putRecord(tx.Bucket(bucketMeta), keyDisks, recs)
	})
	if err != nil {
		return fmt.Errorf("record disks: %w", noSpaceError(err))
	}
	s.adoptDisks(recs, order, draft)
	return nil
}

// disksDiffer says whether there is anything to do; not when the store is closed.
func (s *Store) disksDiffer(specs []DiskSpec) (bool, error) {
	closed := s.Stopped()
	return closed == nil && !slices.Equal(specs, s.Disks()), closed
}

// draftWithout returns the draft record without coverage for disks that are not named, and the tails.
func (s *Store) draftWithout(specs []DiskSpec) (draftRecord, map[uint32]uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	draft := s.draft.clone()
	draft.Seq = s.seq
	for disk := range draft.Coverage.Through {
		if !slices.ContainsFunc(specs, func(sp DiskSpec) bool { return sp.Name == disk }) {
			delete(draft.Coverage.Through, disk)
		}
	}
	tails := map[uint32]uint64{}
	for id, d := range s.disks {
		tails[id] = d.committedTail
	}
	return draft, tails
}

// planDisks returns the records of all disks, the active ones first and in the order asked for, and
// the ids of those.
func (s *Store) planDisks(specs []DiskSpec) (recs []diskRecord, order []uint32, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.handle != nil {
		return nil, nil, fmt.Errorf("change disks: %w", ErrDraftOpen)
	}
	next := uint32(1)
	known := map[string]diskRecord{}
	for id, d := range s.disks {
		next = max(next, id+1)
		known[d.Name] = d.diskRecord
	}
	for _, spec := range specs {
		rec, ok := known[spec.Name]
		if !ok {
			rec, err = newDiskRecord(next, spec)
			next++
		} else {
			rec, err = rec.resized(spec)
		}
		if err != nil {
			return nil, nil, err
		}
		if slices.Contains(order, rec.ID) || len(known) > DisksMax {
			return nil, nil, fmt.Errorf("disk %s: named twice, or more than %d disks", spec.Name, DisksMax)
		}
		rec.Active = true
		known[spec.Name] = rec
		recs, order = append(recs, rec), append(order, rec.ID)
	}
	for _, d := range s.disks {
		if !slices.Contains(order, d.ID) {
			old := d.diskRecord
			old.Active = false
			recs = append(recs, old)
		}
	}
	return recs, order, nil
}

func (r diskRecord) resized(spec DiskSpec) (diskRecord, error) {
	if err := spec.Check(); err != nil {
		return r, err
	}
	if spec.SizeBytes == r.SizeBytes {
		return r, nil
	}
	fits := viewClusters(spec.SizeBytes) <= r.SlotClusters
	if spec.SizeBytes < r.SizeBytes || r.SizeBytes%ClusterSize != 0 || !fits {
		return r, &DiskSizeError{Disk: r.Name, HaveBytes: r.SizeBytes, WantBytes: spec.SizeBytes}
	}
	r.SizeBytes = spec.SizeBytes
	return r, nil
}

func (s *Store) openNewDisks(recs []diskRecord) error {
	for _, rec := range recs {
		if s.disk(rec.ID) != nil {
			continue
		}
		d, err := s.openDisk(rec, rec.dataStart(), true)
		if err != nil {
			return err
		}
		// Harmless when the record does not get written: the disk is not active.
		d.Active = false
		s.mu.Lock()
		s.disks[rec.ID] = d
		s.mu.Unlock()
	}
	return nil
}

func (s *Store) adoptDisks(recs []diskRecord, order []uint32, draft draftRecord) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, rec := range recs {
		s.disks[rec.ID].diskRecord = rec
	}
	s.active = s.active[:0:0]
	for _, id := range order {
		s.active = append(s.active, s.disks[id])
	}
	s.draft = draft
}

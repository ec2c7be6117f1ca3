package recoverystore

import (
	"context"
	"errors"
	"fmt"

	"go.etcd.io/bbolt"
)

// draftRecord is the unfinished point in the index.
type draftRecord struct {
	Seq             uint64   `json:"seq,omitempty"` // of the draft; stores of earlier versions have it in meta only
	Coverage        Coverage `json:"coverage"`
	ChangedClusters int64    `json:"changed_clusters"`
	StoredClusters  int64    `json:"stored_clusters"`
}

func (r draftRecord) clone() draftRecord {
	r.Coverage = r.Coverage.clone()
	return r
}

// Draft is a handle for writing the unfinished point, for one goroutine.
type Draft struct {
	s         *Store
	ended     bool
	pending   map[chunkKey]*entry // guarded by Store.mu: Checksums reads it
	clusters  int                 // in pending
	writeBack map[*disk]extent    // written, the kernel not yet asked to write it
}

// Draft describes the unfinished point.
func (s *Store) Draft() DraftState {
	s.mu.Lock()
	defer s.mu.Unlock()
	return DraftState{
		Seq: s.seq, Coverage: s.draft.Coverage.clone(),
		SavedBytes: s.draft.StoredClusters * ClusterSize, Open: s.handle != nil,
	}
}

// ResetCoverage forgets which content is current, and nothing else: the data and the points stay.
// Refused with ErrDraftOpen while a Draft is open.
func (s *Store) ResetCoverage(ctx context.Context) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	if err := ctx.Err(); err != nil {
		return err
	}
	s.commitMu.Lock()
	defer s.commitMu.Unlock()
	return s.resetCoverage()
}

// resetCoverage needs commitMu.
func (s *Store) resetCoverage() error {
	s.mu.Lock()
	rec, open := draftRecord{Seq: s.seq}, s.handle != nil
	rec.ChangedClusters, rec.StoredClusters = s.draft.ChangedClusters, s.draft.StoredClusters
	s.mu.Unlock()
	if open {
		return fmt.Errorf("reset coverage: %w", ErrDraftOpen)
	}
	err := s.update(func(tx *bbolt.Tx) error {
		return putRecord(tx.Bucket(bucketDraft), keyDraft, rec)
	})
	if err != nil {
		return fmt.Errorf("reset coverage: %w", noSpaceError(err))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.draft = rec
	return nil
}

// Begin continues the unfinished point. Only one Draft may be open; one goroutine may use it.
func (s *Store) Begin() (*Draft, error) {
	if err := s.enter(); err != nil {
		return nil, err
	}
	defer s.leave()
	s.commitMu.Lock()
	defer s.commitMu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.handle != nil {
		return nil, ErrDraftOpen
	}
	s.handle = &Draft{s: s, pending: map[chunkKey]*entry{}, writeBack: map[*disk]extent{}}
	return s.handle, nil
}

// Pending returns the number of clusters held in memory since the last commit; at
// PendingClustersAdvised a caller should SaveProgress.
func (d *Draft) Pending() int { return d.clusters }

func (d *Draft) enter() error {
	if err := d.s.enter(); err != nil {
		return err
	}
	if d.ended {
		d.s.leave()
		return ErrDraftEnded
	}
	return nil
}

// Abandon drops what was written since the last SaveProgress, and ends the handle. It does nothing
// after Complete, or the second time.
func (d *Draft) Abandon() error {
	if err := d.enter(); err != nil {
		if errors.Is(err, ErrDraftEnded) {
			return nil
		}
		return err
	}
	defer d.s.leave()
	d.s.commitMu.Lock()
	defer d.s.commitMu.Unlock()
	d.drop()
	return nil
}

// drop gives back the space of everything pending and ends the handle.
func (d *Draft) drop() {
	s := d.s
	s.mu.Lock()
	freed := diskExtents{}
	for k, e := range d.pending {
		for _, r := range e.runs {
			if !r.zero {
				freed[k.disk] = append(freed[k.disk], extent{r.loc, uint64(r.count)})
			}
		}
	}
	d.pending, d.clusters, d.ended = nil, 0, true
	s.handle = nil
	var dirty []*disk
	for _, disk := range s.disks {
		if disk.dirty {
			disk.dirty = false
			dirty = append(dirty, disk)
		}
	}
	s.mu.Unlock()
	for _, disk := range dirty {
		disk.forgetSyncError()
	}
	s.release(freed)
}

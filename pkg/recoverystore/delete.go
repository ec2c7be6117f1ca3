package recoverystore

import (
	"context"
	"fmt"
	"slices"

	"go.etcd.io/bbolt"
)

// deleteChunksPerTx bounds what one transaction of a deletion rewrites.
const deleteChunksPerTx = 256

// Delete deletes points. It deletes none when one of them may not be deleted: *PointError with
// ErrNoPoint, ErrNewestPoint or ErrPointInUse (has a view, or is being verified). From the moment it has begun the points are no longer
// listed; a deletion that is interrupted, also by ctx, goes on at the next deletion or Open.
func (s *Store) Delete(ctx context.Context, ids ...PointID) error {
	return s.deletePoints(ctx, func() ([]*pointRecord, error) {
		newest := s.newestLive()
		var out []*pointRecord
		for _, id := range ids {
			p, err := s.livePoint(id)
			if err != nil {
				return nil, err
			}
			if p.Seq == newest {
				return nil, &PointError{ID: id, Reason: ErrNewestPoint}
			}
			if !slices.Contains(out, p) {
				out = append(out, p)
			}
		}
		return out, nil
	})
}

// DeleteAll deletes every point, the newest too; the latest state stays as the draft's. Error:
// *PointError with ErrPointInUse.
func (s *Store) DeleteAll(ctx context.Context) error {
	return s.deletePoints(ctx, func() ([]*pointRecord, error) {
		return slices.DeleteFunc(slices.Clone(s.points), func(p *pointRecord) bool { return p.Deleting }), nil
	})
}

// deletePoints deletes what choose returns. choose is called with mu held.
func (s *Store) deletePoints(ctx context.Context, choose func() ([]*pointRecord, error)) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	s.deleteMu.Lock()
	defer s.deleteMu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := s.markDeleting(choose); err != nil {
		return err
	}
	if err := s.fault(FailDeleteMarked); err != nil {
		return err
	}
	return s.finishDeletions(ctx)
}

func (s *Store) markDeleting(choose func() ([]*pointRecord, error)) error {
	s.commitMu.Lock()
	defer s.commitMu.Unlock()
	s.mu.Lock()
	chosen, err := choose()
	if err == nil {
		err = s.unused(chosen)
	}
	if err == nil {
		// At once, so that nobody opens a view of it from here on.
		for _, p := range chosen {
			p.Deleting = true
		}
		s.deleting += len(chosen)
	}
	s.mu.Unlock()
	if err != nil {
		return err
	}
	err = s.update(func(tx *bbolt.Tx) error {
		for _, p := range chosen {
			if err := putRecord(tx.Bucket(bucketPoints), uintValue(p.Seq), p); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, p := range chosen {
			p.Deleting = false
		}
		s.deleting -= len(chosen)
		return fmt.Errorf("mark recovery points for deletion: %w", err)
	}
	return nil
}

// unused needs mu.
func (s *Store) unused(points []*pointRecord) error {
	for _, p := range points {
		if _, viewed := s.views[p.Seq]; viewed || s.opening[p.Seq] > 0 {
			return &PointError{ID: pointID(p.Seq), Reason: ErrPointInUse}
		}
	}
	return nil
}

// finishDeletions carries out what is marked. It needs deleteMu, or a store that nobody uses yet.
func (s *Store) finishDeletions(ctx context.Context) error {
	for {
		g, ok := s.nextGroup()
		if !ok {
			return s.dropRetiredDisks()
		}
		chunks, err := s.sharedChunks(g)
		if err != nil {
			return fmt.Errorf("delete recovery points: %w", err)
		}
		for batch := range slices.Chunk(chunks, deleteChunksPerTx) {
			if err := ctx.Err(); err != nil {
				return fmt.Errorf("delete recovery points: %w", err)
			}
			if err := s.mergeBatch(g, batch); err != nil {
				return fmt.Errorf("delete recovery points: %w", err)
			}
		}
		if err := s.forgetPoints(g); err != nil {
			return fmt.Errorf("delete recovery points: %w", err)
		}
	}
}

// deletionGroup is a row of neighbouring points to delete, between two that stay.
type deletionGroup struct {
	before uint64 // the living point before them, or 0
	points []uint64
	after  uint64 // the living point after them, or the draft
}

func (s *Store) nextGroup() (deletionGroup, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var g deletionGroup
	if s.deleting == 0 {
		return g, false
	}
	for _, p := range s.points {
		switch {
		case p.Deleting:
			g.points = append(g.points, p.Seq)
		case len(g.points) > 0:
			g.after = p.Seq
			return g, true
		default:
			g.before = p.Seq
		}
	}
	g.after = s.seq
	return g, len(g.points) > 0
}

package recoverystore

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/bbolt"
)

// DiscardDraft frees what SaveProgress stored since the last point, and resets the coverage. Without
// points nothing is left. Refused with ErrDraftOpen while a Draft is open.
func (s *Store) DiscardDraft(ctx context.Context) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	s.deleteMu.Lock()
	defer s.deleteMu.Unlock()
	// A deletion that was interrupted may have left versions of dead points below the draft.
	if err := s.finishDeletions(ctx); err != nil {
		return err
	}
	for {
		more, err := s.discardBatch(ctx)
		if err != nil {
			return fmt.Errorf("discard unfinished recovery point: %w", err)
		}
		if !more {
			break
		}
	}
	s.commitMu.Lock()
	defer s.commitMu.Unlock()
	return s.workOutDamage()
}

// discardBatch frees some of the draft's chunks. The coverage goes first: from then on nothing
// claims that they are there.
func (s *Store) discardBatch(ctx context.Context) (more bool, err error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	s.commitMu.Lock()
	defer s.commitMu.Unlock()
	if err := s.resetCoverage(); err != nil {
		return false, err
	}
	s.mu.Lock()
	newest, seq := s.newestLive(), s.seq
	s.mu.Unlock()
	var freed diskExtents
	err = s.update(func(tx *bbolt.Tx) error {
		freed = diskExtents{}
		more, err = s.discardChunks(tx, newest, freed)
		if err != nil || more {
			return err
		}
		return putRecord(tx.Bucket(bucketDraft), keyDraft, draftRecord{Seq: seq})
	})
	if err != nil {
		return false, err
	}
	if !more {
		s.mu.Lock()
		s.draft = draftRecord{Seq: seq}
		s.mu.Unlock()
	}
	s.release(freed)
	return more, nil
}

func (s *Store) discardChunks(tx *bbolt.Tx, newest uint64, freed diskExtents) (more bool, err error) {
	type birth struct {
		k   chunkKey
		seq uint64
	}
	var births []birth
	c := tx.Bucket(bucketBirths).Cursor()
	key, _ := c.Seek(uintValue(newest + 1))
	for ; key != nil && len(births) < deleteChunksPerTx; key, _ = c.Next() {
		seq, k, ok := parseBirthKey(key)
		if !ok {
			return false, fmt.Errorf("%w: key %x", ErrCorruptIndex, slices.Clone(key))
		}
		births = append(births, birth{k, seq})
	}
	chunks := chunksOf(tx)
	for _, b := range births {
		at := entryKey(b.k, b.seq)
		runs, err := decodeRuns(nil, at, chunks.locs.Get(at))
		if err != nil {
			// Its space is lost until the store is rebuilt, but the record must not stay in the way.
			s.log.Error("index record of a discarded draft is corrupt", "error", err)
		}
		for _, r := range runs {
			if !r.zero {
				freed[b.k.disk] = append(freed[b.k.disk], extent{r.loc, uint64(r.count)})
			}
		}
		if err := chunks.delete(b.k, b.seq); err != nil {
			return false, err
		}
	}
	free, damage := extentSet{tx.Bucket(bucketFree)}, extentSet{tx.Bucket(bucketDamage)}
	return len(births) == deleteChunksPerTx, errors.Join(freeInIndex(freed, free, damage))
}

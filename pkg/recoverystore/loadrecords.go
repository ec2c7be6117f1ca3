package recoverystore

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/bbolt"
)

// misplaced is a sound record under a key that is not its own: a bit of the key has flipped.
type misplaced struct {
	bucket, at, key, value []byte
}

// loadRecords reads what is not about disks. One record that is damaged costs what it stands for and nothing else. It returns
// the records that have to go back to their keys.
func (s *Store) loadRecords(tx *bbolt.Tx) ([]misplaced, error) {
	if err := s.loadDraft(tx); err != nil {
		return nil, err
	}
	points, err := s.loadPoints(tx.Bucket(bucketPoints))
	if err != nil {
		return nil, err
	}
	views, err := s.loadViews(tx.Bucket(bucketViews))
	return append(points, views...), err
}

// loadDraft takes an unreadable draft for one without coverage, so that the disks are compared again. Its record has the draft's
// seq too, since that in meta has no checksum.
func (s *Store) loadDraft(tx *bbolt.Tx) error {
	_, err := getRecord(tx.Bucket(bucketDraft), keyDraft, &s.draft)
	switch {
	case err != nil && !errors.Is(err, ErrCorruptIndex):
		return err
	case err != nil:
		s.log.Error("record of the unfinished recovery point is unreadable, the disks have to be compared", "error", err)
		s.draft = draftRecord{}
	case s.draft.Seq != 0:
		s.seq = s.draft.Seq
		return nil
	}
	if s.seq = storedSeq(tx); s.seq == 0 {
		return fmt.Errorf("%w: no sequence number", ErrCorruptIndex)
	}
	return nil
}

// loadPoints reads the points. An unreadable one keeps its place, by its key.
func (s *Store) loadPoints(b *bbolt.Bucket) (moved []misplaced, err error) {
	var unreadable []*pointRecord
	err = b.ForEach(func(k, v []byte) error {
		p := &pointRecord{}
		err := decodeRecord(k, v, p)
		if err != nil {
			s.log.Error("record of a recovery point is unreadable", "key", fmt.Sprintf("%x", k), "error", err)
			if own, ok := sealedUnder(v, p, func() []byte { return uintValue(p.Seq) }); ok && b.Get(own) == nil {
				moved = append(moved, misplaced{bucketPoints, slices.Clone(k), own, slices.Clone(v)})
			} else if len(k) == 8 {
				unreadable = append(unreadable, &pointRecord{Seq: binary.BigEndian.Uint64(k), unreadable: true})
				return nil
			} else {
				return nil
			}
		}
		s.points = append(s.points, p)
		s.seq = max(s.seq, p.Seq+1)
		return nil
	})
	for _, p := range unreadable {
		if p.Seq > 0 && p.Seq < s.seq { // else its key is damaged too
			s.points = append(s.points, p)
		}
	}
	slices.SortStableFunc(s.points, func(a, b *pointRecord) int { return cmp.Compare(a.Seq, b.Seq) })
	s.points = slices.CompactFunc(s.points, func(a, b *pointRecord) bool { return a.Seq == b.Seq })
	for _, p := range s.points {
		if p.Deleting {
			s.deleting++
		}
	}
	estimateTimes(s.points)
	return moved, err
}

// estimateTimes gives unreadable points the times and the epoch of the point before, or else of the next, so that they stand where
// they belong in every list.
func estimateTimes(points []*pointRecord) {
	fill := func(near *pointRecord, p *pointRecord) *pointRecord {
		if p.unreadable && near != nil && p.CreateTime.IsZero() {
			p.CreateTime, p.CompleteTime, p.Epoch = near.CreateTime, near.CompleteTime, near.Epoch
		}
		return p
	}
	var near *pointRecord
	for _, p := range points {
		near = fill(near, p)
	}
	near = nil
	for _, p := range slices.Backward(points) {
		near = fill(near, p)
	}
}

// sealedUnder says whether a record is sound under the key that it names itself.
func sealedUnder(v []byte, record any, key func() []byte) (own []byte, ok bool) {
	if len(v) < crcBytes || json.Unmarshal(v[:len(v)-crcBytes], record) != nil {
		return nil, false
	}
	own = key()
	_, err := unseal(own, v)
	return own, err == nil
}

// loadViews reads the views, after the points. An unreadable one keeps its point from being deleted.
func (s *Store) loadViews(b *bbolt.Bucket) (moved []misplaced, err error) {
	err = b.ForEach(func(k, v []byte) error {
		var r viewRecord
		err := decodeRecord(k, v, &r)
		for i := 0; err != nil && i < len(s.points); i++ {
			if own := uintValue(s.points[i].Seq); decodeRecord(own, v, &r) == nil && b.Get(own) == nil {
				moved = append(moved, misplaced{bucketViews, slices.Clone(k), own, slices.Clone(v)})
				k, err = own, nil
			}
		}
		if err != nil {
			s.log.Error("record of a view is unreadable", "key", fmt.Sprintf("%x", k), "error", err)
			r = viewRecord{unreadable: true}
		}
		if len(k) == 8 {
			s.views[binary.BigEndian.Uint64(k)] = r
		}
		return nil
	})
	return moved, err
}

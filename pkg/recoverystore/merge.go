package recoverystore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/bbolt"
)

// sharedChunks returns the chunks that have versions on both sides of a point of the group: only there
// is anything to free. Births are counted side by side until all but the longest row of them have
// ended, so the cost is that of the shorter ones, and the oldest point is no dearer than others.
func (s *Store) sharedChunks(g deletionGroup) ([]chunkKey, error) {
	found := map[chunkKey]bool{}
	err := s.idx.view(func(tx *bbolt.Tx) error {
		var rows []*birthRow
		from := g.before
		for _, through := range append(slices.Clone(g.points), g.after) {
			rows = append(rows, newBirthRow(tx, from, through))
			from = through
		}
		for {
			running := slices.DeleteFunc(slices.Clone(rows), func(r *birthRow) bool { return r.ended })
			if len(running) <= 1 {
				break
			}
			for _, r := range running {
				if err := r.step(); err != nil {
					return err
				}
			}
		}
		for _, r := range rows {
			if r.ended {
				for _, k := range r.chunks {
					found[k] = true
				}
			}
		}
		return nil
	})
	out := make([]chunkKey, 0, len(found))
	for k := range found {
		out = append(out, k)
	}
	slices.SortFunc(out, func(a, b chunkKey) int {
		if a.less(b) {
			return -1
		}
		return 1
	})
	return out, err
}

// birthRow walks the births in (from, through].
type birthRow struct {
	cur    *bbolt.Cursor
	key    []byte
	limit  []byte
	ended  bool
	chunks []chunkKey
}

func newBirthRow(tx *bbolt.Tx, from, through uint64) *birthRow {
	r := &birthRow{cur: tx.Bucket(bucketBirths).Cursor(), limit: binary.BigEndian.AppendUint64(nil, through+1)}
	r.key, _ = r.cur.Seek(binary.BigEndian.AppendUint64(nil, from+1))
	r.ended = r.key == nil || bytes.Compare(r.key, r.limit) >= 0
	return r
}

func (r *birthRow) step() error {
	_, k, ok := parseBirthKey(r.key)
	if !ok {
		return fmt.Errorf("%w: key %x", ErrCorruptIndex, r.key)
	}
	r.chunks = append(r.chunks, k)
	r.key, _ = r.cur.Next()
	r.ended = r.key == nil || bytes.Compare(r.key, r.limit) >= 0
	return nil
}

// mergeBatch joins, chunk by chunk, the versions between the group's neighbours into one, and frees
// what only the deleted points could see. Each batch leaves a consistent store.
func (s *Store) mergeBatch(g deletionGroup, batch []chunkKey) error {
	s.commitMu.Lock()
	defer s.commitMu.Unlock()
	var freed diskExtents
	err := s.update(func(tx *bbolt.Tx) error {
		freed = diskExtents{}
		chunks := chunksOf(tx)
		for _, k := range batch {
			err := chunks.merge(k, g.before, g.after, freed)
			if errors.Is(err, ErrCorruptIndex) {
				// Left as it is: what it would have freed stays taken, everything else goes on.
				s.log.Error("chunk with a corrupt index record is not merged", "disk", k.disk, "chunk", k.chunk, "error", err)
				continue
			}
			if err != nil {
				return err
			}
		}
		return freeInIndex(freed, extentSet{tx.Bucket(bucketFree)}, extentSet{tx.Bucket(bucketDamage)})
	})
	if err != nil {
		return err
	}
	if err := s.fault(FailDeleteBatch); err != nil {
		return err
	}
	s.release(freed)
	return nil
}

// merge joins the versions in (after, through] under the newest of their seqs. It changes nothing if
// one of them is corrupt.
func (s chunkStore) merge(k chunkKey, after, through uint64, freed diskExtents) error {
	versions, err := s.versions(k, after, through)
	if err != nil || len(versions) < 2 {
		return err
	}
	var c cells
	for _, v := range versions {
		c.lay(v.entry, func(loc uint64) { freed.add(k.disk, loc) })
	}
	for _, v := range versions[:len(versions)-1] {
		if err := s.delete(k, v.seq); err != nil {
			return err
		}
	}
	if after == 0 {
		c.dropZeros()
	}
	seq := versions[len(versions)-1].seq
	if c.set == 0 {
		return s.delete(k, seq)
	}
	return s.put(k, seq, c.entry())
}

// forgetPoints removes the records of a group, and blobs that no other point names.
func (s *Store) forgetPoints(g deletionGroup) error {
	s.commitMu.Lock()
	defer s.commitMu.Unlock()
	s.mu.Lock()
	from, _ := s.place(g.points[0])
	gone := slices.Clone(s.points[from : from+len(g.points)])
	stay := slices.Delete(slices.Clone(s.points), from, from+len(g.points))
	s.mu.Unlock()
	err := s.update(func(tx *bbolt.Tx) error {
		for _, p := range gone {
			if err := tx.Bucket(bucketPoints).Delete(uintValue(p.Seq)); err != nil {
				return err
			}
		}
		return dropBlobs(tx, gone, stay)
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.points, s.deleting = stay, s.deleting-len(gone)
	for _, p := range gone {
		delete(s.damage.points, p.Seq)
	}
	return nil
}

// dropBlobs removes the blobs of points that are gone and that none of those that stay names. Which an unreadable point had is not
// known, so all are looked at.
func dropBlobs(tx *bbolt.Tx, gone, stay []*pointRecord) error {
	b := tx.Bucket(bucketBlobs)
	drop := map[string]bool{}
	for _, p := range gone {
		for _, hash := range p.blobs() {
			drop[hash] = true
		}
		if !p.unreadable {
			continue
		}
		err := b.ForEach(func(hash, _ []byte) error {
			drop[string(hash)] = true
			return nil
		})
		if err != nil {
			return err
		}
	}
	for _, p := range stay {
		if len(drop) == 0 { // soon: points nearly always name the same
			break
		}
		for _, hash := range p.blobs() {
			delete(drop, hash)
		}
	}
	for hash := range drop {
		if err := b.Delete([]byte(hash)); err != nil {
			return err
		}
	}
	return nil
}

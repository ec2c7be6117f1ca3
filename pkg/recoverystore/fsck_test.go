package recoverystore

import (
	"encoding/binary"
	"fmt"
	"slices"

	"go.etcd.io/bbolt"
)

// fsck holds the whole index against its invariants, apart from the code that keeps them: every
// cluster of the data area is referred to exactly once or free, births mirror locs, and between two
// points a cluster has at most one version and a chunk at most one record.
func (s *Store) fsck() error {
	return s.idx.view(func(tx *bbolt.Tx) error {
		used, err := s.fsckChunks(tx)
		if err != nil {
			return err
		}
		if err := fsckSummaries(tx); err != nil {
			return err
		}
		free, err := (extentSet{tx.Bucket(bucketFree)}).all()
		if err != nil {
			return err
		}
		for id, d := range s.disks {
			if !d.Active && !slices.ContainsFunc(s.points, func(p *pointRecord) bool { return p.hasDisk(id) }) {
				continue // half removed, or made for a change of the disks that failed
			}
			if err := fsckSpace(tx, d, used[id], free[id]); err != nil {
				return err
			}
			pending := 0
			if s.handle != nil {
				for k, e := range s.handle.pending {
					if k.disk == id {
						pending += e.dataClusters()
					}
				}
			}
			if have, want := d.space.used(), uint64(len(used[id])+pending); have != want {
				return fmt.Errorf("disk %s: allocator counts %d clusters, index and draft have %d", d.Name, have, want)
			}
		}
		return nil
	})
}

func (s *Store) fsckChunks(tx *bbolt.Tx) (map[uint32][]uint64, error) {
	used := map[uint32][]uint64{}
	chunks := chunksOf(tx)
	records := 0
	type slotOf struct {
		k      chunkKey
		period int
	}
	seen := map[slotOf]bool{}
	err := chunks.locs.ForEach(func(key, v []byte) error {
		records++
		k, seq, ok := parseEntryKey(key)
		if !ok {
			return fmt.Errorf("key %x", key)
		}
		e, err := chunks.decode(key, v)
		if err != nil {
			return err
		}
		if births := chunks.births.Get(birthKey(seq, k)); births == nil {
			return fmt.Errorf("%v at %d has no birth", k, seq)
		}
		period := 0
		for _, p := range s.points {
			if p.Seq < seq { // one that is being deleted still parts them
				period++
			}
		}
		if at := (slotOf{k, period}); seen[at] {
			return fmt.Errorf("%v has two records between the same points", k)
		}
		seen[slotOf{k, period}] = true
		for _, r := range e.runs {
			for i := 0; !r.zero && i < r.count; i++ {
				used[k.disk] = append(used[k.disk], r.loc+uint64(i))
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if n := tx.Bucket(bucketBirths).Stats().KeyN; n != records {
		return nil, fmt.Errorf("%d births for %d records", n, records)
	}
	return used, nil
}

// fsckSummaries holds every summary against all the versions that it sums up.
func fsckSummaries(tx *bbolt.Tx) error {
	chunks := chunksOf(tx)
	return chunks.summaries.ForEach(func(key, v []byte) error {
		k, seq, ok := parseEntryKey(key)
		if !ok || chunks.locs.Get(key) == nil || !summarised(key) {
			return fmt.Errorf("summary %x has no version, or none that is to have one", key)
		}
		runs, err := decodeRuns(nil, key, v)
		if err != nil {
			return err
		}
		var have, want cells
		have.fill(entry{runs: runs})
		if err := chunks.resolve(&want, k, seq, false); err != nil {
			return err
		}
		have.dropZeros() // which a merge drops from the oldest version
		want.dropZeros()
		if have.cell != want.cell {
			return fmt.Errorf("summary of %v at %d is %v, the versions say %v", k, seq, have.entry().runs, want.entry().runs)
		}
		return nil
	})
}

func fsckSpace(tx *bbolt.Tx, d *disk, used []uint64, free []extent) error {
	tail := binary.BigEndian.Uint64(tx.Bucket(bucketTails).Get(tailKey(d.ID)))
	for _, e := range free {
		for i := range e.count {
			used = append(used, e.start+i)
		}
	}
	slices.Sort(used)
	if want := tail - d.dataStart(); uint64(len(used)) != want {
		return fmt.Errorf("disk %s: %d clusters used or free, the data area has %d", d.Name, len(used), want)
	}
	for i, loc := range used {
		if loc != d.dataStart()+uint64(i) {
			return fmt.Errorf("disk %s: cluster %d is missing or named twice near %d", d.Name, d.dataStart()+uint64(i), loc)
		}
	}
	return nil
}

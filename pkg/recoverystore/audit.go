package recoverystore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"slices"

	"github.com/zeebo/xxh3"
	"go.etcd.io/bbolt"
)

// audit is a pass over the index at Open: what is in use is what records refer to, whatever the list of free space says, and each
// version that was ever recorded is there or is missed. locs and births mirror one another and are held against each other by a sum
// over their keys, so that a sound index costs one pass over each.
type audit struct {
	used       map[uint32]*clusterSet
	seq        uint64      // the newest of a sound version
	unreadable []misplaced // versions whose records are not sound, where they are
	space      map[uint32]diskSpace

	fixes []func(tx *bbolt.Tx) error
}

// diskSpace is the tail of a disk's file, and what is free before it.
type diskSpace struct {
	tail uint64
	free []extent
}

func newAudit(tx *bbolt.Tx, recs []diskRecord) (*audit, error) {
	a := &audit{used: map[uint32]*clusterSet{}, space: map[uint32]diskSpace{}}
	for _, rec := range recs {
		a.used[rec.ID] = newClusterSet()
	}
	chunks := chunksOf(tx)
	p := &pass{tx: tx}
	sum, err := a.passLocs(chunks.locs, p)
	if err != nil {
		return nil, err
	}
	err = chunks.births.ForEach(func(key, v []byte) error {
		if seq, k, ok := parseBirthKey(key); ok {
			sum -= xxh3.Hash(entryKey(k, seq))
			return p.saw(key, v)
		}
		stray := slices.Clone(key)
		a.fix(func(tx *bbolt.Tx) error { return tx.Bucket(bucketBirths).Delete(stray) })
		return nil
	})
	if err == nil && (sum != 0 || len(a.unreadable) > 0) {
		err = a.mirror(chunks)
	}
	return a, err
}

func (a *audit) fix(f func(tx *bbolt.Tx) error) { a.fixes = append(a.fixes, f) }

// passLocs notes what is in use, and returns the sum over the keys.
func (a *audit) passLocs(locs *bbolt.Bucket, p *pass) (sum uint64, err error) {
	var runs []run
	err = locs.ForEach(func(key, v []byte) error {
		sum += xxh3.Hash(key)
		k, seq, ok := parseEntryKey(key)
		decoded, err := decodeRuns(runs[:0], key, v)
		if !ok || err != nil {
			a.unreadable = append(a.unreadable, misplaced{bucket: bucketLocs, at: slices.Clone(key), value: slices.Clone(v)})
			return nil
		}
		runs = decoded
		a.note(k, seq, runs)
		return p.saw(key, v)
	})
	return sum, err
}

// note takes a sound version into account.
func (a *audit) note(k chunkKey, seq uint64, runs []run) {
	a.seq = max(a.seq, seq)
	used := a.used[k.disk]
	for _, r := range runs {
		if used != nil && !r.zero {
			used.add(extent{r.loc, uint64(r.count)})
		}
	}
}

// mirror finds out how locs and births differ, and which is right.
func (a *audit) mirror(chunks chunkStore) error {
	missing := map[string]bool{} // versions that were born and are not there, by their key in locs
	err := chunks.births.ForEach(func(key, _ []byte) error {
		if seq, k, ok := parseBirthKey(key); ok {
			if at := entryKey(k, seq); chunks.locs.Get(at) == nil {
				missing[string(at)] = true
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	bad := map[string][]byte{}
	for _, u := range a.unreadable {
		bad[string(u.at)] = u.value
	}
	err = chunks.locs.ForEach(func(key, _ []byte) error {
		key = slices.Clone(key)
		if _, _, ok := parseEntryKey(key); !ok {
			a.fix(func(tx *bbolt.Tx) error { return tx.Bucket(bucketLocs).Delete(key) })
		} else if chunks.births.Get(birthOf(key)) == nil {
			a.unborn(key, bad, missing)
		}
		return nil
	})
	for at := range missing {
		a.lost([]byte(at))
	}
	if len(a.unreadable) > 0 || len(missing) > 0 {
		a.fix(func(tx *bbolt.Tx) error { return tx.Bucket(bucketMeta).Put(keyCorrupt, nil) })
	}
	return err
}

// unborn handles a version that has no birth. Either its key has changed, and what it seals tells which of the missing ones it
// is, or the birth's has.
func (a *audit) unborn(key []byte, bad map[string][]byte, missing map[string]bool) {
	value, unreadable := bad[string(key)]
	for at := range missing {
		switch {
		case unreadable:
			runs, err := decodeRuns(nil, []byte(at), value)
			if err != nil {
				continue
			}
			a.moved(key, []byte(at), value, runs)
		case differsInOneBit(key, []byte(at)):
			a.fix(func(tx *bbolt.Tx) error { return tx.Bucket(bucketBirths).Delete(birthOf([]byte(at))) })
			a.fix(func(tx *bbolt.Tx) error { return tx.Bucket(bucketBirths).Put(birthOf(key), nil) })
		default:
			continue
		}
		delete(missing, at)
		return
	}
	a.fix(func(tx *bbolt.Tx) error { return tx.Bucket(bucketBirths).Put(birthOf(key), nil) })
}

// moved brings a version back to its key.
func (a *audit) moved(from, to, value []byte, runs []run) {
	a.fix(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucketLocs)
		return errors.Join(b.Delete(from), b.Put(to, value))
	})
	a.unreadable = slices.DeleteFunc(a.unreadable, func(u misplaced) bool { return bytes.Equal(u.at, from) })
	k, seq, _ := parseEntryKey(to)
	a.note(k, seq, runs)
}

// lost puts an unreadable record where there is none, so that the points that see the version count as damaged.
func (a *audit) lost(at []byte) {
	k, _, _ := parseEntryKey(at)
	if a.used[k.disk] == nil {
		a.fix(func(tx *bbolt.Tx) error { return tx.Bucket(bucketBirths).Delete(birthOf(at)) })
		return
	}
	a.unreadable = append(a.unreadable, misplaced{bucket: bucketLocs, at: at})
	a.fix(func(tx *bbolt.Tx) error { return tx.Bucket(bucketLocs).Put(at, []byte{}) })
}

func birthOf(entry []byte) []byte {
	k, seq, _ := parseEntryKey(entry)
	return birthKey(seq, k)
}

func differsInOneBit(a, b []byte) bool {
	n := 0
	for i := range a {
		n += bits.OnesCount8(a[i] ^ b[i])
	}
	return n == 1
}

// findSpace works out the space of every disk. What the index says stands when it is exactly what its records leave; else it is
// written anew. While a record is unreadable, what it refers to is not known: then nothing becomes free that was not.
func (a *audit) findSpace(tx *bbolt.Tx, recs []diskRecord, fileClusters map[uint32]uint64, needed func(diskRecord) bool) {
	free, strange := readExtents(tx.Bucket(bucketFree))
	for id := range free {
		strange = strange || a.used[id] == nil
	}
	for _, rec := range recs {
		used, start := a.used[rec.ID], rec.dataStart()
		tail, err := getTail(tx, rec)
		tailKnown := err == nil && tail >= used.end
		list := joined(free[rec.ID])
		space := diskSpace{tail: tail, free: list}
		switch {
		case len(a.unreadable) > 0:
			if !tailKnown {
				space.tail = max(start, used.end, fileClusters[rec.ID])
			}
			space.free = used.without(list, start, space.tail)
		case !tailKnown || !slices.Equal(used.holes(start, tail), list):
			space.tail = max(start, used.end)
			space.free = used.holes(start, space.tail)
		}
		if needed(rec) { // else it is about to be removed, maybe half of it is
			strange = strange || space.tail != tail || !slices.Equal(space.free, list)
		}
		a.space[rec.ID] = space
	}
	if strange {
		a.fix(a.writeSpace)
	}
}

func (a *audit) writeSpace(tx *bbolt.Tx) error {
	if err := tx.DeleteBucket(bucketFree); err != nil {
		return err
	}
	b, err := tx.CreateBucket(bucketFree)
	if err != nil {
		return err
	}
	for id, space := range a.space {
		if err := putTail(tx, id, space.tail); err != nil {
			return err
		}
		for _, e := range space.free {
			if err := b.Put(extentKey(id, e.start), uintValue(e.count)); err != nil {
				return err
			}
		}
	}
	return nil
}

// readExtents reads what makes sense; strange says that something does not.
func readExtents(b *bbolt.Bucket) (list diskExtents, strange bool) {
	list = diskExtents{}
	err := b.ForEach(func(k, v []byte) error {
		disk, e, err := parseExtent(k, v)
		if err != nil {
			strange = true
			return nil
		}
		list[disk] = append(list[disk], e)
		return nil
	})
	return list, strange || err != nil
}

// dropDamageMarks removes marks that make no sense; the scrub begins anew, since it alone can find again what they were of.
func (a *audit) dropDamageMarks(tx *bbolt.Tx) error {
	return tx.Bucket(bucketDamage).ForEach(func(k, v []byte) error {
		if _, _, err := parseExtent(k, v); err == nil {
			return nil
		}
		key := slices.Clone(k)
		a.fix(func(tx *bbolt.Tx) error {
			return errors.Join(tx.Bucket(bucketDamage).Delete(key), tx.Bucket(bucketMeta).Delete(keyScrub))
		})
		return nil
	})
}

// repair writes what the audit found to be otherwise.
func (s *Store) repair(a *audit) error {
	if len(a.fixes) == 0 {
		return nil
	}
	s.log.Error("index was altered by something else than this program, and is repaired", "repairs", len(a.fixes),
		"unreadable", len(a.unreadable))
	err := s.update(func(tx *bbolt.Tx) error {
		if err := dropSummaries(tx); err != nil {
			return err
		}
		for _, f := range a.fixes {
			if err := f(tx); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("repair index: %w", err)
	}
	return nil
}

// putBack brings a misplaced record to its key.
func (m misplaced) putBack(tx *bbolt.Tx) error {
	b := tx.Bucket(m.bucket)
	return errors.Join(b.Delete(m.at), b.Put(m.key, m.value))
}

// storedSeq is the draft's seq in meta, which has no checksum; 0 if there is none.
func storedSeq(tx *bbolt.Tx) uint64 {
	if v := tx.Bucket(bucketMeta).Get(keySeq); len(v) == 8 {
		return binary.BigEndian.Uint64(v)
	}
	return 0
}

package recoverystore

import (
	"slices"

	"go.etcd.io/bbolt"
)

// draftCommit is one commit of a draft under way.
type draftCommit struct {
	seq, newest uint64
	draft       draftRecord
	pending     map[chunkKey]*entry
	keys        []chunkKey
	tails       map[uint32][2]uint64 // as the index has it, as it becomes
	freed       diskExtents

	chunks       chunkStore
	free, damage extentSet
	tx           *bbolt.Tx
}

func (s *Store) newCommit(d *Draft) *draftCommit {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := &draftCommit{seq: s.seq, newest: s.newestLive(), draft: s.draft.clone(), pending: d.pending, tails: map[uint32][2]uint64{}}
	c.draft.Seq = s.seq
	for k := range d.pending {
		c.keys = append(c.keys, k)
	}
	slices.SortFunc(c.keys, func(a, b chunkKey) int {
		if a.less(b) {
			return -1
		}
		return 1
	})
	for id, disk := range s.disks {
		if disk.space.tail != disk.committedTail {
			c.tails[id] = [2]uint64{disk.committedTail, disk.space.tail}
		}
	}
	return c
}

func (c *draftCommit) begin(tx *bbolt.Tx) {
	c.tx = tx
	c.chunks = chunksOf(tx)
	c.free, c.damage = extentSet{tx.Bucket(bucketFree)}, extentSet{tx.Bucket(bucketDamage)}
	c.freed = diskExtents{}
}

// writeChunks lays what is pending over what the draft has stored already.
func (c *draftCommit) writeChunks() error {
	var spread cells
	for _, k := range c.keys {
		old, err := c.chunks.versions(k, c.newest, c.seq)
		if err != nil {
			return err
		}
		spread.reset()
		freed := func(loc uint64) { c.freed.add(k.disk, loc) }
		emptied := false
		for _, v := range old {
			// More than one only while the point between them is being deleted.
			spread.lay(v.entry, freed)
			if v.seq == c.seq {
				c.draft.ChangedClusters -= int64(v.clusters())
				c.draft.StoredClusters -= int64(v.dataClusters())
				continue
			}
			emptied = true
			if err := c.chunks.delete(k, v.seq); err != nil {
				return err
			}
		}
		spread.lay(*c.pending[k], freed)
		if c.newest == 0 {
			spread.dropZeros()
		}
		e := spread.entry()
		c.draft.ChangedClusters += int64(e.clusters())
		c.draft.StoredClusters += int64(e.dataClusters())
		if len(e.runs) == 0 {
			err = c.chunks.delete(k, c.seq)
		} else {
			err = c.chunks.put(k, c.seq, e)
		}
		if err == nil && emptied {
			// bbolt's cursor does not go back over a page that this transaction has emptied.
			err = c.chunks.summaries.Delete(entryKey(k, c.seq))
		} else if err == nil {
			err = c.chunks.summarise(k, c.seq)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// writeSpace takes what the pending data uses out of the free space, and puts in what it replaces.
func (c *draftCommit) writeSpace() error {
	for id, tail := range c.tails {
		if err := c.free.insert(id, extent{tail[0], tail[1] - tail[0]}); err != nil {
			return err
		}
		if err := putTail(c.tx, id, tail[1]); err != nil {
			return err
		}
	}
	taken := diskExtents{}
	for _, k := range c.keys {
		for _, r := range c.pending[k].runs {
			if !r.zero {
				taken[k.disk] = append(taken[k.disk], extent{r.loc, uint64(r.count)})
			}
		}
	}
	if err := forExtents(taken, c.free.remove); err != nil {
		return err
	}
	return freeInIndex(c.freed, c.free, c.damage)
}

// freeInIndex makes extents free in the index; what was known of their damage goes with them.
func freeInIndex(freed diskExtents, free, damage extentSet) error {
	if err := forExtents(freed, free.insert); err != nil {
		return err
	}
	return forExtents(freed, damage.remove)
}

func forExtents(of diskExtents, do func(uint32, extent) error) error {
	for id, list := range of {
		for _, e := range joined(list) {
			if err := do(id, e); err != nil {
				return err
			}
		}
	}
	return nil
}

// adopt brings memory to what the transaction wrote.
func (c *draftCommit) adopt(d *Draft, point *pointRecord) {
	s := d.s
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range c.keys {
		s.damage.rewritten(k, *c.pending[k])
	}
	d.pending, d.clusters = map[chunkKey]*entry{}, 0
	s.draft = c.draft
	for id, tail := range c.tails {
		s.disks[id].committedTail = tail[1]
	}
	for _, disk := range s.disks {
		disk.dirty = false
	}
	if point == nil {
		return
	}
	s.points = append(s.points, point)
	s.seq = point.Seq + 1
	s.damage.completed(point)
}

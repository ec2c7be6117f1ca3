package recoverystore

import (
	"fmt"
	"slices"

	"go.etcd.io/bbolt"
)

// DamageListMax bounds the list of damaged ranges in one report.
const DamageListMax = 1024

// DamagedRange is a run of damaged clusters.
type DamagedRange struct {
	Disk         string
	First, Count uint64
}

// Holds says whether every cluster of the other range is in this one.
func (r DamagedRange) Holds(other DamagedRange) bool {
	return r.Disk == other.Disk && r.First <= other.First && other.First+other.Count <= r.First+r.Count
}

// chunkBits is a set of clusters of one chunk.
type chunkBits [ChunkClusters / 64]uint64

func (b *chunkBits) set(i int)      { b[i/64] |= 1 << (i % 64) }
func (b *chunkBits) clear(i int)    { b[i/64] &^= 1 << (i % 64) }
func (b *chunkBits) has(i int) bool { return b[i/64]>>(i%64)&1 == 1 }
func (b *chunkBits) empty() bool    { return *b == chunkBits{} }

// damageState is what the marks in the index mean: the points that see a damaged cluster, and the
// damaged clusters of the latest state. Only the marks are stored; this is worked out from them.
type damageState struct {
	points map[uint64]bool
	latest map[chunkKey]*chunkBits
}

// rewritten takes clusters that a draft replaced out of the latest damage.
func (d *damageState) rewritten(k chunkKey, e entry) {
	bits := d.latest[k]
	if bits == nil {
		return
	}
	for _, r := range e.runs {
		for i := r.first; i < r.end(); i++ {
			bits.clear(i)
		}
	}
	if bits.empty() {
		delete(d.latest, k)
	}
}

// completed marks a new point that inherits damage.
func (d *damageState) completed(p *pointRecord) {
	for k := range d.latest {
		if p.hasDisk(k.disk) {
			d.points[p.Seq] = true
			return
		}
	}
}

// hasDisk says whether a disk may be one of the point's.
func (p *pointRecord) hasDisk(id uint32) bool {
	return p.unreadable || slices.ContainsFunc(p.Disks, func(d pointDisk) bool { return d.ID == id })
}

// LatestDamage lists the clusters of the latest state that are damaged, at most limit ranges: the next
// cycle should send them whether they are dirty or not.
func (s *Store) LatestDamage(limit int) []DamagedRange {
	s.mu.Lock()
	defer s.mu.Unlock()
	var keys []chunkKey
	for k := range s.damage.latest {
		if d := s.disks[k.disk]; d != nil && d.Active {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, func(a, b chunkKey) int {
		if a.less(b) {
			return -1
		}
		return 1
	})
	var out []DamagedRange
	for _, k := range keys {
		d, bits := s.disks[k.disk], s.damage.latest[k]
		for i := range ChunkClusters {
			if cluster := uint64(k.chunk)*ChunkClusters + uint64(i); bits.has(i) && cluster < d.clusters() {
				out = appendDamage(out, d.Name, cluster)
			}
		}
		if len(out) > limit {
			return out[:limit]
		}
	}
	return out
}

func appendDamage(list []DamagedRange, disk string, cluster uint64) []DamagedRange {
	if n := len(list); n > 0 && list[n-1].Disk == disk && list[n-1].First+list[n-1].Count == cluster {
		list[n-1].Count++
		return list
	}
	return append(list, DamagedRange{disk, cluster, 1})
}

// loadDamage looks for lost tails of data files, and works out what the marks mean.
func (s *Store) loadDamage() error {
	for _, d := range s.disks {
		size, err := d.file.Size()
		if err != nil {
			return fmt.Errorf("size of data file of disk %s: %w", d.Name, err)
		}
		if size < int64(d.committedTail)*ClusterSize {
			if err := s.markLostTail(d, uint64(size)/ClusterSize); err != nil {
				return err
			}
		}
	}
	return s.workOutDamage()
}

// markLostTail marks what the file no longer holds, then gives it its length back, so that a view of
// what is left can be opened.
func (s *Store) markLostTail(d *disk, from uint64) error {
	lost := extent{from, d.committedTail - from}
	err := s.update(func(tx *bbolt.Tx) error {
		damage := extentSet{tx.Bucket(bucketDamage)}
		if err := damage.insert(d.ID, lost); err != nil {
			return err
		}
		free, err := extentSet{tx.Bucket(bucketFree)}.touching(d.ID, lost)
		if err != nil {
			return err
		}
		return forExtents(diskExtents{d.ID: free}, damage.remove)
	})
	if err != nil {
		return fmt.Errorf("mark lost end of disk %s: %w", d.Name, err)
	}
	s.log.Error("data file lost its end", "disk", d.Name, "clusters", lost.count)
	if err := d.file.Truncate(int64(d.committedTail) * ClusterSize); err != nil {
		return fmt.Errorf("restore length of data file of disk %s: %w", d.Name, err)
	}
	return nil
}

// workOutDamage needs commitMu, or a store that nobody uses yet. Without marks it costs nothing;
// with marks, a pass over the index.
func (s *Store) workOutDamage() error {
	s.mu.Lock()
	w := damageWalk{state: damageState{points: map[uint64]bool{}, latest: map[chunkKey]*chunkBits{}}}
	w.disks = map[uint32]uint64{}
	for id, d := range s.disks {
		w.disks[id] = d.clusters()
	}
	for _, p := range s.points {
		if !p.Deleting {
			w.points = append(w.points, p)
		}
	}
	s.mu.Unlock()
	err := s.idx.view(func(tx *bbolt.Tx) (err error) {
		if w.bad, err = (extentSet{tx.Bucket(bucketDamage)}).all(); err != nil {
			return err
		}
		if len(w.bad) == 0 && tx.Bucket(bucketMeta).Get(keyCorrupt) == nil {
			return nil
		}
		return w.walk(chunksOf(tx))
	})
	if err != nil {
		return fmt.Errorf("work out damage: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.damage = w.state
	return nil
}

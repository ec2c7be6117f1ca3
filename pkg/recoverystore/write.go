package recoverystore

import (
	"fmt"

	"github.com/zeebo/xxh3"

	"github.com/umbra-dr/umbra/pkg/diskspace"
)

// writeBackClusters is how much lies one after another before the kernel is asked to begin: 1 MiB. Every other request at the disk waits
// behind a larger write (docs/performance.md).
const writeBackClusters = 16

// WriteClusters stores whole clusters from cluster first on; data is a multiple of ClusterSize long,
// except when it ends with the disk. sums has one entry a cluster, or is nil: then they are computed.
// The data is not durable before SaveProgress or Complete. Neither data nor sums is kept. Errors:
// ErrNoDisk, ErrOutOfRange, ErrNoSpace; none of them ends the draft.
func (d *Draft) WriteClusters(disk string, first uint64, data []byte, sums []Sum) error {
	if err := d.enter(); err != nil {
		return err
	}
	defer d.s.leave()
	to, err := d.s.activeDisk(disk)
	if err != nil {
		return err
	}
	count := uint64(len(data)+ClusterSize-1) / ClusterSize
	if err := to.checkData(first, count, len(data)); err != nil {
		return err
	}
	if sums == nil {
		sums = hashClusters(data)
	} else if uint64(len(sums)) != count {
		return fmt.Errorf("%w: %d checksums for %d clusters", ErrOutOfRange, len(sums), count)
	}
	if count == 0 {
		return nil
	}
	places, err := d.s.allocate(to, count)
	if err != nil {
		return err
	}
	if err := to.write(places, data); err != nil {
		d.s.release(diskExtents{to.ID: places})
		return noSpaceError(fmt.Errorf("write clusters of disk %s: %w", disk, err))
	}
	d.s.release(d.record(to, first, places, sums))
	d.startWriteBack(to, places)
	return d.s.fault(FailDataWritten)
}

func (d *disk) checkData(first, count uint64, bytes int) error {
	if count > d.clusters() || first > d.clusters()-count {
		return fmt.Errorf("%w: clusters %d to %d of disk %s, which has %d", ErrOutOfRange, first, first+count, d.Name, d.clusters())
	}
	full := int64(bytes)%ClusterSize == 0
	ends := int64(first)*ClusterSize+int64(bytes) == d.SizeBytes
	if !full && !ends || full && int64(first)*ClusterSize+int64(bytes) > d.SizeBytes {
		return fmt.Errorf("%w: %d bytes at cluster %d of disk %s, which has %d bytes", ErrOutOfRange, bytes, first, d.Name, d.SizeBytes)
	}
	return nil
}

func hashClusters(data []byte) []Sum {
	sums := make([]Sum, 0, (len(data)+ClusterSize-1)/ClusterSize)
	for len(data) > 0 {
		n := min(ClusterSize, len(data))
		sums = append(sums, xxh3.Hash128(data[:n]))
		data = data[n:]
	}
	return sums
}

// allocate finds space, within the limits on it.
func (s *Store) allocate(to *disk, count uint64) ([]extent, error) {
	if s.opts.ReserveBytes > 0 {
		left, err := diskspace.Free(s.dir)
		if err != nil {
			return nil, fmt.Errorf("look for space: %w", err)
		}
		if left < s.opts.ReserveBytes+int64(count)*ClusterSize {
			return nil, fmt.Errorf("%w: the file system has %d bytes, of which %d are kept free", ErrNoSpace, left, s.opts.ReserveBytes)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.opts.BytesMax > 0 {
		used := count
		for _, d := range s.disks {
			used += d.space.used()
		}
		if used > uint64(s.opts.BytesMax)/ClusterSize {
			return nil, fmt.Errorf("%w: the limit is %d bytes", ErrNoSpace, s.opts.BytesMax)
		}
	}
	if to.space.tail+count >= locMax {
		return nil, fmt.Errorf("%w: data file of disk %s", ErrNoSpace, to.Name)
	}
	to.dirty = true
	return to.space.alloc(count), nil
}

// write puts data into the places; what is short of a cluster at the end is filled with zeros.
func (d *disk) write(places []extent, data []byte) error {
	for _, p := range places {
		n := min(len(data), int(p.count)*ClusterSize)
		part := data[:n-n%ClusterSize]
		data = data[n-n%ClusterSize:]
		off := int64(p.start) * ClusterSize
		if len(part) > 0 {
			if _, err := d.file.WriteAt(part, off); err != nil {
				return err
			}
		}
		if n%ClusterSize == 0 {
			continue
		}
		last := make([]byte, ClusterSize)
		copy(last, data)
		if _, err := d.file.WriteAt(last, off+int64(len(part))); err != nil {
			return err
		}
		data = nil
	}
	return nil
}

// record notes what was written, and returns what it replaces in this same draft.
func (d *Draft) record(to *disk, first uint64, places []extent, sums []Sum) diskExtents {
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	freed := diskExtents{}
	for _, p := range places {
		for p.count > 0 {
			in := first % ChunkClusters
			n := min(p.count, ChunkClusters-in)
			r := run{first: int(in), count: int(n), loc: p.start}
			d.lay(chunkKey{to.ID, uint32(first / ChunkClusters)}, r, sums[:n], freed)
			first, sums = first+n, sums[n:]
			p = extent{p.start + n, p.count - n}
		}
	}
	return freed
}

// lay puts a run over what is pending in its chunk. It needs mu.
func (d *Draft) lay(k chunkKey, r run, sums []Sum, freed diskExtents) {
	e := d.pending[k]
	if e == nil {
		e = &entry{}
		d.pending[k] = e
	}
	if n := len(e.runs); n == 0 || e.runs[n-1].end() <= r.first {
		e.runs = appendRun(e.runs, r)
		e.sums = append(e.sums, sums...)
		d.clusters += r.count
		return
	}
	var c cells
	c.lay(*e, nil)
	before := c.set
	c.lay(entry{runs: []run{r}, sums: sums}, func(loc uint64) { freed.add(k.disk, loc) })
	*e = c.entry()
	d.clusters += c.set - before
}

// startWriteBack asks the kernel to begin writing, so that a commit has less to wait for.
func (d *Draft) startWriteBack(to *disk, places []extent) {
	for _, p := range places {
		have := d.writeBack[to]
		if have.end() != p.start {
			to.writeBack(have)
			have = extent{start: p.start}
		}
		have.count += p.count
		if have.count >= writeBackClusters {
			to.writeBack(have)
			have = extent{start: have.end()}
		}
		d.writeBack[to] = have
	}
}

func (d *disk) writeBack(e extent) {
	if e.count > 0 {
		d.file.WriteBack(int64(e.start)*ClusterSize, int64(e.count)*ClusterSize)
	}
}

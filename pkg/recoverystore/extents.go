package recoverystore

import (
	"encoding/binary"
	"fmt"
	"slices"

	"go.etcd.io/bbolt"
)

// extent is a piece of a data file, in clusters from the file's beginning.
type extent struct {
	start, count uint64
}

func (e extent) end() uint64 { return e.start + e.count }

// diskExtents collects extents for several disks.
type diskExtents map[uint32][]extent

func (d diskExtents) add(disk uint32, loc uint64) {
	list := d[disk]
	if n := len(list); n > 0 && list[n-1].end() == loc {
		list[n-1].count++
		return
	}
	d[disk] = append(list, extent{loc, 1})
}

// joined returns the extents sorted, neighbours joined.
func joined(list []extent) []extent {
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b extent) int {
		if a.start < b.start {
			return -1
		}
		return 1
	})
	out := list[:0]
	for _, e := range list {
		if n := len(out); n > 0 && out[n-1].end() >= e.start {
			out[n-1].count = max(out[n-1].end(), e.end()) - out[n-1].start
			continue
		}
		out = append(out, e)
	}
	return out
}

// extentSet is a set of extents kept in a bucket: disk and start to length, neighbours joined. The
// bucket itself is the set, so a transaction that is rolled back leaves nothing to repair.
type extentSet struct{ b *bbolt.Bucket }

func parseExtent(k, v []byte) (disk uint32, e extent, err error) {
	if len(k) != extentKeyBytes || len(v) != 8 {
		return 0, extent{}, fmt.Errorf("%w: extent %x", ErrCorruptIndex, k)
	}
	e = extent{binary.BigEndian.Uint64(k[4:]), binary.BigEndian.Uint64(v)}
	if e.count == 0 || e.end() > locMax || e.start > locMax {
		return 0, extent{}, fmt.Errorf("%w: extent %x of %d clusters", ErrCorruptIndex, k, e.count)
	}
	return binary.BigEndian.Uint32(k), e, nil
}

// touching returns the extents of the disk that overlap e or lie next to it.
func (s extentSet) touching(disk uint32, e extent) ([]extent, error) {
	var out []extent
	c := s.b.Cursor()
	previous := c.Prev
	if k, _ := c.Seek(extentKey(disk, e.start)); k == nil {
		previous = c.Last
	}
	if k, v := previous(); k != nil {
		d, p, err := parseExtent(k, v)
		if err != nil {
			return nil, err
		}
		if d == disk && p.end() >= e.start {
			out = append(out, p)
		}
	}
	for k, v := c.Seek(extentKey(disk, e.start)); k != nil; k, v = c.Next() {
		d, n, err := parseExtent(k, v)
		if err != nil {
			return nil, err
		}
		if d != disk || n.start > e.end() {
			break
		}
		out = append(out, n)
	}
	return out, nil
}

func (s extentSet) insert(disk uint32, e extent) error {
	near, err := s.touching(disk, e)
	if err != nil {
		return err
	}
	for _, n := range near {
		if err := s.b.Delete(extentKey(disk, n.start)); err != nil {
			return err
		}
		end := max(e.end(), n.end())
		e.start = min(e.start, n.start)
		e.count = end - e.start
	}
	return s.b.Put(extentKey(disk, e.start), uintValue(e.count))
}

func (s extentSet) remove(disk uint32, e extent) error {
	near, err := s.touching(disk, e)
	if err != nil {
		return err
	}
	for _, n := range near {
		if n.end() <= e.start || n.start >= e.end() {
			continue
		}
		if err := s.b.Delete(extentKey(disk, n.start)); err != nil {
			return err
		}
		if n.start < e.start {
			if err := s.b.Put(extentKey(disk, n.start), uintValue(e.start-n.start)); err != nil {
				return err
			}
		}
		if n.end() > e.end() {
			if err := s.b.Put(extentKey(disk, e.end()), uintValue(n.end()-e.end())); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s extentSet) all() (diskExtents, error) {
	out := diskExtents{}
	err := s.b.ForEach(func(k, v []byte) error {
		disk, e, err := parseExtent(k, v)
		if err != nil {
			return err
		}
		out[disk] = append(out[disk], e)
		return nil
	})
	return out, err
}

package qcow2

import (
	"encoding/binary"
	"fmt"
)

// L2Span is the number of disk bytes that one L2 table maps.
const L2Span = EntriesPerL2 * ClusterSize

// Layout is where the parts of a table-only image lie: header, an empty reference count table (QEMU
// insists on one), the L1 table, then every L2 table at its fixed place, whether it is used or not.
// An unused one need not be written: in a sparse file it takes no space.
type Layout struct {
	VirtualSize uint64
	L2Tables    int
	L1Offset    uint64
	L2Offset    uint64 // of the first L2 table
	Size        uint64 // of header and tables together
}

// Plan returns the layout for a disk of virtualSize bytes.
func Plan(virtualSize uint64) (Layout, error) {
	tables := (virtualSize + L2Span - 1) / L2Span
	if tables*entryBytes > maxL1Bytes {
		return Layout{}, fmt.Errorf("%w: disk of %d bytes needs too large an L1 table", ErrUnsupported, virtualSize)
	}
	l := Layout{VirtualSize: virtualSize, L2Tables: int(tables), L1Offset: 2 * ClusterSize}
	l1Clusters := max(1, (tables*entryBytes+ClusterSize-1)/ClusterSize)
	l.L2Offset = l.L1Offset + l1Clusters*ClusterSize
	l.Size = l.L2Offset + tables*ClusterSize
	return l, nil
}

// L2At returns the offset of L2 table i.
func (l Layout) L2At(i int) uint64 { return l.L2Offset + uint64(i)*ClusterSize }

// Head returns the bytes from the image's beginning to its first L2 table: header, reference count
// table and L1 table. used says which L2 tables were written; it has L2Tables entries.
func (l Layout) Head(used []bool) []byte {
	b := make([]byte, l.L2Offset)
	copy(b, Header{
		VirtualSize:           l.VirtualSize,
		ClusterBits:           ClusterBits,
		L1Entries:             uint32(l.L2Tables),
		L1Offset:              l.L1Offset,
		RefcountTableOffset:   ClusterSize,
		RefcountTableClusters: 1,
	}.Marshal())
	l1 := b[l.L1Offset:]
	for i, u := range used {
		if u {
			binary.BigEndian.PutUint64(l1[i*entryBytes:], l.L2At(i))
		}
	}
	return b
}

// PutL2 writes entry i of the L2 table in b: the cluster lies at offset. Offset 0 means that the
// cluster is not there and reads as zero. The flag for "in use exactly once" stays clear, since the
// image does not own its clusters.
func PutL2(b []byte, i int, offset uint64) {
	binary.BigEndian.PutUint64(b[i*entryBytes:], offset)
}

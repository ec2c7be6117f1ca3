package qcow2

import (
	"encoding/binary"
	"fmt"
)

const (
	magic        = 0x514649fb
	version      = 3
	headerLength = 104
	// refcountOrder 4 is 16-bit reference counts, the usual ones.
	refcountOrder = 4

	minClusterBits = 9
	maxClusterBits = 21
)

// Header is what a plain image's header says.
type Header struct {
	VirtualSize           uint64 // the disk's size in bytes
	ClusterBits           uint32
	L1Entries             uint32
	L1Offset              uint64
	RefcountTableOffset   uint64
	RefcountTableClusters uint32
}

// Marshal returns the header's bytes, with the empty list of extensions behind it.
func (h Header) Marshal() []byte {
	be := binary.BigEndian
	b := make([]byte, headerLength+entryBytes)
	be.PutUint32(b[0:], magic)
	be.PutUint32(b[4:], version)
	be.PutUint32(b[20:], h.ClusterBits)
	be.PutUint64(b[24:], h.VirtualSize)
	be.PutUint32(b[36:], h.L1Entries)
	be.PutUint64(b[40:], h.L1Offset)
	be.PutUint64(b[48:], h.RefcountTableOffset)
	be.PutUint32(b[56:], h.RefcountTableClusters)
	be.PutUint32(b[96:], refcountOrder)
	be.PutUint32(b[100:], headerLength)
	return b
}

// ParseHeader reads a header. Errors wrap ErrNotQCOW2 or ErrUnsupported.
func ParseHeader(b []byte) (Header, error) {
	if len(b) < headerLength {
		return Header{}, fmt.Errorf("%w: header has %d bytes", ErrNotQCOW2, len(b))
	}
	be := binary.BigEndian
	if m := be.Uint32(b); m != magic {
		return Header{}, fmt.Errorf("%w: magic %#x", ErrNotQCOW2, m)
	}
	if v := be.Uint32(b[4:]); v != version {
		return Header{}, fmt.Errorf("%w: version %d", ErrUnsupported, v)
	}
	if be.Uint64(b[8:]) != 0 {
		return Header{}, fmt.Errorf("%w: backing file", ErrUnsupported)
	}
	if be.Uint32(b[32:]) != 0 {
		return Header{}, fmt.Errorf("%w: encryption", ErrUnsupported)
	}
	if features := be.Uint64(b[72:]); features&^incompatibleDirty != 0 {
		return Header{}, fmt.Errorf("%w: incompatible features %#x", ErrUnsupported, features)
	}
	h := Header{
		VirtualSize:           be.Uint64(b[24:]),
		ClusterBits:           be.Uint32(b[20:]),
		L1Entries:             be.Uint32(b[36:]),
		L1Offset:              be.Uint64(b[40:]),
		RefcountTableOffset:   be.Uint64(b[48:]),
		RefcountTableClusters: be.Uint32(b[56:]),
	}
	return h, h.check()
}

// incompatibleDirty says that reference counts may be stale, which a reader does not mind.
const incompatibleDirty = 1

func (h Header) check() error {
	if h.ClusterBits < minClusterBits || h.ClusterBits > maxClusterBits {
		return fmt.Errorf("%w: cluster bits %d", ErrNotQCOW2, h.ClusterBits)
	}
	if h.VirtualSize > 1<<62 {
		return fmt.Errorf("%w: virtual size %d", ErrNotQCOW2, h.VirtualSize)
	}
	if uint64(h.L1Entries)*entryBytes > maxL1Bytes {
		return fmt.Errorf("%w: %d L1 entries", ErrNotQCOW2, h.L1Entries)
	}
	if uint64(h.L1Entries) < h.l1EntriesNeeded() {
		return fmt.Errorf("%w: %d L1 entries for %d bytes", ErrNotQCOW2, h.L1Entries, h.VirtualSize)
	}
	mask := uint64(1)<<h.ClusterBits - 1
	if h.L1Offset&mask != 0 || h.L1Offset >= MaxHostOffset {
		return fmt.Errorf("%w: L1 table at %d", ErrNotQCOW2, h.L1Offset)
	}
	return nil
}

func (h Header) l1EntriesNeeded() uint64 {
	perL2 := uint64(1) << (h.ClusterBits + h.ClusterBits - 3)
	return (h.VirtualSize + perL2 - 1) / perL2
}
